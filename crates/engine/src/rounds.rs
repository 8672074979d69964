//! One payload's rounds: dispatch, required workers, run, again. Pure code that runs inside a slot.
//!
//! Each round asks all dispatchers, adds what workers of the round before wanted, splits that by required workers, and
//! runs what is ready. External workers that are ready are handed back to the engine, which runs them and returns with
//! what they found.

pub(crate) mod codec;
pub(crate) mod resolve;
pub(crate) mod wire;
mod workload;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use stoq_api::scanner::{Context, Payload, ScanError, Scanner};
use stoq_api::{Finding, FindingKind, Json, NotRun, Run, RunStatus};
use stoq_jail::work::{Item, Wire};

use self::resolve::{Resolution, Wanted, add, resolve};
use self::wire::{Header, Report, State};
use self::workload::Usable;
pub use self::workload::{Rounds, build};
use crate::rules::{self, Facts};

/// Rounds of one payload; far above what required workers and dispatchers can ask for, it stops what goes in circles.
pub const MAX_ROUNDS: u32 = 100;
/// Greatest result of one worker as JSON text, in bytes.
pub const MAX_RESULT: usize = 4 << 20;
/// Errors kept of one plugin on one payload.
pub const MAX_ERRORS: usize = 100;
/// Findings kept of one plugin on one payload.
pub const MAX_FINDINGS: usize = 200;
/// Workers that one plugin may dispatch to.
pub const MAX_DISPATCH: usize = 100;

/// The rounds of one payload while they run.
struct Visit<'a> {
    rounds: &'a Rounds,
    item: &'a Item<'a>,
    header: &'a Header<'a>,
    state: State,
    results: Map<String, Value>,
    done: BTreeSet<String>,
    wanted: Wanted,
    external: Vec<(String, u32, Vec<String>)>,
    errors: Vec<(String, String)>,
    findings: Vec<Finding>,
}

pub(crate) fn visit(rounds: &Rounds, item: &Item<'_>, header: &Header<'_>, wire: &mut dyn Wire) -> Report {
    let state = header.state.as_deref().cloned().unwrap_or_default();
    let mut results = Map::new();
    for run in &state.runs {
        if let Some(json) = &run.result {
            results.insert(run.plugin.clone(), json.value());
        }
    }
    let done = state.runs.iter().map(|run| run.plugin.clone()).collect();
    let mut wanted: Wanted = state.deferred.iter().cloned().collect();
    for (worker, why) in header.wanted.iter() {
        add(&mut wanted, worker, vec![why.clone()]);
    }
    if header.meta.should_scan {
        for worker in &rounds.plan.always {
            add(&mut wanted, worker, vec!["always".to_owned()]);
        }
    }
    let mut visit = Visit {
        rounds,
        item,
        header,
        state,
        results,
        done,
        wanted,
        external: Vec::new(),
        errors: Vec::new(),
        findings: Vec::new(),
    };
    visit.run(wire);
    visit.report()
}

