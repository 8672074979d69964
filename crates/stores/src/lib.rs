//! Payload stores and archivers over object_store.
//!
//! [`FileStore`] keeps payloads in a directory. [`archivers`] keep them for good, at a place and under names that the
//! operator chose.
#![forbid(unsafe_code)]

pub mod archivers;
mod file;
mod objects;

pub use file::{FileStore, FileStoreOptions};
