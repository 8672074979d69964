//! The worker role: takes tasks off the lanes, one message at a time each, and acknowledges last.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use stoq_api::envelope::Envelope;
use stoq_api::queue::Delivery;
use stoq_api::scanner::Remaining;
use stoq_api::{EnvelopeError, Fault, FaultKind, Location, Outcome, PayloadId, ScanId, Task, Timestamp, envelope};
use stoq_runtime::metrics::{self, Component, ErrorKind, Role};
use stoq_runtime::trace::Span;
use tokio::sync::{Notify, RwLock};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attempts::{Attempts, Claim, Counted};
use crate::dead::{self, DeadKind};
use crate::examine::{self, Examined, Fetch};
use crate::feed::Feed;
use crate::fetch::{Fetched, fetch};
use crate::lanes::{self, AGAIN, ANEW, Lane, TaskLane, Tasks};
use crate::settle;
use crate::surroundings::Surroundings;

/// How often a delivery in work asks its queue for more time.
const EXTEND_EVERY: Duration = Duration::from_secs(10);
/// The last attempts at a payload, with nothing else in work. One would convict a payload whose worker was killed by
/// chance, by a machine that ran out of memory or an orchestrator in a hurry; so often that is no chance any more.
const ATTEMPTS_ALONE: u32 = 3;
/// How long taking back the attempts of dropped work may take.
const TAKE_BACK: Duration = Duration::from_secs(2);
/// How long a task is kept that only a newer build reads, before it is given back.
const AWAY: Duration = Duration::from_millis(500);

/// A worker. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Worker {
    around: Arc<Surroundings>,
    /// Shared by all work; held alone by a payload at its last attempt, so that none but itself can be blamed.
    alone: Arc<RwLock<()>>,
    settled: Arc<Notify>,
    meters: Arc<Meters>,
    counted: Arc<Counted>,
}

/// What is counted of messages of each task lane: by tenant, roots and children.
struct Meters(Vec<[Component; 2]>);

impl Meters {
    fn of(&self, lane: Lane) -> &Component {
        &self.0[lane.tenant][usize::from(lane.kind == TaskLane::Children)]
    }
}

/// What scans had spent when they were looked at: payloads and bytes.
type Spent = BTreeMap<ScanId, (u64, u64)>;

impl Worker {
    /// A worker in `around`.
    pub fn new(around: Arc<Surroundings>) -> Self {
        let meters = around.lanes.tenants().iter().map(|lanes| {
            let meter = |kind: TaskLane| Component::new(Role::Worker, &kind.name(lanes.tenant.as_deref()));
            [meter(TaskLane::Roots), meter(TaskLane::Children)]
        });
        let meters = Arc::new(Meters(meters.collect()));
        Self { around, alone: Arc::default(), settled: Arc::default(), meters, counted: Arc::default() }
    }

    /// Rung after every message that was settled or given back.
    pub fn settled(&self) -> Arc<Notify> {
        Arc::clone(&self.settled)
    }

    /// Works until `stop` is cancelled, then finishes what it holds; until `force` is cancelled, then drops it, which
    /// gives it back.
    ///
    /// # Errors
    /// The lanes cannot be subscribed to.
    pub async fn run(&self, stop: &CancellationToken, force: &CancellationToken) -> Result<(), Fault> {
        let mut feed = Feed::subscribe(&self.around).await?;
        let tracker = TaskTracker::new();
        let work = async {
            while let Some((lane, delivery, place)) = feed.next(stop).await {
                let in_work = self.around.seen.note(lane, &delivery);
                let worker = self.clone();
                tracker.spawn(async move {
                    // What a payload goes through is larger than the stack of a task that only waits for it should be.
                    Box::pin(worker.handle(lane, delivery)).await;
                    drop(in_work);
                    drop(place);
                    worker.settled.notify_waiters();
                });
            }
            tracker.close();
            tracker.wait().await;
        };
        tokio::select! {
            () = work => {}
            () = force.cancelled() => {
                tracing::warn!("stopping now; unfinished work is given back");
                // What is dropped in good order killed nobody.
                if tokio::time::timeout(TAKE_BACK, self.counted.take_back(&self.around)).await.is_err() {
                    tracing::warn!("the ledger is away; what is dropped now counts as an attempt");
                }
            }
        }
        Ok(())
    }

