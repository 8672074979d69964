//! What one consumer of a group knows of its partitions: no client, no clock, no thread.
//!
//! Records are *read* in order, *started* (handed to a subscriber) in order, and *finished* in any order. Three offsets
//! bound a partition:
//!
//! - `low`: everything below is finished. This, and nothing above it, is committed.
//! - `started`: nothing at or above was ever started. It is not what is written down, which would cost a commit for each
//!   record, but
//! - `lease`: written down with each commit, and only what lies below is started. So whoever gets the partition next
//!   knows which records may have been delivered before: those from the committed offset to the lease. At an orderly end
//!   the lease is `started` itself. Where none is written down, everything that was there may have been delivered.

use std::collections::{BTreeMap, VecDeque};

use stoq_api::Timestamp;
use stoq_api::queue::Message;

use crate::record::Record;

/// Records that are read ahead of what is started, a partition.
const READY_MESSAGES: usize = 64;
/// Bytes of them; one record more may come.
const READY_BYTES: usize = 4 << 20;
/// How far a lease reaches beyond what is started.
const LEASE: i64 = 256;
/// No lease: everything may be started, and may have been.
pub(super) const UNLEASED: i64 = i64::MAX;

/// Names one start of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    partition: i32,
    epoch: u64,
    offset: i64,
    receiver: u64,
}

/// A record that a subscriber gets.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) token: Token,
    pub(super) message: Message,
    pub(super) first: bool,
    pub(super) published: Option<Timestamp>,
}

/// What is written down for a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// The offset that is committed.
    pub(super) low: i64,
    /// Only below it was anything started; [`UNLEASED`] if that is not known.
    pub(super) lease: i64,
}

/// What is known of a partition when it is assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The committed offset, if there is one.
    pub(super) committed: Option<i64>,
    /// Below it, records may have been delivered before; [`UNLEASED`] if that is not known.
    pub(super) suspects: i64,
    /// The lease that is written down, or [`UNLEASED`].
    pub(super) lease: i64,
}

/// The partitions of one consumer.
#[derive(Debug)]
pub(super) struct State {
    window: i64,
    partitions: BTreeMap<i32, Partition>,
    /// Given back, and not due yet.
    resting: VecDeque<(i32, u64, i64)>,
    /// Given back, to be started again before anything else.
    again: VecDeque<(i32, u64, i64)>,
    epoch: u64,
    receivers: Vec<u64>,
    next_receiver: u64,
    /// The partition that was served last.
    turn: i32,
}

#[derive(Debug)]
struct Partition {
    epoch: u64,
    /// After the last record that was read; before the first is, the committed offset.
    position: Option<i64>,
    ready: VecDeque<Record>,
    ready_bytes: usize,
    held: BTreeMap<i64, Held>,
    started: i64,
    suspects: i64,
    /// Others may have started anything, until a commit shows that the partition is still ours.
    doubted: bool,
    committed: Option<i64>,
    lease: i64,
    sent: Option<Mark>,
}

#[derive(Debug)]
struct Held {
    record: Record,
    /// Who holds it; nobody while it waits to be started again.
    receiver: Option<u64>,
}

impl State {
    pub(super) fn new(window: i64) -> Self {
        Self {
            window: window.max(1),
            partitions: BTreeMap::new(),
            resting: VecDeque::new(),
            again: VecDeque::new(),
            epoch: 0,
            receivers: Vec::new(),
            next_receiver: 0,
            turn: 0,
        }
    }

    /// A subscriber comes.
    pub(super) fn join(&mut self) -> u64 {
        self.next_receiver += 1;
        self.receivers.push(self.next_receiver);
        self.next_receiver
    }

    /// A subscriber goes; what it holds is given back. `true` if it was the last.
    pub(super) fn leave(&mut self, receiver: u64) -> bool {
        self.receivers.retain(|r| *r != receiver);
        for (id, partition) in &mut self.partitions {
            for (offset, held) in &mut partition.held {
                if held.receiver == Some(receiver) {
                    held.receiver = None;
                    self.again.push_back((*id, partition.epoch, *offset));
                }
            }
        }
        self.receivers.is_empty()
    }

    /// A partition is ours from now on.
    pub(super) fn assign(&mut self, id: i32, found: Found) {
        self.epoch += 1;
        let partition = Partition {
            epoch: self.epoch,
            position: found.committed,
            ready: VecDeque::new(),
            ready_bytes: 0,
            held: BTreeMap::new(),
            started: found.committed.unwrap_or(0),
            suspects: found.suspects,
            doubted: false,
            committed: found.committed,
            lease: found.lease,
            sent: None,
        };
        self.partitions.insert(id, partition);
    }

