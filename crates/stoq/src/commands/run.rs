//! `stoq run`: all roles in one process, on a data directory that outlives it.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use stoq_api::scanner::PluginKind;
use stoq_runtime::config::flags::Flag;
use stoq_runtime::shutdown::Shutdown;

use super::scan::{connectors, intake_settings};
use crate::cli::RunArgs;
use crate::exit::{Exit, UsageError};
use crate::pipeline::{self, Source};
use crate::wiring::app::{App, Backing};
use crate::wiring::config;

/// The file that names a run until its providers have ended.
const RUN_ID: &str = "run-id";

pub(crate) async fn run(args: RunArgs, shutdown: &Shutdown) -> Result<Exit> {
    let mut flags = args.routes.flags();
    if !args.providers.is_empty() {
        flags.push(Flag::new("run.providers", args.providers.clone(), "--providers"));
    }
    if let Some(dir) = &args.data_dir {
        flags.push(Flag::new("core.data_dir", dir.to_string_lossy().into_owned(), "--data-dir"));
    }
    let loaded = config::read(&args.common, flags)?;
    crate::warn(&loaded.warnings);
    crate::warn_of_python(&args.common.plugin_dir);
    crate::start_logs(&loaded.settings)?;
    let dir = loaded.settings.core.data_dir.clone();
    fs::create_dir_all(&dir).with_context(|| {
        format!("cannot make the data directory {}; another can be named with --data-dir", dir.display())
    })?;
    let sinks = connectors(&loaded)?;
    if sinks.is_empty() {
        return Err(UsageError("no connector is named, so responses would go nowhere: use -C, or [connectors.NAME.KIND] in the configuration".into()).into());
    }
    let app = App::start(loaded, &Backing::Data(&dir))?;
    crate::warn_of_plugins(&app.warnings);
    let run_id = run_id(&dir)?;
    let sources = sources(&args, &app, &run_id)?;
    tracing::info!(data_dir = %dir.display(), providers = sources.len(), connectors = sinks.len(), "started");
    pipeline::run(&app, sources, sinks, shutdown, |_| ()).await?;
    if !shutdown.is_draining() {
        // The providers ended by themselves: what they bring next time is a new run.
        fs::remove_file(dir.join(RUN_ID)).context("cannot end the run in the data directory")?;
    }
    tracing::info!("ended");
    Ok(Exit::Clean)
}

fn sources(args: &RunArgs, app: &App, run_id: &str) -> Result<Vec<Source>> {
    let registry = stoq_providers::registry();
    let mut sources = Vec::new();
    for component in app.loaded.settings.active(PluginKind::Provider) {
        let Some(registration) = registry.iter().find(|r| r.info.name == component.kind) else { continue };
        let context = app.provider_context(&component.name, run_id);
        let provider = (registration.build)(&component.options.0, &context)
            .map_err(|e| UsageError(format!("provider {}: {e}", component.name)))?;
        sources.push(Source { settings: intake_settings(&app.loaded, &args.routes, &component.name)?, provider });
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
