//! A ledger in memory: one map of scans behind one lock, no operation longer than what it names.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use indexmap::IndexMap;
use parking_lot::Mutex;
use stoq_api::ledger::{
    ATTEMPTS_KEPT, Admission, Admitted, ChildRecord, Claim, Completeness, FINISH_LEASE, FrozenScan, Kept, Ledger,
    MAX_ADMIT, Overdue, Settled,
};
use stoq_api::task::ScanHead;
use stoq_api::{Content, Fault, FaultKind, Outcome, PayloadId, ScanId, Timestamp};

use crate::spool::Spool;

/// An outcome with more children than this goes to a file, if there may be one, without being in memory as text.
const STREAMED_EDGES: usize = 2_000;

/// Keeps scans in memory.
#[derive(Default)]
pub struct MemoryLedger {
    state: Mutex<State>,
    overflow: Option<(Arc<Path>, usize)>,
}

#[derive(Default)]
struct State {
    scans: HashMap<ScanId, Scan>,
    tombstones: HashMap<ScanId, Timestamp>,
    /// The same tombstones by the end of their time, so that dropping the old ones costs only those.
    expiry: BTreeSet<(Timestamp, ScanId)>,
    /// Attempts at payloads of scans that were never opened.
    strays: HashMap<ScanId, Stray>,
}

struct Scan {
    head: Arc<ScanHead>,
    /// When its time is over.
    due: Timestamp,
    /// There may be very many, so they name each other by their places.
    payloads: IndexMap<PayloadId, Entry>,
    /// By parent, in the order of their admission.
    children: HashMap<Place, Vec<Place>>,
    /// Bytes of outcomes in memory.
    bytes: usize,
    spool: Option<Spool>,
    outstanding: usize,
    admitted: u64,
    admitted_bytes: u64,
    root_bytes: u64,
    attempts: HashMap<PayloadId, u32>,
    frozen: Option<Frozen>,
}

/// A payload's place among those of its scan; budgets keep a scan from having more.
type Place = u32;

struct Entry {
    admitted_by: Option<Place>,
    /// As JSON.
    outcome: Option<Content>,
}

#[derive(Clone, Copy)]
struct Frozen {
    completeness: Completeness,
    lease_until: Timestamp,
}

struct Stray {
    last: Timestamp,
    attempts: HashMap<PayloadId, u32>,
}

/// What a scan is to an operation.
enum Found<'a> {
    Open(&'a mut Scan),
    Frozen,
    Closed,
    Unknown,
}

impl MemoryLedger {
    /// An empty ledger.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty ledger that puts outcomes into files in `dir` once `held` bytes of those of their scan are in memory.
    pub fn spooling(dir: &Path, held: usize) -> Self {
        Self { overflow: Some((dir.into(), held)), ..Self::default() }
    }
}

impl State {
    fn is_closed(&self, scan: ScanId, now: Timestamp) -> bool {
        self.tombstones.get(&scan).is_some_and(|until| now < *until)
    }

    fn find(&mut self, id: ScanId, head: Option<&ScanHead>, now: Timestamp) -> Found<'_> {
        if self.is_closed(id, now) {
            return Found::Closed;
        }
        if !self.scans.contains_key(&id) {
            let Some(head) = head else { return Found::Unknown };
            let attempts = self.strays.remove(&id).map(|s| s.attempts).unwrap_or_default();
            self.scans.insert(id, Scan::open(head, attempts, now));
        }
        match self.scans.get_mut(&id) {
            Some(scan) if scan.frozen.is_some() => Found::Frozen,
            Some(scan) => Found::Open(scan),
            None => Found::Unknown,
        }
    }

    fn forget_old(&mut self, now: Timestamp) {
        while let Some((until, id)) = self.expiry.first().copied()
            && until <= now
        {
            self.expiry.pop_first();
            // The scan may have been opened and closed once more since.
            if self.tombstones.get(&id) == Some(&until) {
                self.tombstones.remove(&id);
            }
        }
    }
}

impl Scan {
    fn open(head: &ScanHead, attempts: HashMap<PayloadId, u32>, now: Timestamp) -> Self {
        let mut scan = Self {
            head: Arc::new(head.clone()),
            due: now.after(head.budgets.deadline()),
            payloads: IndexMap::new(),
            children: HashMap::new(),
            bytes: 0,
            spool: None,
            outstanding: 0,
            admitted: 0,
            admitted_bytes: 0,
            root_bytes: head.roots.iter().fold(0, |sum, r| sum.saturating_add(r.size)),
            attempts,
            frozen: None,
        };
        for root in &head.roots {
            scan.make_outstanding(root.id, None);
        }
        scan
    }

    /// Says where the payload stands.
    fn make_outstanding(&mut self, id: PayloadId, admitted_by: Option<Place>) -> usize {
        let entry = match self.payloads.entry(id) {
            indexmap::map::Entry::Occupied(known) => return known.index(),
            indexmap::map::Entry::Vacant(entry) => entry,
        };
        let place = entry.index();
        entry.insert(Entry { admitted_by, outcome: None });
        self.outstanding += 1;
        if let Some(parent) = admitted_by {
            self.children.entry(parent).or_default().push(narrow(place));
        }
        place
    }