    /// One message from delivery to verdict. Whatever fails on the way leads to a message that is given back.
    async fn handle(&self, lane: Lane, delivery: Delivery) {
        let id = delivery.parcel::<Tasks>().map_or_else(|| delivery.message.id.clone(), Tasks::id);
        let in_hand = self.meters.of(lane).begin(1);
        let work = self.process(lane, &delivery);
        match keep_alive(&delivery, work).await {
            Ok(()) => {
                in_hand.done(1);
                if let Err(fault) = delivery.ack().await {
                    tracing::warn!(%id, error = %stoq_api::fault::chain(&fault), "not acknowledged; it will come again");
                }
            }
            Err(fault) => {
                in_hand.failed(ErrorKind::Fault(fault.kind), 1);
                tracing::error!(%id, error = %stoq_api::fault::chain(&fault), "given back");
                delivery.release().await.ok();
            }
        }
    }

    async fn process(&self, lane: Lane, delivery: &Delivery) -> Result<(), Fault> {
        let frames = match frames(delivery) {
            Ok(frames) => frames,
            Err(error) => return self.bury(&error.to_string(), delivery).await,
        };
        // A probe: it was noted when it was taken, and that is all that it is for.
        if frames.is_empty() {
            return Ok(());
        }
        let tasks = self.tasks(frames, delivery).await?;
        let claim = match (&delivery.untold, tasks.first()) {
            (Some(key), Some(task)) if delivery.message.header(AGAIN).is_none() => {
                Some(Claim::begin(&self.around, task.scan_id, key).await?)
            }
            _ => None,
        };
        let first = claim.as_ref().map_or(delivery.first, |claim| claim.first);
        // What was taken apart where the queue does not tell came out of a message that was counted.
        if !first && (claim.is_some() || delivery.untold.is_none()) {
            let tenant = self.around.lanes.tenants()[lane.tenant].tenant.as_deref();
            metrics::redelivered(&lane.kind.name(tenant));
        }
        self.work(lane, delivery, tasks, first).await?;
        if let Some(claim) = claim {
            claim.end(&self.around).await;
        }
        Ok(())
    }

    /// The tasks of a message that can be read.
    async fn tasks(&self, frames: Vec<Envelope>, delivery: &Delivery) -> Result<Vec<Task>, Fault> {
        let mut tasks = Vec::with_capacity(frames.len());
        for frame in frames {
            match frame.task {
                Ok(task) => tasks.push(*task),
                Err(EnvelopeError::Newer(version)) => {
                    let text = format!(
                        "a task has header version {version}, which this build does not read; it is left to newer workers"
                    );
                    self.around.seen.note_newer(Timestamp::now());
                    // Given back at once it would come at once, over and over, until a newer worker takes it.
                    tokio::time::sleep(AWAY).await;
                    return Err(Fault::new(FaultKind::Refused, text));
                }
                Err(error) => self.unreadable(frame.scan_id, frame.payload_id, &error, delivery).await?,
            }
        }
        Ok(tasks)
    }

    /// Works on what a message asks for, which nobody was handed before if it is the `first` delivery.
    async fn work(&self, lane: Lane, delivery: &Delivery, tasks: Vec<Task>, first: bool) -> Result<(), Fault> {
        // Whether nobody has started it, and, if somebody may have, whether nobody can have died of it.
        let uncounted = first && delivery.message.header(AGAIN).is_none();
        let first = uncounted && delivery.message.header(ANEW).is_none();
        if !first && tasks.len() > 1 {
            return self.take_apart(lane, &tasks).await;
        }
        let [task] = tasks.as_slice() else { return self.with_others(tasks, first, None).await };
        if uncounted {
            return self.with_others(tasks, first, None).await;
        }
        // A store that is away is no fault of the payload, so its bytes come before the attempt that is counted. A place
        // that a reference names may be away for good: asking there is an attempt.
        let fetched = match task.location {
            Location::Remote(_) => None,
            _ => Some(fetch(&self.around, task).await?),
        };
        // Rare, and larger than what most messages need.
        Box::pin(self.again(tasks, fetched, delivery)).await
    }