    /// A partition is not ours any more: what is held of it is stale.
    pub(super) fn revoke(&mut self, id: i32) {
        self.partitions.remove(&id);
    }

    /// The partitions that are ours.
    pub(super) fn assigned(&self) -> Vec<i32> {
        self.partitions.keys().copied().collect()
    }

    /// Whether there is room for another record of that partition.
    pub(super) fn wants(&self, id: i32) -> bool {
        self.partitions.get(&id).is_some_and(|p| p.ready.len() < READY_MESSAGES && p.ready_bytes < READY_BYTES)
    }

    /// A record was read. Ignored if its partition is not ours, or it was read before.
    pub(super) fn push(&mut self, id: i32, record: Record) {
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        // After the committed offset fell out of what the topic keeps, reading goes on elsewhere.
        let reset = partition.ready.is_empty() && partition.held.is_empty();
        if !reset && partition.position.is_some_and(|position| record.offset < position) {
            return;
        }
        partition.position = Some(record.offset + 1);
        partition.ready_bytes += record.size();
        partition.ready.push_back(record);
    }

    /// Starts a record for `receiver`, if one may be.
    pub(super) fn take(&mut self, receiver: u64) -> Option<Taken> {
        self.take_again(receiver).or_else(|| self.take_ready(receiver))
    }

    fn take_again(&mut self, receiver: u64) -> Option<Taken> {
        while let Some((id, epoch, offset)) = self.again.pop_front() {
            let Some(partition) = self.partitions.get_mut(&id).filter(|p| p.epoch == epoch) else { continue };
            let Some(held) = partition.held.get_mut(&offset) else { continue };
            held.receiver = Some(receiver);
            return Some(Taken {
                token: Token { partition: id, epoch, offset, receiver },
                message: held.record.message.clone(),
                first: false,
                published: held.record.published,
            });
        }
        None
    }

    fn take_ready(&mut self, receiver: u64) -> Option<Taken> {
        let (window, turn) = (self.window, self.turn);
        let after = self.partitions.range(turn.saturating_add(1)..).map(|(id, _)| *id);
        let before = self.partitions.range(..=turn).map(|(id, _)| *id);
        let id = after.chain(before).find(|id| self.partitions[id].may_start(window))?;
        self.turn = id;
        let partition = self.partitions.get_mut(&id)?;
        let record = partition.ready.pop_front()?;
        partition.ready_bytes = partition.ready_bytes.saturating_sub(record.size());
        let offset = record.offset;
        let taken = Taken {
            token: Token { partition: id, epoch: partition.epoch, offset, receiver },
            message: record.message.clone(),
            first: !partition.doubted && offset >= partition.suspects,
            published: record.published,
        };
        partition.started = partition.started.max(offset + 1);
        partition.held.insert(offset, Held { record, receiver: Some(receiver) });
        Some(taken)
    }

    /// Whether [`State::take`] would find something.
    pub(super) fn has_work(&self) -> bool {
        !self.again.is_empty() || self.partitions.values().any(|p| p.may_start(self.window))
    }

    /// Whether reading or committing would make [`State::take`] find more.
    pub(super) fn is_thirsty(&self) -> bool {
        self.partitions.values().any(|p| p.ready.len() < READY_MESSAGES / 2 || p.must_lease(self.window))
    }

    /// The record is finished. `false` if it was taken back.
    pub(super) fn finish(&mut self, token: Token) -> bool {
        let Some(partition) = self.partition(token) else { return false };
        partition.held.remove(&token.offset).is_some()
    }

    /// The record is to be delivered again. `false` if it was taken back.
    pub(super) fn give_back(&mut self, token: Token) -> bool {
        let Some(partition) = self.partition(token) else { return false };
        if let Some(held) = partition.held.get_mut(&token.offset) {
            held.receiver = None;
        }
        self.resting.push_back((token.partition, token.epoch, token.offset));
        true
    }

    /// Whether the record is still held under this token.
    pub(super) fn holds(&self, token: Token) -> bool {
        self.partitions.get(&token.partition).is_some_and(|p| p.is_held(token))
    }

    fn partition(&mut self, token: Token) -> Option<&mut Partition> {
        self.partitions.get_mut(&token.partition).filter(|p| p.is_held(token))
    }

    /// What was given back a while ago may be started again.
    pub(super) fn wake_resting(&mut self) {
        self.again.append(&mut self.resting);
    }

