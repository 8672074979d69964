//! A subscription in memory: what is held and by whom, what was given back, how far it was read.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension as _, Row};
use stoq_api::queue::Message;
use stoq_api::{Fault, Timestamp};
use tokio::sync::Notify;

/// Bits of a key that number the messages of one subscription; the bits above are the subscription's own number.
const MESSAGE_BITS: u32 = 43;
/// How many messages ahead of the last one read may be marked as perhaps delivered. The mark moves with transactions
/// that happen anyway; only if none does, reading takes one of its own.
const MARK_AHEAD: i64 = 512;
/// Bytes of bodies that one read brings, the last message excepted.
const READ_BYTES: usize = 4 << 20;
/// Messages that one read brings.
const READ_MESSAGES: usize = 256;

/// Every subscription, by queue.
pub(crate) struct Lanes(Mutex<HashMap<String, Arc<[Arc<Lane>]>>>);

impl Lanes {
    pub(crate) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let mut lanes: HashMap<String, Vec<Arc<Lane>>> = HashMap::new();
        let mut select = connection.prepare("SELECT n, queue, name, count, mark FROM subscription ORDER BY n")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let lane = Lane::load(connection, row.get(0)?, row.get(2)?, row.get(3)?, row.get(4)?)?;
            lanes.entry(row.get(1)?).or_default().push(Arc::new(lane));
        }
        Ok(Self(Mutex::new(lanes.into_iter().map(|(queue, lanes)| (queue, lanes.into())).collect())))
    }

    pub(crate) fn of(&self, queue: &str) -> Arc<[Arc<Lane>]> {
        self.0.lock().get(queue).cloned().unwrap_or_default()
    }

    /// Adds subscriptions that were just made; those that are there already stay as they are.
    pub(crate) fn add(&self, queue: &str, made: Vec<(i64, String)>) {
        let mut all = self.0.lock();
        let mut lanes = all.get(queue).map(|l| l.to_vec()).unwrap_or_default();
        for (number, name) in made {
            if !lanes.iter().any(|l| l.number == number) {
                lanes.push(Arc::new(Lane::empty(number, name)));
            }
        }
        all.insert(queue.to_owned(), lanes.into());
    }

    pub(crate) fn close_all(&self) {
        for lane in self.0.lock().values().flat_map(|lanes| lanes.iter()) {
            lane.state.lock().closed = true;
            lane.changed.notify_waiters();
        }
    }
}

/// One subscription.
pub(crate) struct Lane {
    pub(crate) number: i64,
    pub(crate) name: String,
    /// The key of the next message. Keys of transactions that failed are left out.
    next: AtomicI64,
    /// Messages up to this key may have been delivered in an earlier life.
    delivered_before: i64,
    state: Mutex<State>,
    /// Something arrived, a verdict made room, or the end came.
    pub(crate) changed: Notify,
}

#[derive(Default)]
struct State {
    /// Given back, in that order.
    returned: VecDeque<i64>,
    held: HashMap<i64, Held>,
    receivers: HashMap<u64, Receiver>,
    next_receiver: u64,
    /// The last key that was read in order.
    cursor: i64,
    /// The last key that was published.
    end: i64,
    count: u64,
    /// The mark on disk.
    mark: i64,
    closed: bool,
}

struct Held {
    receiver: u64,
    /// Its acknowledgement is under way.
    settling: bool,
}

struct Receiver {
    prefetch: usize,
    holds: usize,
    buffer: VecDeque<Fetched>,
    fetching: bool,
    fault: Option<Fault>,
}

/// A message on its way to a receiver.
pub(crate) struct Fetched {
    pub(crate) key: i64,
    pub(crate) message: Message,
    pub(crate) first: bool,
    pub(crate) published: Timestamp,
}

/// What a receiver can do next.
pub(crate) enum Step {
    Take(Fetched),
    Fail(Fault),
    Fetch(Fetch),
    Wait,
    End,
}

/// Depth as far as it is in memory.
pub(crate) struct Waiting {
    pub(crate) ready: u64,
    pub(crate) held: u64,
    /// The oldest message that nobody holds is the first of these two: that key, or the first after the other one.
    pub(crate) returned: Option<i64>,
    pub(crate) cursor: i64,
}

impl Lane {
    fn empty(number: i64, name: String) -> Self {
        let base = number << MESSAGE_BITS;
        let state = State { cursor: base, end: base, mark: base, ..State::default() };
        Self {
            number,
            name,
            next: AtomicI64::new(base + 1),
            delivered_before: base,
            state: Mutex::new(state),
            changed: Notify::new(),
        }
    }

