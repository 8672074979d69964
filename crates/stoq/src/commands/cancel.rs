//! `stoq cancel`: ends scans that cost more than they are worth, with what is known of them by now.

use std::io::Write;
use std::time::Duration;

use anyhow::Result;
use stoq_api::Timestamp;
use stoq_api::ledger::Claim;

use super::dead::opened;
use crate::cli::CancelArgs;
use crate::exit::{Exit, UsageError};

/// Freezes each scan and leaves it to whoever sweeps next: its lease is over as soon as it has begun. Tasks of it that wait
/// still are settled into a closed scan and change nothing.
pub(crate) async fn run(args: &CancelArgs, out: &mut dyn Write) -> Result<Exit> {
    let base = opened(&args.place)?;
    let mut unknown = Vec::new();
    for scan in &args.scans {
        match base.links.ledger.freeze(*scan, Duration::ZERO, Timestamp::now()).await? {
            Claim::Taken(_) => writeln!(out, "{scan}: cancelled; its response follows, with what is known by now")?,
            Claim::Held => writeln!(out, "{scan}: it is just being finished")?,
            Claim::Gone => unknown.push(scan.to_string()),
        }
    }
    base.close().await;
    if unknown.is_empty() {
        return Ok(Exit::Clean);
    }
    let which = unknown.join(", ");
    let text = format!(
        "not open: {which}. A scan is open while several payloads of it are known and its response is not published; `stoq \
         status` names those whose time ends first"
    );
    Err(UsageError(text).into())
}
