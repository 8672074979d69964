//! Every metric there is: names, labels and help in one place, the same set for each provider, plugin and connector.
//!
//! Labels take configured names only (sources, plugins, lanes) and words of this file, never anything that a payload
//! says: a hostile file name must not become a time series.
//!
//! The balance, over all processes of a fleet: `stoq_references_taken_total` = `stoq_responses_total` +
//! `stoq_dead_total` + what is open. Each process counts what it did itself, after it was safe; docs/operations.md says
//! how far the sum can be off after crashes.

mod connector;

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Counter, CounterVec, Encoder, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use stoq_api::fault::FaultKind;
use stoq_api::outcome::RunStatus;

pub use self::connector::Connector;

/// From a hash of a small file to a slow archive, in seconds.
const SECONDS: [f64; 14] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0];

struct Families {
    registry: Registry,
    taken: IntCounterVec,
    responses: IntCounterVec,
    dead: IntCounterVec,
    open: IntGauge,
    received: IntCounterVec,
    sent: IntCounterVec,
    errors: IntCounterVec,
    in_flight: IntGaugeVec,
    seconds: HistogramVec,
    slot_kills: IntCounterVec,
    slot_seconds: CounterVec,
    redelivered: IntCounterVec,
    lane_depth: IntGaugeVec,
    lane_age: GaugeVec,
    rules: IntGaugeVec,
    plugin_off: IntGaugeVec,
    spans_dropped: IntCounter,
    paused: IntGaugeVec,
    connectors: connector::Families,
}

static FAMILIES: LazyLock<Families> = LazyLock::new(Families::new);

impl Families {
    fn new() -> Self {
        let registry = Registry::new();
        let families = Self {
            taken: counter(&registry, "stoq_references_taken_total", "references taken from a source", &["source"]),
            responses: counter(
                &registry,
                "stoq_responses_total",
                "scans that ended with a response",
                &["source", "kind"],
            ),
            dead: counter(
                &registry,
                "stoq_dead_total",
                "references that went to the dead lane, without a response",
                &["source"],
            ),
            open: single(&registry, "stoq_scans_open", "scans that the ledger holds, in the whole fleet"),
            received: counter(&registry, "stoq_in_total", "items that a component was given", &["role", "name"]),
            sent: counter(&registry, "stoq_out_total", "items that a component dealt with", &["role", "name"]),
            errors: counter(
                &registry,
                "stoq_errors_total",
                "items that a component failed on",
                &["role", "name", "kind"],
            ),
            in_flight: gauge(&registry, "stoq_in_flight", "items that a component has in hand", &["role", "name"]),
            seconds: histogram(
                &registry,
                "stoq_duration_seconds",
                "time that a component took for an item",
                &["role", "name"],
            ),
            slot_kills: counter(
                &registry,
                "stoq_slot_kills_total",
                "jailed processes that died or were killed",
                &["reason"],
            ),
            slot_seconds: counter_of_seconds(
                &registry,
                "stoq_slot_seconds_total",
                "time that slots were at work, by whose payloads they worked on",
                &["tenant"],
            ),
            redelivered: counter(
                &registry,
                "stoq_redelivered_total",
                "messages of a task lane that may have been worked on before",
                &["lane"],
            ),
            lane_depth: gauge(
                &registry,
                "stoq_lane_messages",
                "messages on a lane that wait or are held, as the broker says",
                &["lane", "subscription", "state"],
            ),
            lane_age: gauge_of_seconds(
                &registry,
                "stoq_lane_oldest_seconds",
                "age of the oldest message that waits on a lane, where the broker tells",
                &["lane", "subscription"],
            ),
            rules: gauge(&registry, "stoq_ruleset", "1 for the rules in use, by their digest", &["name", "ruleset"]),
            plugin_off: gauge(
                &registry,
                "stoq_plugin_off",
                "1 while the circuit breaker keeps a plugin off",
                &["name"],
            ),
            spans_dropped: counted(&registry, "stoq_spans_dropped_total", "spans that were not sent"),
            paused: gauge(
                &registry,
                "stoq_paused",
                "1 while an operator keeps a provider or connector paused",
                &["role", "name"],
            ),
            connectors: connector::Families::new(&registry),
            registry,
        };
        register(&families.registry, ProcessCollector::for_self());
        families
    }

