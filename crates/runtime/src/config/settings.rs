//! The effective configuration as types.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::thread;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use stoq_api::budget::Budgets;
use stoq_api::scanner::{OptionKind, PluginKind};

use super::registry::ByRole;
use super::routes::Routes;
use super::schema::DEFAULT_TENANT;
use crate::units::{ByteSize, Duration};

/// Everything that is configured. Made by [`load`](super::load()), which has checked it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What all roles share.
    pub core: Core,
    /// How payloads are scanned.
    pub scan: Scan,
    /// What one scan may cost.
    pub budgets: BudgetSettings,
    /// Which plugins see which payloads.
    pub routes: Routes,
    /// Where payloads are kept.
    pub archive: Archive,
    /// What takes part.
    pub run: Run,
    /// What stands between the roles.
    pub fleet: Fleet,
    /// Whose payloads are kept apart, by name.
    #[serde(default)]
    pub tenants: BTreeMap<String, Tenant>,
    /// Metrics and probes.
    pub http: Http,
    /// Traces of scans.
    pub trace: Trace,
    /// Options of plugins by plugin, defaults filled in.
    #[serde(default)]
    pub plugins: BTreeMap<String, Options>,
    /// Sources by name, below that by kind.
    #[serde(default)]
    pub providers: BTreeMap<String, BTreeMap<String, Options>>,
    /// Sinks by name, below that by kind.
    #[serde(default)]
    pub connectors: BTreeMap<String, BTreeMap<String, Options>>,
    /// Archives by name, below that by kind.
    #[serde(default)]
    pub archivers: BTreeMap<String, BTreeMap<String, Options>>,
    /// Decorators by name, below that by kind.
    #[serde(default)]
    pub decorators: BTreeMap<String, BTreeMap<String, Options>>,
    /// Brokers by name, below that by kind.
    #[serde(default)]
    pub queues: BTreeMap<String, BTreeMap<String, Options>>,
    /// Ledgers by name, below that by kind.
    #[serde(default)]
    pub ledgers: BTreeMap<String, BTreeMap<String, Options>>,
    /// Payload stores by name, below that by kind.
    #[serde(default)]
    pub stores: BTreeMap<String, BTreeMap<String, Options>>,
    /// The options that each plugin has in each role: one name may stand for several plugins.
    #[serde(skip)]
    pub(super) by_role: ByRole,
}

/// `[core]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Core {
    /// Queue, ledger and payload store of this machine.
    pub data_dir: PathBuf,
    /// Logs.
    pub log: Log,
    /// How long stored payloads are kept once nothing that waits can need them.
    pub retention: Duration,
    /// How long work may go on after the first signal to end.
    pub grace: Duration,
}

/// `[core.log]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// The least level that is written.
    pub level: LogLevel,
    /// Lines or objects.
    pub format: LogFormat,
    /// A file to append to, instead of standard error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

/// Levels of logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Everything.
    Trace,
    /// What helps to find a fault.
    Debug,
    /// What an operator may want to know.
    Info,
    /// What an operator should look at.
    Warning,
    /// What failed.
    #[serde(alias = "critical")]
    Error,
    /// Nothing.
    Off,
}

/// Forms of logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[scan]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scan {
    /// Jailed processes; 0 stands for one per core, see [`Scan::slot_count`].
    pub slots: usize,
    /// What to do where the kernel cannot jail.
    pub jail: JailMode,
    /// The least Landlock ABI to start with; 0 asks for none.
    pub landlock_min: u32,
    /// Time that a plugin may take on a payload by the clock.
    pub plugin_wall: Duration,
    /// Time that a plugin may compute on a payload.
    pub plugin_cpu: Duration,
    /// Memory of a slot.
    pub memory: ByteSize,
    /// The largest payload that is scanned.
    pub max_payload: ByteSize,
    /// Small payloads handed to a slot at a time.
    pub batch_items: usize,
    /// Payloads after which a slot is replaced.
    pub recycle_after: u64,
    /// Payloads of the last ones that a plugin may be stopped on before it is switched off; 0 switches none off.
    pub breaker_kills: usize,
    /// How many of the last payloads are looked at.
    pub breaker_payloads: usize,
    /// How long a plugin is off before it may try again.
    pub breaker_pause: Duration,
    /// Large payloads on their way; [`Settings::spool_dir`] fills in where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spool_dir: Option<PathBuf>,
}

