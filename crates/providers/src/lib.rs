//! Where payloads come from: files, watched directories, standard input, and queues of other people's producers.
//!
//! One folder a provider. A provider only finds and reads; permits, ids, publishing and retries belong to the role that
//! pulls it. `walk` lists directories of any size in a fixed order, and `take` turns one file into a payload's bytes, for
//! every provider that has files.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde_json::{Map, Value};
use stoq_api::backend::OpenQueue;
use stoq_api::fetch::{Buckets, Fetcher};
use stoq_api::plugin::{Archiver, Provider};
use stoq_api::scanner::{BuildError, PluginInfo};
use stoq_runtime::escape::visible_bytes;
use stoq_runtime::files::FileRoots;

pub mod decode;
pub mod dirmon;
mod fetch;
pub mod filedir;
#[doc(hidden)]
pub mod fuzzing;
mod memory;
mod queue;
mod spool;
pub mod stdin;
mod take;
#[cfg(test)]
mod testing;
mod walk;

/// One entry of the list of built-in providers.
#[derive(Clone)]
pub struct ProviderRegistration {
    /// What is known before building.
    pub info: PluginInfo,
    /// Builds it from its options, which were checked against its [`PluginInfo`].
    pub build: Build,
    /// Where its references may leave payloads behind a network: builds what fetches them, for workers, from the same
    /// options. It makes the provider's file roots known as well.
    pub fetcher: Option<BuildFetcher>,
}

/// Builds a provider from its options.
pub type Build = fn(&Map<String, Value>, &Context) -> Result<Box<dyn Provider>, BuildError>;

/// Builds what fetches for workers.
pub type BuildFetcher = fn(&Map<String, Value>, &Context) -> Result<Arc<dyn Fetcher>, BuildError>;

/// Opens other parts of the configuration that a provider's options name.
pub trait Open: OpenQueue {
    /// An archiver that references may name.
    ///
    /// # Errors
    /// There is none that may be a source, or its options cannot be used.
    fn archiver(&self, name: &str) -> Result<Arc<dyn Archiver>, BuildError>;

    /// What reads buckets with the endpoint and credentials of the store that is configured as `store`.
    ///
    /// # Errors
    /// There is no such store, it has no buckets, or its options cannot be used.
    fn buckets(&self, store: &str) -> Result<Arc<dyn Buckets>, BuildError>;
}

/// All built-in providers, by name.
pub fn registry() -> Vec<ProviderRegistration> {
    vec![dirmon::registration(), filedir::registration(), queue::registration(), stdin::registration()]
}

/// What a provider gets beside its options.
#[derive(Clone)]
pub struct Context {
    /// The source's name in the configuration; its file root, if it adds one, bears the same.
    pub name: String,
    /// Where a provider may keep what must survive a restart, and spool what is too large for memory.
    pub data_dir: PathBuf,
    /// Whether it does survive one: what is kept for a later start is of no use otherwise.
    pub lasting: bool,
    /// Names this run; part of the identity of what a one-time provider brings, so that a second run is a new scan.
    pub run_id: String,
    /// The file roots that workers know.
    pub roots: Arc<FileRoots>,
    /// Workers see the files of this machine under the same roots, so that large ones need not be copied.
    pub workers_see_files: bool,
    /// Up to this size, in bytes, content is read here; larger files are left where they are.
    pub inline_limit: u64,
    /// Larger payloads, in bytes, are not scanned; the scan says so.
    pub max_payload: u64,
    /// Opens what its options name.
    pub open: Arc<dyn Open>,
    /// Hears of everything in the source that is not taken.
    pub on_skip: OnSkip,
}

/// Something in a source that is not taken, because it is not a file that can be scanned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    /// Where it is.
    pub path: PathBuf,
    /// Why it is not taken, for a person.
    pub reason: String,
}

/// Hears of what is skipped.
pub type OnSkip = Arc<dyn Fn(Skip) + Send + Sync>;

/// What is skipped and written to the log one by one, before it is only counted.
const MAX_LOGGED: u64 = 100;

/// Writes what is skipped into the log; a directory full of links must not fill it.
pub fn log_skips() -> OnSkip {
    let skips = AtomicU64::new(0);
    Arc::new(move |skip| {
        let count = skips.fetch_add(1, Relaxed) + 1;
        if count <= MAX_LOGGED || count.is_power_of_two() {
            let path = visible_bytes(skip.path.as_os_str().as_encoded_bytes());
            tracing::warn!(path, reason = skip.reason, count, "not taken");
        }
    })
}

/// Reads options into a provider's own configuration type.
fn config_of<T: serde::de::DeserializeOwned>(options: &Map<String, Value>) -> Result<T, BuildError> {
    serde_json::from_value(Value::Object(options.clone())).map_err(|e| BuildError(e.to_string()))
}