    /// The names of all families of our own, whether they have series yet or not.
    #[cfg(test)]
    fn names(&self) -> Vec<String> {
        let all: [&dyn Collector; 18] = [
            &self.taken,
            &self.responses,
            &self.dead,
            &self.open,
            &self.received,
            &self.sent,
            &self.errors,
            &self.in_flight,
            &self.seconds,
            &self.slot_kills,
            &self.slot_seconds,
            &self.redelivered,
            &self.lane_depth,
            &self.lane_age,
            &self.rules,
            &self.plugin_off,
            &self.spans_dropped,
            &self.paused,
        ];
        all.iter()
            .chain(&self.connectors.all())
            .flat_map(|family| family.desc())
            .map(|desc| desc.fq_name.clone())
            .collect()
    }
}

/// A family cannot be registered only if this file names two alike or one wrongly; the test of all families finds that.
fn register<C: Collector + 'static>(registry: &Registry, family: C) {
    if let Err(error) = registry.register(Box::new(family)) {
        tracing::error!(%error, "a metric is missing");
    }
}

#[expect(clippy::expect_used, reason = "names are literals of this file, all of them made in one test")]
fn counter(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let family = IntCounterVec::new(Opts::new(name, help), labels).expect("a valid name");
    register(registry, family.clone());
    family
}

#[expect(clippy::expect_used, reason = "names are literals of this file, all of them made in one test")]
fn gauge(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    let family = IntGaugeVec::new(Opts::new(name, help), labels).expect("a valid name");
    register(registry, family.clone());
    family
}

#[expect(clippy::expect_used, reason = "names are literals of this file, all of them made in one test")]
fn counted(registry: &Registry, name: &str, help: &str) -> IntCounter {
    let family = IntCounter::new(name, help).expect("a valid name");
    register(registry, family.clone());
    family
}

#[expect(clippy::expect_used, reason = "names are literals of this file, all of them made in one test")]
fn single(registry: &Registry, name: &str, help: &str) -> IntGauge {
    let family = IntGauge::new(name, help).expect("a valid name");
    register(registry, family.clone());
    family
}

#[expect(clippy::expect_used, reason = "names are literals of this file, all of them made in one test")]
fn counter_of_seconds(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> CounterVec {
    let family = CounterVec::new(Opts::new(name, help), labels).expect("a valid name");
    register(registry, family.clone());
    family
}

#[expect(clippy::expect_used, reason = "names are literals of this file, all of them made in one test")]
fn gauge_of_seconds(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
    let family = GaugeVec::new(Opts::new(name, help), labels).expect("a valid name");
    register(registry, family.clone());
    family
}

#[expect(clippy::expect_used, reason = "names are literals of this file, all of them made in one test")]
fn histogram(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    let family =
        HistogramVec::new(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()), labels).expect("a valid name");
    register(registry, family.clone());
    family
}

/// What one source's references became, as far as this process did it.
#[derive(Clone, Debug)]
pub struct Source {
    taken: IntCounter,
    complete: IntCounter,
    partial: IntCounter,
    dead: IntCounter,
}

impl Source {
    /// The counters of the source with this configured name.
    pub fn new(name: &str) -> Self {
        let f = &*FAMILIES;
        Self {
            taken: f.taken.with_label_values(&[name]),
            complete: f.responses.with_label_values(&[name, "complete"]),
            partial: f.responses.with_label_values(&[name, "partial"]),
            dead: f.dead.with_label_values(&[name]),
        }
    }

    /// A reference was taken: its task is published and its source was told.
    pub fn taken(&self) {
        self.taken.inc();
    }

    /// A response was published.
    pub fn answered(&self, complete: bool) {
        if complete {
            self.complete.inc()
        } else {
            self.partial.inc()
        };
    }

    /// A reference was taken and is safe on the dead lane; it gets no response.
    pub fn dead(&self) {
        self.taken.inc();
        self.dead.inc();
    }
}

/// What a component is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Brings references.
    Provider,
    /// Takes tasks off a lane; its name is the lane's.
    Worker,
    /// Scans payloads.
    Plugin,
    /// Keeps payloads.
    Archiver,
    /// Adds to responses.
    Decorator,
    /// Takes responses.
    Connector,
}

impl Role {
    /// Its name as a label, and on the command line.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Worker => "worker",
            Self::Plugin => "plugin",
            Self::Archiver => "archiver",
            Self::Decorator => "decorator",
            Self::Connector => "connector",
        }
    }
}

/// The set of metrics that every provider, plugin, archiver, decorator and connector has.
#[derive(Clone, Debug)]
pub struct Component {
    role: Role,
    name: String,
    received: IntCounter,
    sent: IntCounter,
    in_flight: IntGauge,
    seconds: Histogram,
}

