//! Archivers: payloads kept for good and brought back.