impl Scan {
    /// The number of slots, one a core where none is configured.
    pub fn slot_count(&self) -> usize {
        match self.slots {
            0 => thread::available_parallelism().map_or(1, Into::into),
            slots => slots,
        }
    }
}

/// What to do where the kernel cannot jail a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JailMode {
    /// Do not start.
    Require,
    /// Jail as far as possible and say what is missing.
    Prefer,
    /// Scan in this process, for development.
    Off,
}

/// `[budgets]`; see [`Budgets`] for what each means.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetSettings {
    /// The deepest payload that is scanned; a root has depth 0.
    pub max_depth: u16,
    /// Payloads of a tree, roots not counted.
    pub max_payloads: u64,
    /// Bytes of all extracted payloads together.
    pub max_bytes: ByteSize,
    /// Extracted bytes per byte of the roots.
    pub max_expansion: u64,
    /// Extracted bytes that are always allowed.
    pub expansion_floor: ByteSize,
    /// Until a scan is given up as partial.
    pub max_time: Duration,
}

impl From<&BudgetSettings> for Budgets {
    fn from(settings: &BudgetSettings) -> Self {
        Self {
            max_depth: settings.max_depth,
            max_payloads: settings.max_payloads,
            max_bytes: settings.max_bytes.get(),
            max_expansion: settings.max_expansion,
            expansion_floor: settings.expansion_floor.get(),
            // Budgets travel in whole seconds; a part of one must not become none.
            max_seconds: settings.max_time.get().as_secs_f64().ceil() as u64,
        }
    }
}

/// `[archive]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// Keep payloads in the destinations.
    pub payloads: bool,
    /// Archivers that keep payloads; see [`Settings::component`].
    pub destinations: Vec<String>,
    /// Archivers that references may name.
    pub sources: Vec<String>,
}

/// `[run]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Providers that take part; all that are configured where this is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub providers: Option<Vec<String>>,
    /// Connectors that take part; all that are configured where this is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connectors: Option<Vec<String>>,
    /// Decorators of finished responses.
    pub decorators: Vec<String>,
    /// Tenants whose tasks workers take; all where this is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenants: Option<Vec<String>>,
}

/// `[fleet]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fleet {
    /// The broker of the lanes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Keeps open scans.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<String>,
    /// Keeps large payloads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// Roles make lanes that are missing.
    pub declare: bool,
    /// Messages of roots that wait before providers stop.
    pub root_backlog: u64,
    /// How long work is held while its surroundings are away.
    pub hold_max: Duration,
    /// Deliveries of one payload until it is given up.
    pub max_attempts: u32,
}

/// `[tenants.<name>]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// Its part of the work while others want some too, against theirs.
    #[serde(default = "one")]
    pub weight: u32,
    /// Messages of its roots that wait before its providers stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_backlog: Option<u64>,
}

impl Default for Tenant {
    fn default() -> Self {
        Self { weight: one(), root_backlog: None }
    }
}

const fn one() -> u32 {
    1
}

/// `[http]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Address and port of metrics and probes; none are served where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
}

/// `[trace]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    /// A collector; nothing is traced where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Share of the scans that is traced.
    pub ratio: f64,
}

/// Options of a plugin: of the types that it declares, sizes in bytes, durations in seconds. `Debug` shows names only,
/// because some values are secrets.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Options(pub Map<String, Value>);

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A provider, connector, archiver or decorator that takes part.
#[derive(Clone, Debug, PartialEq)]
pub struct Component {
    /// The name that the operator gave it.
    pub name: String,
    /// The registered plugin that does the work.
    pub kind: String,
    /// The options that the plugin has in this role: its own over those of `[plugins.<kind>]` over the defaults.
    pub options: Options,
}

