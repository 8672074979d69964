//! Jobs that wait for a slot.
//!
//! Each tenant has a line of its own, and the lines are served by weight, over the time that slots were at work for
//! them. A batch never holds items of two tenants.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use stoq_runtime::metrics::SlotTime;
use stoq_runtime::shares::{Shares, Turn};
use tokio::sync::oneshot;

use crate::job::{Answer, JobItem, Sharing, Tenant};

/// What the time of items without a tenant is counted under.
const PLAIN: &str = "default";

/// About how long a slot may be at work on one batch. What it costs to ask a slot is far less than this, and whoever waits for
/// the slot waits for the whole batch.
const BATCH_TIME: Duration = Duration::from_millis(2);
/// The mean cost of a line's items follows that of the last batch by one part in so many.
const FOLLOW: u32 = 8;

/// One item, and whom to answer.
pub(crate) struct Job {
    pub(crate) item: JobItem,
    index: usize,
    group: Arc<Group>,
}

/// The items of one call, answered together.
struct Group(Mutex<Waiting>);

struct Waiting {
    answers: Vec<Option<Answer>>,
    left: usize,
    reply: Option<oneshot::Sender<Vec<Answer>>>,
}

/// The jobs of all callers.
pub(crate) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    max_items: usize,
    max_bytes: u64,
    /// Batches that may be at work whoever they are for.
    slots: usize,
    /// The tenant of each line but the first.
    tenants: Vec<Arc<str>>,
    /// What is counted of each line.
    times: Vec<SlotTime>,
}

struct State {
    /// The first for items without a tenant, or with one that has no line.
    lines: Vec<Line>,
    shares: Shares,
    running: usize,
    idle: usize,
    closed: bool,
}

/// A tenant's items.
#[derive(Default)]
struct Line {
    ready: VecDeque<Job>,
    running: usize,
    /// What an item costs a slot, as far as known.
    mean: Duration,
}

impl Line {
    /// How many items a batch of [`BATCH_TIME`] has.
    fn in_time(&self) -> usize {
        let each = self.mean.as_nanos().max(1);
        usize::try_from(BATCH_TIME.as_nanos() / each).unwrap_or(usize::MAX).max(1)
    }

    /// Notes what a batch has cost.
    fn saw(&mut self, items: usize, took: Duration) {
        let each = took / u32::try_from(items).unwrap_or(u32::MAX).max(1);
        self.mean = if self.mean.is_zero() { each } else { (self.mean * (FOLLOW - 1) + each) / FOLLOW };
    }
}

/// Items of one tenant that go to a slot together. Whoever took it says when it has ended.
pub(crate) struct Batch {
    pub(crate) jobs: Vec<Job>,
    pub(crate) tenant: Tenant,
    pub(crate) turn: Turn,
}

/// What a slot's thread finds to do.
pub(crate) enum Taken {
    /// These, as one batch.
    Batch(Batch),
    /// Nothing for now.
    Nothing,
    /// Nothing ever again.
    Closed,
}

impl Job {
    /// The caller has gone away.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.group.0.lock().reply.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// Answers the item; the caller gets all its answers with the last.
    pub(crate) fn answer(self, answer: Answer) {
        let mut waiting = self.group.0.lock();
        if waiting.answers[self.index].replace(answer).is_none() {
            waiting.left -= 1;
        }
        if waiting.left == 0
            && let Some(reply) = waiting.reply.take()
        {
            let answers = waiting.answers.iter_mut().map(|a| a.take().unwrap_or_default()).collect();
            // The caller may have gone away meanwhile.
            reply.send(answers).ok();
        }
    }
}

impl State {
    /// Whose batch may begin next. Beside the slots that are there for all, a tenant that has none at work may begin one
    /// at once if it is further behind than all others that have or want one, and if a thread is left for it.
    fn next(&self, slots: usize) -> Option<usize> {
        let waits = |place: &usize| !self.lines[*place].ready.is_empty();
        let next = self.shares.next((0..self.lines.len()).filter(waits))?;
        if self.running < slots {
            return Some(next);
        }
        let active = |place: &usize| waits(place) || self.lines[*place].running > 0;
        let behind = self.shares.next((0..self.lines.len()).filter(active)) == Some(next);
        (behind && self.lines[next].running == 0).then_some(next)
    }
}

