//! Payload stores and archivers over object_store.
//!
//! [`registry`] lists the kinds of payload store: a directory ([`FileStore`]) and buckets of S3, Google Cloud Storage and
//! Azure, each behind a feature. [`archivers`] keep payloads for good, at a place and under names that the operator chose.
#![forbid(unsafe_code)]

pub mod archivers;
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
mod bucket;
mod faults;
mod file;
mod kinds;
mod layout;
mod objects;
mod others;

pub use file::{FileStore, FileStoreOptions};
pub use kinds::registry;
pub use others::buckets;
