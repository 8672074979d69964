//! What a worker stands in: lanes, ledger, store, jail, plugins. The same code works on any implementation of them.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use stoq_api::fetch::Fetcher;
use stoq_api::plugin::{Archiver, Decorator, ExternalWorker};
use stoq_api::response::EngineInfo;
use stoq_jail::Runner;
use stoq_runtime::files::FileRoots;

use crate::breaker::Breaker;
use crate::links::Links;
use crate::meters::Meters;
use crate::rules::Rules;

/// Everything around a worker.
pub struct Surroundings {
    /// Lanes, ledger and store.
    pub links: Arc<Links>,
    /// Files that references name.
    pub files: Arc<FileRoots>,
    /// What fetches for each intake that leaves payloads behind a network, by the intake's name.
    pub fetchers: BTreeMap<String, Arc<dyn Fetcher>>,
    /// Slots, or threads without a jail.
    pub runner: Arc<dyn Runner>,
    /// Names of the plugins in slots, by number.
    pub plugins: Vec<String>,
    /// Workers that run outside of slots.
    pub externals: BTreeMap<String, Arc<dyn ExternalWorker>>,
    /// The route rules, to know which results they look at.
    pub rules: Rules,
    /// Destination archivers, by name.
    pub archivers: BTreeMap<String, Arc<dyn Archiver>>,
    /// Decorators, by name.
    pub decorators: BTreeMap<String, Arc<dyn Decorator>>,
    /// Versions, for responses.
    pub engine: Arc<EngineInfo>,
    /// The folder of files without names, for what is too large to be kept in memory.
    pub spool_dir: PathBuf,
    /// Which plugins are switched off.
    pub breaker: Breaker,
    /// What is counted.
    pub meters: Meters,
}

/// Everything that goes through lanes, ledger or store does so the same way in all roles.
impl Deref for Surroundings {
    type Target = Links;

    fn deref(&self) -> &Links {
        &self.links
    }
}

impl Surroundings {
    /// The name of plugin `number` in slots.
    pub fn plugin_name(&self, number: u16) -> Option<&str> {
        self.plugins.get(usize::from(number)).map(String::as_str)
    }
}
