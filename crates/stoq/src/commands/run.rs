//! `stoq run`: all roles in one process, alone on a data directory or on the services of a fleet. And `stoq provider`,
//! `stoq worker` and `stoq connector`: one role of a fleet each.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use stoq_api::scanner::PluginKind;
use stoq_api::{FaultKind, fault};
use stoq_runtime::config::Loaded;
use stoq_runtime::config::flags::Flag;
use stoq_runtime::shutdown::Shutdown;

use super::scan::{connectors, intake_settings};
use crate::cli::{CommonArgs, ConnectorArgs, EntryArgs, ProviderArgs, RunArgs, WorkerArgs};
use crate::exit::{Exit, UsageError};
use crate::http;
use crate::pipeline::{self, Parts, Sink, Source, Until};
use crate::trace;
use crate::watch::{Watch, within};
use crate::wiring::base::Base;
use crate::wiring::{app, backends, config};

/// The file that names a run until its providers have ended.
const RUN_ID: &str = "run-id";

pub(crate) async fn run(args: RunArgs, shutdown: &Shutdown) -> Result<Exit> {
    let flags = [args.sources.flags(), args.routes.flags(), args.home.flags()];
    let loaded = start(&args.common, flags.concat())?;
    needs_connector(&loaded)?;
    let base = Base::configured(loaded)?;
    let sinks = connectors(&base)?;
    let built = app::build(&base)?;
    crate::warn_of_plugins(&built.warnings);
    let run_id = run_id(&base.dir)?;
    let sources = sources(&args.routes.entry, &base, &run_id)?;
    let worker = Some(Arc::clone(&built.around));
    // What others put on shared lanes is none of this run's business, so emptiness says nothing there.
    let until = if base.is_fleet() { Until::Signal } else { Until::Drained };
    finish(Parts { base: &base, worker, sources, sinks, until }, shutdown).await
}

pub(crate) async fn provider(args: ProviderArgs, shutdown: &Shutdown) -> Result<Exit> {
    let flags = [args.sources.flags(), args.entry.flags(), args.home.flags()];
    let loaded = start(&args.common, flags.concat())?;
    backends::shared(&loaded.settings)?;
    let base = Base::configured(loaded)?;
    let run_id = run_id(&base.dir)?;
    let sources = sources(&args.entry, &base, &run_id)?;
    finish(Parts { base: &base, worker: None, sources, sinks: Vec::new(), until: Until::Taken }, shutdown).await
}

pub(crate) async fn worker(args: WorkerArgs, shutdown: &Shutdown) -> Result<Exit> {
    let mut flags = [args.scanning.flags(), args.home.flags()].concat();
    if !args.tenants.is_empty() {
        flags.push(Flag::new("run.tenants", args.tenants.clone(), "--tenant"));
    }
    let loaded = start(&args.common, flags)?;
    backends::shared(&loaded.settings)?;
    let base = Base::configured(loaded)?;
    let built = app::build(&base)?;
    crate::warn_of_plugins(&built.warnings);
    let worker = Some(Arc::clone(&built.around));
    let (sources, sinks) = (Vec::new(), Vec::new());
    finish(Parts { base: &base, worker, sources, sinks, until: Until::Signal }, shutdown).await
}

pub(crate) async fn connector(args: ConnectorArgs, shutdown: &Shutdown) -> Result<Exit> {
    let flags = [args.sinks.flags(), args.home.flags()];
    let loaded = start(&args.common, flags.concat())?;
    backends::shared(&loaded.settings)?;
    needs_connector(&loaded)?;
    let base = Base::configured(loaded)?;
    let sinks = connectors(&base)?;
    finish(Parts { base: &base, worker: None, sources: Vec::new(), sinks, until: Until::Signal }, shutdown).await
}

fn start(common: &CommonArgs, flags: Vec<Flag>) -> Result<Loaded> {
    let loaded = config::read(common, flags)?;
    crate::warn(&loaded.warnings);
    crate::warn_of_python(&common.plugin_dir);
    crate::start_logs(&loaded.settings)?;
    Ok(loaded)
}