impl Settings {
    /// The component called `name` in a role: a configured one, or else the plugin of that name with the options that
    /// `[plugins.<name>]` gives it. Nothing for names that [`load`](super::load()) would have refused.
    pub fn component(&self, role: PluginKind, name: &str) -> Option<Component> {
        let configured = self.configured(role).and_then(|all| all.get(name)?.first_key_value());
        let kind = configured.map_or(name, |(kind, _)| kind);
        let known = self.by_role.get(&(role, kind.to_owned()))?;
        let mut options = self.plugins.get(kind).cloned().unwrap_or_default();
        options.0.retain(|option, _| known.contains_key(option));
        options.0.extend(configured.into_iter().flat_map(|(_, own)| own.0.clone()));
        if role == PluginKind::Provider {
            // It says something about the provider, not to it: see `tenant_of`.
            options.0.remove(super::registry::TENANT.name);
        }
        Some(Component { name: name.to_owned(), kind: kind.to_owned(), options })
    }

    /// The components that take part in a role: for archivers the destinations, see [`Archive::sources`] for the others.
    pub fn active(&self, role: PluginKind) -> Vec<Component> {
        let all = || self.configured(role).into_iter().flatten().map(|(name, _)| name.clone()).collect();
        let names = match role {
            PluginKind::Provider => self.run.providers.clone().unwrap_or_else(all),
            PluginKind::Connector => self.run.connectors.clone().unwrap_or_else(all),
            PluginKind::Decorator => self.run.decorators.clone(),
            PluginKind::Archiver if self.archive.payloads => self.archive.destinations.clone(),
            PluginKind::Queue => self.fleet.queue.iter().cloned().collect(),
            PluginKind::Ledger => self.fleet.ledger.iter().cloned().collect(),
            PluginKind::Store => self.fleet.store.iter().cloned().collect(),
            PluginKind::Archiver | PluginKind::Dispatcher | PluginKind::Worker => Vec::new(),
        };
        names.iter().filter_map(|name| self.component(role, name)).collect()
    }

    /// Where large payloads lie on their way.
    pub fn spool_dir(&self) -> PathBuf {
        self.scan.spool_dir.clone().unwrap_or_else(|| self.core.data_dir.join("spool"))
    }

    /// The budgets in the form in which they travel with tasks.
    pub fn budgets(&self) -> Budgets {
        (&self.budgets).into()
    }

    /// Workers that `[plugins.<name>] required_workers` puts before a worker, beside those that it names itself.
    pub fn required_workers(&self, plugin: &str) -> Vec<String> {
        let names = self.plugins.get(plugin).and_then(|o| o.0.get(super::registry::REQUIRED_WORKERS.name));
        names.and_then(Value::as_array).into_iter().flatten().filter_map(|n| n.as_str().map(str::to_owned)).collect()
    }

    /// Whose payloads a provider takes: as it says itself, or else its plugin. `None` for those of the default tenant,
    /// which is the one that has no name in responses.
    pub fn tenant_of(&self, provider: &str) -> Option<&str> {
        let configured = self.providers.get(provider).and_then(BTreeMap::first_key_value);
        let kind = configured.map_or(provider, |(kind, _)| kind);
        let own = configured.map(|(_, options)| options);
        let named = [own, self.plugins.get(kind)].into_iter().flatten();
        let tenant = named.filter_map(|options| options.0.get(super::registry::TENANT.name)?.as_str()).next();
        tenant.filter(|tenant| *tenant != DEFAULT_TENANT)
    }

    /// The type of a plugin's option.
    pub(super) fn kind_of(&self, plugin: &str, option: &str) -> Option<OptionKind> {
        self.by_role.iter().find_map(|((_, name), options)| (name == plugin).then(|| options.get(option).copied())?)
    }

    pub(super) fn configured(&self, role: PluginKind) -> Option<&BTreeMap<String, BTreeMap<String, Options>>> {
        match role {
            PluginKind::Provider => Some(&self.providers),
            PluginKind::Connector => Some(&self.connectors),
            PluginKind::Archiver => Some(&self.archivers),
            PluginKind::Queue => Some(&self.queues),
            PluginKind::Ledger => Some(&self.ledgers),
            PluginKind::Store => Some(&self.stores),
            PluginKind::Decorator => Some(&self.decorators),
            PluginKind::Dispatcher | PluginKind::Worker => None,
        }
    }
}
