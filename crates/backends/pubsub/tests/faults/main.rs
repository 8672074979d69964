//! What goes wrong: the server away, the network cut, permissions missing, things not there or made otherwise.
#![expect(clippy::unwrap_used, reason = "helpers are test code, though they are not marked as such")]

#[path = "../common/mod.rs"]
mod common;
mod network;
mod refused;

use std::sync::Arc;

use stoq_api::Fault;
use stoq_api::queue::{Broker, Deliveries, Delivery, LaneOptions, Message, Prefetch, Queue};
use stoq_testkit::wait::must_end;

const SUB: &str = "main";

/// A lane of that name with one subscription.
async fn declared(broker: &dyn Broker, name: &str) -> Arc<dyn Queue> {
    let queue = broker.lane(name, LaneOptions::default());
    queue.declare(&[SUB]).await.unwrap();
    queue
}

async fn subscribe(queue: &dyn Queue, messages: u32) -> Box<dyn Deliveries> {
    queue.subscribe(SUB, Prefetch { messages }).await.unwrap()
}

async fn next(deliveries: &mut Box<dyn Deliveries>) -> Delivery {
    must_end("a delivery", deliveries.next()).await.unwrap().unwrap()
}

fn message(id: &str) -> Vec<Message> {
    vec![Message::new(id, "body")]
}

/// The fault that `result` has to be.
fn fault<T>(result: Result<T, Fault>) -> Fault {
    match result {
        Ok(_) => panic!("expected a fault"),
        Err(fault) => fault,
    }
}
