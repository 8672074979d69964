//! Looks at a process's surroundings every few seconds, so that probes and metrics have something to say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use stoq_api::plugin::Connector;
use stoq_api::queue::Broker;
use stoq_api::scanner::PluginKind;
use stoq_api::{Fault, FaultKind, Timestamp, fault};
use stoq_connectors::common::options::{self, Backlog, OnBacklog};
use stoq_engine::Links;
use stoq_engine::lanes::{DEAD, WORKERS};
use stoq_runtime::health::Health;
use stoq_runtime::metrics;
use stoq_runtime::shutdown::Shutdown;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::pipeline::Sink;
use crate::wiring::base::Base;
use crate::wiring::gate::Gate;
use crate::wiring::holds::Holds;

/// How often services are asked whether they can be used.
const CHECK_EVERY: Duration = Duration::from_secs(3);
/// How long a service may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Every so many checks, lanes and ledger are asked how much waits: brokers pay for that.
const SAMPLE_EVERY: u32 = 5;
/// Every so many checks it is looked at what operators paused: stores pay for that.
const HOLDS_EVERY: u32 = 3;
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
    sinks: Vec<(String, Arc<dyn Connector>)>,
    /// Connectors for which workers wait, with when, and whether they do now.
    blocking: Arc<Mutex<Vec<(String, Backlog, bool)>>>,
    gate: Gate,
    holds: Holds,
    /// Some sink could be used since the start.
    delivered: Arc<AtomicBool>,
}

impl Watch {
    /// Starts to look. `connectors` subscribe to the result lane, somewhere in the fleet; those of `sinks` in this process.
    pub(crate) fn start(base: &Base, connectors: &[&str], sinks: &[Sink], shutdown: &Shutdown) -> Self {
        let surroundings = Surroundings {
            health: base.health.clone(),
            links: Arc::clone(&base.links),
            brokers: base.brokers.awaited(),
            subscriptions: connectors.iter().map(|name| (*name).to_owned()).collect(),
            sinks: sinks.iter().map(|sink| (sink.name.clone(), Arc::clone(&sink.connector))).collect(),
            delivered: Arc::default(),
            blocking: Arc::new(Mutex::new(blocking(base))),
            gate: base.gate.clone(),
            holds: base.holds.clone(),
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
            around.block().await;
            if checks.is_multiple_of(HOLDS_EVERY) {
                around.look_at_holds().await;
            }
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
        self.check_sinks().await;
        let now = Timestamp::now();
        let recent = |at: Timestamp| Duration::from_micros(now.0.saturating_sub(at.0)) < NEWER;
        let newer = self.links.seen.newer().filter(|at| recent(*at));
        let newer = newer.map(|_| "tasks wait that only a newer version reads".to_owned());
        self.health.says("version", newer);
    }

    /// A sink that is away holds up only its own connector, so it is named and leaves the process ready: an unready pod
    /// would block evictions and say that others stand still. Until one sink was usable for once the process is not ready,
    /// so that a rollout with a wrong address stops before it replaces what works.
    async fn check_sinks(&self) {
        if self.sinks.is_empty() {
            return;
        }
        let asked = self.sinks.iter().map(async |(name, sink)| (name, trouble(sink.check()).await));
        let answers = join_all(asked).await;
        let usable = answers.iter().any(|(_, trouble)| trouble.is_none());
        for (name, trouble) in answers {
            self.health.hints(&format!("connector {name}"), trouble);
        }
        let delivered = self.delivered.fetch_or(usable, Ordering::Relaxed) || usable;
        self.health.says("sinks", (!delivered).then(|| "none could be used since the start".to_owned()));
    }

    /// Shuts the gate while a connector that blocks is too far behind. What is not known changes nothing.
    async fn block(&self) {
        let mut all = self.blocking.lock().clone();
        for (name, backlog, behind) in &mut all {
            let Ok(depth) = within(self.links.lanes.results.depth(name)).await else { continue };
            let waiting = Some(depth.ready + depth.held);
            let oldest = depth.oldest.map(|at| Duration::from_micros(Timestamp::now().0.saturating_sub(at.0)));
            let was = *behind;
            *behind = if was { !backlog.is_under(waiting, oldest) } else { backlog.is_over(waiting, oldest) };
            match (was, *behind) {
                (false, true) => {
                    tracing::error!(
                        connector = *name,
                        waiting,
                        "no new roots are taken: this connector is too far behind"
                    );
                }
                (true, false) => tracing::warn!(connector = *name, waiting, "roots are taken again"),
                _ => {}
            }
        }
        self.gate.shut(all.iter().any(|(_, _, behind)| *behind));
        *self.blocking.lock() = all;
    }

    /// What is paused is named, and leaves the process ready. A store that is away is said elsewhere.
    async fn look_at_holds(&self) {
        if let Ok(paused) = within(self.holds.look(&*self.links.store)).await {
            self.health.hints("paused", paused);
        }
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

/// The connectors of a configuration for which workers wait. Their options were checked when their process started; what
/// cannot be read here is its to say.
fn blocking(base: &Base) -> Vec<(String, Backlog, bool)> {
    let connectors = base.loaded.settings.active(PluginKind::Connector).into_iter();
    let backlogs = connectors.filter_map(|c| Some((c.name, options::split(&c.options.0).ok()?.0.backlog)));
    let blocking = backlogs.filter(|(_, backlog)| backlog.is_limited() && backlog.then == OnBacklog::Block);
    blocking.map(|(name, backlog)| (name, backlog, false)).collect()
}

/// Why a service cannot be used, if it cannot.
async fn trouble(check: impl Future<Output = Result<(), Fault>>) -> Option<String> {
    within(check).await.err().map(|fault| fault::chain(&fault))
}

pub(crate) async fn within<T>(asked: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    timeout(ANSWER, asked)
        .await
        .unwrap_or_else(|_| Err(Fault::new(FaultKind::Unavailable, format!("no answer within {} s", ANSWER.as_secs()))))
}

#[cfg(test)]
mod tests;
