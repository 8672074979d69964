//! Where queues, ledger and payloads live: in memory, in a data directory, or with the services of a fleet.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use stoq_api::ledger::Ledger;
use stoq_api::queue::{Broker, LaneOptions, Queue};
use stoq_api::scanner::{BuildError, PluginKind};
use stoq_api::store::Store;
use stoq_engine::lanes::TaskLane;
use stoq_engine::{Lanes, TenantLanes};
use stoq_memory::{MemoryLedger, MemoryQueue, MemoryStore};
use stoq_runtime::config::{Component, DEFAULT_TENANT, Settings, Tenant};
use stoq_sqlite::{Sqlite, SqliteOptions};
use stoq_stores::{FileStore, FileStoreOptions};

use super::gate::Gate;
use super::registry;
use crate::exit::UsageError;

/// Messages of root tasks that wait in memory, of up to a megabyte each, before a provider is made to wait.
const ROOTS_IN_MEMORY: usize = 32;
/// Bytes of tasks of children that wait in memory before others wait in files: an archive may have very many members.
const CHILDREN_IN_MEMORY: usize = 2 << 20;
/// Bytes of one scan's outcomes in memory before others go into files.
const OUTCOMES_IN_MEMORY: usize = 512 << 10;
/// Responses that wait in memory before workers are made to wait.
const RESULTS_IN_MEMORY: usize = 256;
/// Messages of root tasks that wait on disk before a provider is made to wait.
const ROOTS_ON_DISK: u64 = 100_000;

/// Lanes, ledger and store, opened but perhaps not yet connected.
pub(crate) struct Backends {
    pub(crate) lanes: Lanes,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) store: Arc<dyn Store>,
    /// Lanes and ledger are one memory or one file.
    pub(crate) coupled: bool,
}

/// In memory, with large payloads below `dir`, which goes with the process.
pub(crate) fn in_memory(dir: &Path) -> Result<Backends> {
    // What is scanned by hand is nobody's.
    let plain = TenantLanes::plain(
        Arc::new(MemoryQueue::spooling("children", dir, CHILDREN_IN_MEMORY)),
        Arc::new(MemoryQueue::bounded("roots", ROOTS_IN_MEMORY)),
    );
    let results = Arc::new(MemoryQueue::bounded("results", RESULTS_IN_MEMORY));
    Ok(Backends {
        lanes: Lanes::new(plain, [], results, Arc::new(MemoryQueue::new("dead"))),
        ledger: Arc::new(MemoryLedger::spooling(dir, OUTCOMES_IN_MEMORY)),
        store: local_store(dir, false)?,
        coupled: true,
    })
}

/// As `[fleet]` says; what it does not name lies in the data directory `dir`.
pub(crate) fn configured(settings: &Settings, brokers: &Brokers, dir: &Path, gate: &Gate) -> Result<Backends> {
    let file = DataFile { dir, open: OnceCell::new() };
    let broker = one(settings, PluginKind::Queue);
    let ledger = one(settings, PluginKind::Ledger);
    let coupled = broker.is_none() && ledger.is_none();
    let lanes = match broker {
        Some(component) => lanes(settings, &*brokers.open(&component.name)?, gate),
        None => file.lanes(settings, gate)?,
    };
    if coupled && settings.run.tenants.is_some() {
        let text = "run.tenants binds workers of a fleet to some tenants: alone, `stoq run` has to scan what it takes";
        return Err(UsageError(text.to_owned()).into());
    }
    let store = match one(settings, PluginKind::Store) {
        Some(component) => open_store(&component)?,
        None => local_store(dir, true)?,
    };
    let ledger = match ledger {
        Some(component) => open_ledger(&component, &store)?,
        None => Arc::new(file.sqlite()?.ledger()),
    };
    Ok(Backends { lanes, ledger, store, coupled })
}

/// Fails with a sentence for each part of a fleet that is not configured, though several processes have to share it.
pub(crate) fn shared(settings: &Settings) -> Result<()> {
    let fleet = &settings.fleet;
    let parts = [("queue", &fleet.queue), ("ledger", &fleet.ledger), ("store", &fleet.store)];
    let missing: Vec<String> = parts
        .into_iter()
        .filter(|(_, name)| name.is_none())
        .map(|(part, _)| format!("fleet.{part} is not set: roles in several processes have to share a {part}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let help = "name one that is configured, such as [queues.main.rabbitmq] with fleet.queue = \"main\"; alone on one \
                machine, `stoq run` needs none of them";
    Err(UsageError(format!("{}\n{help}", missing.join("\n"))).into())
}

/// Opens every configured broker and the ledger, to see whether their options fit together; connects to nothing. Not the
/// store: opening one makes a directory, or reads secrets that need not be on the machine where this is asked.
///
/// # Errors
/// The first that cannot be opened.
pub(crate) fn check(settings: &Settings) -> Result<()> {
    let brokers = Brokers::new(settings);
    for name in settings.queues.keys() {
        brokers.open(name)?;
    }
    if let Some(component) = one(settings, PluginKind::Ledger) {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        open_ledger(&component, &store)?;
    }
    Ok(())
}

/// The SQLite file of the data directory, opened when first needed: whoever has it has the directory to himself.
struct DataFile<'a> {
    dir: &'a Path,
    open: OnceCell<Sqlite>,
}

impl DataFile<'_> {
    fn sqlite(&self) -> Result<&Sqlite> {
        if self.open.get().is_none() {
            let opened = Sqlite::open(self.dir, SqliteOptions::default())?;
            return Ok(self.open.get_or_init(|| opened));
        }
        self.open.get().context("the data file was opened and is gone")
    }

    fn lanes(&self, settings: &Settings, gate: &Gate) -> Result<Lanes> {
        let sqlite = self.sqlite()?;
        let lane = |name: &str, bound: Option<u64>| -> Arc<dyn Queue> {
            match bound {
                Some(bound) => Arc::new(sqlite.bounded_queue(name, bound)),
                None => Arc::new(sqlite.queue(name)),
            }
        };
        Ok(lanes_of(settings, ROOTS_ON_DISK, gate, lane))
    }
}