    fn admit_all(&mut self, parent: PayloadId, children: &[ChildRecord], now: Timestamp) -> Vec<Admission> {
        let parent = narrow(self.make_outstanding(parent, None));
        let admissions: Vec<_> = children.iter().map(|child| self.admit(parent, child)).collect();
        if admissions.contains(&Admission::New) {
            self.due = self.due.max(now.after(self.head.budgets.deadline()));
        }
        admissions
    }

    fn admit(&mut self, parent: Place, child: &ChildRecord) -> Admission {
        match self.payloads.get(&child.id) {
            Some(entry) if entry.outcome.is_some() => return Admission::Settled,
            Some(entry) => return Admission::Known { own: entry.admitted_by == Some(parent) },
            None => {}
        }
        let (payloads, bytes) = (self.admitted.saturating_add(1), self.admitted_bytes.saturating_add(child.size));
        if let Some(kind) = self.head.budgets.broken_by(payloads, bytes, self.root_bytes) {
            return Admission::Refused(kind);
        }
        (self.admitted, self.admitted_bytes) = (payloads, bytes);
        self.make_outstanding(child.id, Some(parent));
        Admission::New
    }

    fn settle(
        &mut self,
        outcome: &Outcome,
        children: &[PayloadId],
        overflow: Option<&(Arc<Path>, usize)>,
        now: Timestamp,
    ) -> Result<Settled, Fault> {
        let id = outcome.payload_id;
        if self.payloads.get(&id).is_none_or(|entry| entry.outcome.is_none()) {
            let kept = self.keep(outcome, overflow)?;
            let place = self.make_outstanding(id, None);
            self.payloads[place].outcome = Some(kept);
            self.outstanding -= 1;
        }
        let parent = narrow(self.make_outstanding(id, None));
        for child in children {
            self.make_outstanding(*child, Some(parent));
        }
        if self.outstanding == 0 {
            self.frozen = Some(Frozen { completeness: Completeness::Complete, lease_until: now.after(FINISH_LEASE) });
            return Ok(Settled::Frozen);
        }
        let children = self.children.get(&parent).map_or(&[][..], Vec::as_slice);
        let known = children.iter().filter_map(|child| self.payloads.get_index(*child as usize));
        let unsettled = known.filter(|(_, entry)| entry.outcome.is_none()).map(|(id, _)| *id);
        Ok(Settled::Open { unsettled: unsettled.collect() })
    }

    /// An outcome in memory or, where a scan has too many of them, in a file that goes with the scan.
    fn keep(&mut self, outcome: &Outcome, overflow: Option<&(Arc<Path>, usize)>) -> Result<Content, Fault> {
        if let Some((dir, _)) = overflow
            && outcome.edges.len() > STREAMED_EDGES
        {
            let spool = self.spool.get_or_insert_with(|| Spool::new(Arc::clone(dir)));
            let written = spool.write(|out| serde_json::to_writer(out, outcome).map_err(io::Error::from));
            return written.map_err(|e| match e.get_ref() {
                // What serde says of the value itself comes wrapped; what the system says of the file does not.
                Some(_) => unwritable(e),
                None => spool.away(e),
            });
        }
        let json = serde_json::to_vec(outcome).map_err(unwritable)?;
        if let Some((dir, held)) = overflow
            && self.bytes + json.len() > *held
        {
            return self.spool.get_or_insert_with(|| Spool::new(Arc::clone(dir))).put(&json);
        }
        self.bytes += json.len();
        Ok(json.into())
    }

    /// When the scan's time ends or ended.
    fn due(&self) -> Timestamp {
        self.frozen.map_or(self.due, |f| f.lease_until)
    }

    fn view(&self, scan_id: ScanId, completeness: Completeness) -> FrozenScan {
        let missing = self.payloads.iter().filter(|(_, e)| e.outcome.is_none()).map(|(id, _)| *id);
        let mut outcomes = Vec::with_capacity(self.payloads.len() - self.outstanding);
        outcomes.extend(self.payloads.iter().filter_map(|(id, entry)| {
            entry.outcome.as_ref().map(|json| Kept::Text { payload_id: *id, json: json.clone() })
        }));
        FrozenScan { scan_id, head: Arc::clone(&self.head), completeness, outcomes, missing: missing.collect() }
    }
}

fn narrow(place: usize) -> Place {
    Place::try_from(place).unwrap_or(Place::MAX)
}

fn unwritable(error: impl std::error::Error + Send + Sync + 'static) -> Fault {
    Fault::because(FaultKind::Refused, "an outcome cannot be written as JSON", error)
}

#[async_trait]
impl Ledger for MemoryLedger {
    async fn open(&self, scan: ScanId, head: &ScanHead, now: Timestamp) -> Result<(), Fault> {
        self.state.lock().find(scan, Some(head), now);
        Ok(())
    }