impl Component {
    /// The set of the component with this configured name.
    pub fn new(role: Role, name: &str) -> Self {
        let (f, labels) = (&*FAMILIES, [role.label(), name]);
        if role != Role::Plugin {
            for kind in ALERTED {
                f.errors.with_label_values(&[role.label(), name, kind.label()]);
            }
        }
        Self {
            role,
            name: name.to_owned(),
            received: f.received.with_label_values(&labels),
            sent: f.sent.with_label_values(&labels),
            in_flight: f.in_flight.with_label_values(&labels),
            seconds: f.seconds.with_label_values(&labels),
        }
    }

    /// The component begins with `items` items. Dropped without a word, what it returns counts them as let go.
    pub fn begin(&self, items: u64) -> InHand {
        self.received.inc_by(items);
        self.in_flight.add(i64::try_from(items).unwrap_or(i64::MAX));
        InHand { component: self.clone(), items, since: Instant::now() }
    }

    /// One run of a plugin, measured by the slot that it ran in.
    pub fn ran(&self, status: RunStatus, took: Duration) {
        self.received.inc();
        self.seconds.observe(took.as_secs_f64());
        match status {
            RunStatus::Ok | RunStatus::Cut => self.sent.inc(),
            RunStatus::Failed => self.failed(ErrorKind::Failed, 1),
            RunStatus::TimedOut => self.failed(ErrorKind::TimedOut, 1),
            RunStatus::Killed => self.failed(ErrorKind::Killed, 1),
        }
    }

    /// `items` items met an error. An item that is tried again may meet several.
    pub fn failed(&self, kind: ErrorKind, items: u64) {
        let labels = [self.role.label(), self.name.as_str(), kind.label()];
        FAMILIES.errors.with_label_values(&labels).inc_by(items);
    }
}

/// Items that a component has in hand.
#[derive(Debug)]
#[must_use = "items are counted as in hand until this is dropped"]
pub struct InHand {
    component: Component,
    items: u64,
    since: Instant,
}

impl InHand {
    /// `items` of them are dealt with.
    pub fn done(&self, items: u64) {
        self.component.sent.inc_by(items);
    }

    /// `items` of them met an error.
    pub fn failed(&self, kind: ErrorKind, items: u64) {
        self.component.failed(kind, items);
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.component.in_flight.sub(i64::try_from(self.items).unwrap_or(i64::MAX));
        self.component.seconds.observe(self.since.elapsed().as_secs_f64());
    }
}

/// Kinds of errors, few enough to be a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The component said that it could not.
    Failed,
    /// It was stopped for its time.
    TimedOut,
    /// It died, or was stopped for memory or a forbidden call.
    Killed,
    /// An item was refused for good.
    Rejected,
    /// What the component talks to failed.
    Fault(FaultKind),
}

impl ErrorKind {
    const fn label(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Killed => "killed",
            Self::Rejected => "rejected",
            Self::Fault(FaultKind::Unavailable) => "unavailable",
            Self::Fault(FaultKind::NotFound) => "not_found",
            Self::Fault(FaultKind::Corrupt) => "corrupt",
            Self::Fault(FaultKind::Refused) => "refused",
            Self::Fault(FaultKind::Misconfigured) => "misconfigured",
        }
    }
}

/// Errors of which an alert wants to hear at the first one. They are shown before there is any: of a counter that begins at
/// one, nobody sees the first step. Plugins have no such kinds.
const ALERTED: [ErrorKind; 2] = [ErrorKind::Rejected, ErrorKind::Fault(FaultKind::Misconfigured)];

/// A worker was handed a message of a task lane that it, or another, may have worked on before.
pub fn redelivered(lane: &str) {
    FAMILIES.redelivered.with_label_values(&[lane]).inc();
}

/// An operator keeps a provider or connector paused, or does not any more.
pub fn paused(role: Role, name: &str, paused: bool) {
    FAMILIES.paused.with_label_values(&[role.label(), name]).set(i64::from(paused));
}

/// A jailed process died or was killed, for one of the jail's few reasons.
pub fn slot_killed(reason: &'static str) {
    FAMILIES.slot_kills.with_label_values(&[reason]).inc();
}

/// How long slots are at work for one tenant.
pub struct SlotTime(Counter);

impl SlotTime {
    /// The counter of `tenant`.
    pub fn of(tenant: &str) -> Self {
        Self(FAMILIES.slot_seconds.with_label_values(&[tenant]))
    }

    /// A slot was at work for the tenant.
    pub fn add(&self, took: Duration) {
        self.0.inc_by(took.as_secs_f64());
    }
}

