//! A frozen scan becomes a response. Pure: whoever assembles it, however often, gets the same bytes.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::sync::Arc;

use serde::Deserialize;
use stoq_api::ledger::{Completeness, FrozenScan, Kept};
use stoq_api::response::{EngineInfo, PayloadResults, PluginsRun, RunInfo};
use stoq_api::task::ScanHead;
use stoq_api::{
    Edge, ErrorEntry, Fault, FaultKind, Finding, FindingKind, Json, Named, NotRun, Outcome, PackedMeta, PayloadId,
    PayloadMeta, Response, Run, ScanId, Sha256, Task,
};

/// What a payload takes in a response beside its outcome's text, at a guess: ids, metadata, names of plugins.
const PLACE_BYTES: usize = 512;
/// Names of one payload that are listed.
const MAX_NAMES: usize = 100;

/// Where a payload stands in the response. There may be very many, so they hold no more than they have to.
struct Place {
    id: PayloadId,
    depth: u16,
    meta: Meta,
    size: u64,
    sha256: Option<Sha256>,
    /// None for a root.
    arrival: Option<Arrival>,
    /// Once something has arrived for the second time.
    more: Option<Box<More>>,
}

/// What few payloads have.
#[derive(Default)]
struct More {
    arrivals: Vec<Arrival>,
    names: Vec<String>,
}

impl Place {
    fn arrivals(&self) -> impl Iterator<Item = &Arrival> {
        self.arrival.iter().chain(self.more.iter().flat_map(|more| &more.arrivals))
    }
}

enum Meta {
    Whole(Box<PayloadMeta>),
    Packed(PackedMeta),
}

impl Meta {
    fn into_whole(self) -> PayloadMeta {
        match self {
            Self::Whole(meta) => *meta,
            Self::Packed(meta) => meta.get(),
        }
    }

    fn filename(&self) -> Option<String> {
        match self {
            Self::Whole(meta) => meta.filename().map(str::to_owned),
            Self::Packed(meta) => meta.get().filename().map(str::to_owned),
        }
    }
}

/// One way in which a payload was extracted.
#[derive(PartialEq)]
struct Arrival {
    from: PayloadId,
    /// The plugin, by its place in a list of names.
    by: u32,
}

/// A frozen scan on its way to a response, one payload at a time.
pub struct Assembly {
    outcomes: Outcomes,
    places: std::vec::IntoIter<Place>,
    plugins: Vec<String>,
    /// Everything but the payloads.
    frame: Response,
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
        let outcomes = Outcomes::new(scan.outcomes);
        let mut arranged = Arranging::of(scan.scan_id, outcomes);
        arranged.roots(&scan.head)?;
        arranged.children()?;
        let Arranging { outcomes, places, plugins, mut errors, .. } = arranged;
        errors.sort_by(|a: &ErrorEntry, b| {
            (a.payload_id, &a.plugin_name, &a.error).cmp(&(b.payload_id, &b.plugin_name, &b.error))
        });
        let mut findings = Vec::new();
        let mut missing = scan.missing;
        if scan.completeness == Completeness::Partial {
            findings.push(out_of_time(&scan.head, missing.len()));
        } else {
            // What a ledger says of completeness is worth no more than its memory: a payload that another one names, and
            // of which there is nothing, was not scanned.
            missing = places.iter().map(|place| place.id).filter(|id| outcomes.find(id).is_none()).collect();
            if !missing.is_empty() {
                tracing::error!(scan = %scan.scan_id, count = missing.len(), "the ledger calls a scan complete that is not");
                findings.push(forgotten(missing.len()));
            }
        }
        let complete = scan.completeness == Completeness::Complete && missing.is_empty();
        errors.extend(missing.iter().map(|id| missing_error(*id)).collect::<std::collections::BTreeSet<_>>());
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
            usize::try_from(texts).unwrap_or(usize::MAX).saturating_add(places.len().saturating_mul(PLACE_BYTES));
        Ok(Self { outcomes, places: places.into_iter(), plugins, frame, bytes })
    }

    /// The whole response in memory.
    ///
    /// # Errors
    /// An outcome cannot be read.
    pub fn response(mut self) -> Result<Response, Fault> {
        let results = self.by_ref().collect::<Result<_, _>>()?;
        Ok(Response { results, ..self.frame })
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
        let frame = serde_json::to_vec(&self.frame).map_err(unwritable)?;
        out.write_all(frame.strip_prefix(HEAD.as_bytes()).unwrap_or_default()).map_err(unwritten)
    }
}

