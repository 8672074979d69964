//! The workload that slots run: plugins built from a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use stoq_api::scanner::{Built, Dispatcher, Registration, Scanner, Upcoming};
use stoq_jail::work::{Hello, Item, Wire, Workload};

use super::codec;
use super::resolve::Known;
use super::wire::{Header, Report};
use crate::plan::{Plan, PlanReport, PlannedPlugin};
use crate::rules::{self, Rules};

/// All plugins of a plan, ready to run.
pub struct Rounds {
    pub(super) plan: Plan,
    pub(super) rules: Rules,
    plugins: Vec<Ready>,
    numbers: BTreeMap<String, u16>,
    /// Plugins that run on every payload and can look at several side by side.
    ahead: Vec<u16>,
}

struct Ready {
    scanner: Option<Arc<dyn Scanner>>,
    dispatcher: Option<Arc<dyn Dispatcher>>,
    required: BTreeSet<String>,
}

/// Builds the workload of a plan from a registry of plugins.
///
/// # Errors
/// The configuration is not a plan, names a plugin that the registry does not have, or a plugin cannot be built; one
/// sentence for each.
pub fn build(config: &[u8], registry: &[Registration]) -> Result<Hello, String> {
    let plan: Plan = serde_json::from_slice(config).map_err(|e| format!("the plan cannot be read: {e}"))?;
    let rules = Rules::compile(&plan.rules).map_err(|problems| problems.join("; "))?;
    if plan.dispatchers.iter().any(|name| name == rules::NAME) {
        rules.prepare();
    }
    let mut report = PlanReport::default();
    let mut plugins = Vec::new();
    for planned in &plan.plugins {
        let registration = registry
            .iter()
            .find(|r| r.info.name == planned.name)
            .ok_or_else(|| format!("there is no plugin named {}", planned.name))?;
        let built = (registration.build)(&planned.build).map_err(|e| format!("plugin {}: {e}", planned.name))?;
        plugins.push(ready(registration, built, planned, &mut report));
    }
    let numbers = super::numbers(plan.plugins.iter().map(|p| p.name.clone()));
    let ahead = plan.always.iter().filter_map(|name| numbers.get(name).copied()).filter(|number| {
        let scanner = plugins[usize::from(*number)].scanner.as_ref();
        scanner.is_some_and(|scanner| scanner.ahead().is_some())
    });
    let ahead = ahead.collect();
    let rounds = Rounds { plan, rules, plugins, numbers, ahead };
    let message = serde_json::to_vec(&report).map_err(|e| e.to_string())?;
    Ok(Hello { workload: Box::new(rounds), message })
}

fn ready(registration: &Registration, built: Built, planned: &PlannedPlugin, report: &mut PlanReport) -> Ready {
    let name = &planned.name;
    let mut required = built.required_workers;
    required.extend(planned.required_workers.iter().cloned());
    required.extend(registration.info.required_workers.iter().map(|r| (*r).to_owned()));
    report.warnings.extend(built.warnings.into_iter().map(|w| (name.clone(), w)));
    if let Some(digest) = built.ruleset {
        report.rulesets.insert(name.clone(), digest);
    }
    Ready { scanner: built.scanner, dispatcher: built.dispatcher, required }
}

impl Rounds {
    pub(super) fn worker(&self, name: &str) -> Option<(u16, Arc<dyn Scanner>)> {
        let number = *self.numbers.get(name)?;
        let scanner = self.plugins[usize::from(number)].scanner.as_ref()?;
        Some((number, Arc::clone(scanner)))
    }

    pub(super) fn dispatcher(&self, name: &str) -> Option<(u16, Arc<dyn Dispatcher>)> {
        let number = *self.numbers.get(name)?;
        let dispatcher = self.plugins[usize::from(number)].dispatcher.as_ref()?;
        Some((number, Arc::clone(dispatcher)))
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        Instant::now().checked_add(Duration::from_millis(self.plan.plugin_deadline_ms))
    }

    pub(super) fn missing_requirement(&self, worker: &str, done: &BTreeSet<String>) -> Option<&str> {
        self.required(worker)?.iter().find(|name| !done.contains(*name)).map(String::as_str)
    }
}

impl Rounds {
    fn required(&self, worker: &str) -> Option<&BTreeSet<String>> {
        match self.worker(worker) {
            Some((number, _)) => Some(&self.plugins[usize::from(number)].required),
            None => self.plan.external.get(worker).map(|external| &external.required_workers),
        }
    }
}

/// The workers of a plan, as one payload may use them.
pub(super) struct Usable<'a> {
    pub(super) rounds: &'a Rounds,
    pub(super) header: &'a Header<'a>,
}

impl Known for Usable<'_> {
    fn required(&self, worker: &str) -> Option<&BTreeSet<String>> {
        self.rounds.required(worker)
    }

    fn off(&self, worker: &str) -> Option<&str> {
        self.header.off.get(worker).map(String::as_str)
    }
}

impl Workload for Rounds {
    /// Few payloads are not scanned by what runs always, and which ones is not worth reading their headers twice.
    fn ahead(&self, items: &[Item<'_>], starting: &mut dyn FnMut(u16)) {
        for number in &self.ahead {
            let upcoming = items.iter().filter(|item| !item.excluded.contains(number));
            let upcoming: Vec<_> =
                upcoming.map(|item| Upcoming { serial: item.serial, content: item.content }).collect();
            starting(*number);
            if let Some(ahead) = self.plugins[usize::from(*number)].scanner.as_ref().and_then(|plugin| plugin.ahead()) {
                // It does without when its turn comes.
                catch_unwind(AssertUnwindSafe(|| ahead.look(&upcoming))).ok();
            }
        }
    }

    fn run(&self, item: &Item<'_>, wire: &mut dyn Wire) -> Vec<u8> {
        // The engine wrote the header; if it cannot be read the answer is an empty report, which the engine refuses.
        let Some(header) = codec::decode_header(item.header) else { return Vec::new() };
        let report: Report = super::visit(self, item, &header, wire);
        codec::encode(report)
    }
}
