//! Workers take no new roots while a connector is too far behind.
//!
//! No broker bounds one subscription of a lane by what another connector left there, nor by age, and none lets the bound of
//! a queue that is there be changed. So the bound is kept where work begins: a worker looks at how much waits for the
//! connectors that block, and takes no root meanwhile. Children go on, so that scans finish; roots wait on their own
//! bounded lane, and providers stop at that.

use std::sync::Arc;

use async_trait::async_trait;
use stoq_api::Fault;
use stoq_api::queue::{Deliveries, Delivery, Depth, Message, Parcel, Part, Prefetch, Queue};
use tokio::sync::watch;

/// Shut by whoever looks at connectors.
#[derive(Clone)]
pub(crate) struct Gate(watch::Sender<bool>);

impl Gate {
    /// An open gate.
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Shuts or opens it.
    pub(crate) fn shut(&self, shut: bool) {
        self.0.send_replace(shut);
    }

    /// `queue`, whose subscribers get nothing new while the gate is shut.
    pub(crate) fn before(&self, queue: Arc<dyn Queue>) -> Arc<dyn Queue> {
        Arc::new(Gated { queue, gate: self.clone() })
    }
}

struct Gated {
    queue: Arc<dyn Queue>,
    gate: Gate,
}

#[async_trait]
impl Queue for Gated {
    async fn declare(&self, subscriptions: &[&str]) -> Result<(), Fault> {
        self.queue.declare(subscriptions).await
    }

    async fn inspect(&self, subscriptions: &[&str]) -> Result<Vec<Part>, Fault> {
        self.queue.inspect(subscriptions).await
    }

    async fn publish(&self, messages: Vec<Message>) -> Result<(), Fault> {
        self.queue.publish(messages).await
    }

    async fn publish_parcels(&self, parcels: Vec<Arc<dyn Parcel>>) -> Result<(), Fault> {
        self.queue.publish_parcels(parcels).await
    }

    async fn subscribe(&self, subscription: &str, prefetch: Prefetch) -> Result<Box<dyn Deliveries>, Fault> {
        let deliveries = self.queue.subscribe(subscription, prefetch).await?;
        Ok(Box::new(Behind { deliveries, gate: self.gate.clone() }))
    }

    async fn depth(&self, subscription: &str) -> Result<Depth, Fault> {
        self.queue.depth(subscription).await
    }
}

struct Behind {
    deliveries: Box<dyn Deliveries>,
    gate: Gate,
}

#[async_trait]
impl Deliveries for Behind {
    async fn next(&mut self) -> Result<Option<Delivery>, Fault> {
        let mut shut = self.gate.0.subscribe();
        loop {
            // The sender lives as long as this does.
            shut.wait_for(|shut| !shut).await.ok();
            tokio::select! {
                biased;
                _ = shut.wait_for(|shut| *shut) => {}
                next = self.deliveries.next() => return next,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use stoq_memory::MemoryQueue;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nothing_comes_through_a_gate_that_is_shut() {
        let gate = Gate::new();
        let queue = gate.before(Arc::new(MemoryQueue::new("roots")));
        queue.declare(&["w"]).await.unwrap();
        let mut deliveries = queue.subscribe("w", Prefetch { messages: 10 }).await.unwrap();
        let publish = async |id: &str| queue.publish(vec![Message::new(id, "")]).await.unwrap();
        publish("a").await;
        let first = deliveries.next().await.unwrap().unwrap();
        assert_eq!(first.message.id, "a");
        gate.shut(true);
        publish("b").await;
        assert!(timeout(Duration::from_secs(60), deliveries.next()).await.is_err());
        gate.shut(false);
        let second = deliveries.next().await.unwrap().unwrap();
        assert_eq!(second.message.id, "b");
        let waits = tokio::time::timeout(Duration::from_secs(60), deliveries.next());
        let (waited, ()) = tokio::join!(waits, async {
            gate.shut(true);
            publish("c").await;
        });
        assert!(waited.is_err(), "it shut while somebody waited");
    }
}
