//! What a worker stands in: lanes, ledger, store, jail, plugins. The same code works on any implementation of them.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use stoq_api::ledger::Ledger;
use stoq_api::plugin::{Archiver, Decorator, ExternalWorker};
use stoq_api::response::EngineInfo;
use stoq_api::store::Store;
use stoq_api::{Fault, FaultKind};
use stoq_jail::Runner;
use stoq_runtime::backoff::Backoff;
use stoq_runtime::files::FileRoots;

use crate::lanes::Lanes;
use crate::rules::Rules;

/// Everything around a worker.
pub struct Surroundings {
    /// Queues of our own.
    pub lanes: Lanes,
    /// Open scans.
    pub ledger: Arc<dyn Ledger>,
    /// Large bytes.
    pub store: Arc<dyn Store>,
    /// Files that references name.
    pub files: Arc<FileRoots>,
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
    pub engine: EngineInfo,
    /// Figures.
    pub settings: Settings,
}

/// Figures of the engine that an operator may change.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Payloads up to this many bytes travel inside their tasks.
    pub inline_limit: u64,
    /// Bytes of children that one payload's task may send inline together; the rest goes into the store.
    pub inline_total: u64,
    /// Payloads above this many bytes are not scanned, and their response says so.
    pub max_payload: u64,
    /// Messages that a worker handles at a time.
    pub concurrency: usize,
    /// Deliveries of one payload until it is given up.
    pub max_attempts: u32,
    /// How long a worker holds a delivery while something around it is away.
    pub hold_max: Duration,
    /// How long a closed scan is remembered: longer than any redelivery takes.
    pub tombstone: Duration,
    /// How long a sweeper has to publish what it froze.
    pub lease: Duration,
    /// How often a sweeper looks.
    pub sweep_interval: Duration,
    /// Lanes and ledger are one thing that lives and dies together, so no scan can be lost by the ledger alone, and roots
    /// need not be kept for making it anew.
    pub coupled: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            inline_limit: 64 << 10,
            inline_total: 4 << 20,
            max_payload: 256 << 20,
            concurrency: 8,
            max_attempts: 5,
            hold_max: Duration::from_secs(600),
            tombstone: Duration::from_secs(86_400),
            lease: Duration::from_secs(60),
            sweep_interval: Duration::from_secs(15),
            coupled: false,
        }
    }
}

/// Longest pause after the first failure of the surroundings; it doubles with each.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(5);

impl Surroundings {
    /// Repeats `operation` while what it needs is away, for [`Settings::hold_max`] in all. Every operation on lanes,
    /// ledger and store is idempotent, so repeating one whose answer was lost is harmless.
    ///
    /// # Errors
    /// The last failure, once time is over or the failure is not of the kind that passes.
    pub async fn patiently<T, F>(&self, what: &str, mut operation: impl FnMut() -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let give_up = tokio::time::Instant::now() + self.settings.hold_max;
        let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
        loop {
            match operation().await {
                Err(fault) if fault.kind == FaultKind::Unavailable && tokio::time::Instant::now() < give_up => {
                    tracing::warn!(error = %stoq_api::fault::chain(&fault), what, "trying again");
                    tokio::time::sleep(backoff.next_wait()).await;
                }
                other => return other,
            }
        }
    }

    /// The name of plugin `number` in slots.
    pub fn plugin_name(&self, number: u16) -> Option<&str> {
        self.plugins.get(usize::from(number)).map(String::as_str)
    }
}
