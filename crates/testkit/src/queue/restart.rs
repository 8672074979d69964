//! Checks that end the client or the broker and look at what is left.

use std::collections::BTreeSet;

use stoq_api::queue::Message;
use tokio::task::JoinSet;

use super::{QueueHarness, SUB, declared, is_quiet, next, numbered, subscribe};
use crate::wait::must_end;

const KEPT: &str = "kept";
const HELD: &str = "held";
const FORGOTTEN: &str = "forgotten";

/// Makes the queues of these checks, long before they are looked at.
pub(super) async fn declare(harness: &mut dyn QueueHarness) {
    for name in [KEPT, HELD, FORGOTTEN] {
        declared(harness, name).await;
    }
}

pub(super) async fn keeps_what_was_published(harness: &mut dyn QueueHarness) {
    let queue = declared(harness, KEPT).await;
    let headers = vec![("a".to_owned(), "b".to_owned())];
    let sent = Message { headers, ..Message::new("kept", vec![3; 100_000]) };
    queue.publish(vec![sent.clone()]).await.unwrap();
    assert!(harness.reopen().await);
    let queue = harness.queue(KEPT).await;
    let mut deliveries = subscribe(&*queue, 1).await;
    let delivery = next(&mut deliveries).await;
    assert!(delivery.message == sent, "a message outlives a restart as it is");
    delivery.ack().await.unwrap();
    queue.declare(&[SUB]).await.unwrap();
    queue.publish(numbered(1)).await.unwrap();
    assert_eq!(next(&mut deliveries).await.message.id, "m0", "and the queue goes on");
}

pub(super) async fn brings_back_what_was_held(harness: &mut dyn QueueHarness) {
    const COUNT: usize = 1_500;
    const TAKEN: usize = 1_000;
    let queue = declared(harness, HELD).await;
    queue.publish(numbered(COUNT)).await.unwrap();
    let mut deliveries = subscribe(&*queue, TAKEN as u32).await;
    let mut held = Vec::new();
    for _ in 0..TAKEN {
        held.push(next(&mut deliveries).await);
    }
    let held_ids: BTreeSet<_> = held.iter().map(|d| d.message.id.clone()).collect();
    assert!(harness.reopen().await);
    let queue = harness.queue(HELD).await;
    let mut again = subscribe(&*queue, COUNT as u32).await;
    let mut got = BTreeSet::new();
    let mut acks = JoinSet::new();
    for _ in 0..COUNT {
        let delivery = next(&mut again).await;
        let was_held = held_ids.contains(&delivery.message.id);
        assert!(!(was_held && delivery.first), "{} was delivered before the restart", delivery.message.id);
        got.insert(delivery.message.id.clone());
        acks.spawn(delivery.ack());
    }
    assert_eq!(got.len(), COUNT, "held or not, all come");
    must_end("the verdicts", acks.join_all()).await.into_iter().for_each(Result::unwrap);
    drop((deliveries, held));
    assert!(is_quiet(&mut again, harness.quiet()).await, "what a dead client drops changes nothing");
}

pub(super) async fn forgets_what_was_acknowledged(harness: &mut dyn QueueHarness) {
    let queue = declared(harness, FORGOTTEN).await;
    queue.publish(numbered(6)).await.unwrap();
    // One at a time: where the broker keeps to that, the second shows that it has taken the verdict on the first.
    let mut deliveries = subscribe(&*queue, 1).await;
    let first = next(&mut deliveries).await;
    let acknowledged = first.message.id.clone();
    first.ack().await.unwrap();
    drop(next(&mut deliveries).await);
    assert!(harness.reopen().await);
    let queue = harness.queue(FORGOTTEN).await;
    let mut again = subscribe(&*queue, 6).await;
    for _ in 1..6 {
        let delivery = next(&mut again).await;
        assert_ne!(delivery.message.id, acknowledged, "it was acknowledged");
        delivery.ack().await.unwrap();
    }
    assert!(is_quiet(&mut again, harness.quiet()).await);
}
