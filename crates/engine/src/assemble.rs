//! A frozen scan becomes a response. Pure: whoever assembles it, however often, gets the same bytes.

use std::collections::{BTreeMap, HashMap, VecDeque};

use stoq_api::ledger::{Completeness, FrozenScan};
use stoq_api::response::{EngineInfo, PayloadResults, PluginsRun, RunInfo};
use stoq_api::task::ScanHead;
use stoq_api::{
    Edge, ErrorEntry, Finding, FindingKind, Json, Named, Outcome, PayloadId, PayloadMeta, Response, Run, ScanId,
    Sha256, Task,
};

/// Names of one payload that are listed.
const MAX_NAMES: usize = 100;

/// Where a payload stands in the response.
struct Place {
    id: PayloadId,
    depth: u16,
    meta: PayloadMeta,
    size: u64,
    sha256: Option<Sha256>,
    from: Vec<PayloadId>,
    by: Vec<String>,
    names: Vec<String>,
}

/// A frozen scan on its way to a response, one payload at a time.
pub struct Assembly {
    outcomes: HashMap<PayloadId, Outcome>,
    places: std::vec::IntoIter<Place>,
    /// Everything but the payloads.
    frame: Response,
}

impl Assembly {
    /// Puts the payloads of a frozen scan in order.
    pub fn new(scan: FrozenScan, engine: &EngineInfo) -> Self {
        let mut outcomes: HashMap<PayloadId, Outcome> = scan.outcomes.into_iter().map(|o| (o.payload_id, o)).collect();
        let places = arrange(scan.scan_id, &scan.head, &outcomes);
        let mut errors = Vec::new();
        for place in &places {
            if let Some(outcome) = outcomes.get_mut(&place.id) {
                errors.append(&mut outcome.errors);
            }
        }
        errors.sort_by(|a: &ErrorEntry, b| {
            (a.payload_id, &a.plugin_name, &a.error).cmp(&(b.payload_id, &b.plugin_name, &b.error))
        });
        let mut findings = Vec::new();
        if scan.completeness == Completeness::Partial {
            findings.push(out_of_time(&scan.head, scan.missing.len()));
            errors.extend(scan.missing.iter().map(|id| missing_error(*id)).collect::<std::collections::BTreeSet<_>>());
        }
        let frame = Response {
            results: Vec::new(),
            time: scan.head.first_seen.iso(),
            request_meta: scan.head.request_meta,
            errors,
            decorators: Named::default(),
            scan_id: scan.scan_id,
            complete: scan.completeness == Completeness::Complete,
            findings,
            engine: engine.clone(),
            tenant: scan.head.tenant,
            replay_of: scan.head.replay_of,
        };
        Self { outcomes, places: places.into_iter(), frame }
    }

    /// The whole response in memory.
    pub fn response(mut self) -> Response {
        let results = self.by_ref().collect();
        Response { results, ..self.frame }
    }

    /// The response as compact JSON: what [`Assembly::response`] would be written as, without holding more than one
    /// payload of it.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn write(mut self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        // The payloads come first in the document, so everything else follows the list that the frame has empty.
        const HEAD: &str = "{\"results\":[";
        out.extend_from_slice(HEAD.as_bytes());
        let mut separator = "";
        for payload in self.by_ref() {
            out.extend_from_slice(separator.as_bytes());
            serde_json::to_writer(&mut *out, &payload)?;
            separator = ",";
        }
        let frame = serde_json::to_vec(&self.frame)?;
        out.extend_from_slice(frame.strip_prefix(HEAD.as_bytes()).unwrap_or_default());
        Ok(())
    }
}

impl Iterator for Assembly {
    type Item = PayloadResults;

    fn next(&mut self) -> Option<PayloadResults> {
        let place = self.places.next()?;
        let outcome = self.outcomes.remove(&place.id);
        Some(payload(place, outcome))
    }
}

/// One payload's results before its scan is assembled, for archivers: parents and names are not known yet.
pub(crate) fn alone(task: &Task, outcome: &Outcome) -> PayloadResults {
    let place = Place {
        id: task.payload_id,
        depth: task.depth,
        meta: task.payload_meta.clone(),
        size: outcome.size,
        sha256: outcome.sha256,
        from: task.parent.into_iter().collect(),
        by: task.ancestors.last().map(|a| a.plugin.clone()).into_iter().collect(),
        names: Vec::new(),
    };
    payload(place, Some(outcome.clone()))
}

