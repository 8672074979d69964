//! The lanes: queues of our own, and how tasks are packed into their messages.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use stoq_api::queue::{Delivery, Depth, Message, Parcel, Queue};
use stoq_api::{EnvelopeError, Fault, FaultKind, Task, Timestamp, envelope};

/// Subscription that workers share on the task lanes.
pub const WORKERS: &str = "workers";
/// Subscription on the dead lane.
pub const DEAD: &str = "dead";
/// Header of a task message that was taken apart from a redelivered one: its task may have been started before.
pub const AGAIN: &str = "stoq-again";
/// Header of a root's task that was published again since the ledger had lost its scan: it may have been started before,
/// but nobody died of it. Each child of the scan may publish one, so they must not count as attempts.
pub const ANEW: &str = "stoq-anew";
/// Header of a message without tasks, from which whoever takes it learns what was handed out before: [`Lanes::probe`].
pub const PROBE: &str = "stoq-probe";

/// Most tasks in one message.
pub const BATCH_ITEMS: usize = 16;
/// Most bytes of inline content in one message of several tasks.
pub const BATCH_BYTES: usize = 1 << 20;
/// A task with more inline bytes than this travels alone.
pub const ALONE_BYTES: usize = 64 << 10;
/// About what a task holds beside its inline bytes.
const TASK_BYTES: usize = 1 << 10;

/// The queues between the roles.
#[derive(Clone)]
pub struct Lanes {
    /// Never empty: in front those of scans without a tenant.
    tasks: Vec<TenantLanes>,
    /// One response per scan, to every connector.
    pub results: Arc<dyn Queue>,
    /// What no one could process, with the reason.
    pub dead: Arc<dyn Queue>,
}

/// The task lanes of one tenant, or of all scans that have none.
#[derive(Clone)]
pub struct TenantLanes {
    /// Whose tasks these are.
    pub tenant: Option<Arc<str>>,
    /// The part of the work that they get while others want some too, from 1 to
    /// [`MAX_WEIGHT`](stoq_runtime::shares::MAX_WEIGHT).
    pub weight: u32,
    /// Workers of this process take from them.
    pub taken: bool,
    /// Tasks of extracted payloads, and of roots that were begun and have to be published again: unbounded, served first,
    /// so that scans finish. A worker that waited for room among the roots would wait for what only workers can make.
    pub children: Arc<dyn Queue>,
    /// Tasks of roots: bounded, so that providers stop pulling.
    pub roots: Arc<dyn Queue>,
}

impl TenantLanes {
    /// Lanes of scans without a tenant, taken from, of weight 1.
    pub fn plain(children: Arc<dyn Queue>, roots: Arc<dyn Queue>) -> Self {
        Self { tenant: None, weight: 1, taken: true, children, roots }
    }

    /// One of the two.
    pub fn queue(&self, kind: TaskLane) -> &Arc<dyn Queue> {
        match kind {
            TaskLane::Roots => &self.roots,
            TaskLane::Children => &self.children,
        }
    }
}

/// One of the two task lanes that each tenant has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskLane {
    /// Tasks of roots.
    Roots,
    /// Tasks of extracted payloads.
    Children,
}

impl TaskLane {
    /// Both, those first that are served first.
    pub const ALL: [Self; 2] = [Self::Children, Self::Roots];

    /// The name of the lane that a tenant has of this kind; scans without a tenant have the bare word.
    pub fn name(self, tenant: Option<&str>) -> String {
        let word = match self {
            Self::Roots => "roots",
            Self::Children => "children",
        };
        tenant.map_or_else(|| word.to_owned(), |tenant| format!("{word}.{tenant}"))
    }
}

/// A task lane: whose, by the place of [`Lanes::tenants`], and which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// The tenant's place.
    pub tenant: usize,
    /// Which of its two lanes.
    pub kind: TaskLane,
}

impl Lanes {
    /// The lanes of a fleet: those of scans without a tenant, and those of each tenant.
    pub fn new(
        plain: TenantLanes,
        tenants: impl IntoIterator<Item = TenantLanes>,
        results: Arc<dyn Queue>,
        dead: Arc<dyn Queue>,
    ) -> Self {
        Self { tasks: std::iter::once(plain).chain(tenants).collect(), results, dead }
    }

    /// The task lanes of all tenants; in front those of scans without one.
    pub fn tenants(&self) -> &[TenantLanes] {
        &self.tasks
    }

    /// Where tasks of a tenant's scans go. One that is not configured any more has no lanes that anybody takes from, so
    /// what is left of it goes the way of those without a tenant.
    pub fn of(&self, tenant: Option<&str>) -> &TenantLanes {
        let own = self.place_of(tenant);
        if own.is_none() {
            tracing::warn!(tenant, "there is no such tenant any more; its task goes to the lanes of those without one");
        }
        &self.tasks[own.unwrap_or_default()]
    }

