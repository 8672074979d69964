//! What a worker takes next: from which tenant's lanes, by weight, and of those children before roots.
//!
//! A worker handles a bounded number of messages at a time, its places. Most are for whoever comes, so that a tenant that
//! is alone has all of them; beside them each tenant has a few of its own, so that one that comes late finds a place
//! however many another one holds. Who gets a place that several wait for is decided by [`Shares`] over the time for
//! which places were held. Messages that were prefetched but have no place yet wait in the stream of their own lane, where
//! they are in nobody's way.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use stoq_api::Fault;
use stoq_api::queue::{Deliveries, Delivery, Prefetch};
use stoq_runtime::shares::{Shares, Turn};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::lanes::{Lane, TaskLane, TenantLanes, WORKERS};
use crate::links::Links;

/// How long a lane that is away is left alone.
const AWAY: Duration = Duration::from_millis(500);
/// Own places of all tenants together, as a part of those for all.
const OWN_PART: usize = 4;

/// The places of a worker, for messages in work.
pub(crate) struct Places {
    state: Mutex<State>,
    freed: Notify,
    all: usize,
}

struct State {
    shares: Shares,
    tenants: Vec<Held>,
    /// Places for all that are taken.
    common: usize,
}

/// What a tenant has of its own, and what it holds.
struct Held {
    own: usize,
    in_hand: usize,
    /// Nothing of it waited when it was looked at last.
    dry: bool,
}

/// A place that is taken. It is free again once this is dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    turn: Option<Turn>,
    since: Instant,
}

impl Places {
    /// `all` places for everybody, and own ones for tenants of these weights if there are several.
    pub(crate) fn new(all: usize, weights: &[u32]) -> Self {
        let sum: usize = weights.iter().map(|weight| *weight as usize).sum();
        let own = |weight: u32| match weights {
            [_] => 0,
            _ => (all * weight as usize / sum / OWN_PART).max(1),
        };
        let tenants = weights.iter().map(|weight| Held { own: own(*weight), in_hand: 0, dry: true });
        let state = State { shares: Shares::new(weights.iter().copied()), tenants: tenants.collect(), common: 0 };
        Self { state: Mutex::new(state), freed: Notify::new(), all: all.max(1) }
    }

    /// As many places as one tenant may hold.
    fn most(&self, tenant: usize) -> usize {
        self.all + self.state.lock().tenants[tenant].own
    }

    /// The tenants for which there is a place, whoever comes first in front.
    fn open(&self) -> Vec<usize> {
        let state = self.state.lock();
        let has_place = |tenant: &usize| {
            let held = &state.tenants[*tenant];
            held.in_hand < held.own || state.common < self.all
        };
        let mut open: Vec<usize> = (0..state.tenants.len()).filter(has_place).collect();
        open.sort_by_key(|tenant| state.shares.place(*tenant));
        open
    }

    /// Nothing waits for these tenants.
    fn dry(&self, tenants: impl Iterator<Item = usize>) {
        let mut state = self.state.lock();
        tenants.for_each(|tenant| state.tenants[tenant].dry = true);
    }

    /// Takes a place for a tenant that [`Places::open`] named.
    fn take(self: &Arc<Self>, tenant: usize) -> Place {
        let mut state = self.state.lock();
        let State { shares, tenants, common } = &mut *state;
        let held = &mut tenants[tenant];
        if held.dry && held.in_hand == 0 {
            shares.come_back(tenant);
        }
        held.dry = false;
        held.in_hand += 1;
        *common += usize::from(held.in_hand > held.own);
        Place { places: Arc::clone(self), turn: Some(shares.begin(tenant)), since: Instant::now() }
    }

    fn give_back(&self, turn: Turn, since: Instant) {
        let mut state = self.state.lock();
        let held = &mut state.tenants[turn.party()];
        let of_all = held.in_hand > held.own;
        held.in_hand -= 1;
        state.common -= usize::from(of_all);
        state.shares.end(turn, u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX));
        drop(state);
        self.freed.notify_waiters();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(turn) = self.turn.take() {
            self.places.give_back(turn, self.since);
        }
    }
}

/// The task lanes that a worker takes from.
pub(crate) struct Feed {
    places: Arc<Places>,
    lines: Vec<Line>,
}

/// A lane with its messages.
struct Line {
    /// The tenant's place among those of this feed.
    number: usize,
    lane: Lane,
    deliveries: Box<dyn Deliveries>,
    /// It was away; until then it is left alone.
    rests: Option<Instant>,
}

