//! The conformance suites, on memory.
#![expect(clippy::unwrap_used, reason = "helper functions are test code, though they are not marked as such")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use stoq_api::ledger::{Kept, Ledger, Settled};
use stoq_api::queue::{Message, Prefetch, Queue};
use stoq_api::store::Store;
use stoq_api::{Budgets, Content, Edge, FaultKind, PackedMeta, PayloadId, PayloadMeta, Timestamp};
use stoq_memory::{MemoryLedger, MemoryQueue, MemoryStore};
use stoq_testkit::samples::{child, fresh_scan, head, outcome};
use stoq_testkit::wait::{must_end, until};
use stoq_testkit::{LedgerHarness, QueueHarness, StoreHarness, ledger_suite, queue_suite, store_suite};

#[derive(Default)]
struct Memory {
    queues: HashMap<String, Arc<MemoryQueue>>,
    ledger: Arc<MemoryLedger>,
    store: Arc<MemoryStore>,
    /// Nearly everything goes into files here.
    overflow: Option<tempfile::TempDir>,
}

/// Bytes that stay in memory beside [`Memory::overflow`]: enough for some of what the suites put there.
const HELD: usize = 300;

impl Memory {
    fn spooling() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Arc::new(MemoryLedger::spooling(dir.path(), HELD));
        Self { ledger, overflow: Some(dir), ..Self::default() }
    }
}

#[async_trait]
impl QueueHarness for Memory {
    async fn queue(&mut self, name: &str) -> Arc<dyn Queue> {
        let queue = self.queues.entry(name.to_owned()).or_insert_with(|| {
            Arc::new(match &self.overflow {
                Some(dir) => MemoryQueue::spooling(name, dir.path(), HELD),
                None => MemoryQueue::new(name),
            })
        });
        Arc::clone(queue) as Arc<dyn Queue>
    }

    async fn reopen(&mut self) -> bool {
        false
    }

    fn quiet(&self) -> Duration {
        Duration::from_millis(20)
    }
}

#[async_trait]
impl LedgerHarness for Memory {
    async fn ledger(&mut self) -> Arc<dyn Ledger> {
        Arc::clone(&self.ledger) as Arc<dyn Ledger>
    }

    async fn reopen(&mut self) -> bool {
        false
    }
}

#[async_trait]
impl StoreHarness for Memory {
    async fn store(&mut self) -> Arc<dyn Store> {
        Arc::clone(&self.store) as Arc<dyn Store>
    }

    async fn kept(&mut self, name: &str) -> Option<Vec<u8>> {
        self.store.kept(name).map(Vec::from)
    }
}

#[tokio::test]
async fn queue() {
    queue_suite(&mut Memory::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn queue_on_many_threads() {
    queue_suite(&mut Memory::default()).await;
}

#[tokio::test]
async fn queue_in_files() {
    queue_suite(&mut Memory::spooling()).await;
}

#[tokio::test]
async fn ledger_in_files() {
    ledger_suite(&mut Memory::spooling()).await;
}

#[tokio::test]
async fn an_outcome_with_many_children_comes_back_from_its_file() {
    const CHILDREN: u64 = 5_000;
    let dir = tempfile::tempdir().unwrap();
    let scan = fresh_scan();
    let mut large = outcome(PayloadId::root(scan, 0), 1);
    large.edges = (0..CHILDREN)
        .map(|n| {
            let child = child(scan, &n.to_string(), n);
            let meta = PackedMeta::from(&PayloadMeta::with("filename", format!("member {n}")));
            let (plugin, ordinal) = ("decompress".into(), u32::try_from(n).unwrap());
            Edge { child: child.id, plugin, ordinal, sha256: child.sha256, size: child.size, meta }
        })
        .collect();
    assert!(serde_json::to_vec(&large).unwrap().len() > 1 << 20, "it is read as it lies, a piece at a time");
    let ledger = MemoryLedger::spooling(dir.path(), 1 << 30);
    let (head, now) = (head(scan, &[1], Budgets::default()), Timestamp::now());
    assert_eq!(ledger.settle(scan, Some(&head), &large, &[], now).await.unwrap(), Settled::Frozen);
    let kept = ledger.frozen(scan).await.unwrap().unwrap().outcomes.pop().unwrap();
    assert!(matches!(&kept, Kept::Text { json: Content::File { .. }, .. }), "{kept:?}");
    assert_eq!(kept.into_outcome().unwrap(), large);
    let gone = MemoryLedger::spooling(&dir.path().join("gone"), 1 << 30);
    let refused = gone.settle(scan, Some(&head), &large, &[], now).await.unwrap_err();
    assert_eq!(refused.kind, FaultKind::Unavailable);
}

#[tokio::test]
async fn a_message_that_cannot_be_put_into_a_file_is_refused_whole() {
    let dir = tempfile::tempdir().unwrap();
    let queue = MemoryQueue::spooling("q", &dir.path().join("gone"), 3);
    queue.declare(&["s"]).await.unwrap();
    let two = || vec![Message::new("1", "abc"), Message::new("2", "d")];
    assert_eq!(queue.publish(two()).await.unwrap_err().kind, FaultKind::Unavailable);
    assert_eq!(queue.depth("s").await.unwrap().ready, 0, "half of a publication is there");
    queue.publish(two()[..1].to_vec()).await.unwrap();
    let mut deliveries = queue.subscribe("s", Prefetch { messages: 9 }).await.unwrap();
    assert_eq!(deliveries.next().await.unwrap().unwrap().message.body, "abc");
}

#[tokio::test]
async fn ledger() {
    ledger_suite(&mut Memory::default()).await;
}

#[tokio::test]
async fn store() {
    store_suite(&mut Memory::default()).await;
}

#[tokio::test]
async fn a_full_queue_makes_publishers_wait_until_there_is_room() {
    let queue = Arc::new(MemoryQueue::bounded("bounded", 2));
    queue.declare(&["a", "b"]).await.unwrap();
    queue.publish(vec![Message::new("1", ""), Message::new("2", "")]).await.unwrap();
    let publisher = Arc::clone(&queue);
    let third = tokio::spawn(async move { publisher.publish(vec![Message::new("3", "")]).await });
    let mut a = queue.subscribe("a", Prefetch { messages: 10 }).await.unwrap();
    let mut b = queue.subscribe("b", Prefetch { messages: 10 }).await.unwrap();
    for _ in 0..2 {
        a.next().await.unwrap().unwrap().ack().await.unwrap();
    }
    let held = b.next().await.unwrap().unwrap();
    tokio::task::yield_now().await;
    assert!(!third.is_finished(), "the slowest subscription counts, and so does what is held");
    held.ack().await.unwrap();
    must_end("the third message", third).await.unwrap().unwrap();
    until("it waits in both", || async { queue.depth("a").await.unwrap().ready == 1 }).await;
    assert_eq!(queue.depth("b").await.unwrap().ready, 2);
}
