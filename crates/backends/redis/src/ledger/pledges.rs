//! What payloads were told about their children, until they are settled.
//!
//! A Redis that comes back without its last operations, or a replica that takes over before it has them, does not know
//! children any more that were admitted and whose tasks are on their way. If their parent were settled then, the scan
//! could end as complete without them. So this process remembers the children of each admission that was answered, and
//! hands them to the settlement of their parent, which takes in again what is not known.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use stoq_api::{PayloadId, ScanId};

/// Children that are remembered at most, at 16 bytes and some more each; far above what one process works on at a time.
const MAX_CHILDREN: usize = 4_000_000;
/// When room is needed, parents that nobody asked for in this time were given up. Longer than any worker holds on to
/// one.
const GIVEN_UP: Duration = Duration::from_secs(6 * 3_600);

/// The memory of one process.
pub(super) struct Pledges {
    state: Mutex<State>,
    most: usize,
    given_up: Duration,
}

#[derive(Default)]
struct State {
    parents: HashMap<(ScanId, PayloadId), Pledge>,
    children: usize,
}

struct Pledge {
    children: BTreeSet<PayloadId>,
    last: Instant,
}

impl Default for Pledges {
    fn default() -> Self {
        Self { state: Mutex::default(), most: MAX_CHILDREN, given_up: GIVEN_UP }
    }
}

impl Pledges {
    /// Whether `more` children can be remembered.
    pub(super) fn has_room(&self, more: usize) -> bool {
        let mut state = self.state.lock();
        if state.children + more > self.most {
            state.parents.retain(|_, pledge| pledge.last.elapsed() < self.given_up);
            state.children = state.parents.values().map(|pledge| pledge.children.len()).sum();
        }
        state.children + more <= self.most
    }

    /// Remembers children of `parent`.
    pub(super) fn add(&self, scan: ScanId, parent: PayloadId, children: impl Iterator<Item = PayloadId>) {
        let mut children = children.peekable();
        if children.peek().is_none() {
            return;
        }
        let state = &mut *self.state.lock();
        let pledge = state
            .parents
            .entry((scan, parent))
            .or_insert_with(|| Pledge { children: BTreeSet::new(), last: Instant::now() });
        pledge.last = Instant::now();
        for child in children {
            state.children += usize::from(pledge.children.insert(child));
        }
    }

    /// The children of `parent`, in order.
    pub(super) fn of(&self, scan: ScanId, parent: PayloadId) -> Vec<PayloadId> {
        let state = self.state.lock();
        state.parents.get(&(scan, parent)).map(|pledge| pledge.children.iter().copied().collect()).unwrap_or_default()
    }

    /// `parent` is settled, or there is nothing to settle any more.
    pub(super) fn drop(&self, scan: ScanId, parent: PayloadId) {
        let state = &mut *self.state.lock();
        if let Some(pledge) = state.parents.remove(&(scan, parent)) {
            state.children -= pledge.children.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use stoq_api::Sha256;
    use uuid::Uuid;

    use super::*;

    fn id(n: u128) -> PayloadId {
        PayloadId(Uuid::from_u128(n))
    }

    #[test]
    fn remembers_until_settled_and_within_bounds() {
        let mut pledges = Pledges { most: 3, ..Pledges::default() };
        let scan = ScanId::derive("a", b"b", &Sha256::of(b"c"));
        pledges.add(scan, id(0), [id(2), id(1), id(2)].into_iter());
        assert_eq!(pledges.of(scan, id(0)), [id(1), id(2)]);
        assert!(pledges.has_room(1) && !pledges.has_room(2));
        pledges.drop(scan, id(0));
        pledges.drop(scan, id(0));
        assert!(pledges.of(scan, id(0)).is_empty() && pledges.has_room(3));

        pledges.add(scan, id(5), [id(6), id(7)].into_iter());
        pledges.given_up = Duration::ZERO;
        assert!(pledges.has_room(1), "nothing goes while there is room");
        assert_eq!(pledges.of(scan, id(5)), [id(6), id(7)]);
        assert!(pledges.has_room(2), "given up long ago");
        assert!(pledges.of(scan, id(5)).is_empty() && pledges.has_room(3));
    }
}
