//! `stoq setup`: makes what a fleet needs at its broker, and what its connectors need in their sinks.

use std::io::Write;

use anyhow::Result;
use stoq_api::queue::{Part, PartState};
use stoq_api::scanner::PluginKind;

use super::scan::connectors as sinks;
use crate::cli::SetupArgs;
use crate::exit::{Exit, UsageError};
use crate::wiring::backends;
use crate::wiring::base::{Base, needed};
use crate::wiring::config;

pub(crate) async fn run(args: &SetupArgs, out: &mut dyn Write) -> Result<Exit> {
    let loaded = config::read(&args.common, Vec::new())?;
    crate::warn(&loaded.warnings);
    crate::start_logs(&loaded.settings)?;
    backends::shared(&loaded.settings)?;
    let connectors = loaded.settings.active(PluginKind::Connector);
    let connectors: Vec<&str> = connectors.iter().map(|component| component.name.as_str()).collect();
    if connectors.is_empty() {
        writeln!(out, "note: no connector is configured, so nothing will take responses")?;
    }
    let base = Base::configured(loaded)?;
    for (_, broker) in base.brokers.opened() {
        broker.check().await?;
    }
    let mut different = 0;
    for (lane, subscriptions) in needed(&base.links.lanes, &connectors) {
        let parts = lane.inspect(subscriptions).await?;
        let differs = parts.iter().any(|part| matches!(part.state, PartState::Different(_)));
        if !args.dry_run && !differs {
            lane.declare(subscriptions).await?;
        }
        for part in parts {
            different += usize::from(matches!(part.state, PartState::Different(_)));
            writeln!(out, "{}", line(&part, args.dry_run, differs))?;
        }
    }
    for sink in sinks(&base)? {
        // A sink that is away is waited for by whoever delivers; here a person waits for an answer.
        let parts = sink.connector.setup(!args.dry_run).await?;
        for part in parts {
            different += usize::from(matches!(part.state, PartState::Different(_)));
            writeln!(out, "{} (connector {})", line(&part, args.dry_run, false), sink.name)?;
        }
    }
    base.close().await;
    match different {
        0 => Ok(Exit::Clean),
        n => Err(UsageError(format!("{n} of these exist with other settings; nothing was changed about them")).into()),
    }
}

/// What is told of one part; `held_back` where nothing is made beside something that differs.
fn line(part: &Part, dry_run: bool, held_back: bool) -> String {
    match &part.state {
        PartState::Present => format!("is there   {}", part.what),
        PartState::Missing if dry_run => format!("would make {}", part.what),
        PartState::Missing if held_back => format!("not made   {}", part.what),
        PartState::Missing => format!("made       {}", part.what),
        PartState::Different(how) => format!("DIFFERS    {}: {how}", part.what),
    }
}
