//! One consumer of one group: shared by all subscribers of that subscription in this process, so that they share
//! messages however few partitions there are.
//!
//! A thread of its own polls the client all the time, whatever subscribers do: that keeps the group's session, and
//! rebalances go through while work is slow. Partitions are read through queues of their own, only as far as there is
//! room, so that nothing is fetched twice.

mod consumer;
mod deliver;
mod state;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rdkafka::ClientConfig;
use stoq_api::{Fault, FaultKind};
use tokio::sync::Notify;

use self::state::State;
use crate::fault::Health;
use crate::record::Identity;

pub(crate) use self::deliver::Receiver;

/// How often the thread looks around when nothing calls it: the pace of commits, and the rest of what was given back.
const TICK: Duration = Duration::from_millis(50);

/// What a group's consumer is made from.
pub(crate) struct Plan {
    pub(crate) config: ClientConfig,
    pub(crate) topic: String,
    pub(crate) group: String,
    pub(crate) identity: Identity,
    pub(crate) window: i64,
    pub(crate) timeout: Duration,
    pub(crate) session_timeout: Duration,
    pub(crate) health: Arc<Health>,
}

/// A running consumer.
pub(crate) struct Group {
    plan: Plan,
    inner: Mutex<Inner>,
    /// Calls the thread. Apart from the rest, because the client rings it with locks of its own in hand.
    called: Mutex<bool>,
    call: Condvar,
    /// Calls subscribers: one permit a call, which whoever takes a message passes on while there are more.
    arrived: Notify,
    /// Rung when the thread is gone.
    ended: Notify,
}

struct Inner {
    state: State,
    /// The thread was last seen.
    beat: Instant,
    stage: Stage,
    /// Something went wrong that a subscriber should know.
    fault: Option<Fault>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Running,
    /// The last subscriber has gone, or the broker was closed.
    Stopping,
    Ended,
}

impl Group {
    /// Starts a consumer for one subscriber.
    ///
    /// # Errors
    /// The client cannot be made.
    pub(crate) fn start(plan: Plan) -> Result<(Arc<Self>, Receiver), Fault> {
        let inner = Inner { state: State::new(plan.window), beat: Instant::now(), stage: Stage::Running, fault: None };
        let group = Arc::new(Self {
            inner: Mutex::new(inner),
            called: Mutex::new(false),
            call: Condvar::new(),
            arrived: Notify::new(),
            ended: Notify::new(),
            plan,
        });
        let receiver = group.inner.lock().state.join();
        consumer::spawn(Arc::clone(&group))?;
        let receiver = Receiver::new(Arc::clone(&group), receiver);
        Ok((group, receiver))
    }

    /// Another subscriber, unless the consumer is about to end.
    pub(crate) fn join(self: &Arc<Self>) -> Option<Receiver> {
        let mut inner = self.inner.lock();
        if inner.stage != Stage::Running {
            return None;
        }
        let receiver = inner.state.join();
        drop(inner);
        Some(Receiver::new(Arc::clone(self), receiver))
    }

    /// Ends the consumer: what is finished is committed, what is held becomes stale.
    pub(crate) fn stop(&self) {
        let mut inner = self.inner.lock();
        if inner.stage == Stage::Running {
            inner.stage = Stage::Stopping;
        }
        drop(inner);
        self.call();
        self.arrived.notify_waiters();
    }

    /// Waits until the consumer has left its group.
    pub(crate) async fn ended(&self) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.inner.lock().stage == Stage::Ended {
                return;
            }
            ended.await;
        }
    }

    /// Records that are held here, and where each partition stands: where reading is, and how many below are unfinished.
    pub(crate) fn standing(&self) -> (u64, Vec<(i32, i64, u64)>) {
        let inner = self.inner.lock();
        (inner.state.held(), inner.state.unfinished())
    }

    /// Calls the thread.
    fn call(&self) {
        *self.called.lock() = true;
        self.call.notify_one();
    }

    fn taken_back(&self) -> Fault {
        let text = format!("group {} has taken this message back; it comes again", self.plan.group);
        Fault::new(FaultKind::Unavailable, text)
    }
}
