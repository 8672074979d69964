//! What slots said, merged into one outcome. Nothing a slot says is taken further than it can be checked.

use std::collections::BTreeMap;
use std::sync::Arc;

use stoq_api::budget::SpentKind;
use stoq_api::scanner::Remaining;
use stoq_api::{Content, Finding, FindingKind, Outcome, PackedMeta, PayloadId, Run, RunStatus, Sha256, Task};
use stoq_jail::{Answer, StopReason, Stopped};

use super::external::ExternalRun;
use super::{Examined, Hints, edge, error};
use crate::rounds::wire::{Report, State};
use crate::rounds::{MAX_ERRORS, MAX_FINDINGS, MAX_ROUNDS, codec};
use crate::surroundings::Surroundings;

/// Characters of a text that a slot said, beyond which it is cut.
const MAX_TEXT: usize = 4_000;
/// Characters of a hint for children.
const MAX_HINT: usize = 128;
/// Reasons for one run.
const MAX_WHY: usize = 50;

/// An outcome in the making.
pub(super) struct Merged {
    pub(super) outcome: Outcome,
    children: Vec<Content>,
    /// How many children there are of each plugin.
    ordinals: BTreeMap<Arc<str>, u32>,
    clean: bool,
}

/// What is left to do for a payload after a visit.
pub(super) struct Pending {
    pub(super) external: Vec<(String, u32, Vec<String>)>,
    pub(super) state: State,
}

impl Pending {
    /// Nothing but what was said already.
    pub(super) fn is_nothing(&self) -> bool {
        self.external.is_empty() && self.state.deferred.is_empty()
    }
}

impl Merged {
    pub(super) fn new(payload: PayloadId, sha256: Sha256, size: u64) -> Self {
        Self {
            outcome: Outcome::empty(payload, Some(sha256), size),
            children: Vec::new(),
            ordinals: BTreeMap::new(),
            clean: true,
        }
    }

    pub(super) fn too_deep(&mut self, max_depth: u16) {
        // stoQ's text, with the depth where stoQ had the number of rounds.
        let text = format!("Final worker round ({max_depth}) reached, unable to process payload");
        self.outcome.errors.push(error("", &text, self.outcome.payload_id));
        let detail = format!("the payload lies deeper than {max_depth} (budgets.max_depth) and was not scanned");
        self.outcome.findings.push(Finding::new(FindingKind::DepthLimit, detail));
    }

    /// Takes a slot's answer in. `None` if the payload is finished.
    pub(super) fn take(
        &mut self,
        around: &Surroundings,
        answer: Answer,
        left: &Remaining,
        task: &Task,
    ) -> Option<Pending> {
        let report = answer.report.as_deref().and_then(codec::decode);
        let had_report = answer.report.is_some();
        let came = answer.children.len() as u64;
        // Nearly always all that ever come; what grows by doubling holds up to three times as much while it does.
        self.outcome.edges.reserve_exact(answer.children.len());
        self.children.reserve_exact(answer.children.len());
        for child in answer.children {
            if let Some(plugin) = around.plugin_name(child.plugin) {
                self.child(task, plugin, child.meta, child.content, child.sha256);
            }
        }
        let Some(report) = report else {
            self.clean = false;
            if had_report {
                let detail = "a slot answered something that is not a report; its answer was not used";
                self.outcome.findings.push(Finding::new(FindingKind::PluginStopped, detail));
            }
            self.stopped(around, &answer.stopped);
            return None;
        };
        let pending = self.report(around, report);
        self.stopped(around, &answer.stopped);
        if self.outcome.runs.iter().any(|run| run.status == RunStatus::Cut) {
            self.spent(left, came, task);
        }
        Some(pending)
    }

