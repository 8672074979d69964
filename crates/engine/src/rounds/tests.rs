//! Rounds over plugins made for the purpose: who runs, when, why, and what is said of those that do not.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;
use stoq_api::PayloadMeta;
use stoq_api::scanner::{
    Ahead, Build, BuildError, Built, Dispatch, Dispatcher, Output, PluginInfo, Registration, Remaining, Scanner, Sink,
    Spent, Upcoming,
};
use stoq_jail::work::Workload;

use super::*;
use crate::plan::{ExternalPlugin, Plan, PlannedPlugin};

/// A worker whose options say how it behaves.
struct Scripted(Map<String, Value>);

impl Scanner for Scripted {
    fn scan(&self, payload: &Payload<'_>, cx: &mut Context<'_>) -> Result<Output, ScanError> {
        if self.0.contains_key("panic") {
            panic!("as told");
        }
        if let Some(text) = self.0.get("fail").and_then(Value::as_str) {
            return Err(ScanError::failed(text));
        }
        for number in 0..self.0.get("children").and_then(Value::as_u64).unwrap_or(0) {
            cx.emit(format!("child {number}").as_bytes(), PayloadMeta::default())?;
        }
        let seen: Vec<&String> = payload.results.keys().collect();
        let dispatch_to = self.0.get("dispatch_to").and_then(Value::as_str).map(str::to_owned).into_iter().collect();
        Ok(Output { results: Some(json!({ "saw": seen })), errors: Vec::new(), dispatch_to })
    }

    fn ahead(&self) -> Option<&dyn Ahead> {
        self.0.contains_key("ahead").then_some(self)
    }
}

/// The sum of the serials that plugins were told ahead.
static LOOKED: AtomicU64 = AtomicU64::new(0);

impl Ahead for Scripted {
    fn look(&self, upcoming: &[Upcoming<'_>]) {
        LOOKED.fetch_add(upcoming.iter().map(|payload| payload.serial).sum(), Ordering::Relaxed);
        assert!(!self.0.contains_key("panic"), "as told");
    }
}

impl Dispatcher for Scripted {
    fn dispatch(&self, payload: &Payload<'_>, _: &mut Context<'_>) -> Result<Dispatch, ScanError> {
        let name = self.0.get("choose").and_then(Value::as_str).unwrap_or_default();
        let plugins = if payload.content.starts_with(b"MZ") { vec![(name.into(), "rule exe".into())] } else { vec![] };
        Ok(Dispatch { plugins, meta: json!({ "asked": true }), should_archive: Some(false), errors: Vec::new() })
    }
}

fn scripted(build: &Build) -> Result<Built, BuildError> {
    let required = build.options.get("requires").and_then(Value::as_str).map(str::to_owned);
    let plugin = std::sync::Arc::new(Scripted(build.options.clone()));
    Ok(Built {
        scanner: Some(plugin.clone()),
        dispatcher: build.options.contains_key("choose").then_some(plugin as _),
        required_workers: required.into_iter().collect(),
        ..Built::default()
    })
}

const NAMES: &[&str] = &["a", "b", "c", "d"];

fn registry() -> Vec<Registration> {
    NAMES
        .iter()
        .map(|name| Registration {
            info: PluginInfo { name, description: "", kinds: &[], options: &[], required_workers: &[] },
            build: scripted,
        })
        .collect()
}

#[derive(Default)]
struct TestWire {
    children: u64,
    left: Option<u64>,
}

impl Sink for TestWire {
    fn remaining(&self) -> Remaining {
        Remaining { children: self.left.unwrap_or(u64::MAX), bytes: u64::MAX }
    }
    fn open(&mut self, _: PayloadMeta) -> std::io::Result<()> {
        if self.left.is_some_and(|left| self.children >= left) {
            return Err(Spent(stoq_api::SpentKind::Payloads).into_io());
        }
        self.children += 1;
        Ok(())
    }
    fn write(&mut self, _: &[u8]) -> std::io::Result<()> {
        Ok(())
    }
    fn close(&mut self, _: bool) -> std::io::Result<()> {
        Ok(())
    }
}

impl Wire for TestWire {
    fn starting(&mut self, _: u16) {}
    fn sink(&mut self) -> &mut dyn Sink {
        self
    }
}

/// Rounds over plugins a, b, … with these options; `external` are workers outside.
fn plan(options: &[Value], always: &[&str], external: &[&str]) -> Plan {
    Plan {
        plugins: NAMES
            .iter()
            .zip(options)
            .map(|(name, options)| PlannedPlugin {
                name: (*name).to_owned(),
                build: Build { options: options.as_object().unwrap().clone(), files: Vec::new() },
                required_workers: BTreeSet::new(),
            })
            .collect(),
        external: external.iter().map(|name| ((*name).to_owned(), ExternalPlugin::default())).collect(),
        always: always.iter().map(|name| (*name).to_owned()).collect(),
        dispatchers: Vec::new(),
        rules: BTreeMap::new(),
        max_required_depth: 10,
        plugin_deadline_ms: 60_000,
    }
}

struct Case {
    plan: Plan,
    header: Header<'static>,
    excluded: Vec<u16>,
    wire: TestWire,
}

impl Case {
    fn new(plan: Plan) -> Self {
        let header = Header {
            sha256: stoq_api::Sha256::of(b""),
            off: Cow::default(),
            meta: Cow::default(),
            request_meta: Cow::default(),
            ancestors: Cow::default(),
            wanted: Cow::default(),
            allowed: None,
            state: None,
        };
        Self { plan, header, excluded: Vec::new(), wire: TestWire::default() }
    }

