//! The sweeper: finishes scans that are past their time, and publishes frozen ones whose owner died.
//!
//! Any process may sweep; leases in the ledger keep sweepers apart. A scan's clock does not run while older work still
//! waits: deadlines are compared with the time at which the oldest waiting task was published, not with now. So an outage
//! or a backlog makes scans late, never partial.

use std::sync::Arc;

use stoq_api::ledger::Claim;
use stoq_api::{Fault, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::settle;
use crate::surroundings::Surroundings;

/// Scans looked at in one sweep.
const BATCH: usize = 100;

/// Sweeps every now and then until `stop` is cancelled. Failures are logged and the next sweep tries again.
pub async fn run(around: Arc<Surroundings>, stop: &CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(around.settings.sweep_interval) => {}
        }
        if let Err(fault) = once(&around, Timestamp::now()).await {
            tracing::warn!(error = %stoq_api::fault::chain(&fault), "sweeping failed; trying again later");
        }
    }
}

/// One sweep at `now`. Says how many scans it finished.
///
/// # Errors
/// A lane or the ledger is away: nobody's time runs then.
pub async fn once(around: &Surroundings, now: Timestamp) -> Result<usize, Fault> {
    let horizon = around.lanes.horizon(&around.seen, now).await?;
    let mut finished = 0;
    for overdue in around.ledger.overdue(horizon, now, BATCH).await? {
        match around.ledger.freeze(overdue.scan_id, around.settings.lease, now).await? {
            Claim::Taken(completeness) => {
                tracing::warn!(scan = %overdue.scan_id, ?completeness, "finishing an overdue scan");
                settle::finish(around, overdue.scan_id).await?;
                finished += 1;
            }
            Claim::Held | Claim::Gone => {}
        }
    }
    Ok(finished)
}
