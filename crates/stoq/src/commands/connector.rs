//! `stoq connector replay`: delivers what a connector put aside in the payload store.

use std::io::Write;

use anyhow::Result;
use stoq_connectors::common::spill::{Spill, Spilled};
use stoq_runtime::shutdown::Shutdown;

use super::dead::open;
use super::scan::connectors;
use crate::cli::ConnectorReplayArgs;
use crate::exit::{Exit, UsageError};
use crate::pipeline::frame;

/// Delivers through the connector itself, with its retries, conditions and dead lane, until nothing is left or a signal
/// comes. What was not delivered stays.
pub(crate) async fn replay(args: &ConnectorReplayArgs, shutdown: &Shutdown, out: &mut dyn Write) -> Result<Exit> {
    let base = open(&args.place).await?;
    let sink = connectors(&base)?.into_iter().find(|sink| sink.name == args.name);
    let sink = sink.ok_or_else(|| {
        let known = base.takers().join(", ");
        UsageError(format!("no connector is called {:?}; there are: {known}", args.name))
    })?;
    let spill = Spill::new(&base.links.store, &args.name);
    let before = spill.count().await?;
    frame(&base, sink).return_spilled(shutdown.token()).await?;
    let Spilled { messages: left, .. } = spill.count().await?;
    let done = before.messages.saturating_sub(left);
    writeln!(out, "{done} messages delivered, {left} left")?;
    base.close().await;
    Ok(if left > 0 { Exit::Unscanned } else { Exit::Clean })
}
