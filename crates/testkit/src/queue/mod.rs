//! The queue suite: what every [`Queue`] promises.
//!
//! Order is not promised and so not looked at.

mod checks;
mod restart;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use stoq_api::queue::{Deliveries, Delivery, Message, Prefetch, Queue};
use tokio::time::timeout;

use crate::wait::must_end;

/// Makes the queues that the suite looks at.
#[async_trait]
pub trait QueueHarness: Send {
    /// A client's view of the queue of that name. The suite asks for names that it has not used before, and for some
    /// again later, to find what it left there. Nothing is declared.
    async fn queue(&mut self, name: &str) -> Arc<dyn Queue>;

    /// Ends the client as hard as can be (or the broker) and starts it again. What was made before is not used after
    /// this, but may still be alive. `false` if the implementation keeps nothing beyond its life.
    async fn reopen(&mut self) -> bool;

    /// How long nothing must come before the suite believes that nothing will.
    fn quiet(&self) -> Duration;

    /// Whether [`stoq_api::queue::Depth::held`] says what is held; it is 0 otherwise.
    fn knows_held(&self) -> bool {
        true
    }

    /// Whether the broker tells which deliveries are first ones. If not, none may be said to be.
    fn tells_first(&self) -> bool {
        true
    }

    /// Whether the broker takes a while to write down what was declared, and loses it if it is killed before.
    fn writes_late(&self) -> bool {
        false
    }

    /// Whether the broker tells what waits. If not, `depth` is to be refused.
    fn tells_depth(&self) -> bool {
        true
    }
}

/// Runs every check against queues of `harness`.
///
/// # Panics
/// A promise is broken.
pub async fn queue_suite(harness: &mut dyn QueueHarness) {
    if harness.writes_late() {
        restart::declare(harness).await;
    }
    checks! {
        checks::refuses_what_nobody_would_get(harness);
        checks::carries_every_kind_of_message(harness);
        checks::parcels_say_what_their_messages_say(harness);
        checks::gives_each_subscription_every_message(harness);
        checks::starts_a_late_subscription_with_later_messages(harness);
        checks::shares_among_subscribers(harness);
        checks::wakes_every_subscriber_with_room(harness);
        checks::gives_back_what_was_released_or_dropped(harness);
        checks::gives_back_what_a_dropped_subscriber_held(harness);
        checks::never_brings_back_what_was_acknowledged(harness);
        checks::holds_no_more_than_prefetch(harness);
        checks::extends_what_is_held(harness);
        checks::delivers_once_while_all_acknowledge(harness);
        checks::loses_nothing_to_cancelled_waits(harness);
        checks::says_what_waits(harness);
    }
    if harness.reopen().await {
        checks! {
            restart::keeps_what_was_published(harness);
            restart::brings_back_what_was_held(harness);
            restart::forgets_what_was_acknowledged(harness);
        }
    }
}

/// The subscription that most checks use.
const SUB: &str = "main";

async fn declared(harness: &mut dyn QueueHarness, name: &str) -> Arc<dyn Queue> {
    let queue = harness.queue(name).await;
    queue.declare(&[SUB]).await.unwrap();
    queue
}

async fn subscribe(queue: &dyn Queue, messages: u32) -> Box<dyn Deliveries> {
    queue.subscribe(SUB, Prefetch { messages }).await.unwrap()
}

async fn next(deliveries: &mut Box<dyn Deliveries>) -> Delivery {
    must_end("a delivery", deliveries.next()).await.unwrap().expect("the queue is not shut down")
}

/// Whether nothing comes for as long as the harness finds convincing.
async fn is_quiet(deliveries: &mut Box<dyn Deliveries>, quiet: Duration) -> bool {
    timeout(quiet, deliveries.next()).await.is_err()
}

/// `count` small messages that can be told apart by id.
fn numbered(count: usize) -> Vec<Message> {
    (0..count).map(|n| Message::new(format!("m{n}"), format!("body {n}"))).collect()
}