impl Visit<'_> {
    fn run(&mut self, wire: &mut dyn Wire) {
        loop {
            if self.state.round == MAX_ROUNDS {
                let text = format!("Final worker round ({MAX_ROUNDS}) reached, unable to process payload");
                self.errors.push((String::new(), text));
                return;
            }
            self.state.round += 1;
            if self.header.meta.should_scan {
                self.dispatch(wire);
            }
            let round = self.state.round;
            let ready = self.resolve();
            let mut ran = false;
            for (worker, why) in ready {
                if let Some((number, scanner)) = self.rounds.worker(&worker) {
                    ran = true;
                    self.run_worker(&worker, number, &*scanner, why, wire);
                } else {
                    // Counts as done so that no round asks for it again; its run is added by the engine.
                    self.external.push((worker, round, why));
                }
            }
            if !ran {
                // A round in which nothing ran here is not one, unless external workers belong to it.
                if !self.external.iter().any(|(_, r, _)| *r == round) {
                    self.state.round -= 1;
                }
                return;
            }
        }
    }

    /// What is ready, with everything that will never run noted once.
    fn resolve(&mut self) -> Wanted {
        if let Some(allowed) = &self.header.allowed {
            self.wanted.retain(|worker, _| allowed.contains(worker));
        }
        let waiting: BTreeSet<&String> = self.external.iter().map(|(worker, ..)| worker).collect();
        self.wanted.retain(|worker, _| !self.done.contains(worker) && !waiting.contains(worker));
        let settled = &self.state.not_run;
        self.wanted.retain(|worker, _| !settled.iter().any(|n| n.plugin == *worker));
        let Resolution { mut ready, deferred, not_run, errors } = resolve(
            &Usable { rounds: self.rounds, header: self.header },
            std::mem::take(&mut self.wanted),
            &self.done,
            self.rounds.plan.max_required_depth,
        );
        ready.retain(|worker, _| !waiting.contains(worker));
        self.wanted = deferred;
        self.errors.extend(errors);
        self.state.not_run.extend(not_run);
        ready
    }

    fn dispatch(&mut self, wire: &mut dyn Wire) {
        for name in &self.rounds.plan.dispatchers {
            if name == rules::NAME {
                self.apply_rules();
            } else if let Some(reason) = self.header.off.get(name) {
                self.leave_out(name, reason);
            } else {
                self.ask(name, wire);
            }
        }
    }

    /// A dispatcher that is switched off is named once, like a worker.
    fn leave_out(&mut self, name: &str, reason: &str) {
        if !self.state.not_run.iter().any(|not_run| not_run.plugin == name) {
            self.state.not_run.push(NotRun { plugin: name.to_owned(), reason: reason.to_owned() });
        }
    }

    fn apply_rules(&mut self) {
        let facts = Facts {
            size: self.item.content.len() as u64,
            filename: self.header.meta.filename(),
            source: self.header.request_meta.source.as_deref(),
            root: self.header.ancestors.is_empty(),
            results: &self.results,
        };
        let wanted = &mut self.wanted;
        self.rounds.rules.choose(&facts, |worker, rule| add(wanted, worker, vec![format!("rules: {rule}")]));
    }

    fn ask(&mut self, name: &str, wire: &mut dyn Wire) {
        let Some((number, dispatcher)) = self.rounds.dispatcher(name) else { return };
        if self.item.excluded.contains(&number) {
            return;
        }
        wire.starting(number);
        let mut cx = Context::new(wire.sink(), self.rounds.deadline());
        let answer = catch_unwind(AssertUnwindSafe(|| dispatcher.dispatch(&self.payload(), &mut cx)));
        let findings = cx.into_findings();
        self.keep_findings(name, findings);
        match answer {
            Ok(Ok(dispatch)) => {
                for (worker, reason) in dispatch.plugins.into_iter().take(MAX_DISPATCH) {
                    add(&mut self.wanted, &worker, vec![format!("{name}: {reason}")]);
                }
                self.state.keep_from_archive |= dispatch.should_archive == Some(false);
                if !dispatch.meta.is_null() {
                    self.state.dispatch_meta.insert(name.to_owned(), dispatch.meta);
                }
                self.keep_errors(name, dispatch.errors);
            }
            Ok(Err(error)) => self.error_once(name, format!("dispatcher:failed to dispatch: {error}")),
            Err(_) => self.error_once(name, "dispatcher:failed to dispatch: it panicked".to_owned()),
        }
    }

    fn run_worker(&mut self, worker: &str, number: u16, scanner: &dyn Scanner, why: Vec<String>, wire: &mut dyn Wire) {
        let mut run = Run {
            plugin: worker.to_owned(),
            round: self.state.round,
            why,
            status: RunStatus::Ok,
            micros: 0,
            result: None,
        };
        if self.item.excluded.contains(&number) {
            // The supervisor knows why, and says so in the run.
            run.status = RunStatus::Killed;
            self.finish(run);
            return;
        }
        wire.starting(number);
        let started = Instant::now();
        let mut cx = Context::new(wire.sink(), self.rounds.deadline());
        let answer = catch_unwind(AssertUnwindSafe(|| scanner.scan(&self.payload(), &mut cx)));
        run.micros = u64::try_from((started.elapsed() + cx.before()).as_micros()).unwrap_or(u64::MAX);
        let findings = cx.into_findings();
        self.keep_findings(worker, findings);
        match answer {
            Ok(Ok(output)) => {
                self.keep_errors(worker, output.errors);
                for next in output.dispatch_to.into_iter().take(MAX_DISPATCH) {
                    add(&mut self.wanted, &next, vec![format!("dispatch_to of {worker}")]);
                }
                if let Some(value) = output.results {
                    run.result = self.keep_result(worker, value);
                }
            }
            Ok(Err(error)) => run.status = self.failed(worker, &error),
            Err(_) => {
                run.status = RunStatus::Failed;
                self.errors.push((worker.to_owned(), "worker:failed to scan: it panicked".to_owned()));
            }
        }
        self.finish(run);
    }

    fn failed(&mut self, worker: &str, error: &ScanError) -> RunStatus {
        match error {
            ScanError::Spent(_) => {
                // The engine says which budget and how much; here it only ends the plugin.
                RunStatus::Cut
            }
            ScanError::Expired => {
                let detail = format!("{worker} ran out of its time on this payload");
                self.findings.push(Finding::new(FindingKind::PluginLimit, detail).of_plugin(worker));
                RunStatus::TimedOut
            }
            other => {
                self.errors.push((worker.to_owned(), format!("worker:failed to scan: {other}")));
                RunStatus::Failed
            }
        }
    }

    fn keep_result(&mut self, worker: &str, value: Value) -> Option<Json> {
        let json = Json::of(&value);
        if json.get().len() > MAX_RESULT {
            let detail = format!(
                "the result of {worker} has {} bytes, more than {MAX_RESULT}; it was left out",
                json.get().len()
            );
            self.findings.push(Finding::new(FindingKind::PluginLimit, detail).of_plugin(worker));
            return None;
        }
        self.results.insert(worker.to_owned(), value);
        Some(json)
    }

    fn keep_errors(&mut self, plugin: &str, errors: Vec<String>) {
        for error in errors.into_iter().take(MAX_ERRORS) {
            self.error_once(plugin, error);
        }
    }

    fn error_once(&mut self, plugin: &str, text: String) {
        let entry = (plugin.to_owned(), text);
        if !self.errors.contains(&entry) {
            self.errors.push(entry);
        }
    }

    fn keep_findings(&mut self, plugin: &str, findings: Vec<Finding>) {
        for mut finding in findings.into_iter().take(MAX_FINDINGS) {
            finding.plugin.get_or_insert_with(|| plugin.to_owned());
            if !self.findings.contains(&finding) {
                self.findings.push(finding);
            }
        }
    }

    fn finish(&mut self, run: Run) {
        self.done.insert(run.plugin.clone());
        self.state.runs.push(run);
    }

    fn payload(&self) -> Payload<'_> {
        Payload {
            serial: self.item.serial,
            content: self.item.content,
            sha256: Some(self.header.sha256),
            meta: &self.header.meta,
            request_meta: &self.header.request_meta,
            ancestors: &self.header.ancestors,
            dispatch_meta: &self.state.dispatch_meta,
            results: &self.results,
        }
    }

    fn report(mut self) -> Report {
        if self.external.is_empty() {
            // Nothing is coming any more that could release what still waits.
            for (worker, _) in std::mem::take(&mut self.wanted) {
                let reason = match self.rounds.missing_requirement(&worker, &self.done) {
                    Some(required) => format!("it requires {required}, which did not run"),
                    None => "its rounds were used up".to_owned(),
                };
                self.state.not_run.push(NotRun { plugin: worker, reason });
            }
        }
        self.state.deferred = self.wanted.into_iter().collect();
        Report { state: self.state, external: self.external, errors: self.errors, findings: self.findings }
    }
}

/// Names to numbers and back, shared by the workload and the engine.
pub(crate) fn numbers(names: impl Iterator<Item = String>) -> BTreeMap<String, u16> {
    names.zip(0_u16..).collect()
}

/// How long before the jail stops it a plugin is told that its time is over.
pub const DEADLINE_MARGIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