    fn load(connection: &Connection, number: i64, name: String, count: u64, mark: i64) -> rusqlite::Result<Self> {
        let mut lane = Self::empty(number, name);
        let select = "SELECT key FROM message WHERE key < ?1 ORDER BY key DESC LIMIT 1";
        let last: Option<i64> = connection.query_row(select, [lane.end_of_keys()], |row| row.get(0)).optional()?;
        let state = lane.state.get_mut();
        let base = state.cursor;
        state.end = last.unwrap_or(base).max(base);
        state.mark = mark.max(base);
        state.count = count;
        lane.next = AtomicI64::new(state.end.max(state.mark) + 1);
        lane.delivered_before = state.mark;
        Ok(lane)
    }

    /// The key of a new message; called by the writer thread only.
    pub(crate) fn new_key(&self) -> i64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Up to where messages may be marked as perhaps delivered in a transaction that is to be committed.
    pub(crate) fn next_mark(&self) -> i64 {
        let state = self.state.lock();
        (state.cursor + MARK_AHEAD).min(self.next.load(Ordering::Relaxed) - 1).max(state.mark)
    }

    /// That mark is on the disk.
    pub(crate) fn saved(&self, mark: i64) {
        let mut state = self.state.lock();
        state.mark = state.mark.max(mark);
    }

    /// `messages` more are on the disk, the last of them with the key `last`.
    pub(crate) fn published(&self, messages: u64, last: i64) {
        let mut state = self.state.lock();
        state.count += messages;
        state.end = state.end.max(last);
        drop(state);
        self.changed.notify_waiters();
    }

    /// No key of this lane is as large.
    pub(crate) fn end_of_keys(&self) -> i64 {
        (self.number + 1) << MESSAGE_BITS
    }

    pub(crate) fn count(&self) -> u64 {
        self.state.lock().count
    }

    pub(crate) fn waiting(&self) -> Waiting {
        let state = self.state.lock();
        let held = state.held.len() as u64;
        let returned = state.returned.iter().min().copied();
        Waiting { ready: state.count.saturating_sub(held), held, returned, cursor: state.cursor }
    }

    pub(crate) fn join(&self, prefetch: usize) -> u64 {
        let mut state = self.state.lock();
        state.next_receiver += 1;
        let id = state.next_receiver;
        let receiver = Receiver { prefetch, holds: 0, buffer: VecDeque::new(), fetching: false, fault: None };
        state.receivers.insert(id, receiver);
        id
    }