    /// Work that somebody may have died of before. Each attempt is counted until it is survived.
    async fn again(&self, tasks: Vec<Task>, fetched: Option<Fetched>, delivery: &Delivery) -> Result<(), Fault> {
        let Some(task) = tasks.first().cloned() else { return Ok(()) };
        let mut attempts = Attempts::of(&self.around, &self.counted, &task);
        let done = self.attempt(&mut attempts, tasks, &task, fetched, delivery).await;
        attempts.survived(&done).await;
        done
    }

    async fn attempt(
        &self,
        attempts: &mut Attempts<'_>,
        tasks: Vec<Task>,
        task: &Task,
        fetched: Option<Fetched>,
        delivery: &Delivery,
    ) -> Result<(), Fault> {
        let most = self.around.settings.max_attempts;
        let alone = most.min(ATTEMPTS_ALONE);
        match attempts.count(task.payload_id).await? {
            // Its scan was closed: scanning it again changes nothing, but what kills workers would kill this one.
            0 => return Ok(()),
            count if count <= most - alone => return self.with_others(tasks, false, fetched).await,
            _ => {}
        }
        let _alone = self.alone.write().await;
        // Counted only now: whoever died on others while this one waited for its turn is not its fault.
        match attempts.count_alone(alone).await? {
            0 => Ok(()),
            count if count <= alone => self.scan(tasks, false, fetched).await,
            _ => {
                self.give_up(task, most, delivery).await?;
                attempts.keep();
                Ok(())
            }
        }
    }

    async fn with_others(&self, tasks: Vec<Task>, first: bool, fetched: Option<Fetched>) -> Result<(), Fault> {
        let _shared = self.alone.read().await;
        self.scan(tasks, first, fetched).await
    }

    /// Scans payloads, each within a span of its scan's trace, if it has one. `fetched` is what the first task has fetched
    /// already.
    async fn scan(&self, tasks: Vec<Task>, first: bool, fetched: Option<Fetched>) -> Result<(), Fault> {
        let mut spans: Vec<Span> = tasks.iter().filter_map(span).collect();
        let scanned = self.scan_all(tasks, first, fetched).await;
        if let Err(fault) = &scanned {
            let text = stoq_api::fault::chain(fault);
            spans.iter_mut().for_each(|span| span.failed(&text));
        }
        scanned
    }

    /// The sequence of a payload: fetch, examine, settle.
    async fn scan_all(&self, tasks: Vec<Task>, first: bool, mut fetched: Option<Fetched>) -> Result<(), Fault> {
        let mut fetches = Vec::with_capacity(tasks.len());
        let mut spent = Spent::new();
        for task in tasks {
            let fetched = match fetched.take() {
                Some(fetched) => fetched,
                None => fetch(&self.around, &task).await?,
            };
            match fetched {
                Fetched::Gone(finding) => {
                    let outcome = examine::unfetched(&task, finding);
                    settle::settle_barren(&self.around, task, outcome).await?;
                }
                Fetched::Ready { content, sha256, mismatch } => {
                    let remaining = self.remaining(&task, first, &mut spent).await?;
                    fetches.push(Fetch { task, content, sha256, mismatch, remaining });
                }
            }
        }
        let examined = examine::examine(&self.around, fetches).await?;
        self.settle(examined, first).await
    }

    async fn settle(&self, examined: Vec<(Task, Examined)>, first: bool) -> Result<(), Fault> {
        let mut leaves = Vec::new();
        let mut trees = Vec::new();
        for (task, examined) in examined {
            if settle::is_leaf(&task, &examined, first) {
                leaves.push(settle::leaf(&self.around, task, examined).await?);
            } else {
                trees.push(settle::settle(&self.around, task, examined, first));
            }
        }
        if !leaves.is_empty() {
            settle::publish_results(&self.around, leaves).await?;
        }
        futures::future::try_join_all(trees).await.map(|_| ())
    }

