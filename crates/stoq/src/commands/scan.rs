//! `stoq scan`: files, folders or standard input, alone on this machine and without leaving anything behind.

use std::ffi::OsStr;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Map;
use stoq_api::backend::OpenQueue;
use stoq_api::plugin::Provider;
use stoq_api::scanner::PluginKind;
use stoq_api::{Fault, FaultKind, RequestMeta};
use stoq_connectors::Context;
use stoq_connectors::common::Settings as FrameSettings;
use stoq_connectors::common::options::{self, Backlog, Common};
use stoq_engine::intake::IntakeSettings;
use stoq_providers::filedir::{self, FileDir};
use stoq_runtime::config::Loaded;
use stoq_runtime::config::flags::request_extra;
use stoq_runtime::escape::visible;
use stoq_runtime::shutdown::Shutdown;

use super::archived::Archived;
use super::show::{Show, Style};
use crate::cli::{EntryArgs, FailOn, Format, ScanArgs};
use crate::exit::{Exit, UsageError};
use crate::pipeline::{self, Parts, Sink, Source, Until};
use crate::view;
use crate::wiring::base::Base;
use crate::wiring::open::Opener;
use crate::wiring::{app, config};

/// The source of scans started by hand, where no other is given.
const SOURCE: &str = "scan";

pub(crate) async fn run(args: ScanArgs, shutdown: &Shutdown) -> Result<Exit> {
    let loaded = config::read(&args.common, args.routes.flags())?;
    crate::warn(&loaded.warnings);
    crate::warn_of_python(&args.common.plugin_dir);
    crate::start_logs(&loaded.settings)?;
    let named = !args.routes.sinks.connectors.is_empty();
    let folder = tempfile::Builder::new().prefix("stoq-").tempdir().context("cannot make a temporary folder")?;
    let base = Base::in_memory(loaded, folder.path())?;
    let built = app::build(&base)?;
    crate::warn_of_plugins(&built.warnings);

    let sources = sources(&args, &base)?;
    let show = show(&args);
    let show = Arc::new(if named { show.silent() } else { show });
    let mut sinks = vec![Sink {
        name: SOURCE.to_owned(),
        connector: show.clone(),
        common: Common {
            settings: FrameSettings { linger: Duration::ZERO, concurrency: 1, ..FrameSettings::default() },
            route: Arc::default(),
            backlog: Backlog::default(),
        },
    }];
    if named {
        sinks.extend(connectors(&base)?);
    }
    let names: Vec<&str> = sinks.iter().map(|sink| sink.name.as_str()).collect();
    base.ready(&names, shutdown).await?;
    let worker = Some(Arc::clone(&built.around));
    let parts = Parts { base: &base, worker, sources, sinks, until: Until::Drained };
    let ended = pipeline::run(parts, shutdown, |progress| show.follow(progress)).await;
    show.finish()?;
    ended.map_err(|e| usage(e, &args))?;
    if shutdown.is_draining() {
        return Ok(Exit::Unscanned);
    }
    Ok(show.exit(args.fail_on == Some(FailOn::Match)))
}

/// Standard input that holds nothing is the mistake of whoever called, not a failure.
fn usage(error: anyhow::Error, args: &ScanArgs) -> anyhow::Error {
    let refused = error
        .downcast_ref::<Fault>()
        .is_some_and(|fault| fault.kind == FaultKind::Refused && std::error::Error::source(fault).is_none());
    if refused && from_stdin(args) { UsageError(error.to_string()).into() } else { error }
}

fn from_stdin(args: &ScanArgs) -> bool {
    args.inputs.is_empty() || args.inputs.iter().any(|input| input == OsStr::new("-"))
}

fn show(args: &ScanArgs) -> Show {
    let terminal = std::io::stdout().is_terminal();
    let look = view::Look::new(args.color.is_on(terminal));
    let style = match args.format {
        Format::Auto if terminal => Style::Tree(look),
        Format::Tree => Style::Tree(look),
        Format::Json => Style::Json,
        Format::Auto | Format::Jsonl => Style::Lines,
    };
    let out: Box<dyn Write + Send> = Box::new(std::io::stdout());
    let many = args.inputs.len() > 1 || args.inputs.iter().any(|input| Path::new(input).is_dir());
    let progress =
        if many && std::io::stderr().is_terminal() { view::Progress::on_terminal() } else { view::Progress::none() };
    Show::new(style, args.schema, out, progress)
}

