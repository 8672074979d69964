//! Looks at a process's surroundings every few seconds, so that probes and metrics have something to say.

use std::sync::Arc;
use std::time::Duration;

use stoq_api::queue::Broker;
use stoq_api::{Fault, FaultKind, Timestamp, fault};
use stoq_engine::Links;
use stoq_engine::lanes::{DEAD, WORKERS};
use stoq_runtime::health::Health;
use stoq_runtime::metrics;
use stoq_runtime::shutdown::Shutdown;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::wiring::base::Base;

/// How often services are asked whether they can be used.
const CHECK_EVERY: Duration = Duration::from_secs(3);
/// How long a service may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Every so many checks, lanes and ledger are asked how much waits: brokers pay for that.
const SAMPLE_EVERY: u32 = 5;
/// For how long a task of a newer build makes a worker not ready: it is given back, and comes again meanwhile.
const NEWER: Duration = Duration::from_secs(60);
/// What is said of the process's own state.
const PROCESS: &str = "process";

/// The watch on one process; ends when this is dropped.
pub(crate) struct Watch {
    surroundings: Surroundings,
    shutdown: Shutdown,
    started: Arc<tokio::sync::Notify>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Clone)]
struct Surroundings {
    health: Health,
    links: Arc<Links>,
    brokers: Vec<(String, Arc<dyn Broker>)>,
    subscriptions: Vec<String>,
}

impl Watch {
    /// Starts to look. `connectors` subscribe to the result lane, somewhere in the fleet.
    pub(crate) fn start(base: &Base, connectors: &[&str], shutdown: &Shutdown) -> Self {
        let surroundings = Surroundings {
            health: base.health.clone(),
            links: Arc::clone(&base.links),
            brokers: base.brokers.awaited(),
            subscriptions: connectors.iter().map(|name| (*name).to_owned()).collect(),
        };
        surroundings.health.says(PROCESS, Some("starting".to_owned()));
        let started = Arc::new(tokio::sync::Notify::new());
        let task = tokio::spawn(run(surroundings.clone(), shutdown.clone(), Arc::clone(&started)));
        Self { surroundings, shutdown: shutdown.clone(), started, _task: AbortOnDropHandle::new(task) }
    }

    /// The process works from now on.
    pub(crate) fn started(&self) {
        if !self.shutdown.is_draining() {
            self.surroundings.health.says(PROCESS, None);
        }
        self.started.notify_one();
    }
}

async fn run(around: Surroundings, shutdown: Shutdown, started: Arc<tokio::sync::Notify>) {
    let mut tick = interval(CHECK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut works = false;
    let mut checks: u32 = 0;
    loop {
        tokio::select! {
            biased;
            () = started.notified(), if !works => works = true,
            () = shutdown.draining() => {
                around.health.says(PROCESS, Some("ending: it takes no new work".to_owned()));
                break;
            }
            _ = tick.tick() => {}
        }
        around.check().await;
        // Before the start the lanes need not be there.
        if works {
            if checks.is_multiple_of(SAMPLE_EVERY) {
                around.sample().await;
            }
            checks = checks.wrapping_add(1);
        }
    }
}

impl Surroundings {
    async fn check(&self) {
        for (name, broker) in &self.brokers {
            self.health.says(&format!("broker {name}"), trouble(broker.check()).await);
        }
        let (ledger, store) = tokio::join!(trouble(self.links.ledger.check()), trouble(self.links.store.check()));
        self.health.says("ledger", ledger);
        self.health.says("store", store);
        let now = Timestamp::now();
        let recent = |at: Timestamp| Duration::from_micros(now.0.saturating_sub(at.0)) < NEWER;
        let newer = self.links.seen.newer().filter(|at| recent(*at));
        let newer = newer.map(|_| "tasks wait that only a newer version reads".to_owned());
        self.health.says("version", newer);
    }

    async fn sample(&self) {
        let lanes = &self.links.lanes;
        let mut all: Vec<_> = lanes.task_lanes().map(|(lane, queue)| (lane, WORKERS, queue)).collect();
        all.push(("dead".to_owned(), DEAD, &lanes.dead));
        all.extend(self.subscriptions.iter().map(|name| ("results".to_owned(), name.as_str(), &lanes.results)));
        for (lane, subscription, queue) in all {
            if let Ok(depth) = within(queue.depth(subscription)).await {
                let age = depth.oldest.map(|oldest| Timestamp::now().0.saturating_sub(oldest.0));
                metrics::lane(&lane, subscription, depth.ready, depth.held, age.map(Duration::from_micros));
            }
        }
        if let Ok(open) = within(self.links.ledger.open_scans()).await {
            metrics::scans_open(open);
        }
    }
}

/// Why a service cannot be used, if it cannot.
async fn trouble(check: impl Future<Output = Result<(), Fault>>) -> Option<String> {
    within(check).await.err().map(|fault| fault::chain(&fault))
}

async fn within<T>(asked: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    timeout(ANSWER, asked)
        .await
        .unwrap_or_else(|_| Err(Fault::new(FaultKind::Unavailable, format!("no answer within {} s", ANSWER.as_secs()))))
}

#[cfg(test)]
mod tests;
