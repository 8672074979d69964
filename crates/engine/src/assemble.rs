//! A frozen scan becomes a response. Pure: whoever assembles it, however often, gets the same bytes.

mod arrange;
mod errors;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::Arc;

use serde::Deserialize;
use stoq_api::ledger::{Completeness, FrozenScan, Kept};
use stoq_api::response::{EngineInfo, PayloadResults, PluginsRun, RunInfo};
use stoq_api::task::ScanHead;
use stoq_api::{
    ErrorEntry, Fault, FaultKind, Finding, FindingKind, Json, Named, NotRun, Outcome, PayloadId, PayloadMeta, Response,
    Run, Sha256, Task,
};

use self::arrange::{Arranged, Place};
use self::errors::Errors;

/// What a payload takes in a response beside its outcome's text, at a guess: ids, metadata, names of plugins.
const PLACE_BYTES: usize = 512;

/// A frozen scan on its way to a response, one payload at a time.
pub struct Assembly {
    arranged: Arranged,
    /// How many payloads were handed out.
    done: usize,
    /// Everything but the payloads.
    frame: Response<Errors>,
    /// About how long the JSON will be.
    bytes: usize,
}

impl Assembly {
    /// Puts the payloads of a frozen scan in order. Blocks where outcomes are read from files.
    ///
    /// # Errors
    /// An outcome cannot be read.
    pub fn new(scan: FrozenScan, engine: &Arc<EngineInfo>) -> Result<Self, Fault> {
        let texts: u64 = scan.outcomes.iter().map(Kept::text_len).sum();
        let mut arranged = Arranged::new(scan.scan_id, Arc::clone(&scan.head), scan.outcomes)?;
        let mut errors = std::mem::take(&mut arranged.errors);
        errors.sort();
        let mut findings = Vec::new();
        let mut missing = scan.missing;
        if scan.completeness == Completeness::Partial {
            findings.push(out_of_time(&scan.head, missing.len()));
        } else {
            // What a ledger says of completeness is worth no more than its memory: a payload that another one names, and
            // of which there is nothing, was not scanned.
            missing = arranged.lost().collect();
            if !missing.is_empty() {
                tracing::error!(scan = %scan.scan_id, count = missing.len(), "the ledger calls a scan complete that is not");
                findings.push(forgotten(missing.len()));
            }
        }
        let complete = scan.completeness == Completeness::Complete && missing.is_empty();
        errors.extend(missing.iter().copied().collect::<BTreeSet<_>>().into_iter().map(missing_error));
        let frame = Response {
            results: Vec::new(),
            time: scan.head.first_seen.iso(),
            request_meta: scan.head.request_meta.clone(),
            errors,
            decorators: Named::default(),
            scan_id: scan.scan_id,
            complete,
            findings,
            engine: Arc::clone(engine),
            tenant: scan.head.tenant.clone(),
            replay_of: scan.head.replay_of,
        };
        let bytes =
            usize::try_from(texts).unwrap_or(usize::MAX).saturating_add(arranged.len().saturating_mul(PLACE_BYTES));
        Ok(Self { arranged, done: 0, frame, bytes })
    }

    /// The whole response in memory.
    ///
    /// # Errors
    /// An outcome cannot be read.
    pub fn response(mut self) -> Result<Response, Fault> {
        let results = self.by_ref().collect::<Result<_, _>>()?;
        let frame = self.frame;
        Ok(Response {
            results,
            errors: frame.errors.iter().collect(),
            request_meta: frame.request_meta,
            time: frame.time,
            decorators: frame.decorators,
            scan_id: frame.scan_id,
            complete: frame.complete,
            findings: frame.findings,
            engine: frame.engine,
            tenant: frame.tenant,
            replay_of: frame.replay_of,
        })
    }

    /// About how many bytes [`Assembly::write`] writes: more rather than less, so that a large response need not be moved
    /// while it grows.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The response as compact JSON: what [`Assembly::response`] would be written as, without holding more than one
    /// payload of it.
    ///
    /// # Errors
    /// An outcome cannot be read, or `out` not be written.
    pub fn write(mut self, out: &mut impl Write) -> Result<(), Fault> {
        // The payloads come first in the document, so everything else follows the list that the frame has empty.
        const HEAD: &str = "{\"results\":[";
        out.write_all(HEAD.as_bytes()).map_err(unwritten)?;
        let mut separator = "";
        for payload in self.by_ref() {
            out.write_all(separator.as_bytes()).map_err(unwritten)?;
            serde_json::to_writer(&mut *out, &payload?).map_err(unwritable)?;
            separator = ",";
        }
        serde_json::to_writer(Behind { out, skip: HEAD.len() }, &self.frame).map_err(unwritable)
    }
}

/// Writes all but the first bytes.
struct Behind<W> {
    out: W,
    skip: usize,
}

impl<W: Write> Write for Behind<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        self.out.write_all(&bytes[skipped..])?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

pub(crate) fn unwritten(error: io::Error) -> Fault {
    Fault::because(FaultKind::Unavailable, "a response cannot be written", error)
}

