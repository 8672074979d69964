//! The sweeper: finishes scans that are past their time, and publishes frozen ones whose owner died.
//!
//! Any worker may sweep; leases in the ledger keep sweepers apart. A scan's clock does not run while older work still
//! waits: deadlines are compared with the time at which the oldest waiting task was published, not with now. So an outage
//! or a backlog makes scans late, never partial. Each tenant's scans wait for its own tasks only: what others left undone
//! does not keep them open.
//!
//! Brokers tell what waits, but not all of them what others hold. Nobody holds a task for longer than
//! [`Settings::hold_max`](crate::Settings::hold_max) while he cannot go on, so what waited within that time may still be in
//! somebody's hands, and its time is not over. While lanes, ledger or store are away nobody's is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use stoq_api::ledger::{Claim, Overdue};
use stoq_api::{Fault, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::settle;
use crate::surroundings::Surroundings;

/// Scans that one sweep finishes.
const BATCH: usize = 100;
/// A lane of whose age something is known that is not older is not asked.
const PROBE_PAUSE: Duration = Duration::from_secs(60);
/// Scans looked at in one sweep where there are tenants: some may have to wait for older tasks of theirs.
const LOOK: usize = 10 * BATCH;
/// Into how many parts the time is divided that is looked back: looks within one part are kept as one.
const PARTS: u32 = 64;

/// Sweeps every now and then until `stop` is cancelled. Failures are logged and the next sweep tries again.
pub async fn run(around: Arc<Surroundings>, stop: &CancellationToken) {
    // Where lanes and ledger are one, nobody else holds anything.
    let held = if around.settings.coupled { Duration::ZERO } else { around.settings.hold_max };
    let mut watch = Watch::new(held);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(around.settings.sweep_interval) => {}
        }
        if let Err(fault) = watched(&around, &mut watch, Timestamp::now()).await {
            watch.begin_anew();
            tracing::warn!(error = %stoq_api::fault::chain(&fault), "sweeping failed; trying again later");
        } else if let Err(fault) = probe(&around, Timestamp::now()).await {
            tracing::warn!(error = %stoq_api::fault::chain(&fault), "cannot ask the lanes what waits; trying again later");
        }
    }
}

async fn watched(around: &Surroundings, watch: &mut Watch, now: Timestamp) -> Result<usize, Fault> {
    // A payload may wait for it in somebody's hands, and nobody else can tell.
    around.store.check().await?;
    let horizons = around.lanes.horizons(&around.seen, now).await?;
    finish_overdue(around, &watch.add(now, horizons), now).await
}

/// One sweep at `now` by somebody who knows that no other process holds a task. Says how many scans it finished.
///
/// # Errors
/// A lane or the ledger is away: nobody's time runs then.
pub async fn once(around: &Surroundings, now: Timestamp) -> Result<usize, Fault> {
    let horizons = around.lanes.horizons(&around.seen, now).await?;
    finish_overdue(around, &horizons, now).await
}

async fn finish_overdue(around: &Surroundings, horizons: &[Timestamp], now: Timestamp) -> Result<usize, Fault> {
    let latest = horizons.iter().copied().max().unwrap_or(Timestamp(0));
    let look = if horizons.len() == 1 { BATCH } else { LOOK };
    let mut finished = 0;
    for overdue in around.ledger.overdue(latest, now, look).await? {
        if finished == BATCH {
            break;
        }
        if !overdue.frozen && !is_over(around, horizons, latest, &overdue).await? {
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

/// Asks lanes that do not tell what waits, while a scan is past its time by the clock. The answer is there at a later sweep,
/// perhaps that of another process. Says how many were asked.
///
/// # Errors
/// A lane or the ledger is away.
pub async fn probe(around: &Surroundings, now: Timestamp) -> Result<usize, Fault> {
    if around.ledger.overdue(now, now, 1).await?.is_empty() {
        return Ok(0);
    }
    around.lanes.probe(&around.seen, PROBE_PAUSE, now).await
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
    Ok(overdue.due < horizon)
}

/// What waited on the lanes lately.
struct Watch {
    /// How long somebody may hold what does not wait any more.
    held: Duration,
    /// Since when, and for each tenant the earliest horizon from then until the next look.
    looks: VecDeque<(Timestamp, Vec<Timestamp>)>,
}

impl Watch {
    fn new(held: Duration) -> Self {
        Self { held, looks: VecDeque::new() }
    }

    /// Takes in the horizons of what waits at `now`; for each tenant the time before which no task waits, nor is held by
    /// anybody. That is known only after a watch for as long as somebody may hold one.
    fn add(&mut self, now: Timestamp, horizons: Vec<Timestamp>) -> Vec<Timestamp> {
        match self.looks.back_mut() {
            Some((since, least)) if since.age(now) < self.held / PARTS => {
                least.iter_mut().zip(&horizons).for_each(|(least, horizon)| *least = (*least).min(*horizon));
            }
            _ => self.looks.push_back((now, horizons.clone())),
        }
        // The first look stands for all the time until the second.
        while self.looks.get(1).is_some_and(|(until, _)| until.after(self.held) <= now) {
            self.looks.pop_front();
        }
        let whole = self.looks.front().is_some_and(|(since, _)| since.after(self.held) <= now);
        let least = |tenant: usize| self.looks.iter().map(|(_, least)| least[tenant]).min();
        (0..horizons.len()).map(|tenant| least(tenant).filter(|_| whole).unwrap_or(Timestamp(0))).collect()
    }

    /// Something was away, so that anybody may have begun to hold what he had.
    fn begin_anew(&mut self) {
        self.looks.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp(1_767_400_000_000_000).after(Duration::from_secs(seconds))
    }

    #[test]
    fn what_waited_lately_may_be_held_still() {
        let mut watch = Watch::new(Duration::from_secs(60));
        let nobody_knows = vec![Timestamp(0); 2];
        assert_eq!(watch.add(at(0), vec![at(0), at(0)]), nobody_knows, "held since before the watch began");
        assert_eq!(watch.add(at(59), vec![at(59), at(10)]), nobody_knows);
        assert_eq!(watch.add(at(60), vec![at(60), at(60)]), [at(0), at(0)]);
        // The look at 59 stands for all the time until the next.
        assert_eq!(watch.add(at(119), vec![at(119), at(119)]), [at(59), at(10)]);
        assert_eq!(watch.add(at(180), vec![at(180), at(180)]), [at(119), at(119)]);
        watch.begin_anew();
        assert_eq!(watch.add(at(300), vec![at(300), at(300)]), nobody_knows, "something was away");
    }

    #[test]
    fn many_looks_are_kept_as_few() {
        let mut watch = Watch::new(Duration::from_secs(640));
        for second in 0..2_000 {
            let waiting = if second == 1_500 { 7 } else { second };
            let horizon = watch.add(at(second), vec![at(waiting)])[0];
            assert!(watch.looks.len() <= PARTS as usize + 2, "{}", watch.looks.len());
            assert!(second < 1_500 || horizon == at(7), "{second}: {horizon:?}");
            assert!(!(700..1_500).contains(&second) || (at(second - 660)..=at(second - 640)).contains(&horizon));
        }
    }

    #[test]
    fn where_nobody_else_holds_anything_only_now_counts() {
        let mut watch = Watch::new(Duration::ZERO);
        for second in [0, 1, 7] {
            assert_eq!(watch.add(at(second), vec![at(second)]), [at(second)]);
        }
    }
}
