//! The order of a response's payloads. A scan may have very many, so all that is held of each is one [`Place`]: edges become
//! places as they are read, and are put in order and thinned out where they lie.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use stoq_api::ledger::Kept;
use stoq_api::task::ScanHead;
use stoq_api::{Content, Edge, ErrorEntry, Fault, PackedMeta, PayloadId, PayloadMeta, ScanId, Sha256};

use super::errors::Errors;

/// Names of one payload that are listed.
const MAX_NAMES: usize = 100;

/// Stands for no place in a list; no list is as long.
const NONE: u32 = u32::MAX;

/// Where a payload stands in the response.
pub(super) struct Place {
    pub(super) id: PayloadId,
    pub(super) depth: u16,
    pub(super) sha256: Option<Sha256>,
    pub(super) size: u64,
    /// None for a root, of which the scan's head tells.
    meta: Option<PackedMeta>,
    /// How it was extracted first; none for a root.
    arrival: Option<Arrival>,
    /// Its place among the children of that plugin.
    ordinal: u32,
    /// Its outcome's place.
    outcome: u32,
}

/// One way in which a payload was extracted.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Arrival {
    /// The parent's place.
    from: u32,
    /// The plugin, by its place in a list of names.
    by: u32,
}

/// What few payloads have: those that have arrived more than once.
#[derive(Default)]
struct More {
    arrivals: Vec<Arrival>,
    names: Vec<String>,
}

/// Payloads breadth first from the roots; children by (plugin, ordinal). A child whose content equals a root's, treated
/// the same way, is that root.
pub(super) struct Arranged {
    scan: ScanId,
    head: Arc<ScanHead>,
    outcomes: Outcomes,
    places: Vec<Place>,
    more: HashMap<usize, More>,
    /// Roots by the id that a child of the same content would have.
    folded: HashMap<PayloadId, PayloadId>,
    plugins: Vec<String>,
    pub(super) errors: Errors,
}

impl Arranged {
    /// Puts the payloads of a scan in order. Blocks where outcomes are read from files.
    ///
    /// # Errors
    /// An outcome cannot be read.
    pub(super) fn new(scan: ScanId, head: Arc<ScanHead>, outcomes: Vec<Kept>) -> Result<Self, Fault> {
        let mut arranged = Self {
            scan,
            head,
            // Nearly every payload has an outcome.
            places: Vec::with_capacity(outcomes.len()),
            outcomes: Outcomes::new(outcomes),
            more: HashMap::new(),
            folded: HashMap::new(),
            plugins: Vec::new(),
            errors: Errors::default(),
        };
        arranged.roots()?;
        arranged.children()?;
        Ok(arranged)
    }

    /// Number of payloads.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Payloads that have no outcome.
    pub(super) fn lost(&self) -> impl Iterator<Item = PayloadId> {
        self.places.iter().filter(|place| place.outcome == NONE).map(|place| place.id)
    }

    /// The payload at `at`.
    pub(super) fn place(&self, at: usize) -> Option<&Place> {
        self.places.get(at)
    }

    /// Its metadata, which is handed out once.
    pub(super) fn meta(&mut self, at: usize) -> PayloadMeta {
        match self.places[at].meta.take() {
            Some(meta) => meta.get(),
            None => self.head.roots.get(at).map(|root| root.payload_meta.clone()).unwrap_or_default(),
        }
    }

    /// Its outcome, which is handed out once.
    pub(super) fn outcome(&mut self, at: usize) -> Option<Kept> {
        self.outcomes.take(self.places[at].outcome)
    }

    /// Its parents and the plugins that extracted it from them.
    pub(super) fn extracted(&self, at: usize) -> (Vec<PayloadId>, Vec<String>) {
        let more = self.more.get(&at).into_iter().flat_map(|more| &more.arrivals);
        let parent = |arrival: &Arrival| self.places[arrival.from as usize].id;
        let plugin = |arrival: &Arrival| self.plugins[arrival.by as usize].clone();
        self.places[at].arrival.iter().chain(more).map(|arrival| (parent(arrival), plugin(arrival))).unzip()
    }

    /// The names under which it was extracted, if there are several.
    pub(super) fn names(&mut self, at: usize) -> Vec<String> {
        let more = self.more.get_mut(&at).map(|more| std::mem::take(&mut more.names));
        more.filter(|names| names.len() > 1).unwrap_or_default()
    }

