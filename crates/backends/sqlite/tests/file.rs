//! What can be wrong with the file and the disk.
#![expect(clippy::unwrap_used, reason = "helper functions are test code, though they are not marked as such")]

use std::fs;
use std::path::Path;

use rusqlite::Connection;
use stoq_api::ledger::{Ledger as _, Settled};
use stoq_api::queue::{Message, Prefetch, Queue as _};
use stoq_api::{Budgets, FaultKind, PayloadId, Timestamp};
use stoq_sqlite::{Sqlite, SqliteOptions};
use stoq_testkit::samples::{fresh_scan, head, outcome};

fn open(directory: &Path) -> Result<Sqlite, stoq_api::Fault> {
    Sqlite::open(directory, SqliteOptions::default())
}

fn refusal(directory: &Path) -> String {
    let fault = open(directory).map(drop).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Misconfigured);
    let text = fault.to_string();
    assert!(text.contains(&directory.display().to_string()), "names the place: {text}");
    text
}

#[tokio::test]
async fn a_second_process_is_told_of_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path()).unwrap();
    assert!(refusal(directory.path()).contains(&format!("process {}", std::process::id())));
    first.close().await;
    open(directory.path()).unwrap();
}

#[tokio::test]
async fn files_of_others_are_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stoq.db");
    fs::write(&path, "this is not a database, but it is longer than a header of one hundred bytes would be, surely")
        .unwrap();
    let before = fs::read(&path).unwrap();
    assert!(refusal(directory.path()).contains("is not a database: move it away"));
    assert_eq!(fs::read(&path).unwrap(), before);

    fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    assert!(refusal(directory.path()).contains("another program"));

    fs::remove_file(&path).unwrap();
    open(directory.path()).unwrap().close().await;
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(refusal(directory.path()).contains("newer stoq (schema 99"));
}

#[tokio::test]
async fn a_damaged_file_is_reported_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let sqlite = open(directory.path()).unwrap();
    sqlite.queue("q").declare(&["s"]).await.unwrap();
    let messages = (0..100).map(|n| Message::new(n.to_string(), vec![n; 5_000])).collect();
    sqlite.queue("q").publish(messages).await.unwrap();
    sqlite.close().await;
    let path = directory.path().join("stoq.db");
    let mut bytes = fs::read(&path).unwrap();
    for page in bytes.chunks_mut(4096).skip(1) {
        page[..64].fill(0xff);
    }
    fs::write(&path, bytes).unwrap();
    assert!(refusal(directory.path()).contains("damaged: move it"), "it is noticed when the queues are read");
}