fn out_of_time(head: &ScanHead, missing: usize) -> Finding {
    let detail = format!(
        "the scan was given up after {} s with {missing} of its payloads outstanding",
        head.budgets.max_seconds
    );
    Finding::new(FindingKind::TimeLimit, detail)
}

fn missing_error(id: PayloadId) -> ErrorEntry {
    ErrorEntry {
        error: "the scan ended before this payload was scanned".to_owned(),
        plugin_name: None,
        payload_id: Some(id),
    }
}

/// Breadth first from the roots; children by (plugin, ordinal). A child whose content equals a root's, treated the same
/// way, is that root.
fn arrange(scan: ScanId, head: &ScanHead, outcomes: &HashMap<PayloadId, Outcome>) -> Vec<Place> {
    let has_children = outcomes.values().any(|outcome| !outcome.edges.is_empty());
    let mut folded: HashMap<PayloadId, PayloadId> = HashMap::new();
    let mut places: Vec<Place> = Vec::new();
    let mut index: HashMap<PayloadId, usize> = HashMap::new();
    let mut waiting = VecDeque::new();
    for root in &head.roots {
        let outcome = outcomes.get(&root.id);
        let sha256 = outcome.and_then(|o| o.sha256).or(root.sha256);
        if let (Some(sha256), true) = (sha256, has_children) {
            let twin = PayloadId::child(scan, &sha256, root.payload_meta.should_scan, &root.payload_meta.dispatch_to);
            folded.entry(twin).or_insert(root.id);
        }
        index.insert(root.id, places.len());
        waiting.push_back(root.id);
        places.push(Place {
            id: root.id,
            depth: 0,
            meta: root.payload_meta.clone(),
            size: outcome.map_or(root.size, |o| o.size),
            sha256,
            from: Vec::new(),
            by: Vec::new(),
            names: root.payload_meta.filename().map(str::to_owned).into_iter().collect(),
        });
    }
    while let Some(parent) = waiting.pop_front() {
        let Some(outcome) = outcomes.get(&parent) else { continue };
        let depth = places[index[&parent]].depth + 1;
        let mut edges: Vec<&Edge> = outcome.edges.iter().collect();
        edges.sort_by(|a, b| (&a.plugin, a.ordinal).cmp(&(&b.plugin, b.ordinal)));
        for edge in edges {
            let child = folded.get(&edge.child).copied().unwrap_or(edge.child);
            let at = *index.entry(child).or_insert_with(|| {
                waiting.push_back(child);
                places.push(place_of(child, depth, edge));
                places.len() - 1
            });
            arrive(&mut places[at], parent, edge);
        }
    }
    places
}

fn place_of(id: PayloadId, depth: u16, edge: &Edge) -> Place {
    Place {
        id,
        depth,
        meta: edge.meta.clone(),
        size: edge.size,
        sha256: Some(edge.sha256),
        from: Vec::new(),
        by: Vec::new(),
        names: Vec::new(),
    }
}

/// One more way in which a payload was extracted: a parent, a plugin, perhaps a name.
fn arrive(place: &mut Place, parent: PayloadId, edge: &Edge) {
    let seen = place.from.iter().zip(&place.by).any(|(from, by)| *from == parent && *by == edge.plugin);
    if !seen {
        place.from.push(parent);
        place.by.push(edge.plugin.clone());
    }
    if let Some(name) = edge.meta.filename()
        && place.names.len() < MAX_NAMES
        && !place.names.iter().any(|n| n == name)
    {
        place.names.push(name.to_owned());
    }
}

fn payload(place: Place, outcome: Option<Outcome>) -> PayloadResults {
    let mut result = PayloadResults {
        size: place.size,
        payload_id: place.id,
        payload_meta: place.meta,
        plugins_run: PluginsRun::default(),
        extracted_from: place.from,
        extracted_by: place.by,
        workers: Named::default(),
        archivers: Named::default(),
        sha256: place.sha256,
        depth: place.depth,
        names: if place.names.len() > 1 { place.names } else { Vec::new() },
        runs: Vec::new(),
        not_run: Vec::new(),
        findings: Vec::new(),
    };
    match outcome {
        None => result.findings.push(Finding::new(FindingKind::Missing, "nobody finished scanning this payload")),
        Some(outcome) => {
            result.payload_meta.should_archive &= outcome.should_archive;
            fill(&mut result, outcome);
        }
    }
    result
}

fn fill(result: &mut PayloadResults, outcome: Outcome) {
    let Outcome { mut runs, mut not_run, archivers, findings, .. } = outcome;
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
