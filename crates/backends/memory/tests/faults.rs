//! Fault injection, on memory: what a caller sees, and what is left behind.
#![expect(clippy::unwrap_used, reason = "helper functions are test code, though they are not marked as such")]

use std::sync::Arc;

use stoq_api::ledger::{Ledger, Settled};
use stoq_api::queue::{Delivery, Message, Prefetch, Queue};
use stoq_api::store::{Store, StoreKey};
use stoq_api::{Budgets, FaultKind, PayloadId, Sha256, Timestamp};
use stoq_memory::{MemoryLedger, MemoryQueue, MemoryStore};
use stoq_testkit::fault::{FaultPlan, FaultyLedger, FaultyQueue, FaultyStore, Trouble};
use stoq_testkit::samples::{fresh_scan, head, outcome};

async fn queue_with(count: usize) -> Arc<MemoryQueue> {
    let queue = Arc::new(MemoryQueue::new("q"));
    queue.declare(&["s"]).await.unwrap();
    queue.publish((0..count).map(|n| Message::new(n.to_string(), "")).collect()).await.unwrap();
    queue
}

async fn left(queue: &MemoryQueue) -> u64 {
    let depth = queue.depth("s").await.unwrap();
    depth.ready + depth.held
}

/// Ends with the future, or with the death of its process; `None` then.
async fn unless_dead<T>(plan: &FaultPlan, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = plan.crashed() => None,
    }
}

#[tokio::test]
async fn a_verdict_counts_only_if_it_was_done() {
    for (trouble, expected) in
        [(Trouble::Before, 1), (Trouble::After, 0), (Trouble::CrashBefore, 1), (Trouble::CrashAfter, 0)]
    {
        let queue = queue_with(1).await;
        // subscribe, next, ack
        let plan = FaultPlan::at(2, trouble);
        let faulty = FaultyQueue::new(Arc::clone(&queue) as Arc<dyn Queue>, plan.clone());
        let mut deliveries = faulty.subscribe("s", Prefetch { messages: 1 }).await.unwrap();
        let delivery = deliveries.next().await.unwrap().unwrap();
        let acked = unless_dead(&plan, delivery.ack()).await;
        assert_eq!(acked.is_none(), plan.is_crashed(), "{trouble:?}");
        assert!(acked.is_none_or(|a| a.is_err_and(|e| e.kind == FaultKind::Unavailable)), "{trouble:?}");
        drop(deliveries);
        assert_eq!(left(&queue).await, expected, "{trouble:?}");
        assert_eq!(plan.log(), ["queue.subscribe", "queue.next", "delivery.ack"]);
    }
}

#[tokio::test]
async fn a_delivery_to_a_dead_process_is_free_when_that_is_gone() {
    let queue = queue_with(1).await;
    let plan = FaultPlan::at(1, Trouble::CrashAfter);
    let faulty = FaultyQueue::new(Arc::clone(&queue) as Arc<dyn Queue>, plan.clone());
    let mut deliveries = faulty.subscribe("s", Prefetch { messages: 1 }).await.unwrap();
    assert!(unless_dead(&plan, deliveries.next()).await.is_none());
    assert_eq!(queue.depth("s").await.unwrap().held, 1, "the queue does not know yet");
    drop(deliveries);
    let mut again = queue.subscribe("s", Prefetch { messages: 1 }).await.unwrap();
    assert!(!again.next().await.unwrap().unwrap().first);
}

#[tokio::test]
async fn an_outage_ends() {
    let queue = queue_with(3).await;
    let plan = FaultPlan::during(1..4, Trouble::Before);
    let faulty = FaultyQueue::new(Arc::clone(&queue) as Arc<dyn Queue>, plan.clone());
    let mut deliveries = faulty.subscribe("s", Prefetch { messages: 9 }).await.unwrap();
    for _ in 0..3 {
        assert!(deliveries.next().await.is_err());
    }
    let mut got: Vec<Delivery> = Vec::new();
    for _ in 0..3 {
        got.push(deliveries.next().await.unwrap().unwrap());
    }
    assert!(got.iter().all(|d| !d.first));
    assert_eq!(plan.operations(), 7);
}

#[tokio::test]
async fn one_plan_counts_over_ledger_and_store() {
    let (ledger, store) = (Arc::new(MemoryLedger::new()), Arc::new(MemoryStore::new()));
    let plan = FaultPlan::at(1, Trouble::After);
    let faulty = FaultyLedger::new(Arc::clone(&ledger) as Arc<dyn Ledger>, plan.clone());
    let objects = FaultyStore::new(Arc::clone(&store) as Arc<dyn Store>, plan.clone());
    let key = StoreKey { day: 20260102, sha256: Sha256::of(b"x") };
    objects.put(&key, &b"x".to_vec().into()).await.unwrap();
    let scan = fresh_scan();
    let (head, done) = (head(scan, &[1], Budgets::default()), outcome(PayloadId::root(scan, 0), 1));
    let lost = faulty.settle(scan, Some(&head), &done, &[], Timestamp(1)).await.unwrap_err();
    assert!(lost.is_transient());
    assert!(ledger.frozen(scan).await.unwrap().is_some(), "it was done; only the answer is lost");
    assert_eq!(faulty.settle(scan, Some(&head), &done, &[], Timestamp(1)).await.unwrap(), Settled::Frozen);
    assert_eq!(plan.log(), ["store.put", "ledger.settle", "ledger.settle"]);
    assert_eq!(store.days().await.unwrap(), [20260102]);
}
