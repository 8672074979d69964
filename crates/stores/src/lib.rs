//! Payload stores and archivers over object_store.
