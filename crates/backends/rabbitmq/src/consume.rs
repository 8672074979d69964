//! A subscriber: one channel, made again after it was lost.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use lapin::Consumer;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use stoq_api::queue::{Deliveries, Delivery, Prefetch};
use stoq_api::{Fault, FaultKind};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::broker::Shared;
use crate::fault::fault;
use crate::link::silent;
use crate::message::received;
use crate::settle::Settler;

/// Receives from one queue.
pub(crate) struct Subscriber {
    shared: Arc<Shared>,
    queue: ShortString,
    prefetch: u16,
    open: Option<Open>,
    // A task, so that a caller who gives up waiting does not undo what was begun.
    opening: Option<JoinHandle<Result<Open, Fault>>>,
}

struct Open {
    consumer: Consumer,
    settler: Arc<Settler>,
}

impl Subscriber {
    /// Starts to receive.
    pub(crate) async fn start(shared: Arc<Shared>, queue: ShortString, prefetch: Prefetch) -> Result<Self, Fault> {
        let prefetch = u16::try_from(prefetch.messages.max(1)).unwrap_or(u16::MAX);
        let mut this = Self { shared, queue, prefetch, open: None, opening: None };
        this.reopen().await?;
        Ok(this)
    }

    async fn reopen(&mut self) -> Result<(), Fault> {
        let opening = self
            .opening
            .get_or_insert_with(|| tokio::spawn(open(Arc::clone(&self.shared), self.queue.clone(), self.prefetch)));
        let opened = opening.await;
        self.opening = None;
        let opened = opened.map_err(|e| Fault::because(FaultKind::Unavailable, "cannot consume from rabbitmq", e))?;
        self.open = Some(opened?);
        Ok(())
    }

    fn lost(&mut self, why: Option<lapin::Error>) -> Fault {
        self.open = None;
        let doing = format!("lost the subscription of queue {}, and what it held comes again", self.queue);
        match why {
            // Whatever it was, the next call finds out whether it passes.
            Some(error) => Fault::new(FaultKind::Unavailable, fault(doing, &error).context),
            None => Fault::new(FaultKind::Unavailable, format!("{doing}: rabbitmq ended it")),
        }
    }
}

#[async_trait]
impl Deliveries for Subscriber {
    async fn next(&mut self) -> Result<Option<Delivery>, Fault> {
        let closed = self.shared.closed.clone();
        if closed.is_cancelled() {
            return Ok(None);
        }
        if self.open.is_none() {
            match closed.run_until_cancelled(self.reopen()).await {
                Some(opened) => opened?,
                None => return Ok(None),
            }
        }
        let Some(open) = &mut self.open else { return Ok(None) };
        match closed.run_until_cancelled(open.consumer.next()).await {
            Some(Some(Ok(delivery))) => {
                let settle = open.settler.deliver(delivery.delivery_tag);
                let (message, published) = received(&delivery.properties, delivery.data);
                Ok(Some(Delivery::new(message, !delivery.redelivered, published, settle)))
            }
            Some(Some(Err(error))) => Err(self.lost(Some(error))),
            Some(None) => Err(self.lost(None)),
            None => Ok(None),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.settler.close();
    }
}

async fn open(shared: Arc<Shared>, queue: ShortString, prefetch: u16) -> Result<Open, Fault> {
    let limit = shared.settings.connect_timeout;
    let doing = format!("cannot consume from queue {queue}");
    let (channel, live) = shared.consume.channel().await?;
    let begun = async {
        channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        channel.basic_consume(queue.clone(), ShortString::default(), options, FieldTable::default()).await
    };
    let consumer = match timeout(limit, begun).await {
        Ok(Ok(consumer)) => consumer,
        Ok(Err(e)) => return Err(fault(doing, &e)),
        Err(_) => return Err(silent(&doing, limit)),
    };
    let settler = Arc::new(Settler::new(channel, live, prefetch));
    shared.tasks.spawn(Arc::clone(&settler).run(consumer.clone()));
    Ok(Open { consumer, settler })
}

/// How long closing waits for the last verdicts.
pub(crate) const FAREWELL: Duration = Duration::from_secs(10);
