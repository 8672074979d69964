//! `stoq gc`: drops days of the payload store that nothing can need any more, by the rule of a running process.

use std::io::Write;

use anyhow::{Context as _, Result};
use stoq_api::Timestamp;
use stoq_engine::lanes::WORKERS;
use stoq_engine::retain;

use super::dead::open;
use crate::cli::GcArgs;
use crate::exit::{Exit, UsageError};

pub(crate) async fn run(args: &GcArgs, out: &mut dyn Write) -> Result<Exit> {
    let base = open(&args.place).await?;
    let (links, retention) = (&base.links, base.loaded.settings.core.retention);
    let takers = base.takers();
    if !base.is_fleet() {
        // In a data directory that was never used there are none.
        for (_, lane) in links.lanes.task_lanes() {
            lane.declare(&[WORKERS]).await?;
        }
        links.lanes.results.declare(&takers.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    }
    let max_wait = args.max_wait.map(|wait| wait.get());
    let days = retain::old_days(links, &takers, retention.get(), Timestamp::now(), max_wait).await?;
    let days = days.ok_or_else(|| {
        UsageError(
            "something waits on the lanes, and this broker does not say since when, so nothing was dropped: try again \
             when the lanes are empty, or say with --max-wait how long that is at most"
                .to_owned(),
        )
    })?;
    for day in &days {
        if !args.dry_run {
            links.store.drop_day(*day).await.with_context(|| format!("dropping {day:08}; days before it are gone"))?;
        }
        writeln!(out, "{} {day:08}", if args.dry_run { "would drop" } else { "dropped" })?;
    }
    let verb = if args.dry_run { "to drop" } else { "dropped" };
    writeln!(out, "{} days {verb}, which are older than core.retention = {retention}", days.len())?;
    base.close().await;
    Ok(Exit::Clean)
}