impl Feed {
    /// Subscribes to the lanes of the tenants that this process takes from.
    ///
    /// # Errors
    /// A lane cannot be subscribed to.
    pub(crate) async fn subscribe(links: &Links) -> Result<Self, Fault> {
        let concurrency = links.settings.concurrency.max(1);
        let taken = |(_, lanes): &(usize, &TenantLanes)| lanes.taken;
        let tenants: Vec<_> = links.lanes.tenants().iter().enumerate().filter(taken).collect();
        let weights: Vec<u32> = tenants.iter().map(|(_, lanes)| lanes.weight).collect();
        let places = Places::new(concurrency, &weights);
        let mut lines = Vec::with_capacity(tenants.len() * TaskLane::ALL.len());
        for (number, (tenant, lanes)) in tenants.iter().enumerate() {
            for kind in TaskLane::ALL {
                let prefetch = prefetch(places.most(number), kind);
                let what = format!("subscribe to {}", kind.name(lanes.tenant.as_deref()));
                let queue = lanes.queue(kind);
                let deliveries = links.patiently(&what, || queue.subscribe(WORKERS, prefetch)).await?;
                lines.push(Line { number, lane: Lane { tenant: *tenant, kind }, deliveries, rests: None });
            }
        }
        Ok(Self { places: Arc::new(places), lines })
    }

    /// The next message, as soon as there is one and a place for it. `None` once `stop` is cancelled or a lane was shut
    /// down.
    pub(crate) async fn next(&mut self, stop: &CancellationToken) -> Option<(Lane, Delivery, Place)> {
        loop {
            let freed = self.places.freed.notified();
            let mut freed = pin!(freed);
            // From here on no place that becomes free is missed.
            freed.as_mut().enable();
            let open = self.places.open();
            let now = Instant::now();
            let all_open = open.len() * TaskLane::ALL.len() == self.lines.len();
            let rested = self.lines.iter().filter_map(|line| line.rests).filter(|until| *until > now).min();
            let (number, next) = tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                next = first(&mut self.lines, &open, now, &self.places) => next,
                () = freed, if !all_open => continue,
                () = tokio::time::sleep_until(rested.unwrap_or(now)), if rested.is_some() => continue,
            };
            let line = &mut self.lines[number];
            match next {
                Ok(Some(delivery)) => return Some((line.lane, delivery, self.places.take(line.number))),
                Ok(None) => return None,
                Err(fault) => {
                    tracing::warn!(lane = ?line.lane, error = %stoq_api::fault::chain(&fault), "the lane is away; trying again");
                    // Others need not wait for it.
                    line.rests = Some(Instant::now() + AWAY);
                }
            }
        }
    }
}

/// What a lane may have handed out without a verdict, for so many places. A lane of children that has handed out all that
/// it may looks as if none waited, and roots would be taken before them: so it is some more than there are places, as
/// acknowledgements take a moment to arrive.
fn prefetch(places: usize, kind: TaskLane) -> Prefetch {
    let messages = match kind {
        TaskLane::Roots => places,
        TaskLane::Children => places + places / 4 + 1,
    };
    Prefetch { messages: u32::try_from(messages).unwrap_or(u32::MAX) }
}

type Next = Result<Option<Delivery>, Fault>;

/// The first message that any of the lines has, with the line's number. Those of `open` are asked in their order, and of
/// each tenant children before roots; those that rest are not.
async fn first(lines: &mut [Line], open: &[usize], now: Instant, places: &Places) -> (usize, Next) {
    let mut asked: Vec<(usize, usize, BoxFuture<'_, Next>)> = Vec::with_capacity(lines.len());
    for (n, line) in lines.iter_mut().enumerate() {
        let rank = open.iter().position(|tenant| *tenant == line.number);
        if let Some(rank) = rank.filter(|_| line.rests.is_none_or(|until| until <= now)) {
            asked.push((rank, n, line.deliveries.next()));
        }
    }
    // Lines stand in the order of their kinds, and sorting keeps it.
    asked.sort_by_key(|(rank, ..)| *rank);
    futures::future::poll_fn(|cx| {
        for (_, n, next) in &mut asked {
            if let std::task::Poll::Ready(next) = next.as_mut().poll(cx) {
                return std::task::Poll::Ready((*n, next));
            }
        }
        places.dry(open.iter().copied());
        std::task::Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests;
