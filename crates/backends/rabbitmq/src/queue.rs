//! Lanes, and queues of somebody else's.

use std::sync::Arc;

use async_trait::async_trait;
use lapin::types::ShortString;
use stoq_api::queue::{Deliveries, Depth, LaneOptions, Message, Part, Prefetch, Queue};
use stoq_api::{Fault, FaultKind};

use crate::broker::Shared;
use crate::config::NAME_LIMIT;
use crate::consume::Subscriber;
use crate::fault::fault;
use crate::publish::{Publisher, Target};
use crate::topology::{self, LaneQueue};

/// What is behind a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// A fanout exchange `PREFIX.NAME`, and a queue `PREFIX.NAME.SUBSCRIPTION` for each subscription.
    Lane(LaneOptions),
    /// The queue of that name, whatever the subscription is called. Publishing to `EXCHANGE/ROUTING-KEY` goes to that
    /// exchange; an empty exchange is the default one, for queues that have a slash in their name.
    Foreign,
}

/// One lane or intake.
pub(crate) struct RabbitQueue {
    shared: Arc<Shared>,
    name: String,
    kind: Kind,
    publisher: Publisher,
}

impl RabbitQueue {
    pub(crate) fn new(shared: Arc<Shared>, name: &str, kind: Kind) -> Self {
        let name = match kind {
            Kind::Lane(_) => format!("{}.{name}", shared.settings.prefix),
            Kind::Foreign => name.to_owned(),
        };
        let publisher = Publisher::new(Arc::clone(&shared));
        Self { shared, name, kind, publisher }
    }

    /// The queue behind a subscription.
    fn queue(&self, subscription: &str) -> Result<ShortString, Fault> {
        match self.kind {
            Kind::Lane(_) => short(&format!("{}.{subscription}", self.name)),
            Kind::Foreign => short(&self.name),
        }
    }

    fn target(&self) -> Result<Target, Fault> {
        let (exchange, key) = match self.kind {
            Kind::Lane(_) => (self.name.as_str(), ""),
            Kind::Foreign => self.name.split_once('/').unwrap_or(("", &self.name)),
        };
        let theirs = matches!(self.kind, Kind::Foreign);
        Ok(Target { exchange: short(exchange)?, key: short(key)?, theirs })
    }

    fn lane_queues(&self, options: LaneOptions, subscriptions: &[&str]) -> Result<Vec<LaneQueue>, Fault> {
        let queue = |s: &&str| Ok(LaneQueue::new(self.queue(s)?, &self.shared.settings, options));
        subscriptions.iter().map(queue).collect()
    }

    /// Somebody else's queue if something is to subscribe, else what publishing goes to.
    async fn inspect_foreign(&self, subscriptions: &[&str]) -> Result<Part, Fault> {
        let target = self.target()?;
        if subscriptions.is_empty() && !target.exchange.as_str().is_empty() {
            let exists = topology::exchange(&self.shared, &target.exchange, true).await?;
            return topology::foreign(format!("exchange {}", target.exchange), exists);
        }
        let queue = if subscriptions.is_empty() { target.key } else { short(&self.name)? };
        let exists = topology::ready(&self.shared, &queue).await?.map(|_| ());
        topology::foreign(format!("queue {queue}"), exists)
    }
}

#[async_trait]
impl Queue for RabbitQueue {
    async fn declare(&self, subscriptions: &[&str]) -> Result<(), Fault> {
        match self.kind {
            Kind::Lane(options) => {
                let exchange = short(&self.name)?;
                topology::declare_exchange(&self.shared, &exchange).await?;
                for queue in self.lane_queues(options, subscriptions)? {
                    topology::declare_queue(&self.shared, &exchange, &queue).await?;
                }
                Ok(())
            }
            Kind::Foreign => {
                let part = self.inspect_foreign(subscriptions).await?;
                if part.state == stoq_api::queue::PartState::Missing {
                    let text = format!("there is no {}; its owner has to make it", part.what);
                    return Err(Fault::new(FaultKind::Misconfigured, text));
                }
                Ok(())
            }
        }
    }

    async fn inspect(&self, subscriptions: &[&str]) -> Result<Vec<Part>, Fault> {
        match self.kind {
            Kind::Lane(options) => {
                let mut parts = vec![topology::inspect_exchange(&self.shared, &short(&self.name)?).await?];
                for queue in self.lane_queues(options, subscriptions)? {
                    parts.push(topology::inspect_queue(&self.shared, &queue).await?);
                }
                Ok(parts)
            }
            Kind::Foreign => Ok(vec![self.inspect_foreign(subscriptions).await?]),
        }
    }

    async fn publish(&self, messages: Vec<Message>) -> Result<(), Fault> {
        self.publisher.publish(self.target()?, messages).await
    }

    async fn subscribe(&self, subscription: &str, prefetch: Prefetch) -> Result<Box<dyn Deliveries>, Fault> {
        let queue = self.queue(subscription)?;
        Ok(Box::new(Subscriber::start(Arc::clone(&self.shared), queue, prefetch).await?))
    }

    async fn depth(&self, subscription: &str) -> Result<Depth, Fault> {
        let queue = self.queue(subscription)?;
        let ready = topology::ready(&self.shared, &queue).await?;
        let ready = ready.map_err(|e| fault(format!("cannot look at queue {queue}"), &e))?;
        // What is held, and since when something waits, only the management interface knows.
        Ok(Depth { ready, held: 0, oldest: None })
    }
}

fn short(name: &str) -> Result<ShortString, Fault> {
    ShortString::try_new(name).map_err(|_| {
        let text = format!("the name {name} is longer than the {NAME_LIMIT} bytes that rabbitmq takes");
        Fault::new(FaultKind::Misconfigured, text)
    })
}
