//! Deliveries that are held until their tasks are safe, and kept from being taken back meanwhile.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use stoq_api::plugin::Taken;
use stoq_api::queue::{Delivery, Message};
use stoq_api::{Fault, fault};
use tokio::task::AbortHandle;

/// How often held deliveries ask their queue for more time, as the workers' do.
const EXTEND_EVERY: Duration = Duration::from_secs(10);

/// A delivery without a verdict. Dropped, it is given back.
pub(super) struct Held {
    /// Its message.
    pub(super) message: Message,
    delivery: Arc<Slot>,
}

type Slot = tokio::sync::Mutex<Option<Delivery>>;

#[async_trait]
impl Taken for Held {
    async fn taken(self: Box<Self>) -> Result<(), Fault> {
        let Some(delivery) = self.delivery.lock().await.take() else { return Ok(()) };
        if let Err(fault) = delivery.ack().await {
            // What is safe already comes again, and changes nothing: its ids are the same.
            tracing::warn!(id = self.message.id, error = %fault::chain(&fault), "not acknowledged; it will come again");
        }
        Ok(())
    }
}

/// Keeps what is held from being taken back.
#[derive(Default)]
pub(super) struct Keeper {
    held: Arc<Mutex<Vec<Weak<Slot>>>>,
    keeping: Option<AbortHandle>,
}

impl Keeper {
    /// Holds a delivery. To be called within a runtime.
    pub(super) fn hold(&mut self, delivery: Delivery) -> Held {
        if self.keeping.is_none() {
            self.keeping = Some(tokio::spawn(keep(Arc::clone(&self.held))).abort_handle());
        }
        let message = delivery.message.clone();
        let delivery = Arc::new(Slot::new(Some(delivery)));
        self.held.lock().push(Arc::downgrade(&delivery));
        Held { message, delivery }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(keeping) = &self.keeping {
            keeping.abort();
        }
    }
}

async fn keep(held: Arc<Mutex<Vec<Weak<Slot>>>>) {
    loop {
        tokio::time::sleep(EXTEND_EVERY).await;
        let now: Vec<Arc<Slot>> = {
            let mut held = held.lock();
            held.retain(|slot| slot.strong_count() > 0);
            held.iter().filter_map(Weak::upgrade).collect()
        };
        for slot in now {
            let delivery = slot.lock().await;
            if let Some(delivery) = &*delivery
                && let Err(fault) = delivery.extend().await
            {
                tracing::warn!(error = %fault::chain(&fault), "could not extend a delivery");
            }
        }
    }
}
