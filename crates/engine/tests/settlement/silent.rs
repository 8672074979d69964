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
use crate::{TREE, operations};

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
        Ok(Some(Delivery::new(message, false, published, Box::new(Whole(delivery)))))
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