    /// The place of a tenant among [`Lanes::tenants`], if it is configured.
    pub fn place_of(&self, tenant: Option<&str>) -> Option<usize> {
        self.tasks.iter().position(|lanes| lanes.tenant.as_deref() == tenant)
    }

    /// The queue of a task lane.
    pub fn queue(&self, lane: Lane) -> &Arc<dyn Queue> {
        self.tasks[lane.tenant].queue(lane.kind)
    }

    /// All task lanes with their names: those of scans without a tenant in front, roots before children. Work that goes
    /// from one to another goes in this order.
    pub fn task_lanes(&self) -> impl Iterator<Item = (String, &Arc<dyn Queue>)> {
        self.tasks.iter().flat_map(|lanes| {
            let name = |kind: TaskLane| kind.name(lanes.tenant.as_deref());
            [(name(TaskLane::Roots), &lanes.roots), (name(TaskLane::Children), &lanes.children)]
        })
    }

    /// Makes the lanes, with one subscription on the result lane for each connector.
    ///
    /// # Errors
    /// A queue exists with other settings, or cannot be reached.
    pub async fn declare(&self, connectors: &[&str]) -> Result<(), Fault> {
        for (_, lane) in self.task_lanes() {
            lane.declare(&[WORKERS]).await?;
        }
        self.results.declare(connectors).await?;
        self.dead.declare(&[DEAD]).await
    }

    /// For each tenant the time before which none of its tasks waits any more, at `now`, nor is in work in this process.
    /// Brokers that do not say since when a message waits hand them out in the order in which they came, so what `seen`
    /// says came last is told instead; where nothing is known, everything may still wait. What other processes hold is not
    /// known where the broker does not tell.
    ///
    /// # Errors
    /// A lane is away.
    pub async fn horizons(&self, seen: &Seen, now: Timestamp) -> Result<Vec<Timestamp>, Fault> {
        let mut horizons = Vec::with_capacity(self.tasks.len());
        for (tenant, lanes) in self.tasks.iter().enumerate() {
            let mut horizon = now;
            for kind in TaskLane::ALL {
                let lane = Lane { tenant, kind };
                let last = || seen.last(lane);
                match lanes.queue(kind).depth(WORKERS).await {
                    Ok(Depth { oldest: Some(oldest), .. }) => horizon = horizon.min(oldest),
                    Ok(Depth { ready: 0, .. }) => {}
                    Ok(_) => horizon = horizon.min(last()),
                    // A broker that never tells what waits.
                    Err(fault) if fault.kind == FaultKind::Refused => horizon = horizon.min(last()),
                    Err(fault) => return Err(fault),
                }
                horizon = seen.oldest_in_work(lane).map_or(horizon, |oldest| horizon.min(oldest));
            }
            horizons.push(horizon);
        }
        Ok(horizons)
    }

    /// Publishes a message without tasks to each lane whose broker never tells what waits, and of which `seen` says nothing
    /// that is younger than `pause` at `now`. Without such messages nobody could tell a lane on which nothing comes from
    /// one on which nothing comes yet. Says to how many.
    ///
    /// # Errors
    /// A lane is away.
    pub async fn probe(&self, seen: &Seen, pause: Duration, now: Timestamp) -> Result<usize, Fault> {
        let mut probed = 0;
        for (tenant, lanes) in self.tasks.iter().enumerate() {
            for kind in TaskLane::ALL {
                if seen.last(Lane { tenant, kind }).age(now) < pause {
                    continue;
                }
                let queue = lanes.queue(kind);
                match queue.depth(WORKERS).await {
                    Err(fault) if fault.kind == FaultKind::Refused => {}
                    Err(fault) => return Err(fault),
                    Ok(_) => continue,
                }
                let mut probe = Message::new(PROBE, Vec::new());
                probe.headers.push((PROBE.to_owned(), "1".to_owned()));
                queue.publish(vec![probe]).await?;
                probed += 1;
            }
        }
        Ok(probed)
    }
}

/// When the tasks were published that this process took from each task lane.
#[derive(Debug, Default)]
pub struct Seen {
    /// By tenant: roots, children.
    lanes: Vec<[Arc<SeenOfLane>; 2]>,
    newer: AtomicU64,
}

#[derive(Debug, Default)]
struct SeenOfLane {
    last: AtomicU64,
    /// How many are in work that were published at each time.
    in_work: Mutex<BTreeMap<Timestamp, usize>>,
}

/// Says that a message is in work, until it is dropped.
pub struct InWork {
    of: Arc<SeenOfLane>,
    published: Option<Timestamp>,
}

impl Drop for InWork {
    fn drop(&mut self) {
        let Some(published) = self.published else { return };
        let mut in_work = self.of.in_work.lock();
        if let Some(count) = in_work.get_mut(&published) {
            *count -= 1;
            if *count == 0 {
                in_work.remove(&published);
            }
        }
    }
}

