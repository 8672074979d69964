//! `stoq check`: everything that can be wrong with a configuration, without scanning anything.

use std::collections::BTreeSet;
use std::io::Write;

use anyhow::Result;
use stoq_api::scanner::PluginKind;
use stoq_connectors::common::options::{self, OnBacklog};
use stoq_engine::plan::PlanReport;
use stoq_engine::rules::Rules;
use stoq_runtime::config::{Loaded, Settings};
use stoq_runtime::fail::Problem;

use crate::cli::CommonArgs;
use crate::exit::{Exit, UsageError};
use crate::wiring::{app, backends, config, plan};

pub(crate) fn run(common: &CommonArgs, out: &mut dyn Write) -> Result<Exit> {
    let loaded = config::read(common, Vec::new())?;
    crate::warn_of_python(&common.plugin_dir);
    let mut notes: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    let plan = plan::plan(&loaded, &[]).map_err(|problems| UsageError(config::shown(&problems)))?;
    backends::check(&loaded.settings)?;
    Rules::compile(&plan.rules).map_err(|problems| UsageError(problems.join("\n")))?;
    let hello = app::build_workload(&serde_json::to_vec(&plan)?).map_err(UsageError)?;
    let report: PlanReport = serde_json::from_slice(&hello.message)?;
    notes.extend(report.warnings.iter().map(|(plugin, text)| format!("warning: plugin {plugin}: {text}")));
    notes.extend(routing(&loaded.settings));
    notes.extend(connectors(&loaded)?);
    for note in &notes {
        writeln!(out, "{note}\n")?;
    }
    let plugins: Vec<&str> = plan.plugins.iter().map(|plugin| plugin.name.as_str()).collect();
    writeln!(
        out,
        "configuration is usable: {} plugins ({}), {} route rules, {} warnings",
        plugins.len(),
        plugins.join(", "),
        plan.rules.len(),
        notes.len()
    )?;
    Ok(Exit::Clean)
}

/// Looks at the options that all connectors have; those of their kinds are judged when they are built.
fn connectors(loaded: &Loaded) -> Result<Vec<String>> {
    let (settings, mut problems, mut notes) = (&loaded.settings, Vec::new(), Vec::new());
    let active = settings.active(PluginKind::Connector);
    // `scan` shows responses itself; whoever names a broker or an intake wants more than that.
    let lasts = settings.fleet.queue.is_some() || !settings.active(PluginKind::Provider).is_empty();
    if active.is_empty() && lasts {
        notes.push(
            "warning: there is no connector, so responses would go nowhere: `run` and the roles of a fleet do not start \
             without one"
                .to_owned(),
        );
    }
    let queue = settings.active(PluginKind::Queue).into_iter().next();
    let untold = queue.is_some_and(|queue| NEVER_TELLS.contains(&queue.kind.as_str()));
    for component in active {
        let path = format!("connectors.{}.{}", component.name, component.kind);
        match options::split(&component.options.0) {
            Err(error) => problems.push(Problem::error(loaded.origins.place(&path), path, error.to_string())),
            Ok((common, _)) if untold && common.backlog.is_limited() => notes.push(match common.backlog.then {
                OnBacklog::Block => format!(
                    "warning: {path}: this broker never tells how much waits, so on_backlog = \"block\" does nothing; \
                     use \"spill\" with max_backlog_age"
                ),
                OnBacklog::Spill if common.backlog.age.is_none() => format!(
                    "warning: {path}: this broker never tells how much waits, so max_backlog does nothing; use \
                     max_backlog_age"
                ),
                OnBacklog::Spill => continue,
            }),
            Ok(_) => {}
        }
    }
    if problems.is_empty() { Ok(notes) } else { Err(UsageError(config::shown(&problems)).into()) }
}

/// Kinds of brokers that do not say how much waits in a subscription.
const NEVER_TELLS: [&str; 1] = ["pubsub"];

/// Routes that are allowed but surely not meant.
fn routing(settings: &Settings) -> Vec<String> {
    let mut notes = Vec::new();
    let routes = &settings.routes;
    let ruled = routes.rules.values().any(|rule| !rule.run.is_empty());
    let named: BTreeSet<&str> = routes.dispatchers.iter().map(String::as_str).collect();
    if ruled && !named.contains(stoq_engine::rules::NAME) {
        notes.push(
            "warning: there are routes.rules, but routes.dispatchers does not name \"rules\": they are never asked"
                .to_owned(),
        );
    }
    if routes.always.is_empty() && routes.start.is_empty() && routes.dispatchers.is_empty() {
        notes.push(
            "warning: no worker can ever run: routes.always, routes.start and routes.dispatchers are all empty"
                .to_owned(),
        );
    }
    let by_mimetype = routes.rules.iter().filter(|(_, rule)| !rule.when.mimetype.is_empty());
    if !routes.always.iter().any(|worker| worker == "mimetype") {
        notes.extend(by_mimetype.map(|(name, _)| {
            format!("warning: routes.rules.{name} asks for a media type, but nothing always runs the worker \"mimetype\": add it to routes.always")
        }));
    }
    let archives = settings.active(PluginKind::Archiver).is_empty();
    if settings.archive.payloads && !settings.archive.destinations.is_empty() && archives {
        notes.push("warning: archive.destinations names no archiver that exists".to_owned());
    }
    notes
}