/// Connectors that were named on the command line or in the configuration.
pub(crate) fn connectors(base: &Base) -> Result<Vec<Sink>> {
    let settings = &base.loaded.settings;
    let queues: Arc<dyn OpenQueue> = Arc::new(Opener::for_sinks(&base.brokers, settings));
    let registry = stoq_connectors::registry();
    let mut sinks = Vec::new();
    for component in settings.active(PluginKind::Connector) {
        let Some(registration) = registry.iter().find(|r| r.info.name == component.kind) else { continue };
        let context = Context { name: component.name.clone(), queues: Arc::clone(&queues) };
        let wrong = |e| UsageError(format!("connector {}: {e}", component.name));
        let (common, own) = options::split(&component.options.0).map_err(wrong)?;
        let connector = (registration.build)(&own, &context).map_err(wrong)?;
        sinks.push(Sink { name: component.name, connector, common });
    }
    Ok(sinks)
}

fn sources(args: &ScanArgs, base: &Base) -> Result<Vec<Source>> {
    let run_id = uuid::Uuid::new_v4().to_string();
    let context = base.provider_context(SOURCE, &run_id);
    // Whatever tenants are configured: what is scanned by hand is nobody's.
    let settings = IntakeSettings { tenant: None, ..intake_settings(&base.loaded, &args.routes.entry, SOURCE)? };
    if !args.routes.entry.source_archivers.is_empty() {
        let asked = std::io::stdin().lock();
        let archived = Archived::new(&args.inputs, &args.routes.entry.source_archivers, base, asked, &run_id)?;
        return Ok(vec![Source { settings, provider: Box::new(archived) }]);
    }
    let stdin = from_stdin(args);
    let paths: Vec<PathBuf> = args.inputs.iter().filter(|input| *input != OsStr::new("-")).map(PathBuf::from).collect();
    let mut providers: Vec<Box<dyn Provider>> = Vec::new();
    if stdin {
        let terminal = std::io::stdin().is_terminal();
        if terminal && args.inputs.is_empty() {
            return Err(UsageError(
                "Error: No content to scan was provided; name files or folders, or pipe something in".into(),
            )
            .into());
        }
        providers.push(Box::new(stoq_providers::stdin::Stdin::new(std::io::stdin(), terminal, &context)));
    }
    if !paths.is_empty() {
        for path in &paths {
            // Says it in the words of the command line; a link is followed, as it was named on purpose.
            path.metadata()
                .map_err(|e| UsageError(format!("cannot scan {}: {e}", visible(&path.to_string_lossy()))))?;
        }
        let bare = paths.len() == 1;
        let options = filedir::Config { source_dir: paths, recursive: true, hidden: true, bare };
        providers.push(Box::new(FileDir::new(&options, &context).map_err(|e| UsageError(e.to_string()))?));
    }
    Ok(providers.into_iter().map(|provider| Source { settings: settings.clone(), provider }).collect())
}

/// What all scans of one provider have in common.
pub(crate) fn intake_settings(loaded: &Loaded, args: &EntryArgs, source: &str) -> Result<IntakeSettings> {
    let mut extra_data = Map::new();
    for text in &args.request_extra {
        let (key, value) = request_extra(text).map_err(|e| UsageError(format!("--request-extra {text:?}: {e}")))?;
        extra_data.insert(key, value);
    }
    let settings = &loaded.settings;
    Ok(IntakeSettings {
        source: source.to_owned(),
        budgets: settings.budgets(),
        start_dispatch: settings.routes.start.clone(),
        request_meta: RequestMeta {
            archive_payloads: settings.archive.payloads,
            source: args.request_source.clone(),
            extra_data,
        },
        tenant: settings.tenant_of(source).map(str::to_owned),
    })
}