    /// Takes in what external workers said, and returns the workers they want.
    pub(super) fn take_external(&mut self, task: &Task, asked: Vec<ExternalRun>) -> Vec<(String, String)> {
        let mut wanted = Vec::new();
        for ExternalRun { run, output } in asked {
            let plugin = run.plugin.clone();
            self.clean &= matches!(run.status, RunStatus::Ok | RunStatus::Failed);
            self.outcome.runs.push(run);
            for text in output.errors.iter().take(MAX_ERRORS) {
                self.outcome.errors.push(error(&plugin, &cut(text), self.outcome.payload_id));
            }
            self.outcome.findings.extend(output.findings.into_iter().take(MAX_FINDINGS));
            wanted.extend(output.dispatch_to.into_iter().map(|w| (w, format!("dispatch_to of {plugin}"))));
            for (content, meta) in output.children {
                if let Ok(sha256) = content.sha256() {
                    self.child(task, &plugin, PackedMeta::from(&meta), content, sha256);
                }
            }
        }
        wanted
    }

    /// The state for the next visit, with what external workers added.
    pub(super) fn state(&self, state: State) -> State {
        State { runs: self.outcome.runs.clone(), ..state }
    }

    pub(super) fn finish(mut self) -> Examined {
        self.outcome.runs.sort_by(|a, b| (a.round, &a.plugin).cmp(&(b.round, &b.plugin)));
        self.outcome.not_run.sort_by(|a, b| a.plugin.cmp(&b.plugin));
        self.outcome.errors.sort();
        self.outcome.errors.dedup();
        // Nobody is told anything if nothing came out of the payload.
        let hints = if self.children.is_empty() {
            Hints::default()
        } else {
            Hints { mimetype: self.said("mimetype", "mimetype"), password: self.said("decompress", "password") }
        };
        Examined { outcome: self.outcome, children: self.children, clean: self.clean, hints }
    }

    /// A text in a worker's result.
    fn said(&self, worker: &str, member: &str) -> Option<String> {
        let run = self.outcome.runs.iter().find(|run| run.plugin == worker)?;
        let value = run.result.as_ref()?.value();
        Some(value.get(member)?.as_str()?.chars().take(MAX_HINT).collect())
    }

    fn child(&mut self, task: &Task, plugin: &str, meta: PackedMeta, content: Content, sha256: Sha256) {
        let known = self.ordinals.get_key_value(plugin).map(|(name, _)| Arc::clone(name));
        let plugin = known.unwrap_or_else(|| plugin.into());
        let ordinal = self.ordinals.entry(Arc::clone(&plugin)).or_default();
        self.outcome.edges.push(edge(task, plugin, *ordinal, meta, sha256, content.len()));
        *ordinal += 1;
        self.children.push(content);
    }

    /// Keeps of a report what names plugins that exist, and cuts what is too long.
    fn report(&mut self, around: &Surroundings, report: Report) -> Pending {
        let known = |name: &str| around.plugins.iter().any(|p| p == name) || around.externals.contains_key(name);
        let Report { mut state, mut external, errors, findings } = report;
        // Runs of earlier visits come again with each report, and go back from here.
        for mut run in std::mem::take(&mut state.runs) {
            let ran = self.outcome.runs.iter().any(|r| r.plugin == run.plugin);
            if !ran && run.round <= MAX_ROUNDS && known(&run.plugin) {
                run.why.truncate(MAX_WHY);
                run.why.iter_mut().for_each(cut_in_place);
                self.outcome.runs.push(run);
            }
        }
        let payload = self.outcome.payload_id;
        let most = MAX_ERRORS * (around.plugins.len() + 1);
        self.outcome
            .errors
            .extend(errors.iter().take(most).map(|(plugin, text)| error(&cut(plugin), &cut(text), payload)));
        for mut finding in findings.into_iter().take(MAX_FINDINGS * (around.plugins.len() + 1)) {
            cut_in_place(&mut finding.detail);
            self.outcome.findings.push(finding);
        }
        for not_run in state.not_run.iter().take(MAX_ERRORS) {
            if !self.outcome.not_run.contains(not_run) {
                self.outcome.not_run.push(not_run.clone());
            }
        }
        self.outcome.should_archive &= !state.keep_from_archive;
        external.retain(|(worker, round, _)| {
            around.externals.contains_key(worker)
                && *round <= MAX_ROUNDS
                && !self.outcome.runs.iter().any(|run| run.plugin == *worker)
        });
        external.sort();
        external.dedup_by(|a, b| a.0 == b.0);
        Pending { external, state }
    }

