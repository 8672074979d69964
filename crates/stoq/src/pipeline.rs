//! What one process runs: providers, a worker with its sweeper, connectors; all of them, or the one of its role.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use stoq_api::Fault;
use stoq_api::plugin::{Connector, Provider, Taking};
use stoq_api::queue::Prefetch;
use stoq_connectors::common::options::Common;
use stoq_connectors::common::{Frame, Settings};
use stoq_engine::intake::{Intake, IntakeSettings, Progress};
use stoq_engine::lanes::WORKERS;
use stoq_engine::{Links, Surroundings, Worker, retain, sweep};
use stoq_runtime::health::Health;
use stoq_runtime::hold::Hold;
use stoq_runtime::metrics::Role;
use stoq_runtime::shutdown::Shutdown;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::wiring::base::{Base, wait_for};
use crate::wiring::dead::DeadLane;

/// How long the end is looked for before looking again, where nothing rings.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A provider with what its scans have in common.
pub(crate) struct Source {
    pub(crate) settings: IntakeSettings,
    pub(crate) provider: Box<dyn Provider>,
}

/// A connector with its name and how it is fed.
pub(crate) struct Sink {
    pub(crate) name: String,
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) common: Common,
}

/// What one process does.
pub(crate) struct Parts<'a> {
    pub(crate) base: &'a Base,
    /// The worker's surroundings, where it is one.
    pub(crate) worker: Option<Arc<Surroundings>>,
    pub(crate) sources: Vec<Source>,
    pub(crate) sinks: Vec<Sink>,
    pub(crate) until: Until,
}

/// When it ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// When the providers have ended and nothing is on the way any more.
    Drained,
    /// When the providers have ended.
    Taken,
    /// Never: a signal ends it.
    Signal,
}

/// How it ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ended {
    /// The providers ended by themselves.
    pub(crate) taken: bool,
}

/// Runs everything until its end or until a signal ends it. The lanes are there. `started` is called once everything runs,
/// and sees how far each provider is.
pub(crate) async fn run(
    parts: Parts<'_>,
    shutdown: &Shutdown,
    started: impl FnOnce(Vec<Arc<Progress>>),
) -> Result<Ended> {
    let Parts { base, worker, sources, sinks, until } = parts;
    let links = &base.links;
    let names: Vec<String> = sinks.iter().map(|sink| sink.name.clone()).collect();
    let intakes: Vec<_> = sources
        .into_iter()
        .map(|Source { settings, provider }| {
            let hold = base.holds.of(Role::Provider, &settings.source);
            let provider: Box<dyn Provider> = Box::new(Held { provider, hold });
            (Intake::new(Arc::clone(links), settings), provider)
        })
        .collect();
    let progress = intakes.iter().map(|(intake, _)| intake.progress()).collect();

    if base.lasting {
        // Before anything is taken or delivered.
        names.iter().for_each(|name| drop(base.holds.of(Role::Connector, name)));
        let look = async || base.holds.look(&*links.store).await;
        if wait_for("what operators paused", shutdown, look).await?.is_none() {
            return Ok(Ended::default());
        }
    }
    let stops = Stops::default();
    let mut running = JoinSet::new();
    connectors(base, sinks, &stops, &mut running, shutdown).await?;
    let mut works = worker.is_some();
    let (settled, mut working) = work(worker, &base.health, &stops, shutdown);
    if base.lasting && !base.is_fleet() {
        let (keeping, stop) = (Arc::clone(links), stops.worker.clone());
        let retention = base.loaded.settings.core.retention.get();
        let takers = base.takers();
        tokio::spawn(async move { retain::run(keeping, takers, retention, &stop).await });
    }

    let taking = take_all(intakes, &base.health, &shutdown.token());
    started(progress);
    let all = async {
        ended_all(taking).await?;
        let by_themselves = !shutdown.is_draining();
        match until {
            Until::Taken => {}
            Until::Signal => shutdown.draining().await,
            Until::Drained => tokio::select! {
                biased;
                // What is on the lanes is there after a restart.
                () = shutdown.draining(), if base.lasting => {}
                drained = drained(links, &names, &settled) => drained?,
            },
        }
        Ok(Ended { taken: by_themselves })
    };
    let ended = tokio::select! {
        // A stop ends the worker as well, and is no failure of it.
        biased;
        ended = all => ended,
        failed = first_failure(&mut running) => failed.map(|()| Ended::default()),
        () = shutdown.stopping() => Ok(Ended::default()),
        early = &mut working, if works => {
            // Nothing but its own end stops a worker before the process stops it.
            works = false;
            Err(match early {
                Ok(Ok(())) => anyhow::anyhow!("the worker ended early"),
                Ok(Err(fault)) => anyhow::Error::new(fault).context("the worker failed"),
                Err(panic) => anyhow::Error::new(panic).context("the worker failed"),
            })
        }
    };
    stops.worker.cancel();
    let grace = base.loaded.settings.core.grace.get();
    if works {
        match shutdown.within(grace, working).await {
            Some(worked) => worked.context("the worker failed")??,
            None => tracing::warn!("what was in hand after the grace period is given back"),
        }
    }
    stops.connectors.cancel();
    while let Some(part) = running.join_next().await {
        part.context("a connector failed")??;
    }
    base.close().await;
    ended
}

