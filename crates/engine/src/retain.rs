//! Retention: days of the payload store that nothing can need any more are dropped whole.
//!
//! A day is old when it lies further back than the retention, counted not from now but from the oldest task that still
//! waits: a backlog, however long, keeps what its tasks refer to.

use std::sync::Arc;
use std::time::Duration;

use stoq_api::{Fault, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::lanes::WORKERS;
use crate::links::Links;

/// How often old days are looked for.
const INTERVAL: Duration = Duration::from_secs(3_600);

/// Drops old days at once and every hour, until `stop` is cancelled. Failures are logged and tried again.
pub async fn run(links: Arc<Links>, retention: Duration, stop: &CancellationToken) {
    loop {
        match once(&links, retention, Timestamp::now()).await {
            Ok(0) => {}
            Ok(days) => tracing::info!(days, "dropped old payloads from the store"),
            Err(fault) => tracing::warn!(error = %stoq_api::fault::chain(&fault), "old payloads were not dropped"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// Drops what is old at `now`, and says how many days that were.
///
/// # Errors
/// A lane or the store is away.
pub async fn once(links: &Links, retention: Duration, now: Timestamp) -> Result<usize, Fault> {
    let mut oldest = now;
    for lane in [&links.lanes.children, &links.lanes.roots] {
        let depth = lane.depth(WORKERS).await?;
        match depth.oldest {
            Some(waiting) => oldest = oldest.min(waiting),
            // Something is in work or waits, and nobody knows since when.
            None if depth.ready + depth.held > 0 => return Ok(0),
            None => {}
        }
    }
    // An open scan may still need what its children brought, however long ago that was.
    if links.ledger.open_scans().await? > 0 {
        // How old it is nobody says, but redelivery of its tasks ends where tombstones do.
        let redelivery = links.settings.tombstone;
        oldest = Timestamp(oldest.0.saturating_sub(u64::try_from(redelivery.as_micros()).unwrap_or(u64::MAX)));
    }
    let before = Timestamp(oldest.0.saturating_sub(u64::try_from(retention.as_micros()).unwrap_or(u64::MAX))).day();
    let mut dropped = 0;
    for day in links.store.days().await?.into_iter().take_while(|day| *day < before) {
        links.store.drop_day(day).await?;
        dropped += 1;
    }
    Ok(dropped)
}
