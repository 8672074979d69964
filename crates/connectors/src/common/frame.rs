//! The loop that runs a connector over its subscription of the result lane.
//!
//! What it promises: a delivery is acknowledged when each item in it is in the sink or in the dead lane, and not before. A
//! sink that is away makes the frame wait, holding what it has and pulling nothing more; nothing is given up because of
//! an outage, however long. A sink that needs an operator pauses this connector and nothing else. At the end of the process
//! what is open is tried once more and else given back.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use stoq_api::plugin::Connector;
use stoq_api::queue::{Deliveries, Delivery, ONLY, Queue};
use stoq_api::store::Store;
use stoq_api::{Fault, FaultKind, fault};
use stoq_runtime::backoff::Backoff;
use stoq_runtime::hold::Hold;
use stoq_runtime::metrics::{Component, Role};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::ages::Ages;
use super::collect::{Batch, Held};
use super::dead::DeadLetters;
use super::options::Backlog;
use super::pause::Pause;
use super::when::Route;

/// Batches that are put aside at a time.
const SPILLS: usize = 4;

/// How a connector is fed.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Responses in one batch.
    pub batch_items: usize,
    /// Bytes of responses in one batch; one response may be larger.
    pub batch_bytes: usize,
    /// How long the first response of a batch waits for others.
    pub linger: Duration,
    /// Batches that are tried at a time. Those that wait for another try do not count: the prefetch bounds them.
    pub concurrency: usize,
    /// Longest wait before the second try; it doubles with each.
    pub retry_first: Duration,
    /// Longest wait before any try.
    pub retry_most: Duration,
    /// Messages held at a time.
    pub prefetch: u32,
    /// How often it is looked at how much waits.
    pub look_every: Duration,
    /// How often the queue is asked for more time for what is held.
    pub extend_every: Duration,
    /// A sink that needs an operator is waited for. Without this it ends the run: where nothing lasts, nobody can mend it in
    /// time.
    pub pauses: bool,
    /// How long batches may take after the end was asked for, before they are given back.
    pub grace: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            batch_items: 100,
            batch_bytes: 4 << 20,
            linger: Duration::from_millis(50),
            concurrency: 2,
            retry_first: Duration::from_millis(200),
            retry_most: Duration::from_secs(30),
            prefetch: 256,
            look_every: Duration::from_secs(3),
            extend_every: Duration::from_secs(10),
            pauses: true,
            grace: Duration::from_secs(20),
        }
    }
}

/// Runs one connector.
#[derive(Clone)]
pub struct Frame {
    /// The connector's name in the configuration.
    pub name: Arc<str>,
    /// The connector.
    pub connector: Arc<dyn Connector>,
    /// Where large responses lie.
    pub store: Arc<dyn Store>,
    /// Where refused items go.
    pub dead: Arc<dyn DeadLetters>,
    /// How it is fed.
    pub settings: Settings,
    /// Which responses it takes.
    pub route: Arc<Route>,
    /// When it is behind, and what is done then.
    pub backlog: Backlog,
    /// The lane that its subscription belongs to, to ask what waits there; nothing is asked without one.
    pub lane: Option<Arc<dyn Queue>>,
    /// Set while an operator holds it back: it then delivers nothing, and takes no more than one batch.
    pub hold: Hold,
}

/// What all batches of one run share.
#[derive(Clone)]
pub(super) struct Run {
    pub(super) stop: CancellationToken,
    pub(super) tries: Arc<Semaphore>,
    pub(super) ages: Ages,
    pub(super) pause: Pause,
    /// What cannot be delivered now goes to the store.
    pub(super) spilling: watch::Sender<bool>,
    /// Room for batches on their way there: each is written out in memory.
    pub(super) aside: Arc<Semaphore>,
}

impl Run {
    /// Waits until the sink may be asked, and for a turn.
    async fn may_ask(&self) -> Turn {
        loop {
            self.pause.over().await;
            let turn = turn(&self.tries).await;
            if !self.pause.forbids() {
                return turn;
            }
        }
    }

    /// Waits until what cannot be delivered is to go to the store.
    pub(super) async fn spill(&self) {
        // The sender lives as long as this does.
        self.spilling.subscribe().wait_for(|spilling| *spilling).await.ok();
    }
}