impl Queue {
    /// A queue for so many slots, whose batches have at most `max_items` and, unless it is one item, `max_bytes`.
    pub(crate) fn new(max_items: usize, max_bytes: u64, slots: usize, sharing: &Sharing) -> Self {
        let weights = std::iter::once(sharing.plain).chain(sharing.tenants.iter().map(|(_, weight)| *weight));
        let shares = Shares::new(weights);
        let lines = (0..shares.len()).map(|_| Line::default()).collect();
        let tenants: Vec<_> = sharing.tenants.iter().map(|(name, _)| Arc::clone(name)).collect();
        let times = std::iter::once(PLAIN).chain(tenants.iter().map(|name| &**name)).map(SlotTime::of).collect();
        let state = State { lines, shares, running: 0, idle: 0, closed: false };
        Self { state: Mutex::new(state), wake: Condvar::new(), max_items, max_bytes, slots, tenants, times }
    }

    fn line(&self, tenant: &Tenant) -> usize {
        let named = tenant.as_ref().and_then(|tenant| self.tenants.iter().position(|name| name == tenant));
        named.map_or(0, |place| place + 1)
    }

    /// Puts a call's items in line; their answers come out of what is returned.
    pub(crate) fn push(&self, items: Vec<JobItem>) -> oneshot::Receiver<Vec<Answer>> {
        let (reply, answers) = oneshot::channel();
        let n = items.len();
        let mut empty = Vec::new();
        empty.resize_with(n, || None);
        let group = Arc::new(Group(Mutex::new(Waiting { answers: empty, left: n, reply: Some(reply) })));
        let mut state = self.state.lock();
        if !state.closed {
            for (index, item) in items.into_iter().enumerate() {
                let place = self.line(&item.tenant);
                let line = &mut state.lines[place];
                let back = line.ready.is_empty() && line.running == 0;
                line.ready.push_back(Job { item, index, group: Arc::clone(&group) });
                if back {
                    state.shares.come_back(place);
                }
            }
        }
        for _ in 0..n.min(state.idle) {
            self.wake.notify_one();
        }
        answers
    }

    /// Takes a batch of whoever is next: what is ready of it, shared fairly with the slots that are idle, within the limits
    /// of a batch. Waits at most `time` for the first job and never for a second.
    pub(crate) fn take(&self, time: Duration) -> Taken {
        let mut state = self.state.lock();
        if !state.closed && state.next(self.slots).is_none() {
            state.idle += 1;
            self.wake.wait_while_for(&mut state, |s| !s.closed && s.next(self.slots).is_none(), time);
            state.idle -= 1;
        }
        let Some(place) = state.next(self.slots) else {
            return if state.closed { Taken::Closed } else { Taken::Nothing };
        };
        let free = self.slots.saturating_sub(state.running + 1).min(state.idle);
        let line = &mut state.lines[place];
        let share = line.ready.len().div_ceil(free + 1).min(self.max_items).min(line.in_time());
        let tenant = line.ready.front().and_then(|job| job.item.tenant.clone());
        let mut jobs = Vec::with_capacity(share);
        let mut bytes = 0_u64;
        while jobs.len() < share
            && let Some(next) = line.ready.front().filter(|next| next.item.tenant == tenant)
        {
            bytes = bytes.saturating_add(next.item.content.len()).saturating_add(next.item.header.len() as u64);
            if bytes > self.max_bytes && !jobs.is_empty() {
                break;
            }
            jobs.extend(line.ready.pop_front());
        }
        line.running += 1;
        state.running += 1;
        let turn = state.shares.begin(place);
        Taken::Batch(Batch { jobs, tenant, turn })
    }

    /// A batch of so many items has ended, after a slot worked on it for so long.
    pub(crate) fn ended(&self, turn: Turn, items: usize, took: Duration) {
        let place = turn.party();
        let mut state = self.state.lock();
        state.lines[place].running -= 1;
        state.lines[place].saw(items, took);
        state.running -= 1;
        state.shares.end(turn, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        // Usually whoever calls this takes the next batch, but what it may not take another may.
        let waited_for = state.idle > 0 && state.next(self.slots).is_some();
        drop(state);
        self.times[place].add(took);
        if waited_for {
            self.wake.notify_one();
        }
    }

    /// No more jobs: the threads that take them end.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        // Nobody waits for these: a pool is dropped only when no call borrows it.
        state.lines.iter_mut().for_each(|line| line.ready.clear());
        drop(state);
        self.wake.notify_all();
    }
}

#[cfg(test)]
mod tests;
