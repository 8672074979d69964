//! How references go out: alone at once, and together where many come while others are being confirmed.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use stoq_api::plugin::{NotTold, Provider, Reference, Root, RootBytes, Taking};
use stoq_api::queue::{Deliveries, Depth, Message, Part, Prefetch, Queue};
use stoq_api::{Budgets, Content, Fault, FaultKind, PayloadMeta, RequestMeta, envelope};
use stoq_engine::intake::{Intake, IntakeSettings};
use stoq_engine::{Lanes, Links, Settings, TenantLanes};
use stoq_memory::{MemoryLedger, MemoryQueue, MemoryStore};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const REFERENCES: usize = 200;
/// How long the lane takes to confirm.
const CONFIRMATION: Duration = Duration::from_millis(10);

/// How long the lane is full where it is.
const FULL: Duration = Duration::from_secs(2);
/// Messages that it may be asked to take meanwhile: one of each batch that was under way when it became full, and those of
/// the one batch that goes on asking.
const ASKED: usize = 20;

/// A lane that takes its time, or is full until then, and what it was asked to take: when, and how many tasks.
struct Slow {
    inner: MemoryQueue,
    full: Option<Instant>,
    /// Cancelled when it refuses something: the signal to end comes at that very moment.
    stop: CancellationToken,
    published: Mutex<Vec<(Instant, usize)>>,
}

#[async_trait]
impl Queue for Slow {
    async fn declare(&self, subscriptions: &[&str]) -> Result<(), Fault> {
        self.inner.declare(subscriptions).await
    }

    async fn inspect(&self, subscriptions: &[&str]) -> Result<Vec<Part>, Fault> {
        self.inner.inspect(subscriptions).await
    }

    async fn publish(&self, messages: Vec<Message>) -> Result<(), Fault> {
        let tasks = |message: &Message| envelope::decode(&message.body).unwrap().len();
        self.published.lock().extend(messages.iter().map(|message| (Instant::now(), tasks(message))));
        sleep(CONFIRMATION).await;
        if self.full.is_some_and(|until| Instant::now() < until) {
            self.stop.cancel();
            return Err(Fault::new(FaultKind::Unavailable, "full"));
        }
        self.inner.publish(messages).await
    }

    async fn subscribe(&self, subscription: &str, prefetch: Prefetch) -> Result<Box<dyn Deliveries>, Fault> {
        self.inner.subscribe(subscription, prefetch).await
    }

    async fn depth(&self, subscription: &str) -> Result<Depth, Fault> {
        self.inner.depth(subscription).await
    }
}

/// A reference every `pace`.
struct Paced {
    pace: Duration,
    given: usize,
    next: Instant,
}

#[async_trait]
impl Provider for Paced {
    async fn next(&mut self) -> Result<Option<Taking>, Fault> {
        if self.given == REFERENCES {
            return Ok(None);
        }
        tokio::time::sleep_until(self.next).await;
        self.next += self.pace;
        self.given += 1;
        let content = Content::from(self.given.to_string().into_bytes());
        let reference = Reference {
            identity: self.given.to_le_bytes().to_vec(),
            roots: vec![Root { bytes: RootBytes::Content(content), meta: PayloadMeta::default() }],
            request_meta: RequestMeta::default(),
            taken: Box::new(NotTold),
        };
        Ok(Some(reference.into()))
    }
}

/// What goes out when references come at a pace to a lane that is full for a while: how long after the start, and how many
/// tasks each message has.
async fn published(pace: Duration, full: Duration) -> Vec<(Duration, usize)> {
    let start = Instant::now();
    let full = (full > Duration::ZERO).then_some(start + full);
    // Who takes references does not see it.
    let slow = Arc::new(slow(full, CancellationToken::new()));
    take(Paced { pace, given: 0, next: start }, &slow, &CancellationToken::new()).await.unwrap();
    let published = slow.published.lock();
    published.iter().map(|(at, tasks)| (*at - start, *tasks)).collect()
}

fn slow(full: Option<Instant>, stop: CancellationToken) -> Slow {
    Slow { inner: MemoryQueue::new("roots"), full, stop, published: Mutex::default() }
}

/// Takes references into the lane until there are no more, or until `stop`.
async fn take(mut provider: Paced, slow: &Arc<Slow>, stop: &CancellationToken) -> Result<(), Fault> {
    let queue = |name| -> Arc<dyn Queue> { Arc::new(MemoryQueue::new(name)) };
    let plain = TenantLanes::plain(queue("children"), Arc::<Slow>::clone(slow));
    let lanes = Lanes::new(plain, [], queue("results"), queue("dead"));
    lanes.declare(&[]).await.unwrap();
    let links = Links::new(lanes, Arc::new(MemoryLedger::new()), Arc::new(MemoryStore::new()), Settings::default());
    let settings = IntakeSettings {
        source: "test".into(),
        budgets: Budgets::default(),
        start_dispatch: Vec::new(),
        request_meta: RequestMeta::default(),
        tenant: None,
    };
    Intake::new(Arc::new(links), settings).run(&mut provider, stop).await
}

#[tokio::test(start_paused = true)]
async fn a_reference_that_comes_alone_leaves_at_once() {
    let pace = 2 * CONFIRMATION;
    let expected: Vec<_> = (0..REFERENCES).map(|n| (pace * u32::try_from(n).unwrap(), 1)).collect();
    assert_eq!(published(pace, Duration::ZERO).await, expected);
}

#[tokio::test(start_paused = true)]
async fn references_that_come_during_a_confirmation_go_together() {
    let published = published(CONFIRMATION / 10, Duration::ZERO).await;
    assert_eq!(published[0], (Duration::ZERO, 1), "nobody waits for others before anything is under way");
    assert_eq!(published.iter().map(|(_, tasks)| tasks).sum::<usize>(), REFERENCES);
    assert!(published.len() <= REFERENCES / 4, "{} messages", published.len());
}

#[tokio::test(start_paused = true)]
async fn a_full_lane_is_asked_by_one_batch() {
    let published = published(CONFIRMATION / 100, FULL).await;
    let (refused, taken): (Vec<_>, Vec<_>) = published.iter().partition(|(at, _)| *at + CONFIRMATION < FULL);
    assert!(refused.len() <= ASKED, "{} messages while it was full", refused.len());
    assert_eq!(taken.iter().map(|(_, tasks)| tasks).sum::<usize>(), REFERENCES);
}

#[tokio::test(start_paused = true)]
async fn who_is_asked_to_end_at_a_full_lane_ends_well() {
    let (start, stop) = (Instant::now(), CancellationToken::new());
    let slow = Arc::new(slow(Some(start + FULL), stop.clone()));
    take(Paced { pace: CONFIRMATION / 100, given: 0, next: start }, &slow, &stop).await.unwrap();
    assert!(stop.is_cancelled() && Instant::now() < start + FULL, "it was not asked to end");
}