    /// Others may own the partitions by now: nothing counts as first until a commit succeeds.
    pub(super) fn doubt(&mut self) {
        for partition in self.partitions.values_mut() {
            partition.doubted = true;
        }
    }

    /// What is to be written down now, and not yet on its way.
    pub(super) fn due(&self) -> Vec<(i32, Mark)> {
        let due = self.partitions.iter().filter_map(|(id, p)| Some((*id, p.due(self.window)?)));
        due.collect()
    }

    /// Whether a commit cannot wait.
    pub(super) fn is_urgent(&self) -> bool {
        self.partitions.values().any(|p| p.must_lease(self.window) || p.doubted)
    }

    /// What is to be written down of a partition before it is given up.
    pub(super) fn last(&self, id: i32) -> Option<Mark> {
        let partition = self.partitions.get(&id)?;
        let low = partition.low()?;
        let mark = Mark { low, lease: partition.started.max(partition.suspects).max(low) };
        (partition.committed != Some(low) || partition.lease != mark.lease || partition.sent.is_some()).then_some(mark)
    }

    /// `marks` are on their way.
    pub(super) fn sent(&mut self, marks: &[(i32, Mark)]) {
        for (id, mark) in marks {
            if let Some(partition) = self.partitions.get_mut(id) {
                partition.sent = Some(*mark);
                // Where there was none so far, it counts from now on.
                partition.lease = partition.lease.min(mark.lease);
            }
        }
    }

    /// What was on its way has arrived, or has not.
    pub(super) fn settled(&mut self, marks: &[(i32, Mark)], arrived: bool) {
        for (id, mark) in marks {
            let Some(partition) = self.partitions.get_mut(id).filter(|p| p.sent == Some(*mark)) else { continue };
            partition.sent = None;
            if arrived {
                partition.committed = Some(mark.low);
                partition.lease = mark.lease;
                partition.doubted = false;
            }
        }
    }

    /// Records that subscribers of this consumer hold.
    pub(super) fn held(&self) -> u64 {
        self.partitions.values().map(|p| p.held.values().filter(|h| h.receiver.is_some()).count() as u64).sum()
    }

    /// For each partition that is ours: where reading stands, and how many records below that are not finished.
    pub(super) fn unfinished(&self) -> Vec<(i32, i64, u64)> {
        let open = |p: &Partition| (p.ready.len() + p.held.len()) as u64;
        self.partitions.iter().filter_map(|(id, p)| Some((*id, p.position?, open(p)))).collect()
    }
}

impl Partition {
    /// The lowest unfinished offset; unknown until something is read of a partition without a committed one.
    fn low(&self) -> Option<i64> {
        let held = self.held.keys().next().copied();
        held.or_else(|| self.ready.front().map(|r| r.offset)).or(self.position)
    }

    fn is_held(&self, token: Token) -> bool {
        self.epoch == token.epoch && self.held.get(&token.offset).is_some_and(|h| h.receiver == Some(token.receiver))
    }

    fn may_start(&self, window: i64) -> bool {
        let Some(next) = self.ready.front() else { return false };
        let low = self.low().unwrap_or(next.offset);
        next.offset < low.saturating_add(window) && next.offset < self.lease
    }

    /// The lease that is wanted now.
    fn wanted(&self, low: i64, window: i64) -> i64 {
        let next = self.ready.front().map_or(self.started, |r| r.offset).max(self.started).max(low);
        // Never less than what was started here or before: a small window holds up starting, and hides nothing.
        next.saturating_add(LEASE).min(low.saturating_add(window)).max(self.started).max(self.suspects).max(low)
    }

    /// The lease holds up the next record, or soon will.
    fn must_lease(&self, window: i64) -> bool {
        let (Some(low), Some(next)) = (self.low(), self.ready.front()) else { return false };
        self.sent.is_none()
            && self.wanted(low, window) > self.lease
            && next.offset.saturating_add(LEASE / 2) >= self.lease
    }

    fn due(&self, window: i64) -> Option<Mark> {
        let low = self.low()?;
        if self.sent.is_some() {
            return None;
        }
        let renewed = self.lease == UNLEASED || self.must_lease(window);
        let lease = if renewed { self.wanted(low, window) } else { self.lease.max(low) };
        let moved = self.committed.is_some_and(|committed| low > committed);
        (moved || lease > self.lease || self.doubted).then_some(Mark { low, lease })
    }
}

#[cfg(test)]
mod tests;