/// Waits for the services and runs the parts to their end.
async fn finish(parts: Parts<'_>, shutdown: &Shutdown) -> Result<Exit> {
    let base = parts.base;
    // Everything that will take responses, wherever it runs: a lane without its subscriptions would lose some.
    let takers = base.loaded.settings.active(PluginKind::Connector);
    let takers: Vec<&str> = takers.iter().map(|component| component.name.as_str()).collect();
    if takers.is_empty() {
        return Err(no_connector());
    }
    let _server = match &base.loaded.settings.http.listen {
        Some(listen) => Some(http::serve(listen, base.health.clone()).await?),
        None => None,
    };
    let tracing = trace::start(&base.loaded.settings)?;
    let ended = work(parts, &takers, shutdown).await;
    if let Some(tracing) = tracing {
        tracing.end().await;
    }
    ended
}

async fn work(parts: Parts<'_>, takers: &[&str], shutdown: &Shutdown) -> Result<Exit> {
    let base = parts.base;
    let watch = Watch::start(base, takers, &parts.sinks, shutdown);
    if !base.ready(takers, shutdown).await? || !sinks_usable(&parts.sinks, shutdown).await? {
        base.close().await;
        return Ok(Exit::Clean);
    }
    let brings = !parts.sources.is_empty();
    let (worker, connectors) = (parts.worker.is_some(), parts.sinks.len());
    let alone = parts.until == Until::Drained;
    let started = |providers: Vec<_>| {
        tracing::info!(data_dir = %base.dir.display(), providers = providers.len(), worker, connectors, "started");
        watch.started();
    };
    let ended = pipeline::run(parts, shutdown, started).await?;
    // A run that drains is over when it has drained.
    if brings && ended.taken && !(alone && shutdown.is_draining()) {
        // The providers ended by themselves: what they bring next time is a new run.
        fs::remove_file(base.dir.join(RUN_ID)).context("cannot end the run in the data directory")?;
    }
    tracing::info!("ended");
    Ok(Exit::Clean)
}

/// Asks each sink once. One that is away is waited for by its connector alone; `false` if `shutdown` came first.
///
/// # Errors
/// One needs an operator: better said now than when responses pile up.
async fn sinks_usable(sinks: &[Sink], shutdown: &Shutdown) -> Result<bool> {
    for Sink { name, connector, .. } in sinks {
        let asked = tokio::select! {
            biased;
            () = shutdown.draining() => return Ok(false),
            asked = within(connector.check()) => asked,
        };
        match asked {
            Ok(()) => {}
            Err(fault) if fault.kind == FaultKind::Misconfigured => {
                return Err(UsageError(format!("connector {name} cannot be used: {}", fault::chain(&fault))).into());
            }
            Err(fault) => {
                let error = fault::chain(&fault);
                tracing::warn!(connector = name, error, "its sink is away; its responses wait, others go on");
            }
        }
    }
    Ok(true)
}

fn no_connector() -> anyhow::Error {
    UsageError(
        "no connector is named, so responses would go nowhere: use -C, or [connectors.NAME.KIND] in the configuration"
            .into(),
    )
    .into()
}

fn needs_connector(loaded: &Loaded) -> Result<()> {
    let none = loaded.settings.active(PluginKind::Connector).is_empty();
    if none { Err(no_connector()) } else { Ok(()) }
}

fn sources(entry: &EntryArgs, base: &Base, run_id: &str) -> Result<Vec<Source>> {
    let registry = stoq_providers::registry();
    let mut sources = Vec::new();
    for component in base.loaded.settings.active(PluginKind::Provider) {
        let Some(registration) = registry.iter().find(|r| r.info.name == component.kind) else { continue };
        let context = base.provider_context(&component.name, run_id);
        let provider = (registration.build)(&component.options.0, &context)
            .map_err(|e| UsageError(format!("provider {}: {e}", component.name)))?;
        sources.push(Source { settings: intake_settings(&base.loaded, entry, &component.name)?, provider });
    }
    if sources.is_empty() {
        return Err(UsageError(
            "No activated provider plugins: use -P, or [providers.NAME.KIND] in the configuration".into(),
        )
        .into());
    }
    Ok(sources)
}

/// The run's name. It stays the same over crashes, so that what was taken before one is known after it.
fn run_id(dir: &Path) -> Result<String> {
    let path = dir.join(RUN_ID);
    match fs::read_to_string(&path) {
        Ok(id) if !id.trim().is_empty() => Ok(id.trim().to_owned()),
        _ => {
            let id = uuid::Uuid::new_v4().to_string();
            let fresh = dir.join(format!("{RUN_ID}.new"));
            fs::write(&fresh, &id)
                .and_then(|()| fs::File::open(&fresh)?.sync_all())
                .and_then(|()| fs::rename(&fresh, &path))
                .with_context(|| format!("cannot write {}", path.display()))?;
            Ok(id)
        }
    }
}
