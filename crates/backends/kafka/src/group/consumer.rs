//! The thread that polls the client.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use stoq_api::{Fault, FaultKind};

use super::state::{Found, Mark, UNLEASED};
use super::{Group, Stage, TICK};
use crate::link::{log_line, mark_of, marked, patiently};
use crate::record::Record;

/// Events that are served in a row before partitions are read again.
const EVENTS: usize = 16;

type Client = BaseConsumer<Callbacks>;

/// Starts the thread of `group`.
///
/// # Errors
/// The client cannot be made.
pub(super) fn spawn(group: Arc<Group>) -> Result<(), Fault> {
    let unmade = |e: &dyn std::fmt::Display| {
        let text = format!("a consumer for group {} cannot be made: {e}", group.plan.group);
        Fault::new(FaultKind::Misconfigured, text)
    };
    let callbacks = Callbacks { group: Arc::clone(&group), client: OnceLock::new(), fresh: Mutex::default() };
    let mut client: Client = group.plan.config.create_with_context(callbacks).map_err(|e| unmade(&e))?;
    let caller = Arc::downgrade(&group);
    client.set_nonempty_callback(move || call(&caller));
    let client = Arc::new(client);
    // Only ever set here.
    client.context().client.set(Arc::downgrade(&client)).ok();
    client.subscribe(&[&group.plan.topic]).map_err(|e| unmade(&e))?;
    let name = format!("kafka {}", group.plan.group);
    let thread = Arc::clone(&group);
    let spawned = thread::Builder::new().name(name).spawn(move || run(&thread, client));
    spawned.map(drop).map_err(|e| unmade(&e))
}

fn call(group: &Weak<Group>) {
    if let Some(group) = group.upgrade() {
        group.call();
    }
}

fn run(group: &Arc<Group>, client: Arc<Client>) {
    let (queues, ticked) = (BTreeMap::new(), Instant::now());
    let mut poller = Poller { group, client, queues, ticked, committed: None, failing: false };
    while poller.wait() {
        poller.serve();
        poller.read();
        poller.commit();
    }
    drop(poller.queues);
    // Leaving the group gives the partitions up, which commits what is finished; see `Callbacks::rebalance`.
    drop(poller.client);
    group.inner.lock().stage = Stage::Ended;
    group.ended.notify_waiters();
}

struct Poller<'a> {
    group: &'a Arc<Group>,
    client: Arc<Client>,
    queues: BTreeMap<i32, PartitionQueue<Callbacks>>,
    ticked: Instant,
    committed: Option<Instant>,
    failing: bool,
}

impl Poller<'_> {
    /// Waits for a call, at most for a tick. `false` when it is time to end.
    fn wait(&mut self) -> bool {
        let mut called = self.group.called.lock();
        if !*called {
            self.group.call.wait_for(&mut called, TICK);
        }
        *called = false;
        drop(called);
        let mut inner = self.group.inner.lock();
        // A process that was stopped for long may have been given up by its group without knowing it yet.
        if inner.beat.elapsed() > self.group.plan.session_timeout / 2 {
            inner.state.doubt();
        }
        inner.beat = Instant::now();
        if self.ticked.elapsed() >= TICK {
            self.ticked = Instant::now();
            inner.state.wake_resting();
            if inner.state.has_work() || inner.fault.is_some() {
                self.group.arrived.notify_one();
            }
        }
        inner.stage == Stage::Running
    }

    /// Serves the client's events: rebalances, results of commits, errors.
    fn serve(&mut self) {
        for _ in 0..EVENTS {
            match self.client.poll(Duration::ZERO) {
                // Of a partition that has no queue of its own yet.
                Some(Ok(message)) => self.push(&message),
                Some(Err(error)) => self.note(error),
                None => {}
            }
        }
        let assigned = self.group.inner.lock().state.assigned();
        self.queues.retain(|id, _| assigned.contains(id));
        self.queues.extend(self.client.context().fresh.lock().drain(..).filter(|(id, _)| assigned.contains(id)));
    }

    fn read(&self) {
        let mut any = false;
        for (id, queue) in &self.queues {
            while self.group.inner.lock().state.wants(*id) {
                match queue.poll(Duration::ZERO) {
                    Some(Ok(message)) => self.push(&message),
                    Some(Err(error)) => self.note(error),
                    None => break,
                }
                any = true;
            }
        }
        if any && self.group.inner.lock().state.has_work() {
            self.group.arrived.notify_one();
        }
    }

    fn push(&self, message: &BorrowedMessage<'_>) {
        let record = Record::new(message, &self.group.plan.identity);
        self.group.inner.lock().state.push(message.partition(), record);
        self.group.plan.health.answered();
    }

    /// Writes down what is due, and waits for the answer: the client tells the result of a commit in no other way. The
    /// session is kept by a thread of the client's own in the meantime.
    fn commit(&mut self) {
        let rested = self.committed.is_none_or(|last| last.elapsed() >= TICK);
        let mut inner = self.group.inner.lock();
        if !rested && (self.failing || !inner.state.is_urgent()) {
            return;
        }
        let marks = inner.state.due();
        if marks.is_empty() {
            return;
        }
        inner.state.sent(&marks);
        drop(inner);
        let result = self.client.commit(&list(&self.group.plan.topic, &marks), CommitMode::Sync);
        self.group.inner.lock().state.settled(&marks, result.is_ok());
        (self.committed, self.failing) = (Some(Instant::now()), result.is_err());
        match result {
            Ok(()) => {
                self.group.plan.health.answered();
                self.group.arrived.notify_one();
            }
            // While partitions move this is usual.
            Err(error) => tracing::debug!(group = self.group.plan.group, %error, "not committed; trying again"),
        }
    }

    /// Passes on what a subscriber should know.
    fn note(&self, error: KafkaError) {
        let Some(code) = error.rdkafka_error_code() else { return };
        let heals = matches!(
            code,
            RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::Resolve | RDKafkaErrorCode::PollExceeded
        );
        if heals {
            return;
        }
        let text = format!("topic {} cannot be read for group {}", self.group.plan.topic, self.group.plan.group);
        let fault = self.group.plan.health.fault(text, error);
        self.group.inner.lock().fault = Some(fault);
        self.group.arrived.notify_one();
    }
}

