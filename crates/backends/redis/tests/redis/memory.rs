//! What scans leave in the server's memory, and for how long.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use serde_json::json;
use stoq_api::ledger::{Ledger, Settled};
use stoq_api::{ErrorEntry, FaultKind, Outcome};
use stoq_testkit::samples::outcome;
use stoq_testkit::services::Redis;
use stoq_testkit::wait::until;

use crate::common::{Objects, ledger_over, options, with};
use crate::scan::{Scan, open};

const KEEP: Duration = Duration::from_secs(86_400);

/// What everything but clients and the file's buffer takes, once what was dropped is really gone.
async fn used(server: &Redis) -> u64 {
    let field = async |name: &str| -> u64 {
        let info = server.cli(&["info", "memory"]).await;
        info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap().trim().parse().unwrap()
    };
    until("what was dropped is gone", || async { field("lazyfree_pending_objects").await == 0 }).await;
    field("used_memory").await - field("mem_clients_normal").await - field("mem_aof_buffer").await
}

/// An outcome of about `size` bytes.
fn of_size(scan: &Scan, size: usize) -> Outcome {
    let error = ErrorEntry { error: "x".repeat(size), plugin_name: None, payload_id: None };
    Outcome { errors: vec![error], ..outcome(scan.root(), 1) }
}

async fn open_one(ledger: &dyn Ledger) -> Scan {
    let scan = Scan::new();
    let children = ["a", "b", "c", "d"].map(|tag| scan.child(tag));
    scan.admit(ledger, scan.root(), &children).await;
    for child in &children {
        scan.settle(ledger, child.id).await;
    }
    ledger.begin(scan.id, scan.root(), scan.now).await.unwrap();
    scan
}

async fn close_one(ledger: &dyn Ledger, scan: Scan) {
    assert_eq!(scan.settle(ledger, scan.root()).await, Settled::Frozen);
    ledger.close(scan.id, KEEP, scan.now).await.unwrap();
}

#[tokio::test]
async fn closed_scans_leave_a_tombstone_and_nothing_else() {
    const SCANS: usize = 2_000;
    const AT_ONCE: usize = 64;
    let server = Redis::start().await;
    let ledger = &*ledger_over(&options(&[server.address()]), Arc::<Objects>::default());
    // Connections and scripts are there, before anything is measured.
    close_one(ledger, open_one(ledger).await).await;
    let before = used(&server).await;
    let opening = futures::stream::iter(0..SCANS).map(|_| open_one(ledger)).buffer_unordered(AT_ONCE);
    let scans: Vec<Scan> = opening.collect().await;
    let open = used(&server).await;
    futures::stream::iter(scans).map(|scan| close_one(ledger, scan)).buffer_unordered(AT_ONCE).collect::<()>().await;
    assert_eq!(server.cli(&["dbsize"]).await, (SCANS + 1).to_string(), "one key a scan");
    let closed = used(&server).await;
    let each = |after: u64| after.saturating_sub(before) / SCANS as u64;
    println!("bytes a scan: {} open with four children settled, {} closed", each(open), each(closed));
    assert!(each(closed) < 400 && each(closed) * 4 < each(open), "{} open, {} closed", each(open), each(closed));
}

#[tokio::test]
async fn nothing_stays_for_ever() {
    let server = Redis::start().await;
    let ledger = ledger_over(&options(&[server.address()]), Arc::<Objects>::default());
    let (started, done, stray) = (Scan::new(), Scan::new(), Scan::new());
    let child = started.begin(&*ledger).await;
    started.settle(&*ledger, child.id).await;
    ledger.begin(started.id, child.id, started.now).await.unwrap();
    ledger.begin(stray.id, stray.root(), stray.now).await.unwrap();
    assert_eq!(done.settle(&*ledger, done.root()).await, Settled::Frozen);
    let scan = server.cli(&["--scan"]).await;
    let keys: Vec<&str> = scan.lines().collect();
    assert!(keys.len() >= 5 + 1 + 3 + 2, "{keys:?}");
    for key in keys {
        let left: i64 = server.cli(&["pttl", key]).await.parse().unwrap();
        assert!(left > 6 * 86_400_000, "{key}: {left} ms");
    }
    // A time to live that ended: the scan is gone from every list, not found overdue for ever.
    ledger.close(done.id, KEEP, done.now).await.unwrap();
    assert_eq!(ledger.open_scans().await.unwrap(), 1);
    let state = format!("{{stoq:{}}}:s:{}", started.id.0.as_bytes()[0], started.id);
    server.cli(&["del", &state]).await;
    let late = started.now.after(KEEP);
    assert_eq!(ledger.overdue(late, late, 10).await.unwrap(), []);
    assert_eq!(ledger.open_scans().await.unwrap(), 0);
}

