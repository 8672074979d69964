//! Jobs that wait for a slot.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::job::{Answer, JobItem};

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
}

#[derive(Default)]
struct State {
    ready: VecDeque<Job>,
    idle: usize,
    closed: bool,
}

/// What a slot's thread finds to do.
pub(crate) enum Taken {
    /// These, as one batch.
    Batch(Vec<Job>),
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

impl Queue {
    pub(crate) fn new(max_items: usize, max_bytes: u64) -> Self {
        Self { state: Mutex::new(State::default()), wake: Condvar::new(), max_items, max_bytes }
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
            state.ready.extend(items.into_iter().enumerate().map(|(index, item)| Job {
                item,
                index,
                group: Arc::clone(&group),
            }));
        }
        for _ in 0..n.min(state.idle) {
            self.wake.notify_one();
        }
        answers
    }

    /// Takes a batch: whatever is ready, shared fairly with the slots that are idle, within the limits of a batch.
    /// Waits at most `time` for the first job and never for a second.
    pub(crate) fn take(&self, time: Duration) -> Taken {
        let mut state = self.state.lock();
        if state.ready.is_empty() && !state.closed {
            state.idle += 1;
            self.wake.wait_while_for(&mut state, |s| s.ready.is_empty() && !s.closed, time);
            state.idle -= 1;
        }
        let share = state.ready.len().div_ceil(state.idle + 1).min(self.max_items);
        let mut batch = Vec::with_capacity(share);
        let mut bytes = 0_u64;
        while batch.len() < share
            && let Some(next) = state.ready.front()
        {
            bytes = bytes.saturating_add(next.item.content.len()).saturating_add(next.item.header.len() as u64);
            if bytes > self.max_bytes && !batch.is_empty() {
                break;
            }
            batch.extend(state.ready.pop_front());
        }
        match batch.is_empty() {
            true if state.closed => Taken::Closed,
            true => Taken::Nothing,
            false => Taken::Batch(batch),
        }
    }

    /// No more jobs: the threads that take them end.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        // Nobody waits for these: a pool is dropped only when no call borrows it.
        state.ready.clear();
        drop(state);
        self.wake.notify_all();
    }
}