/// What waits on a lane and what is held, and since when the oldest waits, where that is known.
pub fn lane(lane: &str, subscription: &str, ready: u64, held: u64, oldest: Option<Duration>) {
    let (f, labels) = (&*FAMILIES, [lane, subscription]);
    for (state, messages) in [("waiting", ready), ("held", held)] {
        f.lane_depth.with_label_values(&[lane, subscription, state]).set(i64::try_from(messages).unwrap_or(i64::MAX));
    }
    match oldest {
        Some(age) => f.lane_age.with_label_values(&labels).set(age.as_secs_f64()),
        None if ready == 0 => f.lane_age.with_label_values(&labels).set(0.0),
        // Not known: an age of nothing would be a lie. Removing what was never shown is no mistake.
        None => drop(f.lane_age.remove_label_values(&labels)),
    }
}

/// So many scans are open or wait for their response, in the whole fleet, as the ledger says.
pub fn scans_open(scans: u64) {
    FAMILIES.open.set(i64::try_from(scans).unwrap_or(i64::MAX));
}

/// The circuit breaker of this process switched the plugin off, or on again.
pub fn plugin_off(plugin: &str, off: bool) {
    FAMILIES.plugin_off.with_label_values(&[plugin]).set(i64::from(off));
}

/// So many spans were not sent.
pub fn spans_dropped(spans: u64) {
    FAMILIES.spans_dropped.inc_by(spans);
}

/// The plugin now uses the rules with this digest; the ones before are no longer shown.
pub fn ruleset(plugin: &str, before: Option<&str>, now: &str) {
    if let Some(before) = before {
        // Removing what was never shown is no mistake.
        FAMILIES.rules.remove_label_values(&[plugin, before]).ok();
    }
    FAMILIES.rules.with_label_values(&[plugin, now]).set(1);
}

