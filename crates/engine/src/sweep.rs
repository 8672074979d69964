//! The sweeper: finishes scans that are past their time, and publishes frozen ones whose owner died.
//!
//! Any process may sweep; leases in the ledger keep sweepers apart. A scan's clock does not run while older work still
//! waits: deadlines are compared with the time at which the oldest waiting task was published, not with now. So an outage
//! or a backlog makes scans late, never partial. Each tenant's scans wait for its own tasks only: what others left undone
//! does not keep them open.

use std::sync::Arc;

use stoq_api::ledger::{Claim, Overdue};
use stoq_api::{Fault, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::settle;
use crate::surroundings::Surroundings;

/// Scans that one sweep finishes.
const BATCH: usize = 100;
/// Scans looked at in one sweep where there are tenants: some may have to wait for older tasks of theirs.
const LOOK: usize = 10 * BATCH;

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
    let horizons = around.lanes.horizons(&around.seen, now).await?;
    let latest = horizons.iter().copied().max().unwrap_or(Timestamp(0));
    let look = if horizons.len() == 1 { BATCH } else { LOOK };
    let mut finished = 0;
    for overdue in around.ledger.overdue(latest, now, look).await? {
        if finished == BATCH {
            break;
        }
        if !overdue.frozen && !is_over(around, &horizons, latest, &overdue).await? {
            continue;
        }
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

/// Whether an open scan's time, which is over before `latest`, is over before its own tenant's horizon, too.
async fn is_over(
    around: &Surroundings,
    horizons: &[Timestamp],
    latest: Timestamp,
    overdue: &Overdue,
) -> Result<bool, Fault> {
    if horizons.iter().all(|horizon| *horizon == latest) {
        return Ok(true);
    }
    let Some(head) = around.ledger.head(overdue.scan_id).await? else { return Ok(false) };
    let horizon = horizons[around.lanes.place_of(head.tenant.as_deref()).unwrap_or_default()];
    Ok(overdue.started.after(head.budgets.deadline()) < horizon)
}