impl Seen {
    /// Nothing was seen of any of `lanes`.
    pub fn new(lanes: &Lanes) -> Self {
        Self { lanes: lanes.tasks.iter().map(|_| Default::default()).collect(), newer: AtomicU64::default() }
    }

    /// Notes a delivery, which is in work for as long as the answer lives. A task that comes again says nothing about those
    /// that still wait; a probe does, however often it comes.
    pub fn note(&self, lane: Lane, delivery: &Delivery) -> InWork {
        let of = Arc::clone(self.of(lane));
        if let Some(published) = delivery.published {
            *of.in_work.lock().entry(published).or_default() += 1;
            if delivery.first || delivery.message.header(PROBE).is_some() {
                of.last.fetch_max(published.0, Ordering::Relaxed);
            }
        }
        InWork { of, published: delivery.published }
    }

    /// Notes at `now` a task that only a newer build reads.
    pub fn note_newer(&self, now: Timestamp) {
        self.newer.fetch_max(now.0, Ordering::Relaxed);
    }

    /// When the last task came that only a newer build reads.
    pub fn newer(&self) -> Option<Timestamp> {
        Some(self.newer.load(Ordering::Relaxed)).filter(|at| *at > 0).map(Timestamp)
    }

    fn last(&self, lane: Lane) -> Timestamp {
        Timestamp(self.of(lane).last.load(Ordering::Relaxed))
    }

    fn oldest_in_work(&self, lane: Lane) -> Option<Timestamp> {
        self.of(lane).in_work.lock().first_key_value().map(|(published, _)| *published)
    }

    fn of(&self, lane: Lane) -> &Arc<SeenOfLane> {
        &self.lanes[lane.tenant][usize::from(lane.kind == TaskLane::Children)]
    }
}

/// Tasks that travel together, as long as they are in one process.
pub struct Tasks(Vec<Task>);

impl Tasks {
    /// The tasks; never none.
    pub fn get(&self) -> &[Task] {
        &self.0
    }

    /// What the message is called that they can be written as.
    pub fn id(&self) -> String {
        self.0.first().map(|task| task.payload_id.to_string()).unwrap_or_default()
    }
}

impl Parcel for Tasks {
    fn write(&self) -> Result<Message, Fault> {
        message(&self.0)
    }

    fn size(&self) -> usize {
        self.0.iter().map(|task| TASK_BYTES + task.inline.len()).sum()
    }
}

/// Packs tasks for a lane, in order.
pub fn pack(tasks: Vec<Task>) -> Vec<Arc<dyn Parcel>> {
    let mut parcels: Vec<Tasks> = Vec::new();
    let mut bytes = 0;
    for task in tasks {
        let len = task.inline.len();
        let joins = |Tasks(together): &&mut Tasks| {
            let alone = len > ALONE_BYTES || together.iter().any(|task| task.inline.len() > ALONE_BYTES);
            !alone && together.len() < BATCH_ITEMS && bytes + len <= BATCH_BYTES
        };
        match parcels.last_mut().filter(joins) {
            Some(Tasks(together)) => {
                together.push(task);
                bytes += len;
            }
            None => {
                parcels.push(Tasks(vec![task]));
                bytes = len;
            }
        }
    }
    parcels.into_iter().map(|tasks| Arc::new(tasks) as Arc<dyn Parcel>).collect()
}

/// Takes a message apart: one message for each of its tasks, marked as perhaps started before.
///
/// # Errors
/// As for [`Parcel::write`].
pub fn take_apart(tasks: &[Task]) -> Result<Vec<Message>, Fault> {
    singles(tasks, AGAIN)
}

/// Messages, one for each task, that make a scan anew which the ledger has lost.
///
/// # Errors
/// As for [`Parcel::write`].
pub fn make_anew(tasks: &[Task]) -> Result<Vec<Message>, Fault> {
    singles(tasks, ANEW)
}

fn singles(tasks: &[Task], mark: &str) -> Result<Vec<Message>, Fault> {
    tasks
        .iter()
        .map(|task| {
            let mut single = message(std::slice::from_ref(task))?;
            single.headers.push((mark.to_owned(), "1".to_owned()));
            Ok(single)
        })
        .collect()
}

fn message(tasks: &[Task]) -> Result<Message, Fault> {
    let id = tasks.first().map(|task| task.payload_id.to_string()).unwrap_or_default();
    let body = envelope::encode(tasks).map_err(unencodable)?;
    Ok(Message::new(id, body))
}

fn unencodable(error: EnvelopeError) -> Fault {
    Fault::because(FaultKind::Refused, "a task cannot be put into a message", error)
}

#[cfg(test)]
mod tests;
