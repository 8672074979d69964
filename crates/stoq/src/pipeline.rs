//! All roles in one process: providers, a worker, a sweeper and connectors, from the first payload to the last response.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use stoq_api::plugin::{Connector, Provider};
use stoq_api::queue::Prefetch;
use stoq_connectors::common::{Frame, Settings as FrameSettings};
use stoq_engine::intake::{Intake, IntakeSettings, Progress};
use stoq_engine::lanes::WORKERS;
use stoq_engine::{Surroundings, Worker, retain, sweep};
use stoq_runtime::shutdown::Shutdown;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::wiring::app::App;
use crate::wiring::dead::DeadLane;

/// How long the end is looked for before looking again, where nothing rings.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Responses that a connector may hold.
const CONNECTOR_PREFETCH: u32 = 256;

/// A provider with what its scans have in common.
pub(crate) struct Source {
    pub(crate) settings: IntakeSettings,
    pub(crate) provider: Box<dyn Provider>,
}

/// A connector with its name and how it is fed.
pub(crate) struct Sink {
    pub(crate) name: String,
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) settings: FrameSettings,
}

/// Runs everything until the providers have ended and all is delivered, or until a signal ends it. `watch` sees how far
/// each provider is.
pub(crate) async fn run(
    app: &App,
    sources: Vec<Source>,
    sinks: Vec<Sink>,
    shutdown: &Shutdown,
    watch: impl FnOnce(Vec<Arc<Progress>>),
) -> Result<()> {
    let around = &app.around;
    let names: Vec<String> = sinks.iter().map(|sink| sink.name.clone()).collect();
    around.lanes.declare(&names.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let intakes: Vec<_> =
        sources.into_iter().map(|s| (Intake::new(Arc::clone(&around.links), s.settings), s.provider)).collect();
    watch(intakes.iter().map(|(intake, _)| intake.progress()).collect());

    let stops = Stops::default();
    let mut parts = JoinSet::new();
    connectors(around, sinks, &stops, &mut parts).await?;
    let worker = Worker::new(Arc::clone(around));
    let settled = worker.settled();
    let (stop, force) = (stops.worker.clone(), shutdown.stop_token());
    let working = tokio::spawn(async move { worker.run(&stop, &force).await });
    let (sweeping, stop) = (Arc::clone(around), stops.worker.clone());
    tokio::spawn(async move { sweep::run(sweeping, &stop).await });

    if app.persistent {
        let (keeping, stop) = (Arc::clone(&around.links), stops.worker.clone());
        let retention = app.loaded.settings.core.retention.get();
        tokio::spawn(async move { retain::run(keeping, retention, &stop).await });
    }

    let taking = take_all(intakes, shutdown.token());
    let all = async {
        let taken = taking.await;
        if taken.is_ok() {
            tokio::select! {
                biased;
                // What is on the lanes is there after a restart.
                () = shutdown.draining(), if app.persistent => {}
                drained = drained(around, &names, &settled) => drained?,
            }
        }
        taken
    };
    let ended = tokio::select! {
        ended = all => ended,
        failed = first_failure(&mut parts) => failed,
        () = shutdown.stopping() => Ok(()),
    };
    stops.worker.cancel();
    let grace = app.loaded.settings.core.grace.get();
    match shutdown.within(grace, working).await {
        Some(worked) => worked.context("the worker failed")??,
        None => tracing::warn!("what was in hand after the grace period is given back"),
    }
    stops.connectors.cancel();
    while let Some(part) = parts.join_next().await {
        part.context("a connector failed")??;
    }
    ended
}

#[derive(Default)]
struct Stops {
    worker: CancellationToken,
    connectors: CancellationToken,
}

async fn connectors(
    around: &Arc<Surroundings>,
    sinks: Vec<Sink>,
    stops: &Stops,
    parts: &mut JoinSet<Result<()>>,
) -> Result<()> {
    for sink in sinks {
        let prefetch = Prefetch { messages: CONNECTOR_PREFETCH };
        let deliveries = around.lanes.results.subscribe(&sink.name, prefetch).await?;
        let frame = Frame {
            name: sink.name.as_str().into(),
            connector: sink.connector,
            dead: Arc::new(DeadLane(around.lanes.clone())),
            settings: sink.settings,
        };
        let stop = stops.connectors.clone();
        parts.spawn(async move {
            let name = Arc::clone(&frame.name);
            frame.run(deliveries, stop).await.with_context(|| format!("connector {name}"))
        });
    }
    Ok(())
}

async fn take_all(intakes: Vec<(Intake, Box<dyn Provider>)>, stop: CancellationToken) -> Result<()> {
    let mut taking = JoinSet::new();
    for (intake, mut provider) in intakes {
        let stop = stop.clone();
        taking.spawn(async move { intake.run(&mut *provider, &stop).await });
    }
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
async fn drained(around: &Surroundings, connectors: &[String], settled: &Notify) -> Result<()> {
    loop {
        let rings = settled.notified();
        if is_empty(around, connectors).await? {
            return Ok(());
        }
        tokio::time::timeout(LOOK_AGAIN, rings).await.ok();
    }
}

async fn is_empty(around: &Surroundings, connectors: &[String]) -> Result<bool> {
    let lanes = &around.lanes;
    for lane in [&lanes.roots, &lanes.children] {
        let depth = lane.depth(WORKERS).await?;
        if depth.ready + depth.held > 0 {
            return Ok(false);
        }
    }
    if around.ledger.open_scans().await? > 0 {
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