/// All metrics in the text form of Prometheus.
pub fn render() -> String {
    let mut out = Vec::new();
    match TextEncoder::new().encode(&FAMILIES.registry.gather(), &mut out) {
        Ok(()) => String::from_utf8_lossy(&out).into_owned(),
        Err(error) => format!("# metrics cannot be written: {error}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of the series that begins with `series`.
    fn value(text: &str, series: &str) -> Option<f64> {
        text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }

    #[test]
    fn the_balance_balances() {
        let source = Source::new("balance");
        (0..3).for_each(|_| source.taken());
        source.answered(true);
        source.answered(false);
        source.dead();
        let text = render();
        let of = |series: &str| value(&text, series).unwrap();
        let taken = of("stoq_references_taken_total{source=\"balance\"}");
        let complete = of("stoq_responses_total{kind=\"complete\",source=\"balance\"}");
        let partial = of("stoq_responses_total{kind=\"partial\",source=\"balance\"}");
        let dead = of("stoq_dead_total{source=\"balance\"}");
        assert_eq!((taken, complete, partial, dead), (4.0, 1.0, 1.0, 1.0), "one is open");
    }

    #[test]
    fn every_role_has_the_same_set() {
        for role in [Role::Provider, Role::Worker, Role::Plugin, Role::Archiver, Role::Decorator, Role::Connector] {
            let component = Component::new(role, "same");
            let in_hand = component.begin(3);
            in_hand.done(2);
            in_hand.failed(ErrorKind::Fault(FaultKind::Unavailable), 1);
            let labels = format!("{{name=\"same\",role=\"{}\"}}", role.label());
            assert_eq!(value(&render(), &format!("stoq_in_flight{labels}")), Some(3.0));
            drop(in_hand);
            let text = render();
            for (family, expected) in [
                ("stoq_in_total", 3.0),
                ("stoq_out_total", 2.0),
                ("stoq_in_flight", 0.0),
                ("stoq_duration_seconds_count", 1.0),
            ] {
                assert_eq!(value(&text, &format!("{family}{labels}")), Some(expected), "{family}{labels}");
            }
            let errors = format!("stoq_errors_total{{kind=\"unavailable\",name=\"same\",role=\"{}\"}}", role.label());
            assert_eq!(value(&text, &errors), Some(1.0));
        }
    }

    #[test]
    fn what_raises_an_alert_at_the_first_error_is_shown_before_it() {
        Component::new(Role::Connector, "fresh");
        Component::new(Role::Plugin, "fresh");
        let text = render();
        let series =
            |kind: &str, role: &str| format!("stoq_errors_total{{kind=\"{kind}\",name=\"fresh\",role=\"{role}\"}}");
        for kind in ["rejected", "misconfigured"] {
            assert_eq!(value(&text, &series(kind, "connector")), Some(0.0), "{kind}");
            assert_eq!(value(&text, &series(kind, "plugin")), None, "{kind}");
        }
    }

    #[test]
    fn plugin_runs() {
        let plugin = Component::new(Role::Plugin, "runs");
        for status in [RunStatus::Ok, RunStatus::Cut, RunStatus::Failed, RunStatus::TimedOut, RunStatus::Killed] {
            plugin.ran(status, Duration::from_millis(2));
        }
        let text = render();
        assert_eq!(value(&text, "stoq_in_total{name=\"runs\",role=\"plugin\"}"), Some(5.0));
        assert_eq!(value(&text, "stoq_out_total{name=\"runs\",role=\"plugin\"}"), Some(2.0));
        for kind in ["failed", "timed_out", "killed"] {
            let series = format!("stoq_errors_total{{kind=\"{kind}\",name=\"runs\",role=\"plugin\"}}");
            assert_eq!(value(&text, &series), Some(1.0));
        }
    }

    /// Names of our metrics in a text.
    fn names(text: &str) -> impl Iterator<Item = &str> {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
        words.filter(|word| word.starts_with("stoq_"))
    }

    #[test]
    fn alerts_and_documents_name_metrics_that_exist() {
        let families = FAMILIES.names();
        let page = include_str!("../../../docs/operations.md");
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut files = vec![root.join("docs/operations.md")];
        for folder in ["deploy/prometheus", "deploy/grafana", "docs/runbooks"] {
            let listed = std::fs::read_dir(root.join(folder)).unwrap();
            files.extend(listed.map(|entry| entry.unwrap().path()));
        }
        assert!(files.len() > 10, "{files:?}");
        for file in files {
            for name in names(&std::fs::read_to_string(&file).unwrap()) {
                let suffixes = ["_count", "_bucket", "_sum"];
                let bare = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
                let known = families.iter().any(|family| family == bare);
                assert!(known, "{}: there is no metric {name}", file.display());
            }
        }
        for name in &families {
            assert!(names(page).any(|named| named == name), "docs/operations.md does not explain {name}");
        }
    }

    #[test]
    fn all_families_are_shown() {
        slot_killed("memory");
        lane("roots", "workers", 7, 2, Some(Duration::from_millis(1_500)));
        scans_open(5);
        plugin_off("yara", true);
        spans_dropped(3);
        let connector = Connector::new("siem");
        connector.offered(7);
        connector.oldest(Some(Duration::from_secs(2)));
        connector.paused(true);
        connector.behind(true);
        connector.routed(5, 1, 4);
        connector.spilled(3);
        connector.returned(2);
        ruleset("yara", None, "old");
        ruleset("yara", Some("old"), "new");
        let text = render();
        assert_eq!(value(&text, "stoq_slot_kills_total{reason=\"memory\"}"), Some(1.0));
        let lane_of =
            |state| format!("stoq_lane_messages{{lane=\"roots\",state=\"{state}\",subscription=\"workers\"}}");
        assert_eq!(value(&text, &lane_of("waiting")), Some(7.0));
        assert_eq!(value(&text, &lane_of("held")), Some(2.0));
        let age = "stoq_lane_oldest_seconds{lane=\"roots\",subscription=\"workers\"}";
        assert_eq!(value(&text, age), Some(1.5));
        lane("roots", "workers", 7, 0, None);
        assert_eq!(value(&render(), age), None, "not known is not nothing");
        assert_eq!(value(&text, "stoq_scans_open"), Some(5.0));
        assert_eq!(value(&text, "stoq_plugin_off{name=\"yara\"}"), Some(1.0));
        assert_eq!(value(&text, "stoq_spans_dropped_total"), Some(3.0));
        assert_eq!(value(&text, "stoq_ruleset{name=\"yara\",ruleset=\"new\"}"), Some(1.0));
        assert_eq!(value(&text, "stoq_ruleset{name=\"yara\",ruleset=\"old\"}"), None);
        for (series, expected) in [
            ("batch_items_sum{name=\"siem\"}", 7.0),
            ("oldest_seconds{name=\"siem\"}", 2.0),
            ("paused{name=\"siem\"}", 1.0),
            ("behind{name=\"siem\"}", 1.0),
            ("routed_total{decision=\"skipped\",name=\"siem\"}", 4.0),
            ("spilled_total{name=\"siem\"}", 3.0),
            ("returned_total{name=\"siem\"}", 2.0),
        ] {
            assert_eq!(value(&text, &format!("stoq_connector_{series}")), Some(expected), "{series}");
        }
        assert!(value(&text, "process_resident_memory_bytes").is_some_and(|bytes| bytes > 0.0));
    }
}