/// Starts the worker and its sweeper, if this process is one. The bell rings after every message that is done with.
fn work(
    worker: Option<Arc<Surroundings>>,
    health: &Health,
    stops: &Stops,
    shutdown: &Shutdown,
) -> (Arc<Notify>, JoinHandle<Result<(), Fault>>) {
    let Some(around) = worker else { return (Arc::default(), tokio::spawn(async { Ok(()) })) };
    let worker = Worker::new(Arc::clone(&around));
    let settled = worker.settled();
    let (stop, force) = (stops.worker.clone(), shutdown.stop_token());
    let working = tokio::spawn(health.around("worker", async move { worker.run(&stop, &force).await }));
    let stop = stops.worker.clone();
    tokio::spawn(health.around("sweeper", async move { sweep::run(around, &stop).await }));
    (settled, working)
}

#[derive(Default)]
struct Stops {
    worker: CancellationToken,
    connectors: CancellationToken,
}

/// Subscribes each sink and starts it. A broker that goes away just now is waited for, like one that goes away later.
async fn connectors(
    base: &Base,
    sinks: Vec<Sink>,
    stops: &Stops,
    parts: &mut JoinSet<Result<()>>,
    shutdown: &Shutdown,
) -> Result<()> {
    let results = &base.links.lanes.results;
    for sink in sinks {
        let prefetch = Prefetch { messages: sink.common.settings.prefetch };
        let what = format!("the responses for connector {}", sink.name);
        let subscribed = wait_for(&what, shutdown, async || results.subscribe(&sink.name, prefetch).await).await?;
        let Some(deliveries) = subscribed else { return Ok(()) };
        let frame = frame(base, sink);
        let name = format!("connector {}", frame.name);
        let stop = stops.connectors.clone();
        let running = base.health.around(&name, async move { frame.run(deliveries, stop).await });
        parts.spawn(async move { running.await.context(name) });
    }
    Ok(())
}

/// A connector in its frame.
pub(crate) fn frame(base: &Base, sink: Sink) -> Frame {
    let links = &base.links;
    let hold = base.holds.of(Role::Connector, &sink.name);
    Frame {
        name: sink.name.as_str().into(),
        connector: sink.connector,
        store: Arc::clone(&links.store),
        dead: Arc::new(DeadLane(Arc::clone(links))),
        settings: Settings { pauses: base.lasting, ..sink.common.settings },
        route: sink.common.route,
        backlog: sink.common.backlog,
        // In memory nothing waits that could be put aside.
        lane: base.lasting.then(|| Arc::clone(&links.lanes.results)),
        hold,
    }
}

/// A provider that gives nothing while an operator holds it back.
struct Held {
    provider: Box<dyn Provider>,
    hold: Hold,
}

#[async_trait]
impl Provider for Held {
    async fn next(&mut self) -> Result<Option<Taking>, Fault> {
        loop {
            self.hold.over().await;
            tokio::select! {
                biased;
                () = self.hold.on() => {}
                next = self.provider.next() => return next,
            }
        }
    }
}

/// Starts every provider.
fn take_all(
    intakes: Vec<(Intake, Box<dyn Provider>)>,
    health: &Health,
    stop: &CancellationToken,
) -> JoinSet<Result<(), Fault>> {
    let mut taking = JoinSet::new();
    for (intake, mut provider) in intakes {
        let (name, stop) = (format!("provider {}", intake.source()), stop.clone());
        taking.spawn(health.around(&name, async move { intake.run(&mut *provider, &stop).await }));
    }
    taking
}

/// Waits until every provider has ended, and tells the first failure.
async fn ended_all(mut taking: JoinSet<Result<(), Fault>>) -> Result<()> {
    let mut first = Ok(());
    while let Some(ended) = taking.join_next().await {
        let ended = ended.context("a provider failed").and_then(|ended| ended.map_err(Into::into));
        first = first.and(ended);
    }
    first
}

/// A connector that ended by itself has failed: nothing else ends one before the process does.
async fn first_failure(parts: &mut JoinSet<Result<()>>) -> Result<()> {
    match parts.join_next().await {
        Some(ended) => ended.context("a connector failed")?.and(Err(anyhow::anyhow!("a connector ended early"))),
        None => std::future::pending().await,
    }
}

/// Waits until nothing is on any lane and no scan is open. Work only ever moves in the order in which the lanes are looked
/// at here, so none can slip past.
async fn drained(links: &Links, connectors: &[String], settled: &Notify) -> Result<()> {
    loop {
        let rings = settled.notified();
        if is_empty(links, connectors).await? {
            return Ok(());
        }
        tokio::time::timeout(LOOK_AGAIN, rings).await.ok();
    }
}

async fn is_empty(links: &Links, connectors: &[String]) -> Result<bool> {
    let lanes = &links.lanes;
    for (_, lane) in lanes.task_lanes() {
        let depth = lane.depth(WORKERS).await?;
        if depth.ready + depth.held > 0 {
            return Ok(false);
        }
    }
    if links.ledger.open_scans().await? > 0 {
        return Ok(false);
    }
    for name in connectors {
        let depth = lanes.results.depth(name).await?;
        if depth.ready + depth.held > 0 {
            return Ok(false);
        }
    }
    Ok(true)
}
