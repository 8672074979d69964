//! Looks at how far behind a connector is, and at what it had to put aside.

use std::time::Duration;

use futures::future::BoxFuture;
use stoq_api::{Fault, Timestamp, fault};
use stoq_runtime::metrics;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::frame::{Frame, Run};
use super::options::{Backlog, OnBacklog};
use super::spill::Spill;

/// So many looks, those of connectors that are not behind and have no limits ask nobody: brokers and stores pay for it.
const SELDOM: u32 = 10;
/// How old what is held may be for the connector to count as one that keeps up.
const FRESH: Duration = Duration::from_secs(10);

impl Frame {
    /// Looks every now and then until it is dropped. Ends at once where there is no lane to look at.
    pub(super) async fn look(self, run: Run) {
        let Some(lane) = &self.lane else { return };
        let meter = metrics::Connector::new(&self.name);
        let mut tick = interval(self.settings.look_every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut returning: Option<Return> = None;
        let (mut behind, mut caught_up, mut looks) = (false, false, 0_u32);
        loop {
            tick.tick().await;
            let seldom = looks.is_multiple_of(SELDOM);
            looks = looks.wrapping_add(1);
            let held = run.ages.oldest(Timestamp::now());
            meter.oldest(held);
            if !(self.backlog.is_limited() || (self.backlog.unspill && seldom)) {
                continue;
            }
            // A lane that never tells how much waits, or cannot now, leaves the age of what is held.
            let depth = lane.depth(&self.name).await.ok();
            let waiting = depth.map(|depth| depth.ready + depth.held);
            let told = depth.and_then(|depth| depth.oldest).map(age);
            let oldest = told.max(held);
            let was = behind;
            behind =
                if behind { !self.backlog.is_under(waiting, oldest) } else { self.backlog.is_over(waiting, oldest) };
            caught_up |= was && !behind;
            if behind != was {
                self.say(behind, waiting, oldest);
                meter.behind(behind);
                run.spilling.send_replace(behind && self.backlog.then == OnBacklog::Spill);
            }
            let keeps_up = !behind
                && held.is_none_or(|held| held < FRESH)
                // No more than fits into its hands.
                && waiting.is_none_or(|waiting| waiting <= u64::from(self.settings.prefetch))
                && !run.pause.is_on();
            returning = match returning {
                Some(back) if back.is_over() => None,
                Some(back) if behind => {
                    back.stop.cancel();
                    Some(back)
                }
                None if keeps_up && self.backlog.unspill && (seldom || caught_up) => {
                    caught_up = false;
                    self.take_back(&run).await
                }
                other => other,
            };
        }
    }

    fn say(&self, behind: bool, waiting: Option<u64>, oldest: Option<Duration>) {
        let (connector, oldest) = (&*self.name, oldest.map(|age| age.as_secs()));
        match (behind, self.backlog.then) {
            (true, OnBacklog::Spill) => {
                tracing::error!(
                    connector,
                    waiting,
                    oldest,
                    "falls behind: what cannot be delivered goes to the payload store"
                );
            }
            (true, OnBacklog::Block) => {
                tracing::error!(connector, waiting, oldest, "falls behind: workers take no new roots meanwhile");
            }
            (false, _) => tracing::warn!(connector, waiting, oldest, "has caught up"),
        }
    }

    /// Starts to deliver what was put aside, if there is any.
    async fn take_back(&self, run: &Run) -> Option<Return> {
        let spill = Spill::new(&self.store, &self.name);
        match spill.is_empty().await {
            Ok(false) => {}
            // A store without a shelf holds nothing there.
            Ok(true) | Err(_) => return None,
        }
        tracing::info!(connector = &*self.name, "delivering what was put aside in the payload store");
        let stop = run.stop.child_token();
        let (frame, token) = (self.of_spilled(), stop.clone());
        let task = tokio::spawn(async move {
            if let Err(e) = frame.return_spilled(token).await {
                tracing::warn!(
                    connector = &*frame.name,
                    error = fault::chain(&e),
                    "not all that was put aside was delivered"
                );
            }
        });
        Some(Return { stop, task: AbortOnDropHandle::new(task) })
    }

    /// Delivers what lies in the payload store for this connector, until nothing does or `stop`.
    ///
    /// # Errors
    /// As for [`Frame::run`].
    pub fn return_spilled(&self, stop: CancellationToken) -> BoxFuture<'static, Result<(), Fault>> {
        let frame = self.of_spilled();
        // Boxed, as the one that runs a lane holds the one that runs what was put aside.
        Box::pin(async move {
            let source = Spill::new(&frame.store, &frame.name).deliveries(frame.settings.prefetch).await?;
            frame.run(source, stop).await
        })
    }

    /// The same connector over something else than its lane.
    fn of_spilled(&self) -> Self {
        Self { lane: None, backlog: Backlog::default(), ..self.clone() }
    }
}

fn age(at: Timestamp) -> Duration {
    Duration::from_micros(Timestamp::now().0.saturating_sub(at.0))
}

/// A run over what was put aside. Dropped, it ends.
struct Return {
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl Return {
    fn is_over(&self) -> bool {
        self.task.is_finished()
    }
}
