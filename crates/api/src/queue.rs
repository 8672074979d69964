//! Queues: durable, at least once, unordered.
//!
//! One [`Queue`] is one lane or one intake. What it does *not* do is as important: no delays, no dead-lettering, no attempt
//! counting. Those are decided by our own code, so that they are the same on every broker.

use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::fault::Fault;
use crate::stamp::Timestamp;

/// A broker, or whatever else holds queues: one connection's worth of configuration, many queues.
///
/// Opening one does no input or output: a broker that is away when a process starts is waited for like one that goes
/// away later.
#[async_trait]
pub trait Broker: Send + Sync {
    /// A lane of our own. Nothing is declared by this.
    fn lane(&self, name: &str, options: LaneOptions) -> Arc<dyn Queue>;

    /// A queue or topic of somebody else's. Its `declare` and `inspect` never change anything: they only say whether it
    /// can be used. A delivery's [`Message::id`] is what the broker itself says identifies the message, empty where it
    /// says nothing; its `publish` writes one body a message, with the headers that the broker can carry, and says
    /// [`crate::FaultKind::Misconfigured`] where nothing takes what is published, [`crate::FaultKind::Refused`] of a message
    /// that is too large only.
    fn foreign(&self, name: &str) -> Arc<dyn Queue>;

    /// Connects if need be, and says whether the broker can be used: address, TLS, credentials. Cheap when it is
    /// connected already, so that readiness can ask every few seconds.
    ///
    /// # Errors
    /// [`crate::FaultKind::Unavailable`] while it is away; [`crate::FaultKind::Misconfigured`] for what waiting does not
    /// mend, such as a wrong password.
    async fn check(&self) -> Result<(), Fault>;

    /// Gives back what subscribers hold and closes the connections.
    async fn close(&self);
}

/// What is asked of a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneOptions {
    /// `publish` fails or waits, as [`Queue::publish`] says, while a subscription has so many messages waiting.
    pub bound: Option<u64>,
}

/// One thing that [`Queue::declare`] makes at the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it is, for a person: `quorum queue stoq.roots`.
    pub what: String,
    /// How it is found.
    pub state: PartState,
}

/// How a [`Part`] is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartState {
    /// It is not there.
    Missing,
    /// It is there as it should be, as far as the broker tells.
    Present,
    /// It is there with other settings; says which and what to do.
    Different(String),
}

/// Header of a message that only the subscriber of this name is meant to take; all others acknowledge it unread. For
/// what one of several subscriptions has to get again.
pub const ONLY: &str = "stoq-only";

/// Something published or delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The publisher's name for it; deterministic for our own lanes. Need not be unique.
    pub id: String,
    /// The content; may be empty.
    pub body: Bytes,
    /// Small text headers, each name once. Brokers may deliver them in another order.
    pub headers: Vec<(String, String)>,
}

impl Message {
    /// A message without headers.
    pub fn new(id: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self { id: id.into(), body: body.into(), headers: Vec::new() }
    }

    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// What a message says, as its publisher has it. A queue in memory hands it on as it is, so that nothing is written and
/// read between two roles of one process; any other queue carries the message that it can be written as.
pub trait Parcel: Any + Send + Sync {
    /// The message that says the same.
    ///
    /// # Errors
    /// It cannot be written; asking again does not help.
    fn write(&self) -> Result<Message, Fault>;

    /// About how many bytes of memory it holds.
    fn size(&self) -> usize;
}

/// How much a subscriber may hold without a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefetch {
    /// Messages; at least 1.
    pub messages: u32,
}

/// What waits in a subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Messages that nobody holds.
    pub ready: u64,
    /// Messages that some subscriber holds; 0 where the queue does not tell.
    pub held: u64,
    /// When the oldest waiting message was published, where the queue knows.
    pub oldest: Option<Timestamp>,
}