    /// Gives back whatever the receiver holds and has no verdict under way.
    pub(crate) fn leave(&self, id: u64) {
        let mut state = self.state.lock();
        state.receivers.remove(&id);
        let mine = state.held.iter().filter(|(_, h)| h.receiver == id && !h.settling).map(|(key, _)| *key);
        let mut mine: Vec<i64> = mine.collect();
        mine.sort_unstable();
        for key in mine {
            state.held.remove(&key);
            state.returned.push_back(key);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    pub(crate) fn step(self: &Arc<Self>, id: u64) -> Step {
        let mut state = self.state.lock();
        if state.closed {
            return Step::End;
        }
        let more = !state.returned.is_empty() || state.cursor < state.end;
        let Some(receiver) = state.receivers.get_mut(&id) else { return Step::End };
        if let Some(fetched) = receiver.buffer.pop_front() {
            return Step::Take(fetched);
        }
        if let Some(fault) = receiver.fault.take() {
            return Step::Fail(fault);
        }
        let room = receiver.prefetch.saturating_sub(receiver.holds).min(READ_MESSAGES);
        if !more || receiver.fetching || room == 0 {
            return Step::Wait;
        }
        receiver.fetching = true;
        Step::Fetch(Fetch {
            lane: Arc::clone(self),
            receiver: id,
            room,
            returned: Vec::new(),
            read: Vec::new(),
            reached: 0,
        })
    }

    /// The receiver wants to acknowledge; `false` if it does not hold the message any more.
    pub(crate) fn begin_ack(&self, key: i64, receiver: u64) -> bool {
        let mut state = self.state.lock();
        match state.held.get_mut(&key) {
            Some(held) if held.receiver == receiver && !held.settling => {
                held.settling = true;
                true
            }
            _ => false,
        }
    }

    /// The message is gone for good (`gone`), or is still there and free again.
    pub(crate) fn end_ack(&self, key: i64, gone: bool) {
        let mut state = self.state.lock();
        state.let_go(key);
        if gone {
            state.count = state.count.saturating_sub(1);
        } else {
            state.returned.push_back(key);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// `false` if the receiver does not hold the message any more.
    pub(crate) fn give_back(&self, key: i64, receiver: u64) -> bool {
        let mut state = self.state.lock();
        if !state.holds(key, receiver) {
            return false;
        }
        state.let_go(key);
        state.returned.push_back(key);
        drop(state);
        self.changed.notify_waiters();
        true
    }

    pub(crate) fn holds(&self, key: i64, receiver: u64) -> bool {
        self.state.lock().holds(key, receiver)
    }
}

impl State {
    fn holds(&self, key: i64, receiver: u64) -> bool {
        self.held.get(&key).is_some_and(|h| h.receiver == receiver && !h.settling)
    }

    fn let_go(&mut self, key: i64) {
        if let Some(held) = self.held.remove(&key)
            && let Some(receiver) = self.receivers.get_mut(&held.receiver)
        {
            receiver.holds = receiver.holds.saturating_sub(1);
        }
    }
}

/// One read of messages for one receiver, on the writer thread.
pub(crate) struct Fetch {
    lane: Arc<Lane>,
    receiver: u64,
    room: usize,
    /// Keys taken from those given back.
    returned: Vec<i64>,
    read: Vec<Fetched>,
    /// How far the lane was read in order.
    reached: i64,
}

impl Fetch {
    /// Reads as much as there is room for, and makes sure that the disk says of each message that it may be delivered.
    pub(crate) fn read(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let (end, mark) = {
            let mut state = self.lane.state.lock();
            let count = self.room.min(state.returned.len());
            self.returned = state.returned.drain(..count).collect();
            self.reached = state.cursor;
            (state.end, state.mark)
        };
        let mut bytes = self.read_returned(connection)?;
        let room = self.room.saturating_sub(self.read.len());
        let mut select = connection.prepare_cached(
            "SELECT key, published, id, headers, body FROM message WHERE key > ?1 AND key <= ?2 ORDER BY key LIMIT ?3",
        )?;
        let mut rows = select.query((self.reached, end, room))?;
        for _ in 0..room {
            if bytes >= READ_BYTES {
                break;
            }
            let Some(row) = rows.next()? else {
                self.reached = end;
                break;
            };
            let fetched = fetched(row, self.lane.delivered_before)?;
            bytes += fetched.message.body.len();
            self.reached = fetched.key;
            self.read.push(fetched);
        }
        drop(rows);
        let last = self.read.iter().map(|f| f.key).max().unwrap_or(0);
        if last > mark {
            let ahead = self.lane.next_mark().max(last);
            connection
                .prepare_cached("UPDATE subscription SET mark = max(mark, ?2) WHERE n = ?1")?
                .execute((self.lane.number, ahead))?;
            self.lane.saved(ahead);
        }
        Ok(())
    }

    fn read_returned(&mut self, connection: &Connection) -> rusqlite::Result<usize> {
        let mut bytes = 0;
        let mut select =
            connection.prepare_cached("SELECT key, published, id, headers, body FROM message WHERE key = ?1")?;
        for (done, key) in self.returned.iter().enumerate() {
            if bytes >= READ_BYTES {
                let later = self.returned.split_off(done);
                let mut state = self.lane.state.lock();
                later.into_iter().rev().for_each(|key| state.returned.push_front(key));
                break;
            }
            if let Some(fetched) = select.query_row([key], |row| fetched(row, i64::MAX)).optional()? {
                bytes += fetched.message.body.len();
                self.read.push(fetched);
            }
        }
        Ok(bytes)
    }

    /// Hands what was read to the receiver, or back if it is gone.
    pub(crate) fn finish(self) {
        let mut guard = self.lane.state.lock();
        let state = &mut *guard;
        state.cursor = state.cursor.max(self.reached);
        match state.receivers.get_mut(&self.receiver) {
            Some(receiver) => {
                receiver.fetching = false;
                receiver.holds += self.read.len();
                for fetched in self.read {
                    state.held.insert(fetched.key, Held { receiver: self.receiver, settling: false });
                    receiver.buffer.push_back(fetched);
                }
            }
            None => state.returned.extend(self.read.iter().map(|f| f.key)),
        }
        drop(guard);
        self.lane.changed.notify_waiters();
    }

    /// Puts everything back as it was and tells the receiver why.
    pub(crate) fn fail(self, fault: Fault) {
        let mut state = self.lane.state.lock();
        state.returned.extend(&self.returned);
        if let Some(receiver) = state.receivers.get_mut(&self.receiver) {
            receiver.fetching = false;
            receiver.fault = Some(fault);
        }
        drop(state);
        self.lane.changed.notify_waiters();
    }
}

/// A row as a message; one up to `delivered_before` may have been delivered.
fn fetched(row: &Row<'_>, delivered_before: i64) -> rusqlite::Result<Fetched> {
    let key = row.get(0)?;
    let headers: Option<String> = row.get(3)?;
    let headers = headers.map(|text| serde_json::from_str(&text)).transpose();
    let headers =
        headers.map_err(|e| rusqlite::Error::FromSqlConversionFailure(3, rusqlite::types::Type::Text, e.into()))?;
    let body: Vec<u8> = row.get(4)?;
    Ok(Fetched {
        key,
        message: Message { id: row.get(2)?, body: body.into(), headers: headers.unwrap_or_default() },
        first: key > delivered_before,
        published: Timestamp(row.get(1)?),
    })
}