/// Why a response was not written as JSON: trying again only helps where its place was at fault.
pub(crate) fn unwritable(error: serde_json::Error) -> Fault {
    if error.is_io() {
        return unwritten(error.into());
    }
    Fault::because(FaultKind::Refused, "a response cannot be written as JSON", error)
}

impl Iterator for Assembly {
    type Item = Result<PayloadResults, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        let (at, arranged) = (self.done, &mut self.arranged);
        let &Place { id, depth, sha256, size, .. } = arranged.place(at)?;
        self.done += 1;
        let mut payload = bare(id, arranged.meta(at), sha256, size, depth);
        (payload.extracted_from, payload.extracted_by) = arranged.extracted(at);
        payload.names = arranged.names(at);
        match arranged.outcome(at).map(Said::of) {
            Some(Ok(said)) => fill(&mut payload, said),
            Some(Err(fault)) => return Some(Err(fault)),
            None => {
                let detail = "nobody finished scanning this payload";
                payload.findings.push(Finding::new(FindingKind::Missing, detail));
            }
        }
        Some(Ok(payload))
    }
}

/// One payload's results before its scan is assembled, for archivers: parents and names are not known yet.
pub(crate) fn alone(task: &Task, outcome: &Outcome) -> PayloadResults {
    let mut payload = bare(task.payload_id, task.payload_meta.clone(), outcome.sha256, outcome.size, task.depth);
    if let (Some(parent), Some(ancestor)) = (task.parent, task.ancestors.last()) {
        payload.extracted_from.push(parent);
        payload.extracted_by.push(ancestor.plugin.clone());
    }
    fill(&mut payload, outcome.clone().into());
    payload
}

fn out_of_time(head: &ScanHead, missing: usize) -> Finding {
    let detail = format!(
        "the scan ended with {missing} of its payloads outstanding: its {} s were over, or it was cancelled",
        head.budgets.max_seconds
    );
    Finding::new(FindingKind::TimeLimit, detail)
}

fn forgotten(missing: usize) -> Finding {
    Finding::new(FindingKind::Missing, format!("{missing} of the scan's payloads were lost with a part of the ledger"))
}

fn missing_error(id: PayloadId) -> ErrorEntry {
    ErrorEntry {
        error: "the scan ended before this payload was scanned".to_owned(),
        plugin_name: None,
        payload_id: Some(id),
    }
}

/// What a response tells of one outcome. Edges are looked at before, and there may be more of them than are worth reading
/// twice.
#[derive(Deserialize)]
struct Said {
    should_archive: bool,
    runs: Vec<Run>,
    #[serde(default)]
    not_run: Vec<NotRun>,
    #[serde(default)]
    archivers: Named<Option<Json>>,
    #[serde(default)]
    findings: Vec<Finding>,
}

impl Said {
    fn of(kept: Kept) -> Result<Self, Fault> {
        match kept {
            Kept::Whole(outcome) => Ok((*outcome).into()),
            Kept::Text { json, .. } => Kept::read_text(&json),
        }
    }
}

impl From<Outcome> for Said {
    fn from(outcome: Outcome) -> Self {
        let Outcome { should_archive, runs, not_run, archivers, findings, .. } = outcome;
        Self { should_archive, runs, not_run, archivers, findings }
    }
}

/// A payload of which nothing is told yet.
fn bare(
    payload_id: PayloadId,
    payload_meta: PayloadMeta,
    sha256: Option<Sha256>,
    size: u64,
    depth: u16,
) -> PayloadResults {
    PayloadResults {
        size,
        payload_id,
        payload_meta,
        plugins_run: PluginsRun::default(),
        extracted_from: Vec::new(),
        extracted_by: Vec::new(),
        workers: Named::default(),
        archivers: Named::default(),
        sha256,
        depth,
        names: Vec::new(),
        runs: Vec::new(),
        not_run: Vec::new(),
        findings: Vec::new(),
    }
}

fn fill(result: &mut PayloadResults, said: Said) {
    let Said { should_archive, mut runs, mut not_run, archivers, findings } = said;
    result.payload_meta.should_archive &= should_archive;
    runs.sort_by(|a, b| (a.round, &a.plugin).cmp(&(b.round, &b.plugin)));
    for Run { plugin, round, why, status, micros, result: json } in runs {
        result.plugins_run.workers.push(plugin.clone());
        if let Some(json) = json {
            result.workers.push(plugin.clone(), json);
        }
        result.runs.push(RunInfo { plugin, round, why, status, micros });
    }
    let archivers: BTreeMap<String, Option<Json>> = archivers.0.into_iter().collect();
    for (name, said) in archivers {
        result.plugins_run.archivers.push(name.clone());
        if let Some(json) = said {
            result.archivers.push(name, json);
        }
    }
    not_run.sort_by(|a, b| a.plugin.cmp(&b.plugin));
    result.not_run = not_run;
    result.findings = findings;
}

#[cfg(test)]
mod tests;
