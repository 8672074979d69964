//! The lanes: queues of our own, and how tasks are packed into their messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use stoq_api::queue::{Delivery, Depth, Message, Queue};
use stoq_api::{EnvelopeError, Fault, FaultKind, Task, Timestamp, envelope};

/// Subscription that workers share on the task lanes.
pub const WORKERS: &str = "workers";
/// Subscription on the dead lane.
pub const DEAD: &str = "dead";
/// Header of a task message that was taken apart from a redelivered one: its task may have been started before.
pub const AGAIN: &str = "stoq-again";

/// Most tasks in one message.
pub const BATCH_ITEMS: usize = 16;
/// Most bytes of inline content in one message of several tasks.
pub const BATCH_BYTES: usize = 1 << 20;
/// A task with more inline bytes than this travels alone.
pub const ALONE_BYTES: usize = 64 << 10;

/// The queues between the roles.
#[derive(Clone)]
pub struct Lanes {
    /// Tasks of extracted payloads: unbounded, served first, so that scans finish.
    pub children: Arc<dyn Queue>,
    /// Tasks of roots: bounded, so that providers stop pulling.
    pub roots: Arc<dyn Queue>,
    /// One response per scan, to every connector.
    pub results: Arc<dyn Queue>,
    /// What no one could process, with the reason.
    pub dead: Arc<dyn Queue>,
}

impl Lanes {
    /// Makes the lanes, with one subscription on the result lane for each connector.
    ///
    /// # Errors
    /// A queue exists with other settings, or cannot be reached.
    pub async fn declare(&self, connectors: &[&str]) -> Result<(), Fault> {
        self.children.declare(&[WORKERS]).await?;
        self.roots.declare(&[WORKERS]).await?;
        self.results.declare(connectors).await?;
        self.dead.declare(&[DEAD]).await
    }
}

/// One of the two task lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskLane {
    /// Tasks of roots.
    Roots,
    /// Tasks of extracted payloads.
    Children,
}

impl Lanes {
    /// The queue of a task lane.
    pub fn tasks(&self, lane: TaskLane) -> &Arc<dyn Queue> {
        match lane {
            TaskLane::Roots => &self.roots,
            TaskLane::Children => &self.children,
        }
    }

    /// The time before which no task waits any more, at `now`. Brokers that do not say since when a message waits hand
    /// them out in the order in which they came, so what `seen` says came last is told instead; where nothing is known,
    /// everything may still wait.
    ///
    /// # Errors
    /// A lane is away.
    pub async fn horizon(&self, seen: &Seen, now: Timestamp) -> Result<Timestamp, Fault> {
        let mut horizon = now;
        for lane in [TaskLane::Children, TaskLane::Roots] {
            match self.tasks(lane).depth(WORKERS).await {
                Ok(Depth { oldest: Some(oldest), .. }) => horizon = horizon.min(oldest),
                Ok(Depth { ready: 0, .. }) => {}
                Ok(_) => horizon = horizon.min(seen.last(lane)),
                // A broker that never tells what waits.
                Err(fault) if fault.kind == FaultKind::Refused => horizon = horizon.min(seen.last(lane)),
                Err(fault) => return Err(fault),
            }
        }
        Ok(horizon)
    }
}

/// When the tasks were published that this process took last from each task lane.
#[derive(Debug, Default)]
pub struct Seen {
    roots: AtomicU64,
    children: AtomicU64,
    newer: AtomicU64,
}

impl Seen {
    /// Notes a delivery. One that comes again says nothing about those that still wait.
    pub fn note(&self, lane: TaskLane, delivery: &Delivery) {
        if let (true, Some(published)) = (delivery.first, delivery.published) {
            self.of(lane).fetch_max(published.0, Ordering::Relaxed);
        }
    }

    /// Notes at `now` a task that only a newer build reads.
    pub fn note_newer(&self, now: Timestamp) {
        self.newer.fetch_max(now.0, Ordering::Relaxed);
    }

    /// When the last task came that only a newer build reads.
    pub fn newer(&self) -> Option<Timestamp> {
        Some(self.newer.load(Ordering::Relaxed)).filter(|at| *at > 0).map(Timestamp)
    }

    fn last(&self, lane: TaskLane) -> Timestamp {
        Timestamp(self.of(lane).load(Ordering::Relaxed))
    }

    fn of(&self, lane: TaskLane) -> &AtomicU64 {
        match lane {
            TaskLane::Roots => &self.roots,
            TaskLane::Children => &self.children,
        }
    }
}

/// Packs tasks into messages, in order.
///
/// # Errors
/// A task cannot be encoded; see [`EnvelopeError`].
pub fn pack(tasks: &[Task]) -> Result<Vec<Message>, Fault> {
    let mut messages = Vec::new();
    let mut start = 0;
    while start < tasks.len() {
        let mut end = start + 1;
        let mut bytes = tasks[start].inline.len();
        if bytes <= ALONE_BYTES {
            while end < tasks.len()
                && end - start < BATCH_ITEMS
                && tasks[end].inline.len() <= ALONE_BYTES
                && bytes + tasks[end].inline.len() <= BATCH_BYTES
            {
                bytes += tasks[end].inline.len();
                end += 1;
            }
        }
        messages.push(message(&tasks[start..end])?);
        start = end;
    }
    Ok(messages)
}

/// Takes a message apart: one message for each of its tasks, marked as perhaps started before.
///
/// # Errors
/// As for [`pack`].
pub fn take_apart(tasks: &[Task]) -> Result<Vec<Message>, Fault> {
    tasks
        .iter()
        .map(|task| {
            let mut single = message(std::slice::from_ref(task))?;
            single.headers.push((AGAIN.to_owned(), "1".to_owned()));
            Ok(single)
        })
        .collect()
}

fn message(tasks: &[Task]) -> Result<Message, Fault> {
    let id = tasks.first().map(|task| task.payload_id.to_string()).unwrap_or_default();
    let body = envelope::encode(tasks).map_err(unencodable)?;
    Ok(Message::new(id, body))
}

fn unencodable(error: EnvelopeError) -> Fault {
    Fault::because(FaultKind::Refused, "a task cannot be put into a message", error)
}
