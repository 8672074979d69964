//! Where responses go: standard output, files, search engines.
//!
//! One folder a connector; each turns a batch of responses into verdicts, item by item, and nothing else. `common` holds
//! the frame that runs any of them over a result lane, with batches, retries, acknowledgements and the dead lane.
#![forbid(unsafe_code)]

use std::sync::Arc;

use serde_json::{Map, Value};
use stoq_api::backend::OpenQueue;
use stoq_api::plugin::{Connector, Decorator};
use stoq_api::scanner::{BuildError, PluginInfo};

pub mod common;
mod elasticsearch;
pub mod filedir;
mod files;
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "jinja")]
mod jinja;
pub mod model;
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
mod objects;
mod queue;
mod splunk;
pub mod stdout;
#[cfg(test)]
mod testing;

/// One entry of the list of built-in connectors.
#[derive(Clone)]
pub struct ConnectorRegistration {
    /// What is known before building.
    pub info: PluginInfo,
    /// Builds it from its options, which were checked against its [`PluginInfo`].
    pub build: Build,
}

/// One entry of the list of built-in decorators.
#[derive(Clone)]
pub struct DecoratorRegistration {
    /// What is known before building.
    pub info: PluginInfo,
    /// Builds it from its options, which were checked against its [`PluginInfo`].
    pub build: BuildDecorator,
}

/// Builds a decorator from its options.
pub type BuildDecorator = fn(&Map<String, Value>) -> Result<Arc<dyn Decorator>, BuildError>;

/// All built-in decorators, by name.
pub fn decorators() -> Vec<DecoratorRegistration> {
    vec![
        #[cfg(feature = "jinja")]
        jinja::decorator(),
    ]
}

/// Builds a connector from its options.
pub type Build = fn(&Map<String, Value>, &Context) -> Result<Arc<dyn Connector>, BuildError>;

/// What a connector gets beside its options.
#[derive(Clone)]
pub struct Context {
    /// The connector's name in the configuration.
    pub name: String,
    /// Opens queues that options name.
    pub queues: Arc<dyn OpenQueue>,
}

/// All built-in connectors, by name.
pub fn registry() -> Vec<ConnectorRegistration> {
    let mut all = vec![
        elasticsearch::registration(),
        filedir::registration(),
        files::registration(),
        splunk::registration(),
        stdout::registration(),
    ];
    #[cfg(feature = "jinja")]
    all.push(jinja::registration());
    all.extend(queue::registrations());
    #[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
    all.extend(objects::registrations());
    all
}

/// Reads options into a connector's own configuration type.
fn config_of<T: serde::de::DeserializeOwned>(options: &Map<String, Value>) -> Result<T, BuildError> {
    serde_json::from_value(Value::Object(options.clone())).map_err(|e| BuildError(e.to_string()))
}