    /// What the scan's budgets leave for children of this payload. A root that is known to come first has all of it.
    /// Payloads of one scan that are looked at together are told the same, so the ledger is asked once for all.
    async fn remaining(&self, task: &Task, first: bool, known: &mut Spent) -> Result<Remaining, Fault> {
        let budgets = &task.scan.budgets;
        let all = Remaining { children: budgets.max_payloads, bytes: budgets.bytes_allowed(task.root_bytes()) };
        if first && task.is_root() && task.scan.roots.len() == 1 {
            return Ok(all);
        }
        let (children, bytes) = match known.get(&task.scan_id) {
            Some(spent) => *spent,
            None => {
                let ledger = &self.around.ledger;
                let spent = self.around.patiently("ask what is spent", || ledger.spent(task.scan_id)).await?;
                *known.entry(task.scan_id).or_insert(spent.unwrap_or_default())
            }
        };
        Ok(Remaining { children: all.children.saturating_sub(children), bytes: all.bytes.saturating_sub(bytes) })
    }

    /// Gives a payload up after `attempts`: its bytes are kept for people, a dead letter says why, and its scan goes on
    /// without it.
    async fn give_up(&self, task: &Task, attempts: u32, delivery: &Delivery) -> Result<(), Fault> {
        // A place that a reference names may be away for good; the letter says where it was.
        let fetched = match fetch(&self.around, task).await {
            Err(_) if matches!(task.location, Location::Remote(_)) => None,
            other => Some(other?),
        };
        if let Some(Fetched::Ready { content, .. }) = fetched {
            let name = format!("{}-{}", task.scan_id, task.payload_id);
            let store = &self.around.store;
            self.around.patiently("quarantine a payload", || store.keep(&name, &content)).await?;
        }
        let outcome = examine::given_up(task, attempts);
        let reason = outcome.findings.first().map(|f| f.detail.clone()).unwrap_or_default();
        self.bury(&reason, delivery).await?;
        settle::settle_barren(&self.around, task.clone(), outcome).await
    }

    async fn take_apart(&self, lane: Lane, tasks: &[Task]) -> Result<(), Fault> {
        let messages = lanes::take_apart(tasks)?;
        let lane = &self.around.lanes.tenants()[lane.tenant].children;
        self.around.patiently("take a message apart", || lane.publish(messages.clone())).await
    }

    /// A frame whose ids can be read but not its task: the payload is settled as an error, and the message kept.
    async fn unreadable(
        &self,
        scan: stoq_api::ScanId,
        payload: PayloadId,
        error: &EnvelopeError,
        delivery: &Delivery,
    ) -> Result<(), Fault> {
        self.bury(&error.to_string(), delivery).await?;
        let mut outcome = Outcome::empty(payload, None, 0);
        outcome.errors.push(examine::error("", &format!("unable to read task: {error}"), payload));
        settle::unreadable(&self.around, scan, &outcome).await
    }

    async fn bury(&self, reason: &str, delivery: &Delivery) -> Result<(), Fault> {
        let message = delivery.written()?;
        self.around
            .patiently("write a dead letter", || {
                dead::bury(&self.around.lanes, DeadKind::Task, "worker", reason, &message)
            })
            .await
    }
}

/// The tasks of a delivery, each with its ids: as their publisher had them where the lane kept them so.
fn frames(delivery: &Delivery) -> Result<Vec<Envelope>, EnvelopeError> {
    match delivery.parcel::<Tasks>() {
        Some(tasks) => Ok(tasks.get().iter().map(frame).collect()),
        None => envelope::decode(&delivery.message.body),
    }
}

fn frame(task: &Task) -> Envelope {
    let read = envelope::check(task).map(|()| Box::new(task.clone()));
    Envelope { scan_id: task.scan_id, payload_id: task.payload_id, task: read }
}

fn span(task: &Task) -> Option<Span> {
    let mut span = Span::of(task.scan.trace.as_deref(), "scan payload")?;
    span.attribute("stoq.scan_id", task.scan_id.to_string());
    span.attribute("stoq.payload_id", task.payload_id.to_string());
    span.attribute("stoq.depth", task.depth.to_string());
    Some(span)
}

/// Runs `work` while asking the queue for more time.
async fn keep_alive<T>(delivery: &Delivery, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    loop {
        match tokio::time::timeout(EXTEND_EVERY, &mut work).await {
            Ok(done) => return done,
            Err(_) => {
                if let Err(fault) = delivery.extend().await {
                    tracing::warn!(error = %stoq_api::fault::chain(&fault), "could not extend a delivery");
                }
            }
        }
    }
}