/// One lane or intake. Every implementation passes the queue suite of the test kit.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Makes the queue and its subscriptions, if they are not there. Each subscription gets every message published from
    /// then on. Idempotent.
    ///
    /// # Errors
    /// [`crate::FaultKind::Misconfigured`] if it exists with other settings.
    async fn declare(&self, subscriptions: &[&str]) -> Result<(), Fault>;

    /// What [`Queue::declare`] would make, and what of it is there. Changes nothing.
    ///
    /// # Errors
    /// [`crate::FaultKind::Unavailable`].
    async fn inspect(&self, subscriptions: &[&str]) -> Result<Vec<Part>, Fault>;

    /// Publishes all messages. When this returns, each is durable in every subscription. After an error any of them may
    /// be: publish again.
    ///
    /// # Errors
    /// [`crate::FaultKind::Unavailable`] while the broker is away or its bound is reached;
    /// [`crate::FaultKind::Refused`] if nothing subscribes, or a message is larger than the broker takes.
    async fn publish(&self, messages: Vec<Message>) -> Result<(), Fault>;

    /// Publishes all parcels, each as one message. A queue that never leaves this process may deliver them as they are.
    ///
    /// # Errors
    /// As for `publish`, and those of [`Parcel::write`].
    async fn publish_parcels(&self, parcels: Vec<Arc<dyn Parcel>>) -> Result<(), Fault> {
        let messages = parcels.iter().map(|parcel| parcel.write()).collect::<Result<_, _>>()?;
        self.publish(messages).await
    }

    /// Starts to receive. Several subscribers of one subscription share its messages.
    ///
    /// # Errors
    /// As for `declare` and `publish`.
    async fn subscribe(&self, subscription: &str, prefetch: Prefetch) -> Result<Box<dyn Deliveries>, Fault>;

    /// What waits.
    ///
    /// # Errors
    /// [`crate::FaultKind::Unavailable`]; [`crate::FaultKind::Refused`] if this kind of queue never tells.
    async fn depth(&self, subscription: &str) -> Result<Depth, Fault>;
}

/// A subscriber's stream of deliveries. Dropping it gives back every delivery without a verdict.
#[async_trait]
pub trait Deliveries: Send {
    /// The next delivery; waits for one as long as it takes. `None` once the queue was shut down. Safe to cancel: a
    /// delivery is never lost by dropping the future.
    ///
    /// # Errors
    /// [`crate::FaultKind::Unavailable`] while the broker is away: call again after a while.
    async fn next(&mut self) -> Result<Option<Delivery>, Fault>;
}

/// A message with the right to settle it. Dropping it without a verdict gives it back.
pub struct Delivery {
    /// The message; empty if there is a parcel.
    pub message: Message,
    /// What was published in place of a message, where the queue kept it as it was.
    pub parcel: Option<Arc<dyn Parcel>>,
    /// Known to be delivered for the first time. `false` means "maybe not".
    pub first: bool,
    /// Where the queue never tells which delivery is the first: what tells this message from every other of the queue, the
    /// same at each of its deliveries. Whoever keeps a record under it knows who began with the message.
    pub untold: Option<String>,
    /// When it was published, where the queue knows.
    pub published: Option<Timestamp>,
    settle: Option<Box<dyn Settle>>,
}

/// A queue's side of a delivery. Dropped without a call, it gives the message back.
#[async_trait]
pub trait Settle: Send + Sync {
    /// Removes the message for good.
    async fn ack(self: Box<Self>) -> Result<(), Fault>;
    /// Gives it back, to be delivered again as not first.
    async fn release(self: Box<Self>) -> Result<(), Fault>;
    /// Asks for more time.
    async fn extend(&self) -> Result<(), Fault>;
}

impl Delivery {
    /// A delivery that `settle` settles.
    pub fn new(message: Message, first: bool, published: Option<Timestamp>, settle: Box<dyn Settle>) -> Self {
        Self { message, parcel: None, first, untold: None, published, settle: Some(settle) }
    }

    /// The same from a queue that never tells which delivery is the first.
    #[must_use]
    pub fn with_untold(self, untold: Option<String>) -> Self {
        Self { untold, ..self }
    }

    /// The same with a parcel in place of the message.
    #[must_use]
    pub fn with_parcel(self, parcel: Option<Arc<dyn Parcel>>) -> Self {
        Self { parcel, ..self }
    }

    /// The message, written if it came as a parcel.
    ///
    /// # Errors
    /// Those of [`Parcel::write`].
    pub fn written(&self) -> Result<Cow<'_, Message>, Fault> {
        match &self.parcel {
            Some(parcel) => parcel.write().map(Cow::Owned),
            None => Ok(Cow::Borrowed(&self.message)),
        }
    }

    /// The parcel, if there is one of that kind.
    pub fn parcel<P: Parcel>(&self) -> Option<&P> {
        let parcel: &dyn Any = self.parcel.as_deref()?;
        parcel.downcast_ref()
    }

    /// Removes the message for good. An error means that it may come again.
    ///
    /// # Errors
    /// The broker is away or has taken the message back.
    pub async fn ack(mut self) -> Result<(), Fault> {
        match self.settle.take() {
            Some(settle) => settle.ack().await,
            None => Ok(()),
        }
    }

    /// Gives the message back, to be delivered again as not first.
    ///
    /// # Errors
    /// The broker is away; the message comes again all the same.
    pub async fn release(mut self) -> Result<(), Fault> {
        match self.settle.take() {
            Some(settle) => settle.release().await,
            None => Ok(()),
        }
    }

    /// Keeps the message for longer, where the queue has a time-out.
    ///
    /// # Errors
    /// The broker is away or has taken the message back.
    pub async fn extend(&self) -> Result<(), Fault> {
        match &self.settle {
            Some(settle) => settle.extend().await,
            None => Ok(()),
        }
    }
}
