//! `stoq setup`: makes what a fleet needs at its broker.

use std::io::Write;

use anyhow::Result;
use stoq_api::queue::PartState;
use stoq_api::scanner::PluginKind;

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
            let line = match part.state {
                PartState::Present => format!("is there   {}", part.what),
                PartState::Missing if args.dry_run => format!("would make {}", part.what),
                PartState::Missing if differs => format!("not made   {}", part.what),
                PartState::Missing => format!("made       {}", part.what),
                PartState::Different(how) => {
                    different += 1;
                    format!("DIFFERS    {}: {how}", part.what)
                }
            };
            writeln!(out, "{line}")?;
        }
    }
    base.close().await;
    match different {
        0 => Ok(Exit::Clean),
        n => Err(UsageError(format!("{n} of these exist with other settings; nothing was changed about them")).into()),
    }
}
