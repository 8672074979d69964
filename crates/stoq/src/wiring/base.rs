//! What every role stands on: configuration, lanes, ledger and store.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use stoq_api::queue::{PartState, Queue};
use stoq_api::scanner::PluginKind;
use stoq_api::{Fault, FaultKind, fault};
use stoq_engine::lanes::{DEAD, WORKERS};
use stoq_engine::{Lanes, Links, Settings as EngineSettings};
use stoq_runtime::backoff::Backoff;
use stoq_runtime::config::{Loaded, Settings};
use stoq_runtime::files::FileRoots;
use stoq_runtime::health::Health;
use stoq_runtime::shutdown::Shutdown;

use super::backends::{self, Backends, Brokers};
use super::gate::Gate;
use super::holds::Holds;
use super::open::Opener;
use crate::exit::UsageError;

/// Bytes of children that one payload may send inside their tasks, where no broker stands in between: a file for each of
/// many small children costs more than the children.
const INLINE_TOTAL_LOCAL: u64 = 32 << 20;
/// Sweeps within the time that a scan may take, and the least time between two.
const SWEEPS: u32 = 4;
const SWEEP_LEAST: Duration = Duration::from_secs(1);
/// First and longest wait between two looks at a service that is away at the start.
const WAIT: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// What every role stands on.
pub(crate) struct Base {
    pub(crate) loaded: Loaded,
    pub(crate) links: Arc<Links>,
    pub(crate) brokers: Arc<Brokers>,
    /// Files that references may name.
    pub(crate) roots: Arc<FileRoots>,
    /// Where a role keeps what it needs on this machine.
    pub(crate) dir: PathBuf,
    /// Work that is not finished is still there after a restart.
    pub(crate) lasting: bool,
    /// What probes are told.
    pub(crate) health: Health,
    /// Shut while workers are to take no new roots.
    pub(crate) gate: Gate,
    /// What operators may pause.
    pub(crate) holds: Holds,
}

impl Base {
    /// In memory, with files below `dir`, which goes with the process.
    pub(crate) fn in_memory(loaded: Loaded, dir: &Path) -> Result<Self> {
        let backends = backends::in_memory(dir)?;
        let brokers = Brokers::new(&loaded.settings);
        Ok(Self::new(loaded, brokers, backends, dir, false))
    }

    /// As configured, with the data directory for what is not.
    pub(crate) fn configured(loaded: Loaded) -> Result<Self> {
        let dir = loaded.settings.core.data_dir.clone();
        std::fs::create_dir_all(&dir).with_context(|| {
            format!("cannot make the data directory {}; another can be named with --data-dir", dir.display())
        })?;
        let brokers = Brokers::new(&loaded.settings);
        let gate = Gate::new();
        let backends = backends::configured(&loaded.settings, &brokers, &dir, &gate)?;
        Ok(Self { gate, ..Self::new(loaded, brokers, backends, &dir, true) })
    }

    fn new(loaded: Loaded, brokers: Brokers, backends: Backends, dir: &Path, lasting: bool) -> Self {
        let settings = engine_settings(&loaded.settings, backends.coupled, lasting);
        let links = Links::new(backends.lanes, backends.ledger, backends.store, settings);
        Self {
            loaded,
            links: Arc::new(links),
            brokers: Arc::new(brokers),
            roots: Arc::default(),
            dir: dir.to_owned(),
            lasting,
            health: Health::default(),
            gate: Gate::new(),
            holds: Holds::default(),
        }
    }

    /// Whether lanes, ledger or store are shared with other processes.
    pub(crate) fn is_fleet(&self) -> bool {
        !self.links.settings.coupled
    }

    /// Waits until every service can be used, saying which cannot, then makes the lanes, or looks whether they are there
    /// if making them is somebody else's business. `false` if `shutdown` came first.
    ///
    /// # Errors
    /// What waiting does not mend.
    pub(crate) async fn ready(&self, connectors: &[&str], shutdown: &Shutdown) -> Result<bool> {
        let lanes = &self.links.lanes;
        for (name, broker) in self.brokers.awaited() {
            if wait_for(&format!("broker {name}"), shutdown, async || broker.check().await).await?.is_none() {
                return Ok(false);
            }
        }
        Ok(wait_for("the ledger", shutdown, async || self.links.ledger.check().await).await?.is_some()
            && wait_for("the payload store", shutdown, async || self.links.store.check().await).await?.is_some()
            && wait_for("the lanes", shutdown, async || {
                // Lanes that nobody else sees are always one's own to make.
                if self.loaded.settings.fleet.declare || !self.is_fleet() {
                    lanes.declare(connectors).await
                } else {
                    self.found(connectors).await
                }
            })
            .await?
            .is_some())
    }