fn lanes(settings: &Settings, broker: &dyn Broker, gate: &Gate) -> Lanes {
    lanes_of(settings, settings.fleet.root_backlog, gate, |name, bound| broker.lane(name, LaneOptions { bound }))
}

/// Opens the lanes of all tenants and what they share. A tenant's roots wait up to its own bound, or else `root_backlog`.
fn lanes_of(
    settings: &Settings,
    root_backlog: u64,
    gate: &Gate,
    open: impl Fn(&str, Option<u64>) -> Arc<dyn Queue>,
) -> Lanes {
    let taken = |name: &str| settings.run.tenants.as_ref().is_none_or(|all| all.iter().any(|taken| taken == name));
    let of = |name: &str, tenant: &Tenant| {
        let own = (name != DEFAULT_TENANT).then_some(name);
        TenantLanes {
            tenant: own.map(Into::into),
            weight: tenant.weight,
            taken: taken(name),
            children: open(&TaskLane::Children.name(own), None),
            roots: gate.before(open(&TaskLane::Roots.name(own), Some(tenant.root_backlog.unwrap_or(root_backlog)))),
        }
    };
    let plain = settings.tenants.get(DEFAULT_TENANT).cloned().unwrap_or_default();
    let others = settings.tenants.iter().filter(|(name, _)| *name != DEFAULT_TENANT);
    let others = others.map(|(name, tenant)| of(name, tenant));
    Lanes::new(of(DEFAULT_TENANT, &plain), others, open("results", None), open("dead", None))
}

fn local_store(dir: &Path, fsync: bool) -> Result<Arc<dyn Store>> {
    Ok(Arc::new(FileStore::open(&dir.join("payloads"), FileStoreOptions { fsync })?))
}

/// The component that `[fleet]` names in a role.
fn one(settings: &Settings, role: PluginKind) -> Option<Component> {
    settings.active(role).into_iter().next()
}

fn open_store(component: &Component) -> Result<Arc<dyn Store>> {
    let registered = registry::stores().into_iter().find(|r| r.info.name == component.kind);
    let registered = registered.ok_or_else(|| unknown("store", component))?;
    (registered.open)(&component.options.0).map_err(|e| wrong("store", component, &e))
}

fn open_ledger(component: &Component, store: &Arc<dyn Store>) -> Result<Arc<dyn Ledger>> {
    let registered = registry::ledgers().into_iter().find(|r| r.info.name == component.kind);
    let registered = registered.ok_or_else(|| unknown("ledger", component))?;
    (registered.open)(&component.options.0, Arc::clone(store)).map_err(|e| wrong("ledger", component, &e))
}

/// All configured brokers, each opened once, by whoever needs it first: the lanes, or an intake.
pub(crate) struct Brokers {
    settings: Settings,
    open: Mutex<BTreeMap<String, Opened>>,
}

struct Opened {
    broker: Arc<dyn Broker>,
    /// Something else than sinks needs it.
    awaited: bool,
}

impl Brokers {
    /// Those of `settings`, none of them open.
    pub(crate) fn new(settings: &Settings) -> Self {
        Self { settings: settings.clone(), open: Mutex::default() }
    }

    /// The broker configured as `[queues.<name>.<kind>]`.
    pub(crate) fn open(&self, name: &str) -> Result<Arc<dyn Broker>> {
        self.opened_as(name, true)
    }

    /// The same for what only writes to it: a sink that is away holds up nobody else.
    pub(crate) fn open_for_sink(&self, name: &str) -> Result<Arc<dyn Broker>> {
        self.opened_as(name, false)
    }

    fn opened_as(&self, name: &str, awaited: bool) -> Result<Arc<dyn Broker>> {
        let mut open = self.open.lock();
        if let Some(opened) = open.get_mut(name) {
            opened.awaited |= awaited;
            return Ok(Arc::clone(&opened.broker));
        }
        let component = self.settings.component(PluginKind::Queue, name).ok_or_else(|| {
            UsageError(format!("no broker is called {name:?}: configure it as [queues.{name}.<kind>]"))
        })?;
        let registered = registry::brokers().into_iter().find(|r| r.info.name == component.kind);
        let registered = registered.ok_or_else(|| unknown("queue", &component))?;
        let broker = (registered.open)(&component.options.0).map_err(|e| wrong("queue", &component, &e))?;
        open.insert(name.to_owned(), Opened { broker: Arc::clone(&broker), awaited });
        Ok(broker)
    }

    /// Those that were opened, by name.
    pub(crate) fn opened(&self) -> Vec<(String, Arc<dyn Broker>)> {
        self.open.lock().iter().map(|(name, opened)| (name.clone(), Arc::clone(&opened.broker))).collect()
    }

    /// Those of them without which this process cannot work.
    pub(crate) fn awaited(&self) -> Vec<(String, Arc<dyn Broker>)> {
        let open = self.open.lock();
        let awaited = open.iter().filter(|(_, opened)| opened.awaited);
        awaited.map(|(name, opened)| (name.clone(), Arc::clone(&opened.broker))).collect()
    }
}

fn unknown(what: &str, component: &Component) -> anyhow::Error {
    let Component { name, kind, .. } = component;
    UsageError(format!("{what} {name}: this build does not have the kind {kind:?}")).into()
}

fn wrong(what: &str, component: &Component, error: &BuildError) -> anyhow::Error {
    UsageError(format!("{what} {}: {error}", component.name)).into()
}