    fn roots(&mut self) -> Result<(), Fault> {
        let head = Arc::clone(&self.head);
        for root in &head.roots {
            let outcome = self.outcomes.find(&root.id);
            self.outcomes.put(outcome, root.id, self.places.len());
            self.places.push(Place {
                id: root.id,
                depth: 0,
                sha256: root.sha256,
                size: root.size,
                meta: None,
                arrival: None,
                ordinal: 0,
                outcome,
            });
        }
        let first = self.places.len();
        let mut ends = Vec::with_capacity(first);
        for (at, root) in head.roots.iter().enumerate() {
            let before = self.places.len();
            let lines = self.read(at)?;
            // Where there are no children, none can be a root.
            let barren = self.outcomes.len() == 1 && lines.is_some() && self.places.len() == before;
            let place = &mut self.places[at];
            if let Some(Lines { sha256, size }) = lines {
                (place.sha256, place.size) = (sha256.or(place.sha256), size);
            }
            if let (Some(sha256), false) = (&place.sha256, barren) {
                let meta = &root.payload_meta;
                let twin = PayloadId::child(self.scan, sha256, meta.should_scan, &meta.dispatch_to);
                self.folded.entry(twin).or_insert(root.id);
            }
            ends.push(self.places.len());
        }
        // Only now is it known which children are roots.
        let (mut start, mut kept) = (first, first);
        for end in ends {
            kept = self.arrive(start..end, kept);
            start = end;
        }
        self.places.truncate(kept);
        Ok(())
    }

    fn children(&mut self) -> Result<(), Fault> {
        let mut at = self.head.roots.len();
        // Places are visited in the order in which they were found.
        while at < self.places.len() {
            let start = self.places.len();
            self.read(at)?;
            let kept = self.arrive(start..self.places.len(), start);
            self.places.truncate(kept);
            at += 1;
        }
        Ok(())
    }

    /// Reads the outcome of the payload at `at`; its edges become places behind all others, in no order. What nothing looks
    /// at again is taken out of an outcome that is in memory.
    fn read(&mut self, at: usize) -> Result<Option<Lines>, Fault> {
        let Place { outcome, depth, .. } = self.places[at];
        let Some(kept) = self.outcomes.kept.get_mut(outcome as usize) else { return Ok(None) };
        let mut edges = Edges {
            places: &mut self.places,
            plugins: &mut self.plugins,
            from: number(at),
            depth: depth.saturating_add(1),
        };
        Ok(Some(match kept {
            Kept::Whole(outcome) => {
                for Edge { child, plugin, ordinal, sha256, size, meta } in std::mem::take(&mut outcome.edges) {
                    edges.push(Line { child, plugin: Cow::Borrowed(&plugin), ordinal, sha256, size, meta });
                }
                self.errors.extend(std::mem::take(&mut outcome.errors));
                Lines { sha256: outcome.sha256, size: outcome.size }
            }
            Kept::Text { json, .. } => Kept::read_text_with(json, Reading { edges, errors: &mut self.errors })?,
        }))
    }

    /// Keeps of the places `arrived`, which are those of one parent's edges, those of new payloads, from `kept` on; what
    /// they tell of payloads that have a place already is noted there. Says where they end.
    fn arrive(&mut self, arrived: Range<usize>, mut kept: usize) -> usize {
        let plugins = &self.plugins;
        let plugin = |place: &Place| place.arrival.and_then(|arrival| plugins.get(arrival.by as usize));
        let order = |a: &Place, b: &Place| match a.arrival == b.arrival {
            true => a.ordinal.cmp(&b.ordinal),
            false => (plugin(a), a.ordinal).cmp(&(plugin(b), b.ordinal)),
        };
        let edges = &mut self.places[arrived.clone()];
        // Nearly always they came so, and sorting takes memory.
        if !edges.is_sorted_by(|a, b| order(a, b) != Ordering::Greater) {
            edges.sort_by(order);
        }
        for at in arrived {
            let child = self.places[at].id;
            let child = self.folded.get(&child).copied().unwrap_or(child);
            let outcome = self.outcomes.find(&child);
            if let Some(known) = self.outcomes.place(outcome, &child) {
                self.again(known, at);
                continue;
            }
            self.outcomes.put(outcome, child, kept);
            self.places.swap(kept, at);
            self.places[kept].outcome = outcome;
            kept += 1;
        }
        kept
    }

    /// One more way in which the payload at `known` was extracted: the one at `at`.
    fn again(&mut self, known: usize, at: usize) {
        let (place, again) = (&self.places[known], &self.places[at]);
        let more = self.more.entry(known).or_default();
        if let Some(arrival) = again.arrival
            && place.arrival != Some(arrival)
            && !more.arrivals.contains(&arrival)
        {
            more.arrivals.push(arrival);
        }
        let name = |at: usize, place: &Place| match &place.meta {
            Some(meta) => meta.get().filename().map(str::to_owned),
            None => self.head.roots.get(at)?.payload_meta.filename().map(str::to_owned),
        };
        if more.names.is_empty() {
            more.names.extend(name(known, place));
        }
        if let Some(name) = name(at, again)
            && more.names.len() < MAX_NAMES
            && !more.names.contains(&name)
        {
            more.names.push(name);
        }
    }
}

fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(NONE)
}

/// Outcomes in the order of their payloads' ids, and where those payloads stand: the smallest way to keep very many.
struct Outcomes {
    kept: Vec<Kept>,
    /// By outcome.
    places: Vec<u32>,
    /// Places of payloads without outcome.
    lost: HashMap<PayloadId, u32>,
}

impl Outcomes {
    fn new(mut kept: Vec<Kept>) -> Self {
        kept.sort_unstable_by_key(Kept::payload_id);
        Self { places: vec![NONE; kept.len()], kept, lost: HashMap::new() }
    }

    fn len(&self) -> usize {
        self.kept.len()
    }

    /// The place of a payload's outcome.
    fn find(&self, id: &PayloadId) -> u32 {
        self.kept.binary_search_by_key(id, Kept::payload_id).map_or(NONE, number)
    }

    /// Where a payload stands, by its outcome's place and its id.
    fn place(&self, outcome: u32, id: &PayloadId) -> Option<usize> {
        let place = match self.places.get(outcome as usize) {
            Some(place) => *place,
            None => self.lost.get(id).copied()?,
        };
        (place != NONE).then_some(place as usize)
    }

    fn put(&mut self, outcome: u32, id: PayloadId, place: usize) {
        match self.places.get_mut(outcome as usize) {
            Some(known) => *known = number(place),
            None => {
                self.lost.insert(id, number(place));
            }
        }
    }

    /// An outcome; nothing of it is left here.
    fn take(&mut self, at: u32) -> Option<Kept> {
        let kept = self.kept.get_mut(at as usize)?;
        let nothing = Kept::Text { payload_id: kept.payload_id(), json: Content::Bytes(Bytes::new()) };
        Some(std::mem::replace(kept, nothing))
    }
}

/// What one outcome tells of its payload, but its edges and errors.
struct Lines {
    sha256: Option<Sha256>,
    size: u64,
}

/// Where the edges of one payload go.
struct Edges<'a> {
    places: &'a mut Vec<Place>,
    plugins: &'a mut Vec<String>,
    from: u32,
    depth: u16,
}

/// One edge, as it is read.
#[derive(Deserialize)]
struct Line<'a> {
    child: PayloadId,
    #[serde(borrow)]
    plugin: Cow<'a, str>,
    ordinal: u32,
    sha256: Sha256,
    size: u64,
    meta: PackedMeta,
}

impl Edges<'_> {
    fn push(&mut self, line: Line<'_>) {
        let Line { child, plugin, ordinal, sha256, size, meta } = line;
        let arrival = Arrival { from: self.from, by: self.plugin(&plugin) };
        self.places.push(Place {
            id: child,
            depth: self.depth,
            sha256: Some(sha256),
            size,
            meta: Some(meta),
            arrival: Some(arrival),
            ordinal,
            outcome: NONE,
        });
    }

    /// The number that stands for a plugin's name.
    fn plugin(&mut self, name: &str) -> u32 {
        // There are few, and the last one comes again most of the time.
        number(self.plugins.iter().rposition(|known| known == name).unwrap_or_else(|| {
            self.plugins.push(name.to_owned());
            self.plugins.len() - 1
        }))
    }
}

impl<'de> DeserializeSeed<'de> for &mut Edges<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for &mut Edges<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of edges")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<(), A::Error> {
        while let Some(line) = all.next_element()? {
            self.push(line);
        }
        Ok(())
    }
}

/// Reads of an outcome's text what the order of payloads depends on, and its errors.
struct Reading<'a> {
    edges: Edges<'a>,
    errors: &'a mut Errors,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Member {
    Sha256,
    Size,
    Edges,
    Errors,
    #[serde(other)]
    Other,
}

impl<'de> DeserializeSeed<'de> for Reading<'_> {
    type Value = Lines;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Lines, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Reading<'_> {
    type Value = Lines;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an outcome")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Lines, A::Error> {
        let (mut sha256, mut size) = (None, None);
        while let Some(member) = map.next_key()? {
            match member {
                Member::Sha256 => sha256 = map.next_value()?,
                Member::Size => size = Some(map.next_value()?),
                Member::Edges => map.next_value_seed(&mut self.edges)?,
                Member::Errors => self.errors.extend(map.next_value::<Vec<ErrorEntry>>()?),
                Member::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let size = size.ok_or_else(|| A::Error::missing_field("size"))?;
        Ok(Lines { sha256, size })
    }
}
