//! From bytes to an outcome: the visits of a payload to a slot, external workers between them, and archivers at the end.

mod external;
pub(crate) mod report;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use stoq_api::outcome::Edge;
use stoq_api::scanner::Remaining;
use stoq_api::{
    Content, Fault, FaultKind, Finding, FindingKind, Outcome, PackedMeta, PayloadId, PayloadMeta, RunStatus, Sha256,
    Task,
};
use stoq_jail::{Answer, JobItem, StopReason};
use stoq_runtime::metrics::{ErrorKind, Role};

use self::report::{Merged, Pending};
use crate::rounds::codec;
use crate::rounds::wire::{Header, State};
use crate::surroundings::Surroundings;

/// A task with its bytes.
pub struct Fetch {
    /// The task.
    pub task: Task,
    /// Its bytes.
    pub content: Content,
    /// Their digest.
    pub sha256: Sha256,
    /// How they differ from what the reference said.
    pub mismatch: Option<Finding>,
    /// What the scan's budgets leave.
    pub remaining: Remaining,
}

/// A payload that was looked at.
pub struct Examined {
    /// What was found. Its edges name every child that came; the ledger may refuse some.
    pub outcome: Outcome,
    /// The children's bytes, one for each edge.
    pub children: Vec<Content>,
    /// No plugin was stopped: the same bytes would give the same outcome again.
    pub clean: bool,
    /// What later plugins of children may want to know.
    pub hints: Hints,
}

/// What a payload's children are told of it, beyond its id.
#[derive(Clone, Debug, Default)]
pub struct Hints {
    /// Its media type.
    pub mimetype: Option<String>,
    /// The password that opened it: it may open what lies inside as well.
    pub password: Option<String>,
}

/// Examines several payloads, in one request to a slot where they are small, and returns each with its task.
///
/// # Errors
/// The jail could not run anything for longer than a worker waits; that says nothing of the payloads.
pub async fn examine(around: &Surroundings, fetches: Vec<Fetch>) -> Result<Vec<(Task, Examined)>, Fault> {
    let off = around.breaker.off();
    let asked: Vec<Asked> = fetches.iter().map(|fetch| Asked::first(&fetch.task)).collect();
    let visits = || {
        let visited = fetches.iter().zip(&asked).filter(|(fetch, asked)| asked.is_worth_a_visit(&fetch.task));
        visited.map(|(fetch, asked)| item(fetch, asked, &off)).collect()
    };
    let mut answers = run(around, visits).await?.into_iter();
    let mut done = Vec::with_capacity(fetches.len());
    let mut open = Vec::new();
    for (fetch, asked) in fetches.into_iter().zip(asked) {
        let answer = if asked.is_worth_a_visit(&fetch.task) { answers.next() } else { None };
        let mut merged = begin(&fetch);
        let pending = answer.and_then(|answer| merged.take(around, answer, &fetch.remaining, &fetch.task));
        let pending = pending.filter(|pending| !pending.is_nothing());
        if pending.is_none() && !is_archived(around, &fetch.task, &merged.outcome) {
            // Most payloads end here, and none of them is worth a future of its own.
            done.push(Some((fetch.task, finish(around, &off, merged))));
        } else {
            open.push(go_on(around, fetch, &off, merged, pending));
            done.push(None);
        }
    }
    let mut later = futures::future::try_join_all(open).await?.into_iter();
    // As many are open as places are empty.
    Ok(done.into_iter().filter_map(|done| done.or_else(|| later.next())).collect())
}

/// Runs items in slots, made anew for each try, and again while it is the surroundings that fail.
async fn run(around: &Surroundings, items: impl Fn() -> Vec<JobItem>) -> Result<Vec<Answer>, Fault> {
    around
        .patiently("run a slot", || async {
            let items = items();
            if items.is_empty() {
                return Ok(Vec::new());
            }
            let answers = around.runner.run(items).await;
            let mut stops = answers.iter().flat_map(|answer| &answer.stopped);
            match stops.find(|stopped| stopped.reason == StopReason::Unavailable) {
                Some(stopped) => Err(Fault::new(FaultKind::Unavailable, stopped.detail.clone())),
                None => Ok(answers),
            }
        })
        .await
}

/// What a visit of a payload is about, beyond its task.
struct Asked {
    /// Workers wanted from outside, with the reason.
    wanted: Vec<(String, String)>,
    /// Where the rounds stand after earlier visits.
    state: Option<State>,
}

impl Asked {
    /// For the first visit.
    fn first(task: &Task) -> Self {
        let mut wanted = Vec::new();
        if task.payload_meta.should_scan {
            if task.is_root() {
                wanted.extend(task.scan.start_dispatch.iter().map(|w| (w.clone(), "start".to_owned())));
            }
            let origin = |w: &String| (w.clone(), "dispatch_to of its origin".to_owned());
            wanted.extend(task.payload_meta.dispatch_to.iter().map(origin));
        }
        Self { wanted, state: None }
    }

    /// Payloads that lie too deep, or that are not to be scanned and that nobody asked for by name, stay out of the slots.
    fn is_worth_a_visit(&self, task: &Task) -> bool {
        !too_deep(task) && (task.payload_meta.should_scan || !self.wanted.is_empty())
    }
}

fn too_deep(task: &Task) -> bool {
    task.depth > task.scan.budgets.max_depth
}