    async fn admit(
        &self,
        scan: ScanId,
        head: Option<&ScanHead>,
        parent: PayloadId,
        children: &[ChildRecord],
        now: Timestamp,
    ) -> Result<Admitted, Fault> {
        if children.len() > MAX_ADMIT {
            let text = format!("{} children in one admission, at most {MAX_ADMIT} are taken", children.len());
            return Err(Fault::new(FaultKind::Refused, text));
        }
        Ok(match self.state.lock().find(scan, head, now) {
            Found::Unknown => Admitted::Unknown,
            Found::Frozen => Admitted::Frozen,
            Found::Closed => Admitted::Closed,
            Found::Open(scan) => Admitted::Open(scan.admit_all(parent, children, now)),
        })
    }

    async fn settle(
        &self,
        scan: ScanId,
        head: Option<&ScanHead>,
        outcome: &Outcome,
        children: &[PayloadId],
        now: Timestamp,
    ) -> Result<Settled, Fault> {
        Ok(match self.state.lock().find(scan, head, now) {
            Found::Unknown => Settled::Unknown,
            Found::Frozen => Settled::Frozen,
            Found::Closed => Settled::Closed,
            Found::Open(scan) => scan.settle(outcome, children, self.overflow.as_ref(), now)?,
        })
    }

    async fn begin(&self, scan: ScanId, payload: PayloadId, now: Timestamp) -> Result<u32, Fault> {
        let mut state = self.state.lock();
        if state.is_closed(scan, now) {
            return Ok(0);
        }
        let attempts = match state.scans.get_mut(&scan) {
            Some(scan) => &mut scan.attempts,
            None => {
                let stray = state.strays.entry(scan).or_insert_with(|| Stray { last: now, attempts: HashMap::new() });
                stray.last = now;
                &mut stray.attempts
            }
        };
        let count = attempts.entry(payload).or_insert(0);
        *count = count.saturating_add(1);
        Ok(*count)
    }

    async fn survived(&self, scan: ScanId, payload: PayloadId) -> Result<(), Fault> {
        let mut state = self.state.lock();
        let State { scans, strays, .. } = &mut *state;
        let known = scans.get_mut(&scan).map(|scan| &mut scan.attempts);
        let attempts = known.or_else(|| strays.get_mut(&scan).map(|stray| &mut stray.attempts));
        if let Some(count) = attempts.and_then(|attempts| attempts.get_mut(&payload)) {
            *count = count.saturating_sub(1);
        }
        Ok(())
    }

    async fn spent(&self, scan: ScanId) -> Result<Option<(u64, u64)>, Fault> {
        Ok(self.state.lock().scans.get(&scan).map(|scan| (scan.admitted, scan.admitted_bytes)))
    }

    async fn head(&self, scan: ScanId) -> Result<Option<ScanHead>, Fault> {
        Ok(self.state.lock().scans.get(&scan).map(|scan| (*scan.head).clone()))
    }

    async fn frozen(&self, scan: ScanId) -> Result<Option<FrozenScan>, Fault> {
        let state = self.state.lock();
        Ok(state.scans.get(&scan).and_then(|s| s.frozen.map(|frozen| s.view(scan, frozen.completeness))))
    }

    async fn close(&self, scan: ScanId, keep: Duration, now: Timestamp) -> Result<(), Fault> {
        let mut state = self.state.lock();
        state.forget_old(now);
        if state.scans.get(&scan).is_some_and(|s| s.frozen.is_some()) {
            state.scans.remove(&scan);
            let until = now.after(keep);
            state.tombstones.insert(scan, until);
            state.expiry.insert((until, scan));
        }
        Ok(())
    }

    async fn overdue(&self, horizon: Timestamp, now: Timestamp, limit: usize) -> Result<Vec<Overdue>, Fault> {
        let mut state = self.state.lock();
        state.forget_old(now);
        state.strays.retain(|_, stray| stray.last.age(now) < ATTEMPTS_KEPT);
        let late = state.scans.iter().filter(|(_, s)| match s.frozen {
            Some(frozen) => frozen.lease_until <= now,
            None => s.due() < horizon,
        });
        let mut late: Vec<_> = late.map(|(id, s)| (s.due(), *id, s)).collect();
        late.sort_unstable_by_key(|(due, id, _)| (*due, *id));
        let overdue = late.into_iter().take(limit);
        Ok(overdue.map(|(due, scan_id, s)| Overdue { scan_id, due, frozen: s.frozen.is_some() }).collect())
    }

    async fn freeze(&self, scan: ScanId, lease: Duration, now: Timestamp) -> Result<Claim, Fault> {
        let mut state = self.state.lock();
        let Some(scan) = state.scans.get_mut(&scan) else { return Ok(Claim::Gone) };
        let completeness = match scan.frozen {
            Some(frozen) if now < frozen.lease_until => return Ok(Claim::Held),
            Some(frozen) => frozen.completeness,
            None => Completeness::Partial,
        };
        scan.frozen = Some(Frozen { completeness, lease_until: now.after(lease) });
        Ok(Claim::Taken(completeness))
    }

    async fn open_scans(&self) -> Result<u64, Fault> {
        Ok(self.state.lock().scans.len() as u64)
    }

    async fn check(&self) -> Result<(), Fault> {
        Ok(())
    }
}
