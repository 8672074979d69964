//! A lane that never tells what waits, nor whether something comes for the first time: what Pub/Sub is like.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use stoq_api::ledger::Ledger;
use stoq_api::queue::{Deliveries, Delivery, Depth, Message, Parcel, Part, Prefetch, Queue, Settle};
use stoq_api::{Fault, FaultKind, Timestamp};
use stoq_engine::{Worker, sweep};
use stoq_testkit::fault::{FaultPlan, Trouble};
use tokio_util::sync::CancellationToken;

use crate::world::World;
use crate::{TREE, operations, settled};

/// Seconds by which messages are published later than the clock says, which a test cannot wait for.
pub(crate) type Ahead = Arc<AtomicU64>;

/// Says of `inner` what such a broker says.
pub(crate) struct Silent {
    pub(crate) inner: Arc<dyn Queue>,
    pub(crate) ahead: Ahead,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Queue for Silent {
    async fn declare(&self, subscriptions: &[&str]) -> Result<(), Fault> {
        self.inner.declare(subscriptions).await
    }

    async fn inspect(&self, subscriptions: &[&str]) -> Result<Vec<Part>, Fault> {
        self.inner.inspect(subscriptions).await
    }

    async fn publish(&self, messages: Vec<Message>) -> Result<(), Fault> {
        self.inner.publish(messages).await
    }

    async fn publish_parcels(&self, parcels: Vec<Arc<dyn Parcel>>) -> Result<(), Fault> {
        self.publish(parcels.iter().map(|parcel| parcel.write()).collect::<Result<_, _>>()?).await
    }

    async fn subscribe(&self, subscription: &str, prefetch: Prefetch) -> Result<Box<dyn Deliveries>, Fault> {
        let inner = self.inner.subscribe(subscription, prefetch).await?;
        Ok(Box::new(SilentDeliveries { inner, ahead: Arc::clone(&self.ahead) }))
    }

    async fn depth(&self, _subscription: &str) -> Result<Depth, Fault> {
        Err(Fault::new(FaultKind::Refused, "it does not tell"))
    }
}

struct SilentDeliveries {
    inner: Box<dyn Deliveries>,
    ahead: Ahead,
}

#[async_trait]
impl Deliveries for SilentDeliveries {
    async fn next(&mut self) -> Result<Option<Delivery>, Fault> {
        let Some(delivery) = self.inner.next().await? else { return Ok(None) };
        let ahead = Duration::from_secs(self.ahead.load(Ordering::Relaxed));
        let published = delivery.published.map(|published| published.after(ahead));
        let message = delivery.message.clone();
        // Tests publish a message once.
        let untold = Some(message.id.clone());
        Ok(Some(Delivery::new(message, false, published, Box::new(Whole(delivery))).with_untold(untold)))
    }
}

/// Settles the delivery that it came with.
struct Whole(Delivery);

#[async_trait]
impl Settle for Whole {
    async fn ack(self: Box<Self>) -> Result<(), Fault> {
        self.0.ack().await
    }

    async fn release(self: Box<Self>) -> Result<(), Fault> {
        self.0.release().await
    }

    async fn extend(&self) -> Result<(), Fault> {
        self.0.extend().await
    }
}

/// What is left outstanding by a retry that finds fewer children ends there, too, once a probe has come through.
#[tokio::test(start_paused = true)]
async fn overdue_scans_end_where_the_broker_does_not_tell_what_waits() {
    let fewer: fn(&mut Vec<String>) = |parts| parts.truncate(1);
    let mut ended = 0;
    for k in 0..operations(TREE, 1, 1).await {
        let mut world = World::new().await;
        world.take(TREE, 1).await;
        world.live(&FaultPlan::at(k, Trouble::CrashAfter), 1, |_| ()).await;
        world.live(&FaultPlan::calm(), 1, fewer).await;
        if world.ledger.open_scans().await.unwrap() == 0 {
            continue;
        }
        let ahead = Ahead::default();
        world.silent = Some(Arc::clone(&ahead));
        let around = world.around(&FaultPlan::calm(), fewer);
        let later = Timestamp::now().after(Duration::from_secs(120));
        assert_eq!(sweep::once(&around, later).await.unwrap(), 0, "{k}: anything may wait still");

        let lanes = around.lanes.task_lanes().count();
        assert_eq!(sweep::probe(&around, Timestamp::now()).await.unwrap(), 0, "{k}: no scan is past its time");
        assert_eq!(sweep::probe(&around, later).await.unwrap(), lanes, "{k}");
        ahead.store(120, Ordering::Relaxed);
        let (stop, force) = (CancellationToken::new(), CancellationToken::new());
        let worker = Worker::new(Arc::clone(&around));
        tokio::select! {
            ended = worker.run(&stop, &force) => panic!("{k}: {ended:?}"),
            () = world.idle() => {}
        }
        let by_then = later.after(Duration::from_secs(1));
        assert_eq!(sweep::probe(&around, by_then).await.unwrap(), 0, "{k}: the lanes were asked just now");
        assert_eq!(sweep::once(&around, by_then).await.unwrap(), 1, "{k}");
        assert_eq!(world.ledger.open_scans().await.unwrap(), 0, "{k}");
        assert_eq!(world.dead_letters().await, 0, "{k}");
        ended += 1;
    }
    assert!(ended > 0, "no crash left a scan open, so nothing was tried");
}

/// References that travel in one message.
const TOGETHER: [&[u8]; 3] = [b"leaf", TREE, b"another leaf"];

async fn together(silent: bool, contents: &[&[u8]]) -> World {
    let mut world = World::new().await;
    world.silent = silent.then(Ahead::default);
    world.take_together(contents).await;
    assert_eq!(world.waiting().await, 1, "they were to travel together");
    world
}

/// The ledger is told who begins with a message and that it is done, and asked nothing more of scans without children.
#[tokio::test(start_paused = true)]
async fn leaves_cost_two_operations_of_the_ledger_a_message() {
    let mut operations = Vec::new();
    for silent in [false, true] {
        let world = together(silent, &[b"leaf", b"another leaf", b"a third"]).await;
        let plan = FaultPlan::calm();
        world.live(&plan, 1, |_| ()).await;
        assert_eq!(world.documents().await.len(), 3);
        settled(&world, "calm").await;
        operations.push(plan.operations());
    }
    assert_eq!(operations[1], operations[0] + 2);
}

/// What comes again is known by what the ledger was told, whatever the worker died of, and whenever.
#[tokio::test(start_paused = true)]
async fn a_fault_or_crash_at_every_operation_changes_nothing_where_first_deliveries_are_not_told() {
    let world = together(false, &TOGETHER).await;
    world.live(&FaultPlan::calm(), 1, |_| ()).await;
    let expected = world.documents().await;
    assert_eq!(expected.len(), TOGETHER.len());

    let world = together(true, &TOGETHER).await;
    let plan = FaultPlan::calm();
    world.live(&plan, 1, |_| ()).await;
    for trouble in Trouble::ALL {
        for k in 0..plan.operations() {
            let case = format!("{trouble:?} at operation {k} of {}", plan.operations());
            let world = together(true, &TOGETHER).await;
            world.live(&FaultPlan::at(k, trouble), 1, |_| ()).await;
            world.live(&FaultPlan::calm(), 1, |_| ()).await;
            assert_eq!(world.documents().await, expected, "{case}");
            settled(&world, &case).await;
        }
    }
}
