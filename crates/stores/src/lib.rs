//! Payload stores and archivers over object_store.
//!
//! [`registry`] lists the kinds of payload store: a directory ([`FileStore`]) and buckets of S3, Google Cloud Storage and
//! Azure, each behind a feature. [`archivers`] keep payloads for good, at a place and under names that the operator chose.
#![forbid(unsafe_code)]

pub mod archivers;
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
mod bucket;
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
mod documents;
mod faults;
mod file;
mod kinds;
mod layout;
mod objects;
#[cfg(any(feature = "s3", feature = "gcs"))]
mod others;

#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
pub use documents::{Bucket, BucketKind, bucket_kinds};
pub use file::{FileStore, FileStoreOptions};
pub use kinds::registry;
#[cfg(any(feature = "s3", feature = "gcs"))]
pub use others::buckets;

/// What reads buckets beside the one that a store of this `kind` is configured with: nothing in this build.
///
/// # Errors
/// Always.
#[cfg(not(any(feature = "s3", feature = "gcs")))]
pub fn buckets(
    kind: &str,
    _options: &stoq_api::backend::Options,
) -> Result<std::sync::Arc<dyn stoq_api::fetch::Buckets>, stoq_api::scanner::BuildError> {
    Err(stoq_api::scanner::BuildError(format!("this build reads no buckets with a store of kind {kind}")))
}