    fn stopped(&mut self, around: &Surroundings, stopped: &[Stopped]) {
        for stop in stopped {
            let plugin = stop.plugin.and_then(|number| around.plugin_name(number)).unwrap_or_default();
            self.clean = false;
            if stop.reason == StopReason::Budget {
                let detail = format!("more children came than the scan's budgets leave: {}", cut(&stop.detail));
                self.outcome.findings.push(Finding::new(FindingKind::PayloadLimit, detail).of_plugin(plugin));
            } else {
                let detail = cut(&stop.detail);
                let text = format!("worker:failed to scan: stopped: {detail}");
                self.outcome.errors.push(error(plugin, &text, self.outcome.payload_id));
                let mut finding = Finding::new(FindingKind::PluginStopped, detail);
                finding.plugin = (!plugin.is_empty()).then(|| plugin.to_owned());
                self.outcome.findings.push(finding);
            }
            let status = if stop.reason == StopReason::Time { RunStatus::TimedOut } else { RunStatus::Killed };
            match self.outcome.runs.iter_mut().find(|run| run.plugin == plugin) {
                Some(run) => run.status = status,
                None if plugin.is_empty() => {}
                None => self.outcome.runs.push(Run {
                    plugin: plugin.to_owned(),
                    round: 1,
                    why: Vec::new(),
                    status,
                    micros: 0,
                    result: None,
                }),
            }
        }
    }

    /// Says which budget cut a plugin short.
    fn spent(&mut self, left: &Remaining, came: u64, task: &Task) {
        let budgets = &task.scan.budgets;
        let kind = if came >= left.children {
            SpentKind::Payloads
        } else if budgets.bytes_allowed(task.root_bytes()) == budgets.max_bytes {
            SpentKind::Bytes
        } else {
            SpentKind::Expansion
        };
        self.outcome.findings.push(budget_finding(kind, task));
    }
}

/// A spent budget as a finding.
pub(crate) fn budget_finding(kind: SpentKind, task: &Task) -> Finding {
    let budgets = &task.scan.budgets;
    match kind {
        SpentKind::Payloads => Finding::new(
            FindingKind::PayloadLimit,
            format!(
                "the scan may have {} payloads (budgets.max_payloads); further children were left out",
                budgets.max_payloads
            ),
        ),
        SpentKind::Bytes => Finding::new(
            FindingKind::ByteLimit,
            format!(
                "the scan may extract {} bytes (budgets.max_bytes); further children were left out",
                budgets.max_bytes
            ),
        ),
        SpentKind::Expansion => Finding::new(
            FindingKind::ExpansionLimit,
            format!(
                "the scan may extract {} times its root's {} bytes (budgets.max_expansion), at least {} bytes; further children were left out",
                budgets.max_expansion,
                task.root_bytes(),
                budgets.expansion_floor
            ),
        ),
        SpentKind::Depth => Finding::new(FindingKind::DepthLimit, format!("depth {} is the limit", budgets.max_depth)),
        SpentKind::Time => Finding::new(FindingKind::TimeLimit, format!("{} s are the limit", budgets.max_seconds)),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

/// The same, without a copy of what is short enough.
fn cut_in_place(text: &mut String) {
    // No text has more characters than bytes.
    if text.len() > MAX_TEXT
        && let Some((at, _)) = text.char_indices().nth(MAX_TEXT)
    {
        text.truncate(at);
    }
}
