//! Checks that end the client or the broker and look at what is left.

use std::collections::BTreeSet;

use stoq_api::queue::Message;

use super::{QueueHarness, SUB, declared, is_quiet, next, numbered, subscribe};

pub(super) async fn keeps_what_was_published(harness: &mut dyn QueueHarness) {
    let queue = declared(harness, "kept").await;
    let headers = vec![("a".to_owned(), "b".to_owned())];
    let sent = Message { headers, ..Message::new("kept", vec![3; 100_000]) };
    queue.publish(vec![sent.clone()]).await.unwrap();
    assert!(harness.reopen().await);
    let queue = harness.queue("kept").await;
    let mut deliveries = subscribe(&*queue, 1).await;
    let delivery = next(&mut deliveries).await;
    assert!(delivery.message == sent, "a message outlives a restart as it is");
    delivery.ack().await.unwrap();
    queue.declare(&[SUB]).await.unwrap();
    queue.publish(numbered(1)).await.unwrap();
    assert_eq!(next(&mut deliveries).await.message.id, "m0", "and the queue goes on");
}

pub(super) async fn brings_back_what_was_held(harness: &mut dyn QueueHarness) {
    let queue = declared(harness, "held").await;
    queue.publish(numbered(5)).await.unwrap();
    let mut deliveries = subscribe(&*queue, 2).await;
    let held = [next(&mut deliveries).await, next(&mut deliveries).await];
    let held_ids = BTreeSet::from([held[0].message.id.clone(), held[1].message.id.clone()]);
    assert!(harness.reopen().await);
    let queue = harness.queue("held").await;
    let mut again = subscribe(&*queue, 5).await;
    let mut got = BTreeSet::new();
    for _ in 0..5 {
        let delivery = next(&mut again).await;
        let was_held = held_ids.contains(&delivery.message.id);
        assert!(!(was_held && delivery.first), "{} was delivered before the restart", delivery.message.id);
        got.insert(delivery.message.id.clone());
        delivery.ack().await.unwrap();
    }
    assert_eq!(got.len(), 5, "held or not, all come");
    drop((deliveries, held));
    assert!(is_quiet(&mut again, harness.quiet()).await, "what a dead client drops changes nothing");
}

pub(super) async fn forgets_what_was_acknowledged(harness: &mut dyn QueueHarness) {
    let queue = declared(harness, "forgotten").await;
    queue.publish(numbered(6)).await.unwrap();
    let mut deliveries = subscribe(&*queue, 6).await;
    let mut acknowledged = BTreeSet::new();
    for n in 0..6 {
        let delivery = next(&mut deliveries).await;
        if n % 2 == 0 {
            acknowledged.insert(delivery.message.id.clone());
            delivery.ack().await.unwrap();
        } else {
            drop(delivery);
            break;
        }
    }
    assert!(harness.reopen().await);
    let queue = harness.queue("forgotten").await;
    let mut again = subscribe(&*queue, 6).await;
    for _ in acknowledged.len()..6 {
        let delivery = next(&mut again).await;
        assert!(!acknowledged.contains(&delivery.message.id), "{} was acknowledged", delivery.message.id);
        delivery.ack().await.unwrap();
    }
    assert!(is_quiet(&mut again, harness.quiet()).await);
}
