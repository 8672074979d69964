//! A queue under a plan.

use std::sync::Arc;

use async_trait::async_trait;
use stoq_api::Fault;
use stoq_api::queue::{Deliveries, Delivery, Depth, Message, Parcel, Part, Prefetch, Queue, Settle};

use super::{FaultPlan, Trouble, unavailable};

/// Does what `inner` does, unless the plan says otherwise.
pub struct FaultyQueue {
    inner: Arc<dyn Queue>,
    plan: FaultPlan,
}

impl FaultyQueue {
    /// `inner` under `plan`.
    pub fn new(inner: Arc<dyn Queue>, plan: FaultPlan) -> Self {
        Self { inner, plan }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Queue for FaultyQueue {
    async fn declare(&self, subscriptions: &[&str]) -> Result<(), Fault> {
        self.plan.run("queue.declare", self.inner.declare(subscriptions)).await
    }

    async fn inspect(&self, subscriptions: &[&str]) -> Result<Vec<Part>, Fault> {
        self.plan.run("queue.inspect", self.inner.inspect(subscriptions)).await
    }

    async fn publish(&self, messages: Vec<Message>) -> Result<(), Fault> {
        self.plan.run("queue.publish", self.inner.publish(messages)).await
    }

    async fn publish_parcels(&self, parcels: Vec<Arc<dyn Parcel>>) -> Result<(), Fault> {
        self.plan.run("queue.publish", self.inner.publish_parcels(parcels)).await
    }

    async fn subscribe(&self, subscription: &str, prefetch: Prefetch) -> Result<Box<dyn Deliveries>, Fault> {
        let plan = self.plan.clone();
        let inner = self.plan.run("queue.subscribe", self.inner.subscribe(subscription, prefetch)).await?;
        Ok(Box::new(FaultyDeliveries { inner, plan, stuck: Vec::new() }))
    }

    async fn depth(&self, subscription: &str) -> Result<Depth, Fault> {
        self.plan.run("queue.depth", self.inner.depth(subscription)).await
    }
}

struct FaultyDeliveries {
    inner: Box<dyn Deliveries>,
    plan: FaultPlan,
    /// Deliveries that arrived in a process that then died: the queue does not know yet that they are free again.
    stuck: Vec<Delivery>,
}

#[async_trait]
impl Deliveries for FaultyDeliveries {
    async fn next(&mut self) -> Result<Option<Delivery>, Fault> {
        let Some(mut delivery) = self.inner.next().await? else { return Ok(None) };
        if self.plan.is_crashed() {
            self.stuck.push(delivery);
            return std::future::pending().await;
        }
        match self.plan.begin("queue.next").await {
            None => {
                let (message, parcel) = (std::mem::take(&mut delivery.message), delivery.parcel.take());
                let (first, published, untold) = (delivery.first, delivery.published, delivery.untold.take());
                let settle = FaultySettle { inner: delivery, plan: self.plan.clone() };
                let delivery = Delivery::new(message, first, published, Box::new(settle));
                Ok(Some(delivery.with_parcel(parcel).with_untold(untold)))
            }
            Some(Trouble::Before | Trouble::After) => Err(unavailable("queue.next", "the delivery goes back")),
            Some(Trouble::CrashBefore | Trouble::CrashAfter) => {
                self.stuck.push(delivery);
                self.plan.die().await
            }
        }
    }
}

struct FaultySettle {
    /// The delivery without its message.
    inner: Delivery,
    plan: FaultPlan,
}

#[async_trait]
impl Settle for FaultySettle {
    async fn ack(self: Box<Self>) -> Result<(), Fault> {
        let Self { inner, plan } = *self;
        plan.run("delivery.ack", inner.ack()).await
    }

    async fn release(self: Box<Self>) -> Result<(), Fault> {
        let Self { inner, plan } = *self;
        plan.run("delivery.release", inner.release()).await
    }

    async fn extend(&self) -> Result<(), Fault> {
        self.plan.run("delivery.extend", self.inner.extend()).await
    }
}