fn item(fetch: &Fetch, asked: &Asked, off: &BTreeMap<String, String>) -> JobItem {
    let task = &fetch.task;
    let header = Header {
        sha256: fetch.sha256,
        meta: Cow::Borrowed(&task.payload_meta),
        request_meta: Cow::Borrowed(&task.scan.request_meta),
        ancestors: Cow::Borrowed(task.ancestors.as_slice()),
        wanted: Cow::Borrowed(asked.wanted.as_slice()),
        allowed: task.scan.allowed_plugins.as_deref().map(Cow::Borrowed),
        off: Cow::Borrowed(off),
        state: asked.state.as_ref().map(Cow::Borrowed),
    };
    JobItem {
        header: codec::encode_header(&header).into(),
        content: fetch.content.clone(),
        remaining: fetch.remaining,
        tenant: task.scan.tenant.as_deref().map(Into::into),
    }
}

fn begin(fetch: &Fetch) -> Merged {
    let mut merged = Merged::new(fetch.task.payload_id, fetch.sha256, fetch.content.len());
    merged.outcome.findings.extend(fetch.mismatch.clone());
    if too_deep(&fetch.task) {
        merged.too_deep(fetch.task.scan.budgets.max_depth);
    }
    merged
}

/// What is left after the first visit: external workers, the visits that they cause, archivers.
async fn go_on(
    around: &Surroundings,
    fetch: Fetch,
    off: &BTreeMap<String, String>,
    mut merged: Merged,
    mut pending: Option<Pending>,
) -> Result<(Task, Examined), Fault> {
    let task = &fetch.task;
    while let Some(Pending { external, state }) = pending.take() {
        let ran = external::run_all(around, &fetch, external).await;
        let looked_at = ran.iter().any(|run| around.rules.look_at(&run.run.plugin));
        let wanted = merged.take_external(task, ran);
        if looked_at || !state.deferred.is_empty() || !wanted.is_empty() {
            let asked = Asked { wanted, state: Some(merged.state(state)) };
            let answer = run(around, || vec![item(&fetch, &asked, off)]).await?.into_iter().next();
            pending = answer.and_then(|answer| merged.take(around, answer, &fetch.remaining, task));
        }
    }
    let mut examined = finish(around, off, merged);
    archive(around, task, &fetch.content, &mut examined.outcome).await;
    Ok((fetch.task, examined))
}

/// Every plugin has had its say: what each did is counted.
fn finish(around: &Surroundings, off: &BTreeMap<String, String>, merged: Merged) -> Examined {
    let mut examined = merged.finish();
    around.meters.ran(&examined.outcome.runs);
    // What was left out because of this worker's breakers may run elsewhere or later.
    examined.clean &= !examined.outcome.not_run.iter().any(|not_run| off.contains_key(&not_run.plugin));
    for run in &examined.outcome.runs {
        around.breaker.saw(&run.plugin, matches!(run.status, RunStatus::TimedOut | RunStatus::Killed));
    }
    examined
}

fn is_archived(around: &Surroundings, task: &Task, outcome: &Outcome) -> bool {
    let wanted = task.scan.request_meta.archive_payloads && task.payload_meta.should_archive && outcome.should_archive;
    wanted && !around.archivers.is_empty()
}

/// Destination archivers, one after the other: they are few, and each is told what the payload's plugins found.
async fn archive(around: &Surroundings, task: &Task, content: &Content, outcome: &mut Outcome) {
    if !is_archived(around, task, outcome) {
        return;
    }
    let results = crate::assemble::alone(task, outcome);
    for (name, archiver) in &around.archivers {
        let in_hand = around.meters.begin(Role::Archiver, name);
        let kept = around
            .patiently("archive a payload", || archiver.archive(content, &results, &task.scan.request_meta))
            .await;
        match &kept {
            Ok(_) => in_hand.done(1),
            Err(fault) => in_hand.failed(ErrorKind::Fault(fault.kind), 1),
        }
        match kept {
            Ok(said) => outcome.archivers.push(name, said),
            Err(fault) => {
                outcome.archivers.push(name, None);
                outcome.errors.push(error(name, &archive_failed(&fault), task.payload_id));
            }
        }
    }
}

fn archive_failed(fault: &Fault) -> String {
    format!("archiver:failed to archive: {}", stoq_api::fault::chain(fault))
}

pub(crate) fn error(plugin: &str, text: &str, payload: PayloadId) -> stoq_api::ErrorEntry {
    stoq_api::ErrorEntry {
        error: text.to_owned(),
        plugin_name: (!plugin.is_empty()).then(|| plugin.to_owned()),
        payload_id: Some(payload),
    }
}

/// The outcome of a payload that could not be fetched.
pub fn unfetched(task: &Task, finding: Finding) -> Outcome {
    let mut outcome = Outcome::empty(task.payload_id, None, task.size);
    outcome.errors.push(error("", &format!("unable to read payload: {}", finding.detail), task.payload_id));
    outcome.findings.push(finding);
    outcome
}

/// The outcome of a payload that was given up.
pub fn given_up(task: &Task, attempts: u32) -> Outcome {
    let detail =
        format!("given up after {attempts} attempts: the worker died or lost its surroundings on each of them");
    let mut outcome = Outcome::empty(task.payload_id, task.sha256, task.size);
    outcome.errors.push(error("", &format!("unable to process payload: {detail}"), task.payload_id));
    outcome.findings.push(Finding::new(FindingKind::Quarantined, detail));
    outcome
}

/// An edge to a child as it was received.
pub(crate) fn edge(task: &Task, plugin: Arc<str>, ordinal: u32, meta: PackedMeta, sha256: Sha256, size: u64) -> Edge {
    let PayloadMeta { should_scan, dispatch_to, .. } = meta.get();
    let child = PayloadId::child(task.scan_id, &sha256, should_scan, &dispatch_to);
    Edge { child, plugin, ordinal, sha256, size, meta }
}
