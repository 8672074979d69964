//! Everything around a worker, put together from the configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use stoq_api::Named;
use stoq_api::ledger::Ledger;
use stoq_api::plugin::{Archiver, Decorator, ExternalWorker};
use stoq_api::response::EngineInfo;
use stoq_api::scanner::{PluginInfo, PluginKind};
use stoq_engine::plan::PlanReport;
use stoq_engine::rules::Rules;
use stoq_engine::{Lanes, Links, Plan, Surroundings};
use stoq_jail::{Inline, Limits, Mode, Pool, PoolConfig, Runner};
use stoq_memory::{MemoryLedger, MemoryQueue};
use stoq_runtime::config::{JailMode, Loaded, Settings};
use stoq_runtime::files::FileRoots;
use stoq_sqlite::{Sqlite, SqliteOptions};
use stoq_stores::{FileStore, FileStoreOptions};

use super::config::shown;
use super::plan;
use crate::exit::UsageError;
use crate::external;

/// Messages of root tasks that wait in memory, of up to a megabyte each, before a provider is made to wait.
const ROOTS_IN_MEMORY: usize = 32;

/// Responses that wait in memory before workers are made to wait.
const RESULTS_IN_MEMORY: usize = 256;

/// Messages of root tasks that wait on disk before a provider is made to wait.
const ROOTS_ON_DISK: u64 = 100_000;

/// Bytes of children that one payload may send inside their tasks.
const INLINE_TOTAL: u64 = 32 << 20;

