//! Verdicts on deliveries, from the tasks that give them to the channel that carries them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::future::join_all;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicNackOptions};
use lapin::{Channel, Consumer};
use parking_lot::Mutex;
use stoq_api::queue::Settle;
use stoq_api::{Fault, FaultKind};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::link::Live;
use crate::tags::{PATIENCE, Tags, Verdict};

/// How long acknowledgements wait for others while more are to be expected.
const LINGER: Duration = Duration::from_millis(5);
/// How long the consumer's end may take, and again the last verdicts with the channel's.
const FAREWELL: Duration = Duration::from_secs(5);
/// The most acknowledgements that wait for each other.
const BATCH: u16 = 100;

/// One channel's deliveries and verdicts.
pub(crate) struct Settler {
    channel: Channel,
    // Keeps the connection for as long as there may be verdicts for it.
    _live: Arc<Live>,
    tags: Mutex<Tags>,
    wake: Notify,
    closing: AtomicBool,
}

impl Settler {
    /// For a channel that may hold `prefetch` deliveries. [`Settler::run`] has to run beside it.
    pub(crate) fn new(channel: Channel, live: Arc<Live>, prefetch: u16) -> Self {
        let tags = Mutex::new(Tags::new(usize::from((prefetch / 4).clamp(1, BATCH))));
        Self { channel, _live: live, tags, wake: Notify::new(), closing: AtomicBool::new(false) }
    }

    /// A delivery has come; its verdict goes through what this answers.
    pub(crate) fn deliver(self: &Arc<Self>, tag: u64) -> Box<dyn Settle> {
        self.tags.lock().deliver(tag);
        Box::new(Held { settler: Arc::clone(self), tag, settled: false })
    }

    /// The subscriber has gone: tells what is to be told, and ends the channel, which gives back everything else.
    pub(crate) fn close(&self) {
        // Under the lock: a verdict that was accepted is told.
        let tags = self.tags.lock();
        self.closing.store(true, Ordering::Release);
        drop(tags);
        self.wake.notify_one();
    }

    /// Verdicts can still be given.
    fn is_open(&self) -> bool {
        !self.closing.load(Ordering::Acquire) && self.channel.status().connected()
    }

    /// Carries verdicts to the broker until the channel ends.
    ///
    /// Holds the channel's `consumer` until then: when the last of its clones goes, the library cancels it beside
    /// whatever else is done to the channel, and a channel that closes at that moment costs the whole connection.
    pub(crate) async fn run(self: Arc<Self>, consumer: Consumer) {
        while self.is_open() {
            let pending = self.tags.lock().is_pending();
            if pending {
                // Behind a slow delivery; looked at again although nobody calls.
                let _called = timeout(PATIENCE, self.wake.notified()).await;
            } else {
                self.wake.notified().await;
            }
            if self.is_open() && !self.tags.lock().is_urgent() {
                let _urgent = timeout(LINGER, self.urgent()).await;
            }
            if !self.tell(false).await {
                break;
            }
        }
        if !self.channel.status().connected() {
            return;
        }
        // First, so that the room which the last verdicts make is not filled again.
        let cancelled = timeout(FAREWELL, self.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()));
        let cancelled = matches!(cancelled.await, Ok(Ok(())));
        let closed = async {
            self.tell(true).await;
            self.channel.close(200, "done".into()).await
        };
        if !matches!(timeout(FAREWELL, closed).await, Ok(Ok(()))) || !cancelled {
            tracing::debug!("a rabbitmq channel ended without good-bye");
        }
    }

    async fn urgent(&self) {
        while !self.closing.load(Ordering::Acquire) && !self.tags.lock().is_urgent() {
            self.wake.notified().await;
        }
    }

    /// Tells the broker what there is. `false` if the channel is gone, and with it every verdict that was not told.
    async fn tell(&self, all: bool) -> bool {
        let verdicts = self.tags.lock().take(Instant::now(), all);
        let told = verdicts.into_iter().map(|verdict| async move {
            let ack = |multiple| BasicAckOptions { multiple };
            match verdict {
                Verdict::Ack(tag) => self.channel.basic_ack(tag, ack(false)).await,
                Verdict::AckUpTo(tag) => self.channel.basic_ack(tag, ack(true)).await,
                Verdict::Release(tag) => {
                    self.channel.basic_nack(tag, BasicNackOptions { multiple: false, requeue: true }).await
                }
            }
        });
        join_all(told).await.into_iter().all(|told| told.is_ok())
    }
}

/// The right to settle one delivery.
struct Held {
    settler: Arc<Settler>,
    tag: u64,
    settled: bool,
}

impl Held {
    fn gone() -> Fault {
        let text = "rabbitmq took the delivery back, because its subscriber or connection has ended; it comes again";
        Fault::new(FaultKind::Unavailable, text)
    }

    fn give_back(&mut self) {
        if !self.settled {
            self.settled = true;
            self.settler.tags.lock().release(self.tag);
            self.settler.wake.notify_one();
        }
    }
}

#[async_trait]
impl Settle for Held {
    async fn ack(mut self: Box<Self>) -> Result<(), Fault> {
        self.settled = true;
        {
            let mut tags = self.settler.tags.lock();
            if !self.settler.is_open() {
                return Err(Self::gone());
            }
            tags.ack(self.tag, Instant::now());
        }
        self.settler.wake.notify_one();
        Ok(())
    }

    async fn release(mut self: Box<Self>) -> Result<(), Fault> {
        if !self.settler.is_open() {
            self.settled = true;
            return Err(Self::gone());
        }
        self.give_back();
        Ok(())
    }

    async fn extend(&self) -> Result<(), Fault> {
        if self.settler.is_open() { Ok(()) } else { Err(Self::gone()) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.give_back();
    }
}
