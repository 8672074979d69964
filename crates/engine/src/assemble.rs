//! A frozen scan becomes a response. Pure: whoever assembles it, however often, gets the same bytes.

use std::collections::{BTreeMap, HashMap, VecDeque};

use stoq_api::ledger::{Completeness, FrozenScan};
use stoq_api::response::{EngineInfo, PayloadResults, PluginsRun, RunInfo};
use stoq_api::{
    Edge, ErrorEntry, Finding, FindingKind, Json, Named, Outcome, PayloadId, PayloadMeta, Response, Sha256, Task,
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

/// The response of a frozen scan.
pub fn assemble(scan: &FrozenScan, engine: &EngineInfo) -> Response {
    let outcomes: HashMap<PayloadId, &Outcome> = scan.outcomes.iter().map(|o| (o.payload_id, o)).collect();
    let places = arrange(scan, &outcomes);
    let mut errors = Vec::new();
    let mut results = Vec::with_capacity(places.len());
    for place in places {
        let outcome = outcomes.get(&place.id).copied();
        if let Some(outcome) = outcome {
            errors.extend(outcome.errors.iter().cloned());
        }
        results.push(payload(place, outcome));
    }
    errors.sort_by(|a, b| (a.payload_id, &a.plugin_name, &a.error).cmp(&(b.payload_id, &b.plugin_name, &b.error)));
    let mut findings = Vec::new();
    if scan.completeness == Completeness::Partial {
        findings.push(out_of_time(scan));
        errors.extend(scan.missing.iter().map(|id| missing_error(*id)).collect::<std::collections::BTreeSet<_>>());
    }
    Response {
        results,
        request_meta: scan.head.request_meta.clone(),
        errors,
        time: scan.head.first_seen.iso(),
        decorators: Named::default(),
        scan_id: scan.scan_id,
        complete: scan.completeness == Completeness::Complete,
        findings,
        engine: engine.clone(),
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
    payload(place, Some(outcome))
}

fn out_of_time(scan: &FrozenScan) -> Finding {
    let detail = format!(
        "the scan was given up after {} s with {} of its payloads outstanding",
        scan.head.budgets.max_seconds,
        scan.missing.len()
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
fn arrange(scan: &FrozenScan, outcomes: &HashMap<PayloadId, &Outcome>) -> Vec<Place> {
    let mut folded: HashMap<PayloadId, PayloadId> = HashMap::new();
    let mut places: Vec<Place> = Vec::new();
    let mut index: HashMap<PayloadId, usize> = HashMap::new();
    let mut waiting = VecDeque::new();
    for root in &scan.head.roots {
        let outcome = outcomes.get(&root.id);
        let sha256 = outcome.and_then(|o| o.sha256).or(root.sha256);
        if let Some(sha256) = sha256 {
            let twin =
                PayloadId::child(scan.scan_id, &sha256, root.payload_meta.should_scan, &root.payload_meta.dispatch_to);
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

fn payload(place: Place, outcome: Option<&Outcome>) -> PayloadResults {
    let mut meta = place.meta;
    let mut result = PayloadResults {
        size: place.size,
        payload_id: place.id,
        payload_meta: PayloadMeta::default(),
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
            meta.should_archive &= outcome.should_archive;
            fill(&mut result, outcome);
        }
    }
    result.payload_meta = meta;
    result
}

fn fill(result: &mut PayloadResults, outcome: &Outcome) {
    let mut runs: Vec<&stoq_api::Run> = outcome.runs.iter().collect();
    runs.sort_by(|a, b| (a.round, &a.plugin).cmp(&(b.round, &b.plugin)));
    for run in runs {
        result.plugins_run.workers.push(run.plugin.clone());
        if let Some(json) = &run.result {
            result.workers.push(run.plugin.clone(), json.clone());
        }
        result.runs.push(RunInfo {
            plugin: run.plugin.clone(),
            round: run.round,
            why: run.why.clone(),
            status: run.status,
            micros: run.micros,
        });
    }
    let archivers: BTreeMap<&str, &Option<Json>> = outcome.archivers.iter().collect();
    for (name, said) in archivers {
        result.plugins_run.archivers.push(name.to_owned());
        if let Some(json) = said {
            result.archivers.push(name, json.clone());
        }
    }
    result.not_run = outcome.not_run.clone();
    result.not_run.sort_by(|a, b| a.plugin.cmp(&b.plugin));
    result.findings = outcome.findings.clone();
}

#[cfg(test)]
mod tests;