pub(crate) fn unwritten(error: std::io::Error) -> Fault {
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
        let place = self.places.next()?;
        let said = self.outcomes.take(&place.id).map(Said::of).transpose();
        Some(said.map(|said| payload(place, &self.plugins, said)))
    }
}

/// One payload's results before its scan is assembled, for archivers: parents and names are not known yet.
pub(crate) fn alone(task: &Task, outcome: &Outcome) -> PayloadResults {
    let by = task.ancestors.last().map(|ancestor| ancestor.plugin.clone());
    let place = Place {
        id: task.payload_id,
        depth: task.depth,
        meta: Meta::Whole(Box::new(task.payload_meta.clone())),
        size: outcome.size,
        sha256: outcome.sha256,
        arrival: task.parent.filter(|_| by.is_some()).map(|from| Arrival { from, by: 0 }),
        more: None,
    };
    let plugins: Vec<String> = by.into_iter().collect();
    payload(place, &plugins, Some(outcome.clone().into()))
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

/// Outcomes by their payloads, in the order of ids: most scans have one, and some very many, for which this is the
/// smallest way to keep them.
struct Outcomes(Vec<(PayloadId, Option<Kept>)>);

impl Outcomes {
    fn new(all: Vec<Kept>) -> Self {
        let mut all: Vec<_> = all.into_iter().map(|kept| (kept.payload_id(), Some(kept))).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        Self(all)
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn find(&self, id: &PayloadId) -> Option<usize> {
        self.0.binary_search_by_key(id, |(id, _)| *id).ok()
    }

    fn get(&mut self, id: &PayloadId) -> Option<&mut Kept> {
        let at = self.find(id)?;
        self.0[at].1.as_mut()
    }

    fn take(&mut self, id: &PayloadId) -> Option<Kept> {
        let at = self.find(id)?;
        self.0[at].1.take()
    }
}

/// What the order of payloads depends on, of one outcome.
#[derive(Default, Deserialize)]
struct Lines {
    #[serde(default)]
    sha256: Option<Sha256>,
    size: u64,
    #[serde(default)]
    edges: Vec<Edge>,
    #[serde(default)]
    errors: Vec<ErrorEntry>,
}

impl Lines {
    /// Takes them out of an outcome where it is in memory: nothing looks at them again.
    fn of(kept: &mut Kept) -> Result<Self, Fault> {
        match kept {
            Kept::Whole(outcome) => Ok(Self {
                sha256: outcome.sha256,
                size: outcome.size,
                edges: std::mem::take(&mut outcome.edges),
                errors: std::mem::take(&mut outcome.errors),
            }),
            Kept::Text { json, .. } => Kept::read_text(json),
        }
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

/// Payloads breadth first from the roots; children by (plugin, ordinal). A child whose content equals a root's, treated
/// the same way, is that root.
struct Arranging {
    scan: ScanId,
    outcomes: Outcomes,
    places: Vec<Place>,
    index: HashMap<PayloadId, usize>,
    /// Roots by the id that a child of the same content would have.
    folded: HashMap<PayloadId, PayloadId>,
    /// Of the roots, in their order.
    first: Vec<Option<Lines>>,
    plugins: Vec<String>,
    errors: Vec<ErrorEntry>,
}

impl Arranging {
    fn of(scan: ScanId, outcomes: Outcomes) -> Self {
        Self {
            scan,
            outcomes,
            places: Vec::new(),
            index: HashMap::new(),
            folded: HashMap::new(),
            first: Vec::new(),
            plugins: Vec::new(),
            errors: Vec::new(),
        }
    }

    fn lines(&mut self, id: PayloadId) -> Result<Option<Lines>, Fault> {
        self.outcomes.get(&id).map(Lines::of).transpose()
    }

    fn roots(&mut self, head: &ScanHead) -> Result<(), Fault> {
        for root in &head.roots {
            let lines = self.lines(root.id)?;
            let sha256 = lines.as_ref().and_then(|lines| lines.sha256).or(root.sha256);
            let meta = &root.payload_meta;
            // Where there are no children, none can be a root.
            let barren = self.outcomes.len() == 1 && lines.as_ref().is_some_and(|lines| lines.edges.is_empty());
            if let (Some(sha256), false) = (sha256, barren) {
                let twin = PayloadId::child(self.scan, &sha256, meta.should_scan, &meta.dispatch_to);
                self.folded.entry(twin).or_insert(root.id);
            }
            self.index.insert(root.id, self.places.len());
            self.places.push(Place {
                id: root.id,
                depth: 0,
                meta: Meta::Whole(Box::new(meta.clone())),
                size: lines.as_ref().map_or(root.size, |lines| lines.size),
                sha256,
                arrival: None,
                more: None,
            });
            self.first.push(lines);
        }
        Ok(())
    }

    fn children(&mut self) -> Result<(), Fault> {
        let mut at = 0;
        // Places are visited in the order in which they were found.
        while let Some(place) = self.places.get(at) {
            let (parent, depth) = (place.id, place.depth.saturating_add(1));
            let lines = match self.first.get_mut(at) {
                Some(lines) => lines.take(),
                None => self.lines(parent)?,
            };
            at += 1;
            let Some(Lines { mut edges, errors, .. }) = lines else { continue };
            self.errors.extend(errors);
            edges.sort_by(|a, b| (&a.plugin, a.ordinal).cmp(&(&b.plugin, b.ordinal)));
            edges.into_iter().for_each(|edge| self.arrive(parent, depth, edge));
        }
        Ok(())
    }

    /// One more way in which a payload was extracted: a parent, a plugin, perhaps a name.
    fn arrive(&mut self, parent: PayloadId, depth: u16, edge: Edge) {
        let arrival = Arrival { from: parent, by: self.plugin(&edge.plugin) };
        let child = self.folded.get(&edge.child).copied().unwrap_or(edge.child);
        let Some(at) = self.index.get(&child) else {
            self.index.insert(child, self.places.len());
            self.places.push(Place {
                id: child,
                depth,
                meta: Meta::Packed(edge.meta),
                size: edge.size,
                sha256: Some(edge.sha256),
                arrival: Some(arrival),
                more: None,
            });
            return;
        };
        let place = &mut self.places[*at];
        let known = place.arrivals().any(|known| *known == arrival);
        let more = place.more.get_or_insert_default();
        if !known {
            more.arrivals.push(arrival);
        }
        if more.names.is_empty() {
            more.names.extend(place.meta.filename());
        }
        if let Some(name) = edge.meta.get().filename()
            && more.names.len() < MAX_NAMES
            && !more.names.iter().any(|n| n == name)
        {
            more.names.push(name.to_owned());
        }
    }

    /// The number that stands for a plugin's name.
    fn plugin(&mut self, name: &str) -> u32 {
        // There are few, and the last one comes again most of the time.
        let at = self.plugins.iter().rposition(|known| known == name).unwrap_or_else(|| {
            self.plugins.push(name.to_owned());
            self.plugins.len() - 1
        });
        u32::try_from(at).unwrap_or(u32::MAX)
    }
}

fn payload(place: Place, plugins: &[String], said: Option<Said>) -> PayloadResults {
    let by = |arrival: &Arrival| plugins.get(arrival.by as usize).cloned().unwrap_or_default();
    let (extracted_from, extracted_by) = place.arrivals().map(|arrival| (arrival.from, by(arrival))).unzip();
    let mut result = PayloadResults {
        size: place.size,
        payload_id: place.id,
        payload_meta: place.meta.into_whole(),
        plugins_run: PluginsRun::default(),
        extracted_from,
        extracted_by,
        workers: Named::default(),
        archivers: Named::default(),
        sha256: place.sha256,
        depth: place.depth,
        names: place.more.map(|more| more.names).filter(|names| names.len() > 1).unwrap_or_default(),
        runs: Vec::new(),
        not_run: Vec::new(),
        findings: Vec::new(),
    };
    match said {
        None => result.findings.push(Finding::new(FindingKind::Missing, "nobody finished scanning this payload")),
        Some(said) => {
            result.payload_meta.should_archive &= said.should_archive;
            fill(&mut result, said);
        }
    }
    result
}

fn fill(result: &mut PayloadResults, said: Said) {
    let Said { mut runs, mut not_run, archivers, findings, .. } = said;
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
