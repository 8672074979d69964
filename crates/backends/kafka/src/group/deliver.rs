//! The subscriber's side: deliveries and verdicts.

use std::sync::Arc;

use async_trait::async_trait;
use stoq_api::Fault;
use stoq_api::queue::{Deliveries, Delivery, Settle};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::state::{Taken, Token};
use super::{Group, Stage};

/// One subscriber.
pub(crate) struct Receiver {
    group: Arc<Group>,
    id: u64,
    permits: Arc<Semaphore>,
}

impl Receiver {
    pub(super) fn new(group: Arc<Group>, id: u64) -> Self {
        Self { group, id, permits: Arc::new(Semaphore::new(1)) }
    }

    /// Lets it hold `messages` at once.
    pub(crate) fn with_prefetch(mut self, messages: u32) -> Self {
        let permits = usize::try_from(messages.max(1)).unwrap_or(Semaphore::MAX_PERMITS).min(Semaphore::MAX_PERMITS);
        self.permits = Arc::new(Semaphore::new(permits));
        self
    }

    fn look(&self) -> Result<Look, Fault> {
        let mut inner = self.group.inner.lock();
        if inner.stage != Stage::Running {
            return Ok(Look::Over);
        }
        // While the thread was not seen for long, another member may own what is here.
        let fresh = inner.beat.elapsed() < self.group.plan.session_timeout / 2;
        let taken = if fresh { inner.state.take(self.id) } else { None };
        let fault = if taken.is_none() { inner.fault.take() } else { None };
        if fresh && inner.state.has_work() {
            self.group.arrived.notify_one();
        }
        if !fresh || inner.state.is_thirsty() {
            drop(inner);
            self.group.call();
        }
        match (taken, fault) {
            (Some(taken), _) => Ok(Look::Found(taken)),
            (None, Some(fault)) => Err(fault),
            (None, None) => Ok(Look::Nothing),
        }
    }
}

enum Look {
    Found(Taken),
    Nothing,
    Over,
}

#[async_trait]
impl Deliveries for Receiver {
    async fn next(&mut self) -> Result<Option<Delivery>, Fault> {
        // The semaphore is never closed; were it, the queue would be at its end.
        let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else { return Ok(None) };
        loop {
            let arrived = self.group.arrived.notified();
            tokio::pin!(arrived);
            // Registered before the look, so that the end of the consumer in between is not missed.
            arrived.as_mut().enable();
            match self.look()? {
                Look::Found(taken) => {
                    let hold = Hold { group: Arc::clone(&self.group), token: Some(taken.token), _permit: permit };
                    return Ok(Some(Delivery::new(taken.message, taken.first, taken.published, Box::new(hold))));
                }
                Look::Over => return Ok(None),
                Look::Nothing => arrived.await,
            }
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let last = self.group.inner.lock().state.leave(self.id);
        if last {
            // Its partitions are for others from now on.
            self.group.stop();
        } else {
            self.group.arrived.notify_one();
        }
    }
}

struct Hold {
    group: Arc<Group>,
    token: Option<Token>,
    /// Given back after the verdict, so that the subscriber never holds more than its prefetch.
    _permit: OwnedSemaphorePermit,
}

impl Hold {
    fn give_back(&mut self) -> Result<(), Fault> {
        let Some(token) = self.token.take() else { return Ok(()) };
        let given = self.group.inner.lock().state.give_back(token);
        if given { Ok(()) } else { Err(self.group.taken_back()) }
    }
}

#[async_trait]
impl Settle for Hold {
    /// Returns before the broker knows: it is told many times a second, and an offset only when all below are finished.
    async fn ack(mut self: Box<Self>) -> Result<(), Fault> {
        let Some(token) = self.token.take() else { return Ok(()) };
        let mut inner = self.group.inner.lock();
        if !inner.state.finish(token) {
            return Err(self.group.taken_back());
        }
        // The window may have moved.
        if inner.state.has_work() {
            self.group.arrived.notify_one();
        }
        if inner.state.is_urgent() {
            drop(inner);
            self.group.call();
        }
        Ok(())
    }

    async fn release(mut self: Box<Self>) -> Result<(), Fault> {
        self.give_back()
    }

    /// Costs nothing: the thread keeps the session, and a record has no time-out of its own.
    async fn extend(&self) -> Result<(), Fault> {
        let held = self.token.is_some_and(|token| self.group.inner.lock().state.holds(token));
        if held { Ok(()) } else { Err(self.group.taken_back()) }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // Only a subscriber or partition that is gone makes this fail, and then it comes again elsewhere.
        drop(self.give_back());
    }
}
