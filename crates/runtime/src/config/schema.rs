//! Every key that the configuration has outside of plugins' options: name, shape, default, help. The one place for it:
//! checking, defaults, `stoq config show` and the reference page all read this list.

use stoq_api::scanner::{OptionKind, PluginKind};

use crate::shares::MAX_WEIGHT;

/// A key of a table.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    /// As it would stand in a TOML file; empty when there is none.
    pub(super) default: &'static str,
    pub(super) help: &'static str,
}

/// What a key holds.
pub(super) enum Shape {
    /// A value like a plugin's option.
    Value(OptionKind),
    /// A whole number within bounds.
    Count { min: i64, max: i64 },
    /// One of some words.
    Choice(&'static [&'static str]),
    /// A path; a relative one starts at the folder of the file that names it.
    Path,
    /// One pattern or a list of them.
    Globs,
    /// Where in the results of workers to look.
    ResultPath,
    /// Where in a response to look: a member of it, and members below.
    FieldPath,
    /// Names of plugins that can take the role.
    Plugins(PluginKind),
    /// Names of configured components of the role, or of plugins that can take it without being configured.
    Active(PluginKind),
    /// The name of one such component.
    One(PluginKind),
    /// Known keys.
    Table(&'static [Key]),
    /// Free names, known keys below each.
    Each(&'static [Key]),
    /// One table of known keys, or a list of such tables. The first key must be there.
    Many(&'static [Key]),
    /// One table of known keys, or a list of such tables.
    Tables(&'static [Key]),
    /// Plugins by name, their options below.
    PluginOptions,
    /// Free names, below each a kind, below that the kind's options.
    Components(PluginKind),
}

const fn key(name: &'static str, shape: Shape, default: &'static str, help: &'static str) -> Key {
    Key { name, shape, default, help }
}

const SIZE: Shape = Shape::Value(OptionKind::Size);
const TIME: Shape = Shape::Value(OptionKind::Duration);

/// The whole configuration.
pub(super) const ROOT: &[Key] = &[
    key("core", Shape::Table(CORE), "", "what all roles share"),
    key("scan", Shape::Table(SCAN), "", "how payloads are scanned"),
    key("budgets", Shape::Table(BUDGETS), "", "what one scan may cost, over its whole tree"),
    key("routes", Shape::Table(ROUTES), "", "which plugins see which payloads"),
    key("archive", Shape::Table(ARCHIVE), "", "where payloads are kept"),
    key("run", Shape::Table(RUN), "", "what takes part"),
    key("fleet", Shape::Table(FLEET), "", "what stands between the roles of several processes"),
    key("tenants", Shape::Each(TENANT), "", "whose payloads are kept apart: [tenants.<name>]"),
    key("http", Shape::Table(HTTP), "", "metrics and probes"),
    key("trace", Shape::Table(TRACE), "", "traces of scans"),
    key("plugins", Shape::PluginOptions, "", "options of plugins, by plugin"),
    key("providers", Shape::Components(PluginKind::Provider), "", "sources: [providers.<name>.<kind>]"),
    key("connectors", Shape::Components(PluginKind::Connector), "", "sinks: [connectors.<name>.<kind>]"),
    key("archivers", Shape::Components(PluginKind::Archiver), "", "archives: [archivers.<name>.<kind>]"),
    key("decorators", Shape::Components(PluginKind::Decorator), "", "decorators: [decorators.<name>.<kind>]"),
    key("queues", Shape::Components(PluginKind::Queue), "", "brokers: [queues.<name>.<kind>]"),
    key("ledgers", Shape::Components(PluginKind::Ledger), "", "ledgers: [ledgers.<name>.<kind>]"),
    key("stores", Shape::Components(PluginKind::Store), "", "payload stores: [stores.<name>.<kind>]"),
];

const CORE: &[Key] = &[
    key("data_dir", Shape::Path, "\"stoq-data\"", "queue, ledger and payload store of this machine"),
    key("log", Shape::Table(LOG), "", "logs"),
    key("retention", TIME, "\"7 d\"", "how long stored payloads are kept once nothing that waits can need them"),
    key("grace", TIME, "\"30 s\"", "how long work may go on after the first signal to end"),
];

/// Words for levels; `critical` is stoQ's.
pub(super) const LEVELS: &[&str] = &["trace", "debug", "info", "warning", "error", "critical", "off"];

const LOG: &[Key] = &[
    key("level", Shape::Choice(LEVELS), "\"info\"", "the least level that is written"),
    key("format", Shape::Choice(&["text", "json"]), "\"text\"", "lines for people or JSON objects"),
    key("file", Shape::Path, "", "a file to append to, instead of standard error"),
];

const SCAN: &[Key] = &[
    key("slots", Shape::Count { min: 0, max: 1024 }, "0", "jailed processes; 0: one for each core"),
    key("jail", Shape::Choice(&["require", "prefer", "off"]), "\"require\"", "what to do where the kernel cannot jail"),
    key("landlock_min", Shape::Count { min: 0, max: 100 }, "0", "the least Landlock ABI to start with"),
    key("plugin_wall", TIME, "\"60 s\"", "time that a plugin may take on a payload by the clock"),
    key("plugin_cpu", TIME, "\"30 s\"", "time that a plugin may compute on a payload"),
    key("memory", SIZE, "\"1 GiB\"", "memory of a slot"),
    key("max_payload", SIZE, "\"256 MiB\"", "the largest payload that is scanned"),
    key("batch_items", Shape::Count { min: 1, max: 64 }, "16", "small payloads handed to a slot at a time"),
    key(
        "recycle_after",
        Shape::Count { min: 1, max: 1_000_000_000 },
        "10000",
        "payloads after which a slot is replaced",
    ),
    key(
        "breaker_kills",
        Shape::Count { min: 0, max: 10_000 },
        "25",
        "payloads of the last ones that a plugin may be stopped on before it is switched off; 0: it never is",
    ),
    key("breaker_payloads", Shape::Count { min: 1, max: 10_000 }, "100", "how many of the last payloads are looked at"),
    key("breaker_pause", TIME, "\"2 min\"", "how long a plugin is off before it may try again"),
    key("spool_dir", Shape::Path, "", "large payloads on their way; without it, below data_dir"),
];

const BUDGETS: &[Key] = &[
    key("max_depth", Shape::Count { min: 0, max: 1_000 }, "10", "the deepest payload that is scanned; a root has 0"),
    key("max_payloads", Shape::Count { min: 0, max: i64::MAX }, "20000", "payloads of a tree, roots not counted"),
    key("max_bytes", SIZE, "\"2 GiB\"", "bytes of all extracted payloads together"),
    key("max_expansion", Shape::Count { min: 1, max: i64::MAX }, "1000", "extracted bytes per byte of the roots"),
    key("expansion_floor", SIZE, "\"64 MiB\"", "extracted bytes that are always allowed"),
    key("max_time", TIME, "\"1 h\"", "until a scan is given up as partial; whole seconds"),
];

const ROUTES: &[Key] = &[
    key("always", Shape::Plugins(PluginKind::Worker), "[]", "workers for every payload"),
    key("start", Shape::Plugins(PluginKind::Worker), "[]", "workers for roots"),
    key("dispatchers", Shape::Plugins(PluginKind::Dispatcher), "[]", "dispatchers asked about every payload"),
    key("max_required_depth", Shape::Count { min: 1, max: 100 }, "10", "longest chain of required workers"),
    key("rules", Shape::Each(RULE), "", "workers for payloads that fit: [routes.rules.<name>]"),
];

const RULE: &[Key] = &[
    key("when", Shape::Table(WHEN), "", "conditions, all of which must hold"),
    key("run", Shape::Plugins(PluginKind::Worker), "", "workers to run then; none switches the rule off"),
];

const WHEN: &[Key] = &[
    key("mimetype", Shape::Globs, "", "MIME type found by the worker mimetype"),
    key("filename", Shape::Globs, "", "file name, regardless of case"),
    key("source", Shape::Globs, "", "the request's source"),
    key("size_min", SIZE, "", "at least so many bytes"),
    key("size_max", SIZE, "", "at most so many bytes"),
    key("root", Shape::Value(OptionKind::Bool), "", "a root (true) or an extracted payload (false)"),
    key("result", Shape::Many(RESULT), "", "what a worker found"),
];

pub(super) const RESULT: &[Key] = &[
    key("path", Shape::ResultPath, "", "worker and members, such as yara.matches[].rule"),
    key("equals", Shape::Value(OptionKind::Json), "", "a value there is this one"),
    key("matches", Shape::Globs, "", "a text there fits"),
];

pub(super) const FIELD: &[Key] = &[
    key("path", Shape::FieldPath, "", "members, such as request_meta.extra_data.sensor"),
    key("equals", Shape::Value(OptionKind::Json), "", "a value there is this one"),
    key("matches", Shape::Globs, "", "a text there fits"),
];

const ARCHIVE: &[Key] = &[
    key("payloads", Shape::Value(OptionKind::Bool), "true", "keep payloads in the destinations"),
    key("destinations", Shape::Active(PluginKind::Archiver), "[]", "archivers that keep payloads"),
    key("sources", Shape::Active(PluginKind::Archiver), "[]", "archivers that references may name"),
];

const RUN: &[Key] = &[
    key("providers", Shape::Active(PluginKind::Provider), "", "providers; without it, all that are configured"),
    key("connectors", Shape::Active(PluginKind::Connector), "", "connectors; without it, all that are configured"),
    key("decorators", Shape::Active(PluginKind::Decorator), "[]", "decorators of finished responses"),
    key("tenants", Shape::Value(OptionKind::List), "", "tenants whose tasks workers take; without it, all"),
];

const FLEET: &[Key] = &[
    key("queue", Shape::One(PluginKind::Queue), "", "the broker of the lanes; without it, the data directory"),
    key("ledger", Shape::One(PluginKind::Ledger), "", "keeps open scans; without it, the data directory"),
    key("store", Shape::One(PluginKind::Store), "", "keeps large payloads; without it, the data directory"),
    key("declare", Shape::Value(OptionKind::Bool), "true", "make lanes that are missing when a role starts"),
    key(
        "root_backlog",
        Shape::Count { min: 1, max: i64::MAX },
        "10000",
        "messages of roots that wait before providers stop",
    ),
    key("hold_max", TIME, "\"10 min\"", "how long work is held while broker, ledger or store are away"),
    key("max_attempts", Shape::Count { min: 1, max: 1_000 }, "5", "deliveries of one payload until it is given up"),
];

/// The tenant that payloads have whose provider names none. It is always there.
pub const DEFAULT_TENANT: &str = "default";

const TENANT: &[Key] = &[
    key(
        "weight",
        Shape::Count { min: 1, max: MAX_WEIGHT as i64 },
        "1",
        "its part of the work while others want some too, against theirs",
    ),
    key(
        "root_backlog",
        Shape::Count { min: 1, max: i64::MAX },
        "",
        "messages of its roots that wait before its providers stop; without it, fleet.root_backlog",
    ),
];

const HTTP: &[Key] =
    &[key("listen", Shape::Value(OptionKind::Text), "", "address and port; without it, nothing is served")];

const TRACE: &[Key] = &[
    key(
        "endpoint",
        Shape::Value(OptionKind::Text),
        "",
        "an OpenTelemetry collector that takes OTLP over HTTP; without it, nothing is traced",
    ),
    key("ratio", Shape::Value(OptionKind::Float), "0.01", "share of the scans that is traced, from 0 to 1"),
];
