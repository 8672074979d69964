//! Retention: days of the payload store that nothing can need any more are dropped whole.
//!
//! A day is old when it lies further back than the retention, counted not from now but from the oldest task or
//! response that still waits: a backlog, however long, keeps what it refers to.

use std::sync::Arc;
use std::time::Duration;

use stoq_api::queue::Depth;
use stoq_api::{Fault, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::lanes::WORKERS;
use crate::links::Links;

/// How often old days are looked for.
const INTERVAL: Duration = Duration::from_secs(3_600);

/// Drops old days at once and every hour, until `stop` is cancelled. Failures are logged and tried again.
pub async fn run(links: Arc<Links>, connectors: Vec<String>, retention: Duration, stop: &CancellationToken) {
    loop {
        match once(&links, &connectors, retention, Timestamp::now()).await {
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
pub async fn once(links: &Links, connectors: &[String], retention: Duration, now: Timestamp) -> Result<usize, Fault> {
    let days = old_days(links, connectors, retention, now, None).await?.unwrap_or_default();
    for day in &days {
        links.store.drop_day(*day).await?;
    }
    Ok(days.len())
}

/// The days that are old at `now`, oldest first: nothing that waits for workers or one of `connectors` can need them. `None` if something waits of which nobody knows how long, and `max_wait`
/// does not say how long that is at most.
///
/// # Errors
/// A lane or the store is away.
pub async fn old_days(
    links: &Links,
    connectors: &[String],
    retention: Duration,
    now: Timestamp,
    max_wait: Option<Duration>,
) -> Result<Option<Vec<u32>>, Fault> {
    let mut depths = Vec::new();
    for (_, lane) in links.lanes.task_lanes() {
        depths.push(lane.depth(WORKERS).await?);
    }
    // Large responses lie in the store, however long a connector is away.
    for connector in connectors {
        depths.push(links.lanes.results.depth(connector).await?);
    }
    let Some(mut oldest) = oldest(&depths, now, max_wait) else { return Ok(None) };
    // An open scan may still need what its children brought, however long ago that was.
    if links.ledger.open_scans().await? > 0 {
        // How old it is nobody says, but redelivery of its tasks ends where tombstones do.
        oldest = before(oldest, links.settings.tombstone);
    }
    let first = before(oldest, retention).day();
    Ok(Some(links.store.days().await?.into_iter().take_while(|day| *day < first).collect()))
}

fn before(time: Timestamp, by: Duration) -> Timestamp {
    Timestamp(time.0.saturating_sub(u64::try_from(by.as_micros()).unwrap_or(u64::MAX)))
}

/// Since when something waits: `now` if nothing does, nothing if nobody knows.
fn oldest(depths: &[Depth], now: Timestamp, max_wait: Option<Duration>) -> Option<Timestamp> {
    let waiting = depths.iter().filter(|depth| depth.oldest.is_some() || depth.ready + depth.held > 0);
    waiting.map(|depth| depth.oldest.or(max_wait.map(|most| before(now, most)))).try_fold(now, |a, b| Some(a.min(b?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_as_old_as_is_known_or_said() {
        let (now, day) = (Timestamp(1_000_000_000_000_000), Duration::from_secs(86_400));
        let (early, late) = (before(now, 3 * day), before(now, day));
        let depth = |ready, held, oldest| Depth { ready, held, oldest };
        let (empty, told) = (depth(0, 0, None), depth(5, 0, Some(early)));
        let (silent, in_work) = (depth(5, 0, None), depth(0, 1, None));
        for (depths, max_wait, expected) in [
            (vec![empty, empty], None, Some(now)),
            (vec![empty, told], None, Some(early)),
            (vec![told, silent], None, None),
            (vec![in_work, empty], None, None),
            (vec![told, silent], Some(day), Some(early)),
            (vec![silent, empty], Some(day), Some(late)),
        ] {
            assert_eq!(oldest(&depths, now, max_wait), expected, "{depths:?} {max_wait:?}");
        }
    }
}