#[tokio::test]
async fn large_outcomes_and_heads_lie_in_the_store() {
    let server = Redis::start().await;
    let store = Arc::<Objects>::default();
    let ledger = ledger_over(&with(json!({ "urls": [server.address()], "outcome_inline": 8192 })), store.clone());
    let mut scan = Scan::new();
    scan.head.source = "s".repeat(10_000);
    let child = scan.begin(&*ledger).await;
    let (small, mut large) = (of_size(&scan, 5_000), of_size(&scan, 100_000));
    large.payload_id = child.id;
    let fresh = Scan::new();
    let unknown = ledger.settle(fresh.id, None, &of_size(&fresh, 100_000), &[], fresh.now).await.unwrap();
    assert_eq!(unknown, Settled::Unknown, "nobody knows its day");
    assert_eq!(ledger.settle(scan.id, None, &large, &[], scan.now).await.unwrap(), open(&[]));
    assert_eq!(ledger.settle(scan.id, Some(&scan.head), &small, &[], scan.now).await.unwrap(), Settled::Frozen);
    assert!(store.0.lock().keys().all(|key| key.day == scan.head.first_seen.day()));
    assert_eq!(store.0.lock().len(), 2, "the head and one outcome");
    let frozen = ledger.frozen(scan.id).await.unwrap().unwrap().read().unwrap();
    assert_eq!(*frozen.head, scan.head);
    assert!(frozen.outcomes.len() == 2 && frozen.outcomes.contains(&small) && frozen.outcomes.contains(&large));
    for object in store.0.lock().values_mut() {
        *object = vec![b' '; object.len()].into();
    }
    assert_eq!(ledger.frozen(scan.id).await.expect_err("not what was put there").kind, FaultKind::Corrupt);
}

#[tokio::test]
async fn scans_of_many_payloads_are_read_in_parts() {
    let server = Redis::start().await;
    let ledger = ledger_over(&options(&[server.address()]), Arc::<Objects>::default());
    let scan = Scan::new();
    let children: Vec<_> = (0..1_200).map(|n| scan.child(&n.to_string())).collect();
    for chunk in children.chunks(500) {
        scan.admit(&*ledger, scan.root(), chunk).await;
    }
    let all: Vec<_> = children.iter().collect();
    assert_eq!(scan.settle(&*ledger, scan.root()).await, open(&all));
    for child in &children[1..] {
        scan.settle(&*ledger, child.id).await;
    }
    assert_eq!(scan.settle(&*ledger, children[0].id).await, Settled::Frozen);
    let frozen = ledger.frozen(scan.id).await.unwrap().unwrap();
    assert_eq!((frozen.outcomes.len(), frozen.missing.len()), (1_201, 0));
}

#[tokio::test]
async fn a_full_server_takes_nothing_new_and_ends_what_it_has() {
    let server = Redis::start().await;
    let store = Arc::<Objects>::default();
    let ledger = ledger_over(&options(&[server.address()]), store.clone());
    let (scan, late) = (Scan::new(), Scan::new());
    let child = scan.begin(&*ledger).await;
    server.cli(&["config", "set", "maxmemory", "1"]).await;
    let fault = late.try_admit(&*ledger, late.root(), &[late.child("a")]).await.expect_err("no room");
    assert!(fault.kind == FaultKind::Unavailable && fault.context.contains("memory is full"), "{fault}");
    assert_eq!(scan.settle(&*ledger, child.id).await, open(&[]));
    assert_eq!(scan.settle(&*ledger, scan.root()).await, Settled::Frozen);
    let frozen = ledger.frozen(scan.id).await.unwrap().unwrap();
    assert_eq!(frozen.outcomes.len(), 2);
    assert_eq!(store.0.lock().len(), 3, "outcomes, and the head that came with one, are in the store");
    ledger.close(scan.id, KEEP, scan.now).await.unwrap();
    assert_eq!(scan.settle(&*ledger, child.id).await, Settled::Closed);
    server.cli(&["config", "set", "maxmemory", "0"]).await;
    late.admit(&*ledger, late.root(), &[late.child("a")]).await;
}