/// Publishes until nothing fits any more and gives the ids that were confirmed.
async fn fill(queue: &stoq_sqlite::SqliteQueue) -> Vec<String> {
    let mut confirmed = Vec::new();
    for n in 0..10_000 {
        let id = format!("m{n}");
        match queue.publish(vec![Message::new(&id, vec![1; 20_000])]).await {
            Ok(()) => confirmed.push(id),
            Err(fault) => {
                assert_eq!(fault.kind, FaultKind::Unavailable);
                assert!(fault.to_string().contains("full; free space"), "{fault}");
                return confirmed;
            }
        }
    }
    panic!("two hundred megabytes fit into two");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_nothing_and_is_over_when_there_is_space() {
    let directory = tempfile::tempdir().unwrap();
    let sqlite =
        Sqlite::open(directory.path(), SqliteOptions { max_bytes: Some(2 << 20), ..SqliteOptions::default() }).unwrap();
    let (queue, ledger) = (sqlite.queue("q"), sqlite.ledger());
    queue.declare(&["s"]).await.unwrap();
    let mut confirmed = fill(&queue).await;
    assert!(confirmed.len() > 50, "{} fit", confirmed.len());

    // Among others in one transaction, only those fail that find no room.
    let scan = fresh_scan();
    let large = Message::new("large", vec![2; 500_000]);
    let (failed, small) =
        tokio::join!(queue.publish(vec![large]), ledger.begin(scan, PayloadId::root(scan, 0), Timestamp(1)));
    assert_eq!(failed.unwrap_err().kind, FaultKind::Unavailable);
    assert_eq!(small.unwrap(), 1);

    assert_eq!(queue.depth("s").await.unwrap().ready, confirmed.len() as u64);
    let mut deliveries = queue.subscribe("s", Prefetch { messages: 8 }).await.unwrap();
    for _ in 0..10 {
        let delivery = deliveries.next().await.unwrap().unwrap();
        let at = confirmed.iter().position(|id| *id == delivery.message.id).unwrap();
        confirmed.swap_remove(at);
        delivery.ack().await.unwrap();
    }
    let head = head(scan, &[10], Budgets::default());
    let settled = ledger.settle(scan, Some(&head), &outcome(PayloadId::root(scan, 0), 1), &[], Timestamp(1)).await;
    assert_eq!(settled.unwrap(), Settled::Frozen);
    queue.publish(vec![Message::new("after", vec![3; 20_000])]).await.unwrap();
    confirmed.push("after".to_owned());
    while !confirmed.is_empty() {
        let delivery = deliveries.next().await.unwrap().unwrap();
        let at = confirmed.iter().position(|id| *id == delivery.message.id).unwrap();
        confirmed.swap_remove(at);
        delivery.ack().await.unwrap();
    }
    assert_eq!(queue.depth("s").await.unwrap().ready, 0);
}

#[tokio::test]
async fn an_acknowledgement_that_failed_leaves_the_message() {
    let directory = tempfile::tempdir().unwrap();
    let sqlite = open(directory.path()).unwrap();
    let queue = sqlite.queue("q");
    queue.declare(&["s"]).await.unwrap();
    queue.publish(vec![Message::new("a", "")]).await.unwrap();
    let mut deliveries = queue.subscribe("s", Prefetch { messages: 1 }).await.unwrap();
    let delivery = deliveries.next().await.unwrap().unwrap();
    let other = Connection::open(directory.path().join("stoq.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let publish = |id: &'static str| queue.publish(vec![Message::new(id, "")]);
    let (acked, b, c) = tokio::join!(delivery.ack(), publish("b"), publish("c"));
    for refused in [acked, b, c] {
        let fault = refused.unwrap_err();
        assert!(fault.is_transient() && fault.to_string().contains("another program"), "{fault}");
    }
    other.execute_batch("ROLLBACK").unwrap();
    let again = deliveries.next().await.unwrap().unwrap();
    assert!(again.message.id == "a" && !again.first);
    again.ack().await.unwrap();
    assert_eq!(queue.depth("s").await.unwrap(), stoq_api::queue::Depth::default());
}

#[tokio::test]
async fn what_is_published_after_a_restart_is_known_to_come_first() {
    let directory = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let sqlite = open(directory.path()).unwrap();
        let queue = sqlite.queue("q");
        queue.declare(&["s"]).await.unwrap();
        queue.publish((0..5).map(|n| Message::new(n.to_string(), "")).collect()).await.unwrap();
        let mut deliveries = queue.subscribe("s", Prefetch { messages: 1 }).await.unwrap();
        for _ in 0..5 {
            let delivery = deliveries.next().await.unwrap().unwrap();
            assert!(delivery.first);
            delivery.ack().await.unwrap();
        }
        sqlite.close().await;
    }
}

#[tokio::test]
async fn a_bounded_queue_refuses_for_now_until_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let sqlite = open(directory.path()).unwrap();
    let queue = sqlite.bounded_queue("q", 2);
    queue.declare(&["s"]).await.unwrap();
    let three = ["a", "b", "c"].map(|id| Message::new(id, ""));
    queue.publish(three.to_vec()).await.unwrap();
    let full = queue.publish(vec![Message::new("d", "")]).await.unwrap_err();
    assert!(full.is_transient() && full.to_string().contains("queue q is full"), "{full}");
    let mut deliveries = queue.subscribe("s", Prefetch { messages: 8 }).await.unwrap();
    for _ in 0..2 {
        deliveries.next().await.unwrap().unwrap().ack().await.unwrap();
    }
    queue.publish(vec![Message::new("d", "")]).await.unwrap();
}

#[tokio::test]
async fn what_comes_after_the_end_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let sqlite = open(directory.path()).unwrap();
    let queue = sqlite.queue("q");
    queue.declare(&["s"]).await.unwrap();
    queue.publish(vec![Message::new("a", "")]).await.unwrap();
    let mut deliveries = queue.subscribe("s", Prefetch { messages: 1 }).await.unwrap();
    let held = deliveries.next().await.unwrap().unwrap();
    sqlite.close().await;
    sqlite.close().await;
    assert!(deliveries.next().await.unwrap().is_none(), "the queue is at its end");
    assert!(held.ack().await.unwrap_err().is_transient());
    assert!(queue.publish(vec![Message::new("b", "")]).await.unwrap_err().is_transient());
    assert!(sqlite.ledger().open_scans().await.unwrap_err().is_transient());
    let again = open(directory.path()).unwrap();
    assert_eq!(again.queue("q").depth("s").await.unwrap().ready, 1, "and what was not confirmed did not happen");
}