/// Where queue, ledger and payloads live.
pub(crate) enum Backing<'a> {
    /// In memory, with large payloads below this folder, which goes with the process.
    Memory(&'a Path),
    /// In a data directory that outlives the process.
    Data(&'a Path),
}

/// A run that is ready to take payloads.
pub(crate) struct App {
    pub(crate) around: Arc<Surroundings>,
    pub(crate) roots: Arc<FileRoots>,
    pub(crate) loaded: Loaded,
    /// Where providers keep what they need.
    pub(crate) dir: PathBuf,
    /// What was left out while plugins were built: (plugin, sentence).
    pub(crate) warnings: Vec<(String, String)>,
    /// Work that is not finished is still there after a restart.
    pub(crate) persistent: bool,
}

impl App {
    /// Builds plugins, starts slots and opens queues.
    pub(crate) fn start(loaded: Loaded, backing: &Backing<'_>) -> Result<Self> {
        let settings = &loaded.settings;
        let dir = match backing {
            Backing::Memory(dir) | Backing::Data(dir) => (*dir).to_path_buf(),
        };
        // The queues come first: whoever has them has the data directory to himself.
        let (lanes, ledger, persistent) = queues(backing)?;
        let spool_dir = spool(settings, &dir)?;
        let externals = external::workers(&loaded, &spool_dir)?;
        let names: Vec<&str> = externals.keys().map(String::as_str).collect();
        let plan = plan::plan(&loaded, &names).map_err(|problems| UsageError(shown(&problems)))?;
        let rules = Rules::compile(&plan.rules).map_err(|problems| UsageError(problems.join("\n")))?;
        let runner = runner(settings, &plan, &spool_dir)?;
        let report: PlanReport =
            serde_json::from_slice(&runner.hello()).context("the slots did not say what they hold")?;
        let store = FileStore::open(&dir.join("payloads"), FileStoreOptions { fsync: persistent })?;
        let roots = Arc::new(FileRoots::default());
        let links = Links::new(lanes, ledger, Arc::new(store), engine_settings(settings, persistent));
        let around = Arc::new(Surroundings {
            links: Arc::new(links),
            files: Arc::clone(&roots),
            fetchers: BTreeMap::new(),
            runner,
            plugins: plan.plugins.iter().map(|plugin| plugin.name.clone()).collect(),
            externals,
            rules,
            archivers: archivers(settings)?,
            decorators: BTreeMap::<String, Arc<dyn Decorator>>::new(),
            engine: EngineInfo {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                rulesets: Named(report.rulesets.into_iter().collect()),
            },
        });
        Ok(Self { around, roots, dir, warnings: report.warnings, persistent, loaded })
    }

    /// What a provider called `name` is built with.
    pub(crate) fn provider_context(&self, name: &str, run_id: &str) -> stoq_providers::Context {
        stoq_providers::Context {
            name: name.to_owned(),
            data_dir: self.dir.clone(),
            lasting: self.persistent,
            run_id: run_id.to_owned(),
            roots: Arc::clone(&self.roots),
            inline_limit: self.around.settings.inline_limit,
            max_payload: self.around.settings.max_payload,
            on_skip: stoq_providers::log_skips(),
        }
    }
}

/// The folder of large payloads on their way. In a data directory it is our own, and what a crash left in it is removed.
fn spool(settings: &Settings, dir: &Path) -> Result<PathBuf> {
    let own = dir.join("spool");
    let spool_dir = settings.scan.spool_dir.clone().unwrap_or_else(|| own.clone());
    if spool_dir == own && own.exists() {
        std::fs::remove_dir_all(&own).with_context(|| format!("cannot empty {}", own.display()))?;
    }
    std::fs::create_dir_all(&spool_dir).with_context(|| format!("cannot make the folder {}", spool_dir.display()))?;
    Ok(spool_dir)
}

/// Messages that a worker handles at a time: for each slot one in work and one that is ready when it ends, and those in
/// settlement. On a disk settlement takes longest, and the more wait for it, the more each write serves.
fn concurrency(settings: &Settings, persistent: bool) -> usize {
    settings.scan.slot_count() * if persistent { 32 } else { 4 }
}

fn engine_settings(settings: &Settings, persistent: bool) -> stoq_engine::Settings {
    stoq_engine::Settings {
        max_payload: settings.scan.max_payload.get(),
        concurrency: concurrency(settings, persistent),
        // Queue and ledger are one memory or one file here.
        coupled: true,
        // No broker stands in between, and a file for each of many small children costs more than the children.
        inline_total: INLINE_TOTAL,
        ..stoq_engine::Settings::default()
    }
}

fn runner(settings: &Settings, plan: &Plan, spool_dir: &Path) -> Result<Arc<dyn Runner>> {
    let config = serde_json::to_vec(plan)?;
    let scan = &settings.scan;
    let mode = match scan.jail {
        JailMode::Off => {
            let inline = Inline::start(build_workload, &config, scan.slot_count(), spool_dir.to_path_buf())?;
            return Ok(Arc::new(inline));
        }
        JailMode::Require => Mode::Require,
        JailMode::Prefer => Mode::Prefer,
    };
    let pool = Pool::start(
        PoolConfig {
            slots: scan.slot_count(),
            limits: Limits {
                plugin_wall: scan.plugin_wall.get(),
                plugin_cpu: scan.plugin_cpu.get(),
                memory: scan.memory.get(),
                ..Limits::default()
            },
            batch_items: scan.batch_items,
            recycle_after: u32::try_from(scan.recycle_after).unwrap_or(u32::MAX),
            spool_dir: spool_dir.to_path_buf(),
            mode,
            landlock_min: u8::try_from(scan.landlock_min).unwrap_or(u8::MAX),
            ..PoolConfig::default()
        },
        Bytes::from(config),
    );
    let pool = pool.map_err(|e| match e {
        stoq_jail::JailError::Build(text) => anyhow::Error::new(UsageError(text)),
        other => anyhow::Error::new(other).context("the jail cannot be started (scan.jail: require, prefer or off)"),
    })?;
    let applied = pool.applied();
    tracing::debug!(
        landlock = applied.landlock,
        seccomp = applied.seccomp,
        unprivileged = applied.unprivileged,
        "slots are locked in"
    );
    if !applied.seccomp {
        tracing::warn!(
            "slots run without seccomp: this kernel or container refuses it, and scan.jail = \"prefer\" allows that"
        );
    }
    Ok(Arc::new(pool))
}

/// Builds what slots run; also called in the fork server, before anything else.
pub(crate) fn build_workload(config: &[u8]) -> Result<stoq_jail::Hello, String> {
    stoq_engine::rounds::build(config, &stoq_scanners::registry())
}

fn queues(backing: &Backing<'_>) -> Result<(Lanes, Arc<dyn Ledger>, bool)> {
    match backing {
        Backing::Memory(_) => {
            let lanes = Lanes {
                children: Arc::new(MemoryQueue::new("children")),
                roots: Arc::new(MemoryQueue::bounded("roots", ROOTS_IN_MEMORY)),
                results: Arc::new(MemoryQueue::bounded("results", RESULTS_IN_MEMORY)),
                dead: Arc::new(MemoryQueue::new("dead")),
            };
            Ok((lanes, Arc::new(MemoryLedger::new()), false))
        }
        Backing::Data(dir) => {
            let sqlite = Sqlite::open(dir, SqliteOptions::default())?;
            let lanes = Lanes {
                children: Arc::new(sqlite.queue("children")),
                roots: Arc::new(sqlite.bounded_queue("roots", ROOTS_ON_DISK)),
                results: Arc::new(sqlite.queue("results")),
                dead: Arc::new(sqlite.queue("dead")),
            };
            Ok((lanes, Arc::new(sqlite.ledger()), true))
        }
    }
}

fn archivers(settings: &Settings) -> Result<BTreeMap<String, Arc<dyn Archiver>>> {
    let registry = stoq_stores::archivers::registry();
    let mut all = BTreeMap::new();
    for component in settings.active(PluginKind::Archiver) {
        let Some(registration) = registry.iter().find(|r| r.info.name == component.kind) else { continue };
        let built = (registration.build)(&component.options.0)
            .map_err(|e| UsageError(format!("archiver {}: {e}", component.name)))?;
        all.insert(component.name, built);
    }
    Ok(all)
}

/// Workers outside of slots, by name.
pub(crate) type Externals = BTreeMap<String, Arc<dyn ExternalWorker>>;

/// What is known of the plugins of all kinds, for lists and checks.
pub(crate) fn infos() -> Vec<PluginInfo> {
    super::registry::all()
}
