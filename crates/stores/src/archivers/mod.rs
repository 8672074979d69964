//! Archivers: payloads kept for good and brought back.
//!
//! One folder an archiver. Each keeps a payload whole or not at all, keeps the first of two that claim the same name,
//! and brings back nothing from outside of the place that it is configured for.

use std::sync::Arc;

use serde_json::{Map, Value};
use stoq_api::backend::OpenQueue;
use stoq_api::plugin::Archiver;
use stoq_api::scanner::{BuildError, PluginInfo};

#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
mod bucket;
pub mod filedir;
mod queue;

/// One entry of the list of built-in archivers.
#[derive(Clone)]
pub struct ArchiverRegistration {
    /// What is known before building.
    pub info: PluginInfo,
    /// Builds it from its options, which were checked against its [`PluginInfo`].
    pub build: Build,
}

/// Builds an archiver from its options, with what opens queues that they name.
pub type Build = fn(&Map<String, Value>, &dyn OpenQueue) -> Result<Arc<dyn Archiver>, BuildError>;

/// All built-in archivers, by name.
pub fn registry() -> Vec<ArchiverRegistration> {
    let mut all = vec![
        #[cfg(feature = "azure")]
        bucket::azure_blob::registration(),
        filedir::registration(),
        #[cfg(feature = "gcs")]
        bucket::gcs::registration(),
        #[cfg(feature = "s3")]
        bucket::s3::registration(),
    ];
    all.extend(queue::registrations());
    all
}

/// Reads options into an archiver's own configuration type.
fn config_of<T: serde::de::DeserializeOwned>(options: &Map<String, Value>) -> Result<T, BuildError> {
    serde_json::from_value(Value::Object(options.clone())).map_err(|e| BuildError(e.to_string()))
}
