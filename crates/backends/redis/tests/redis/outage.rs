//! Servers that go away, come back, or hand over: operations are repeated, and nothing is lost.

use std::sync::Arc;

use serde_json::json;
use stoq_api::FaultKind;
use stoq_api::ledger::Settled;
use stoq_testkit::services::{Proxy, Redis, RedisCluster};
use stoq_testkit::wait::until;

use crate::common::{Objects, ledger_over, options, with};
use crate::scan::{Scan, insist};

#[tokio::test]
async fn goes_on_after_a_crash_of_the_server() {
    let mut server = Redis::start().await;
    let ledger = ledger_over(&options(&[server.address()]), Arc::<Objects>::default());
    let scan = Scan::new();
    let child = scan.begin(&*ledger).await;
    server.kill();
    let fault = scan.try_settle(&*ledger, child.id, &[]).await.expect_err("nobody is there");
    assert_eq!(fault.kind, FaultKind::Unavailable, "{fault}");
    assert_eq!(ledger.check().await.expect_err("nobody is there").kind, FaultKind::Unavailable);
    server.restart().await;
    insist(async || scan.try_settle(&*ledger, child.id, &[]).await).await;
    assert_eq!(insist(async || scan.try_settle(&*ledger, scan.root(), &[]).await).await, Settled::Frozen);
    insist(async || ledger.check().await).await;
}

#[tokio::test]
async fn gives_up_a_connection_that_answers_nothing() {
    let server = Redis::start().await;
    let proxy = Proxy::start(server.port()).await;
    let options = with(json!({
        "urls": [format!("redis://127.0.0.1:{}", proxy.port())], "response_timeout": 0.2, "connect_timeout": 0.2,
    }));
    let ledger = ledger_over(&options, Arc::<Objects>::default());
    let scan = Scan::new();
    let child = insist(async || scan.try_admit(&*ledger, scan.root(), &[scan.child("only")]).await).await;
    drop(child);
    proxy.stall();
    let fault = scan.try_settle(&*ledger, scan.root(), &[]).await.expect_err("nothing comes through");
    assert!(fault.kind == FaultKind::Unavailable && fault.context.contains("in time"), "{fault}");
    proxy.heal();
    insist(async || scan.try_settle(&*ledger, scan.root(), &[]).await).await;
}

#[tokio::test]
async fn follows_the_primary() {
    let (mut first, second) = (Redis::start().await, Redis::start().await);
    second.cli(&["replicaof", "127.0.0.1", &first.port().to_string()]).await;
    until("the replica follows", || async {
        second.cli(&["info", "replication"]).await.contains("master_link_status:up")
    })
    .await;
    let ledger = ledger_over(&options(&[second.address(), first.address()]), Arc::<Objects>::default());
    let scan = Scan::new();
    let child = scan.begin(&*ledger).await;
    // The replica has it before the primary dies.
    assert_eq!(first.cli(&["wait", "1", "60000"]).await, "1");
    first.kill();
    second.cli(&["replicaof", "no", "one"]).await;
    insist(async || scan.try_settle(&*ledger, child.id, &[]).await).await;

    // Both change places again while the connections stay as they are.
    first.restart().await;
    second.cli(&["replicaof", "127.0.0.1", &first.port().to_string()]).await;
    let other = Scan::new();
    insist(async || other.try_admit(&*ledger, other.root(), &[other.child("a")]).await).await;
    assert!(first.cli(&["exists", &format!("{{stoq:{}}}:s:{}", other.id.0.as_bytes()[0], other.id)]).await == "1");
    drop(first);
    let alone = ledger_over(&options(&[second.address()]), Arc::<Objects>::default());
    let fault = alone.check().await.expect_err("a replica");
    assert!(fault.kind == FaultKind::Unavailable && fault.context.contains("replica"), "{fault}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_goes_on_without_one_of_its_nodes() {
    let mut cluster = RedisCluster::start(3, 1).await;
    let options = with(json!({ "urls": cluster.addresses(), "cluster": true, "response_timeout": 2 }));
    let ledger = ledger_over(&options, Arc::<Objects>::default());
    let scans: Vec<Scan> = (0..32).map(|_| Scan::new()).collect();
    for scan in &scans {
        scan.begin(&*ledger).await;
    }
    ledger.check().await.unwrap();
    for node in &cluster.nodes[..3] {
        node.cli(&["wait", "1", "60000"]).await;
    }
    cluster.nodes.remove(0).kill();
    for scan in &scans {
        insist(async || scan.try_settle(&*ledger, scan.child("only").id, &[]).await).await;
        assert_eq!(insist(async || scan.try_settle(&*ledger, scan.root(), &[]).await).await, Settled::Frozen);
    }
    assert_eq!(insist(async || ledger.open_scans().await).await, 32);
}