    /// Whether the lanes are there as they should be.
    async fn found(&self, connectors: &[&str]) -> Result<(), Fault> {
        for (lane, subscriptions) in needed(&self.links.lanes, connectors) {
            for part in lane.inspect(subscriptions).await? {
                let text = match part.state {
                    PartState::Present => continue,
                    PartState::Missing => format!("{} is missing: make it with `stoq setup`", part.what),
                    PartState::Different(how) => format!("{} has other settings: {how}", part.what),
                };
                return Err(Fault::new(FaultKind::Misconfigured, text));
            }
        }
        Ok(())
    }

    /// Names of the connectors that take responses, wherever they run.
    pub(crate) fn takers(&self) -> Vec<String> {
        self.loaded.settings.active(PluginKind::Connector).into_iter().map(|component| component.name).collect()
    }

    /// Gives back what is held and closes connections.
    pub(crate) async fn close(&self) {
        for (_, broker) in self.brokers.opened() {
            broker.close().await;
        }
    }

    /// What a provider called `name` is built with.
    pub(crate) fn provider_context(&self, name: &str, run_id: &str) -> stoq_providers::Context {
        stoq_providers::Context {
            name: name.to_owned(),
            data_dir: self.dir.clone(),
            lasting: self.lasting,
            run_id: run_id.to_owned(),
            roots: Arc::clone(&self.roots),
            workers_see_files: !self.is_fleet(),
            inline_limit: self.links.settings.inline_limit,
            max_payload: self.links.settings.max_payload,
            open: Arc::new(Opener::new(&self.brokers, &self.loaded.settings)),
            on_skip: stoq_providers::log_skips(),
        }
    }
}

/// The lanes with the subscriptions that each has to have.
pub(crate) fn needed<'a>(lanes: &'a Lanes, connectors: &'a [&'a str]) -> Vec<(&'a Arc<dyn Queue>, &'a [&'a str])> {
    let mut all: Vec<(_, &[&str])> = lanes.task_lanes().map(|(_, lane)| (lane, WORKER.as_slice())).collect();
    all.extend([(&lanes.results, connectors), (&lanes.dead, DEAD_LETTERS.as_slice())]);
    all
}

const WORKER: [&str; 1] = [WORKERS];
const DEAD_LETTERS: [&str; 1] = [DEAD];

/// Asks again and again until there is an answer, with a line in the log for each new way of failing; none if `shutdown`
/// came first.
///
/// # Errors
/// What waiting does not mend.
pub(crate) async fn wait_for<T>(
    what: &str,
    shutdown: &Shutdown,
    ask: impl AsyncFn() -> Result<T, Fault>,
) -> Result<Option<T>> {
    let mut backoff = Backoff::new(WAIT.0, WAIT.1);
    let mut said = String::new();
    loop {
        let asked = tokio::select! {
            biased;
            () = shutdown.draining() => return Ok(None),
            asked = ask() => asked,
        };
        match asked {
            Ok(answer) => return Ok(Some(answer)),
            Err(fault) if fault.kind == FaultKind::Misconfigured => {
                return Err(UsageError(format!("{what} cannot be used: {}", fault::chain(&fault))).into());
            }
            Err(fault) if fault.is_transient() => {
                let text = fault::chain(&fault);
                if text != said {
                    tracing::warn!(error = text, "{what}: not there yet, waiting");
                    said = text;
                }
            }
            Err(fault) => return Err(anyhow::Error::new(fault).context(format!("{what} cannot be used"))),
        }
        tokio::select! {
            () = shutdown.draining() => return Ok(None),
            () = tokio::time::sleep(backoff.next_wait()) => {}
        }
    }
}

/// Messages that a worker handles at a time: for each slot one in work and one that is ready when it ends, and those in
/// settlement. On a disk or a broker settlement takes longest, and the more wait for it, the more each write serves.
fn concurrency(settings: &Settings, lasting: bool) -> usize {
    settings.scan.slot_count() * if lasting { 32 } else { 4 }
}

fn engine_settings(settings: &Settings, coupled: bool, lasting: bool) -> EngineSettings {
    let usual = EngineSettings::default();
    let mut own = EngineSettings {
        max_payload: settings.scan.max_payload.get(),
        concurrency: concurrency(settings, lasting),
        max_attempts: settings.fleet.max_attempts,
        hold_max: settings.fleet.hold_max.get(),
        sweep_interval: (settings.budgets().deadline() / SWEEPS).clamp(SWEEP_LEAST, usual.sweep_interval),
        coupled,
        ..usual
    };
    if coupled {
        own.inline_total = INLINE_TOTAL_LOCAL;
    }
    own
}