fn list(topic: &str, marks: &[(i32, Mark)]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(marks.len());
    for (id, mark) in marks {
        marked(&mut list, topic, *id, mark.low, (mark.lease != UNLEASED).then_some(mark.lease));
    }
    list
}

/// What the client calls, always from within the thread's own calls.
pub(super) struct Callbacks {
    group: Arc<Group>,
    client: OnceLock<Weak<Client>>,
    /// Queues of partitions that were just assigned.
    fresh: Mutex<Vec<(i32, PartitionQueue<Callbacks>)>>,
}

impl ClientContext for Callbacks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(code) = error.rdkafka_error_code() {
            self.group.plan.health.note(code, reason);
        }
    }
}

impl ConsumerContext for Callbacks {
    fn rebalance(&self, client: &Client, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let cooperative = matches!(client.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let done = if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.assigned(client, list);
            if cooperative { client.incremental_assign(list) } else { client.assign(list) }
        } else {
            self.revoked(client, list);
            if cooperative { client.incremental_unassign(list) } else { client.unassign() }
        };
        if let Err(error) = done {
            tracing::error!(group = self.group.plan.group, %error, "a change of partitions was not accepted");
        }
    }
}

impl Callbacks {
    /// Partitions come: finds out what is written down for them, and splits their queues off before anything is fetched.
    fn assigned(&self, client: &Client, list: &TopicPartitionList) {
        let ids: Vec<i32> = list.elements().iter().map(|e| e.partition()).collect();
        let found = find(client, &self.group.plan.topic, &ids, self.group.plan.timeout);
        let mut inner = self.group.inner.lock();
        for id in &ids {
            inner.state.assign(*id, found.get(id).copied().unwrap_or(UNKNOWN));
        }
        drop(inner);
        if let Some(client) = self.client.get().and_then(Weak::upgrade) {
            let mut fresh = self.fresh.lock();
            for id in &ids {
                if let Some(mut queue) = client.split_partition_queue(&self.group.plan.topic, *id) {
                    let caller = Arc::downgrade(&self.group);
                    queue.set_nonempty_callback(move || call(&caller));
                    fresh.push((*id, queue));
                }
            }
        }
        tracing::debug!(group = self.group.plan.group, partitions = ?ids, "partitions came");
    }

    /// Partitions go: what is finished is committed. The client gives a partition up only after the commits that were
    /// asked for before; waiting here would only hold up its heartbeats.
    fn revoked(&self, client: &Client, list_of: &TopicPartitionList) {
        let ids: Vec<i32> = list_of.elements().iter().map(|e| e.partition()).collect();
        let mut inner = self.group.inner.lock();
        let marks: Vec<(i32, Mark)> = ids.iter().filter_map(|id| Some((*id, inner.state.last(*id)?))).collect();
        for id in &ids {
            inner.state.revoke(*id);
        }
        drop(inner);
        self.fresh.lock().retain(|(id, _)| !ids.contains(id));
        // Lost ones are somebody else's already, and what they committed is not to be overwritten.
        let lost = client.assignment_lost();
        if !lost
            && !marks.is_empty()
            && let Err(error) = client.commit(&list(&self.group.plan.topic, &marks), CommitMode::Async)
        {
            tracing::warn!(group = self.group.plan.group, %error, "finished messages will come again");
        }
        tracing::debug!(group = self.group.plan.group, partitions = ?ids, lost, "partitions went");
    }
}

/// What is known of a partition when the broker did not say.
const UNKNOWN: Found = Found { committed: None, suspects: UNLEASED, lease: UNLEASED };

/// Asks what is written down for partitions.
fn find(client: &Client, topic: &str, ids: &[i32], timeout: Duration) -> BTreeMap<i32, Found> {
    let mut asked = TopicPartitionList::with_capacity(ids.len());
    for id in ids {
        asked.add_partition(topic, *id);
    }
    let mut found = BTreeMap::new();
    let Ok(committed) = patiently(timeout, || client.committed_offsets(asked.clone(), timeout)) else { return found };
    let mut ends = None;
    for element in committed.elements() {
        if element.error().is_err() {
            continue;
        }
        let (offset, lease) = mark_of(&element);
        let end = |ends: &mut Option<TopicPartitionList>| {
            let ends = ends.get_or_insert_with(|| ends_of(client, &asked, timeout).unwrap_or_default());
            match ends.find_partition(topic, element.partition()).map(|e| e.offset()) {
                Some(Offset::Offset(end)) => end,
                _ => UNLEASED,
            }
        };
        // Without a lease, anything that is there now may have been delivered.
        let suspects = lease.unwrap_or_else(|| end(&mut ends));
        found.insert(element.partition(), Found { committed: offset, suspects, lease: lease.unwrap_or(UNLEASED) });
    }
    found
}

fn ends_of(client: &Client, asked: &TopicPartitionList, timeout: Duration) -> KafkaResult<TopicPartitionList> {
    let mut ends = asked.clone();
    ends.set_all_offsets(Offset::End)?;
    client.offsets_for_times(ends, timeout)
}
