//! Reading a subscription.
//!
//! The client library extends the leases of what it handed out until there is a verdict. Here its stream is read by a
//! task of its own, because opening it is not safe to cancel: what the server sent meanwhile would be lost until the
//! deadline.
//!
//! Nothing is ever said to be delivered for the first time. Pub/Sub counts deliveries only under a dead-letter policy,
//! and then calls the count approximate; and no age of a message excludes that somebody else was handed it and died or
//! gave it back. But its own id of a message is the same at every delivery, so whoever has to know can keep a record.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use google_cloud_pubsub::client::Subscriber;
use google_cloud_pubsub::error::AckError;
use google_cloud_pubsub::model;
use google_cloud_pubsub::subscriber::handler::Handler;
use google_cloud_pubsub::subscriber::{MessageStream, ShutdownBehavior};
use stoq_api::queue::{Deliveries, Delivery, Settle};
use stoq_api::{Fault, FaultKind};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::broker::Shared;
use crate::config::Config;
use crate::wire::Owner;
use crate::{fault, wire};

/// What a reader reads, and how.
pub(crate) struct ReaderOptions {
    /// For messages: what is attempted.
    pub(crate) doing: String,
    /// For messages: the role that allows it.
    pub(crate) role: &'static str,
    /// The subscription's full name.
    pub(crate) name: String,
    pub(crate) owner: Owner,
    /// Most messages without a verdict.
    pub(crate) prefetch: u32,
}

/// The near end of a reader. Dropping it gives back what it holds.
pub(crate) struct Reader {
    arrived: mpsc::UnboundedReceiver<Result<Delivery, Fault>>,
    /// Rung by every call of `next`: somebody wants another try after an error.
    wanted: Arc<Notify>,
    _stop: DropGuard,
}

impl Reader {
    /// Starts to read.
    pub(crate) fn start(shared: &Arc<Shared>, subscriber: Subscriber, options: ReaderOptions) -> Self {
        let stop = shared.stop.child_token();
        let wanted = Arc::new(Notify::new());
        // Permits bound what is in it.
        let (sender, arrived) = mpsc::unbounded_channel();
        let pump = Pump {
            config: shared.config.clone(),
            subscriber,
            room: Arc::new(Semaphore::new(options.prefetch as usize)),
            options,
            sender,
            wanted: Arc::clone(&wanted),
            stop: stop.clone(),
        };
        shared.readers.spawn(pump.run());
        Self { arrived, wanted, _stop: stop.drop_guard() }
    }
}

#[async_trait]
impl Deliveries for Reader {
    async fn next(&mut self) -> Result<Option<Delivery>, Fault> {
        self.wanted.notify_one();
        self.arrived.recv().await.transpose()
    }
}

/// The far end: a task that reads one stream after another.
struct Pump {
    config: Config,
    subscriber: Subscriber,
    options: ReaderOptions,
    room: Arc<Semaphore>,
    sender: mpsc::UnboundedSender<Result<Delivery, Fault>>,
    wanted: Arc<Notify>,
    stop: CancellationToken,
}

impl Pump {
    async fn run(self) {
        loop {
            let mut stream = self.open();
            // Ends with the stream: after that no verdict reaches Pub/Sub.
            let over = CancellationToken::new();
            let ended = self.stop.run_until_cancelled(self.read(&mut stream, &over)).await;
            over.cancel();
            // Sends the verdicts that are there, and gives back everything else.
            let flushed = stream.shutdown_token();
            drop(stream);
            if tokio::time::timeout(self.config.timeout, flushed.shutdown()).await.is_err() {
                tracing::debug!(subscription = self.options.name, "verdicts were not taken in time");
            }
            let Some(Some(error)) = ended else { return };
            let fault = fault::of(&self.options.doing, self.options.role, error);
            if self.sender.send(Err(fault)).is_err() {
                return;
            }
            // Calls from before the error count for nothing.
            let _before = futures::FutureExt::now_or_never(self.wanted.notified());
            if self.stop.run_until_cancelled(self.wanted.notified()).await.is_none() {
                return;
            }
        }
    }

    fn open(&self) -> MessageStream {
        self.subscriber
            .subscribe(&self.options.name)
            .set_max_outstanding_messages(i64::from(self.options.prefetch))
            .set_max_outstanding_bytes(self.config.max_outstanding_bytes)
            .set_max_lease_extension(self.config.ack_deadline)
            .set_max_lease(self.config.max_lease)
            .set_shutdown_behavior(ShutdownBehavior::NackImmediately)
            .build()
    }

    /// Hands on what comes. Ends with an error that the library does not try again, or without one when nobody listens.
    async fn read(&self, stream: &mut MessageStream, over: &CancellationToken) -> Option<google_cloud_pubsub::Error> {
        loop {
            // Pub/Sub bounds what one stream holds; this bounds what is held across a stream that was opened again.
            let room = Arc::clone(&self.room).acquire_owned().await.ok()?;
            match stream.next().await? {
                Ok((message, handler)) => {
                    let delivery = self.delivery(message, handler, room, over.clone());
                    self.sender.send(Ok(delivery)).ok()?;
                }
                Err(error) => return Some(error),
            }
        }
    }

    fn delivery(
        &self,
        message: model::Message,
        handler: Handler,
        room: OwnedSemaphorePermit,
        over: CancellationToken,
    ) -> Delivery {
        let untold = Some(message.message_id.clone());
        let (message, published) = wire::decode(message, self.options.owner);
        let verdict = Verdict { handler, over, timeout: self.config.timeout, _room: room };
        Delivery::new(message, false, published, Box::new(verdict)).with_untold(untold)
    }
}

/// A message's verdict. Dropping the handler gives the message back.
struct Verdict {
    handler: Handler,
    over: CancellationToken,
    timeout: Duration,
    _room: OwnedSemaphorePermit,
}

impl Verdict {
    /// # Errors
    /// The message was given back when its reader ended.
    fn held(&self) -> Result<(), Fault> {
        if self.over.is_cancelled() {
            let text = "the message was given back to Pub/Sub when its reader ended; it comes again";
            return Err(Fault::new(FaultKind::Unavailable, text));
        }
        Ok(())
    }
}

#[async_trait]
impl Settle for Verdict {
    /// Without exactly-once delivery a verdict is only sent, within a tenth of a second; Pub/Sub promises nothing for it.
    async fn ack(self: Box<Self>) -> Result<(), Fault> {
        self.held()?;
        let timeout = self.timeout;
        match self.handler {
            Handler::ExactlyOnce(handler) => confirmed("acknowledgement", timeout, handler.confirmed_ack()).await,
            handler => {
                handler.ack();
                Ok(())
            }
        }
    }

    async fn release(self: Box<Self>) -> Result<(), Fault> {
        self.held()?;
        self.handler.nack();
        Ok(())
    }

    /// The library extends by itself, for as long as `max_lease` allows.
    async fn extend(&self) -> Result<(), Fault> {
        self.held()
    }
}

async fn confirmed(
    what: &str,
    timeout: Duration,
    verdict: impl Future<Output = Result<(), AckError>>,
) -> Result<(), Fault> {
    match tokio::time::timeout(timeout, verdict).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            let text = format!("Pub/Sub did not confirm an {what}; the message may come again");
            Err(Fault::because(FaultKind::Unavailable, text, error))
        }
        Err(_) => {
            let text = format!("Pub/Sub did not confirm an {what} within {timeout:?}; the message may come again");
            Err(Fault::new(FaultKind::Unavailable, text))
        }
    }
}