    fn run(mut self, content: &[u8]) -> Report {
        let hello = build(&serde_json::to_vec(&self.plan).unwrap(), &registry()).unwrap();
        self.header.sha256 = stoq_api::Sha256::of(content);
        let header = codec::encode_header(&self.header);
        let item = Item { serial: 0, header: &header, content, excluded: &self.excluded };
        let workload: Box<dyn Workload> = hello.workload;
        codec::decode(&workload.run(&item, &mut self.wire)).unwrap()
    }
}

fn runs(report: &Report) -> Vec<(u32, &str, RunStatus)> {
    report.state.runs.iter().map(|run| (run.round, run.plugin.as_str(), run.status)).collect()
}

use RunStatus::{Cut, Failed, Killed, Ok as Fine};

#[test]
fn what_is_switched_off_is_left_out_and_said() {
    let mut case = Case::new(plan(&[json!({}), json!({ "requires": "c" }), json!({})], &["a", "b"], &["a"]));
    case.header.off.to_mut().insert("c".to_owned(), "it is off".to_owned());
    let report = case.run(b"x");
    assert_eq!(runs(&report), [(1, "a", Fine)]);
    let not_run: Vec<(&str, &str)> =
        report.state.not_run.iter().map(|n| (n.plugin.as_str(), n.reason.as_str())).collect();
    assert_eq!(not_run, [("b", "b requires the worker c, which did not run: it is off")]);
}

#[test]
fn required_workers_run_in_earlier_rounds_and_are_seen() {
    let case = Case::new(plan(&[json!({ "requires": "b" }), json!({ "requires": "c" }), json!({})], &["a"], &[]));
    let report = case.run(b"x");
    assert_eq!(runs(&report), [(1, "c", Fine), (2, "b", Fine), (3, "a", Fine)]);
    assert_eq!(report.state.runs[0].why, ["required by b"]);
    assert_eq!(report.state.runs[2].result.as_ref().unwrap().get(), r#"{"saw":["c","b"]}"#);
}

#[test]
fn additional_dispatch_takes_the_next_round_and_runs_once() {
    let case = Case::new(plan(&[json!({ "dispatch_to": "b" }), json!({ "dispatch_to": "a" })], &["a"], &[]));
    assert_eq!(runs(&case.run(b"x")), [(1, "a", Fine), (2, "b", Fine)]);
}

#[test]
fn dispatchers_choose_say_why_and_keep_from_the_archive() {
    let mut plan = plan(&[json!({ "choose": "b" }), json!({})], &[], &[]);
    plan.dispatchers = vec!["a".into()];
    let report = Case::new(plan.clone()).run(b"MZ");
    assert_eq!(runs(&report), [(1, "b", Fine)]);
    assert_eq!(report.state.runs[0].why, ["a: rule exe"]);
    assert!(report.state.keep_from_archive);
    assert_eq!(report.state.dispatch_meta["a"], json!({ "asked": true }));
    assert!(Case::new(plan).run(b"text").state.runs.is_empty());
}

#[test]
fn rules_react_to_results_of_earlier_rounds() {
    let mut plan = plan(&[json!({}), json!({})], &["a"], &[]);
    plan.dispatchers = vec!["rules".into()];
    plan.rules = serde_json::from_value(json!({
        "after a": { "run": ["b"], "when": { "result": [{ "path": "a.saw" }] } }
    }))
    .unwrap();
    let report = Case::new(plan).run(b"x");
    assert_eq!(runs(&report), [(1, "a", Fine), (2, "b", Fine)]);
    assert_eq!(report.state.runs[1].why, ["rules: after a"]);
}

#[test]
fn a_payload_that_should_not_be_scanned_gets_what_was_asked_for_by_name() {
    let mut case = Case::new(plan(&[json!({}), json!({})], &["a"], &[]));
    case.header.meta.to_mut().should_scan = false;
    case.header.wanted.to_mut().push(("b".into(), "asked".into()));
    assert_eq!(runs(&case.run(b"x")), [(1, "b", Fine)]);
}

#[test]
fn failures_and_panics_are_the_plugins_own() {
    let case =
        Case::new(plan(&[json!({ "fail": "not mine" }), json!({ "panic": 1 }), json!({})], &["a", "b", "c"], &[]));
    let report = case.run(b"x");
    assert_eq!(runs(&report), [(1, "a", Failed), (1, "b", Failed), (1, "c", Fine)]);
    assert_eq!(
        report.errors,
        [
            ("a".to_owned(), "worker:failed to scan: not mine".to_owned()),
            ("b".to_owned(), "worker:failed to scan: it panicked".to_owned())
        ]
    );
}

#[test]
fn a_spent_budget_cuts_extractors_and_nobody_else() {
    let mut case =
        Case::new(plan(&[json!({ "children": 5 }), json!({ "children": 1 }), json!({})], &["a", "b", "c"], &[]));
    case.wire.left = Some(3);
    assert_eq!(runs(&case.run(b"x")), [(1, "a", Cut), (1, "b", Cut), (1, "c", Fine)]);
}

#[test]
fn excluded_plugins_count_as_run_and_release_those_that_wait() {
    let mut case = Case::new(plan(&[json!({ "requires": "b" }), json!({})], &["a"], &[]));
    case.excluded = vec![1];
    assert_eq!(runs(&case.run(b"x")), [(1, "b", Killed), (2, "a", Fine)]);
}

#[test]
fn what_cannot_run_is_said() {
    let case = Case::new(plan(&[json!({ "requires": "gone" }), json!({})], &["a", "b", "nobody"], &[]));
    let report = case.run(b"x");
    assert_eq!(runs(&report), [(1, "b", Fine)]);
    let not_run: BTreeSet<&str> = report.state.not_run.iter().map(|n| n.plugin.as_str()).collect();
    assert_eq!(not_run, BTreeSet::from(["a", "nobody"]));
    assert_eq!(report.errors.len(), 2, "{:?}", report.errors);
}

#[test]
fn allowed_plugins_bound_everything() {
    let mut case = Case::new(plan(&[json!({}), json!({})], &["a", "b"], &[]));
    case.header.allowed = Some(Cow::Owned(vec!["b".into()]));
    assert_eq!(runs(&case.run(b"x")), [(1, "b", Fine)]);
}

#[test]
fn external_workers_are_handed_back_and_release_others_on_the_next_visit() {
    let mut plan = plan(&[json!({ "requires": "tool" }), json!({})], &["a", "b"], &["tool"]);
    plan.external.insert("tool".into(), ExternalPlugin { required_workers: BTreeSet::from(["b".to_owned()]) });
    let first = Case::new(plan.clone()).run(b"x");
    assert_eq!(runs(&first), [(1, "b", Fine)]);
    assert_eq!(first.external, [("tool".to_owned(), 2, vec!["required by a".to_owned()])]);
    let mut state = first.state;
    state.runs.push(Run {
        plugin: "tool".into(),
        round: 2,
        why: Vec::new(),
        status: Fine,
        micros: 0,
        result: Some(Json::of(&json!({ "x": 1 }))),
    });
    let mut case = Case::new(plan);
    case.header.state = Some(Cow::Owned(state));
    let second = case.run(b"x");
    assert_eq!(runs(&second), [(1, "b", Fine), (2, "tool", Fine), (3, "a", Fine)]);
    assert_eq!(second.state.runs[2].result.as_ref().unwrap().get(), r#"{"saw":["b","tool"]}"#);
    assert!(second.external.is_empty() && second.state.deferred.is_empty());
}

#[test]
fn what_runs_always_looks_ahead_at_what_it_may_run_on() {
    let plan = plan(
        &[json!({ "ahead": true }), json!({ "ahead": true, "panic": true }), json!({}), json!({ "ahead": true })],
        &["a", "b", "c"],
        &[],
    );
    let workload = build(&serde_json::to_vec(&plan).unwrap(), &registry()).unwrap().workload;
    let item = |serial, excluded| Item { serial, header: b"", content: b"x", excluded };
    let mut started = Vec::new();
    workload.ahead(&[item(1, &[]), item(10, &[1]), item(100, &[0])], &mut |plugin| started.push(plugin));
    assert_eq!(started, [0, 1]);
    assert_eq!(LOOKED.load(Ordering::Relaxed), 11 + 101);
}