impl Frame {
    /// Delivers what `source` brings until `stop`, or until the source ends; then finishes or gives back what is open.
    ///
    /// # Errors
    /// The source fails in a way that waiting does not mend, or the sink if it is not waited for, or whoever read standard output has gone. What was open is
    /// given back.
    pub async fn run(&self, source: Box<dyn Deliveries>, stop: CancellationToken) -> Result<(), Fault> {
        // Its metrics are there from now on, not only from the first batch on.
        Component::new(Role::Connector, &self.name);
        // A token of our own, so that a failing sink ends this connector and nobody else.
        let run = Run {
            stop: stop.child_token(),
            tries: Arc::new(Semaphore::new(self.settings.concurrency.max(1))),
            ages: Ages::default(),
            pause: Pause::new(&self.name, &self.hold),
            spilling: watch::Sender::new(false),
            aside: Arc::new(Semaphore::new(SPILLS)),
        };
        let _look = AbortOnDropHandle::new(tokio::spawn(self.clone().look(run.clone())));
        let mut source = Source { deliveries: source, backoff: self.backoff(), not_before: None };
        let mut batch = Batch::default();
        let mut going = JoinSet::new();
        let mut extend_at = Instant::now() + self.settings.extend_every;
        let result = loop {
            let full = batch.is_full(&self.settings);
            let due = batch.due(&self.settings);
            let ripe = full || due.is_some_and(|due| due <= Instant::now());
            tokio::select! {
                biased;
                () = run.stop.cancelled() => break Ok(()),
                Some(ended) = going.join_next() => if let Err(e) = self.ended(ended) { break Err(e) },
                // A batch that can go out waits for its turn, and takes in more while there is room.
                turn = run.may_ask(), if ripe => self.start(&mut batch, Some(turn), &mut going, &run),
                () = run.spill(), if ripe => self.start(&mut batch, None, &mut going, &run),
                () = at(due), if !ripe => {}
                () = sleep_until(extend_at), if !batch.is_empty() => {
                    extend_all(&batch.held).await;
                    extend_at = Instant::now() + self.settings.extend_every;
                }
                next = source.next(self), if !full => match next {
                    Ok(Some(delivery)) => batch.add(delivery, &self.name, &run.ages),
                    Ok(None) => break Ok(()),
                    Err(e) => break Err(e),
                },
            }
        };
        if result.is_ok() && !batch.is_empty() {
            self.start(&mut batch, None, &mut going, &run);
        }
        if result.is_err() {
            run.stop.cancel();
        }
        result.and(self.drain(going, &run.stop).await)
    }

    fn start(&self, batch: &mut Batch, turn: Option<Turn>, going: &mut JoinSet<Result<(), Fault>>, run: &Run) {
        let (frame, batch, run) = (self.clone(), std::mem::take(batch), run.clone());
        going.spawn(async move { frame.settle(batch, turn, &run).await });
    }

    /// Waits for what is open; after `stop` no longer than the grace.
    async fn drain(&self, mut going: JoinSet<Result<(), Fault>>, stop: &CancellationToken) -> Result<(), Fault> {
        let all = async {
            let mut result = Ok(());
            while let Some(ended) = going.join_next().await {
                result = result.and(self.ended(ended));
            }
            result
        };
        tokio::pin!(all);
        tokio::select! {
            biased;
            result = &mut all => return result,
            () = stop.cancelled() => {}
        }
        timeout(self.settings.grace, all).await.unwrap_or_else(|_| {
            tracing::warn!(connector = &*self.name, "the sink did not answer in time; what is open is given back");
            Ok(())
        })
    }

    fn ended(&self, ended: Result<Result<(), Fault>, JoinError>) -> Result<(), Fault> {
        ended.unwrap_or_else(|e| {
            Err(Fault::because(FaultKind::Corrupt, format!("connector {} stopped in the middle", self.name), e))
        })
    }

    /// Waits before tries of the sink, the dead lane or the source.
    pub(super) fn backoff(&self) -> Backoff {
        Backoff::new(self.settings.retry_first, self.settings.retry_most)
    }
}

/// The right to try one batch. `None` inside cannot happen: nobody closes the semaphore.
pub(super) type Turn = Option<OwnedSemaphorePermit>;

/// Waits for a turn.
pub(super) async fn turn(tries: &Arc<Semaphore>) -> Turn {
    Arc::clone(tries).acquire_owned().await.ok()
}

/// Ready at `when`; never without one.
async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}

/// The subscription, asked again when it fails for a while.
struct Source {
    deliveries: Box<dyn Deliveries>,
    backoff: Backoff,
    not_before: Option<Instant>,
}

impl Source {
    /// The next delivery. Safe to cancel.
    async fn next(&mut self, frame: &Frame) -> Result<Option<Delivery>, Fault> {
        loop {
            if let Some(when) = self.not_before {
                sleep_until(when).await;
                self.not_before = None;
            }
            match self.deliveries.next().await {
                Err(e) if e.is_transient() => {
                    self.not_before = Some(Instant::now() + self.backoff.next_wait());
                    said_rarely(self.backoff.tries(), || {
                        tracing::warn!(connector = &*frame.name, error = fault::chain(&e), "the result lane is away");
                    });
                }
                Ok(Some(delivery)) if is_for_another(&delivery, &frame.name) => {
                    // Let go on the way, it would come again and be let pass again.
                    if let Err(e) = delivery.ack().await {
                        tracing::debug!(connector = &*frame.name, error = fault::chain(&e), "not passed over");
                    }
                }
                other => {
                    self.backoff.reset();
                    return other;
                }
            }
        }
    }
}

/// Whether a message was published again for another connector alone.
fn is_for_another(delivery: &Delivery, name: &str) -> bool {
    delivery.message.header(ONLY).is_some_and(|only| only != name)
}

/// Calls `say` at the first failure of a row, and then ever more rarely.
pub(super) fn said_rarely(failures: u32, say: impl FnOnce()) {
    if failures.is_power_of_two() {
        say();
    }
}

/// Does `work` while asking the queue for more time for what is `held`.
pub(super) async fn keeping<T>(held: &[Option<Held>], every: Duration, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    let mut next = Instant::now() + every;
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = sleep_until(next) => {
                extend_all(held).await;
                next = Instant::now() + every;
            }
        }
    }
}

async fn extend_all(held: &[Option<Held>]) {
    for Held { delivery, .. } in held.iter().flatten() {
        if let Err(e) = delivery.extend().await {
            tracing::debug!(id = delivery.message.id, error = fault::chain(&e), "no more time for a delivery");
        }
    }
}
