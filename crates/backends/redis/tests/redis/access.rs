//! Who is let in, to what.

use std::sync::Arc;

use serde_json::{Value, json};
use stoq_api::backend::Options;
use stoq_api::{Fault, FaultKind};
use stoq_testkit::ledger_suite;
use stoq_testkit::services::{Redis, RedisCluster, RedisOptions};

use crate::common::{Objects, ledger_over, with};
use crate::scan::Scan;
use crate::suites::Servers;

/// The page that names the permissions.
const PAGE: &str = include_str!("../../../../../docs/ledger.md");

/// What the page says to type, from `user` on.
fn permissions(for_whom: &str) -> String {
    let lines = PAGE.split("```").find(|block| block.contains(for_whom)).expect("the page has such a block");
    let command = lines.lines().skip(1).map(|line| line.trim_end_matches('\\').trim()).collect::<Vec<_>>().join(" ");
    command.trim().strip_prefix("ACL SETUSER ").expect("it is a command").replace("PASSWORD", "hunter2")
}

async fn refused(options: &Options) -> Fault {
    let fault = ledger_over(options, Arc::<Objects>::default()).check().await.expect_err("refused");
    assert!(!stoq_api::fault::chain(&fault).contains("hunter2"), "{fault:?}");
    fault
}

async fn misconfigured(options: Value, says: &str) {
    let fault = refused(&with(options)).await;
    assert_eq!(fault.kind, FaultKind::Misconfigured, "{fault:?}");
    assert!(fault.context.contains(says), "{fault:?}");
}

#[tokio::test]
async fn passwords() {
    let lines = vec!["requirepass hunter2".to_owned(), "user other on >hunter2 ~* +@all".to_owned()];
    let server = Redis::start_with(RedisOptions { lines, ..RedisOptions::default() }).await;
    let url = server.address();
    misconfigured(json!({ "urls": [url] }), "password").await;
    misconfigured(json!({ "urls": [url], "password": "hunter1" }), "password").await;
    misconfigured(json!({ "urls": [url], "password_file": "/nowhere/at/all" }), "settings").await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "hunter2\n").unwrap();
    for options in [
        json!({ "urls": [url], "password": "hunter2" }),
        json!({ "urls": [url], "password_file": file.path() }),
        json!({ "urls": [url], "user": "other", "password": "hunter2" }),
    ] {
        ledger_over(&with(options), Arc::<Objects>::default()).check().await.unwrap();
    }
    let open = Redis::start().await;
    misconfigured(json!({ "urls": [open.address()], "password": "hunter2" }), "password").await;
    misconfigured(json!({ "urls": [open.address()], "db": 99 }), "db").await;
    misconfigured(json!({ "urls": [open.address()], "cluster": true }), "cluster").await;
}

#[tokio::test]
async fn the_least_permissions_are_those_of_the_page() {
    let user = format!("user {}", permissions("+evalsha"));
    let lines = vec!["requirepass hunter3".to_owned(), user.clone(), user.replace("stoq", "less").replace("+zadd", "")];
    let server = Redis::start_with(RedisOptions { lines, ..RedisOptions::default() }).await;
    let url = server.address();
    misconfigured(json!({ "urls": [url], "user": "less", "password": "hunter2" }), "docs/ledger.md").await;
    misconfigured(json!({ "urls": [url], "user": "stoq", "password": "hunter2", "prefix": "other" }), "docs/ledger.md")
        .await;
    let options = with(json!({ "urls": [url], "user": "stoq", "password": "hunter2" }));
    ledger_over(&options, Arc::<Objects>::default()).check().await.unwrap();
    ledger_suite(&mut Servers::new(vec![server], options)).await;
}

#[tokio::test]
async fn a_cluster_wants_some_more() {
    let cluster = RedisCluster::start(3, 0).await;
    let user = format!("{} {}", permissions("+evalsha"), permissions("+cluster|").replace("stoq ", ""));
    let arguments: Vec<&str> = ["acl", "setuser"].into_iter().chain(user.split_whitespace()).collect();
    for node in &cluster.nodes {
        node.cli(&arguments).await;
    }
    let options = json!({ "urls": cluster.addresses(), "cluster": true, "user": "stoq", "password": "hunter2" });
    let ledger = ledger_over(&with(options), Arc::<Objects>::default());
    ledger.check().await.unwrap();
    let scan = Scan::new();
    scan.begin(&*ledger).await;
    assert_eq!(ledger.open_scans().await.unwrap(), 1);
    misconfigured(json!({ "urls": cluster.addresses() }), "cluster = true").await;
}

#[tokio::test]
async fn throwing_keys_away_is_no_way_to_keep_scans() {
    let server = Redis::start().await;
    server.cli(&["config", "set", "maxmemory-policy", "volatile-lru"]).await;
    misconfigured(json!({ "urls": [server.address()] }), "noeviction").await;
}

#[tokio::test]
async fn over_tls() {
    let server = Redis::start_with(RedisOptions { tls: true, ..RedisOptions::default() }).await;
    let (url, authority) = server.tls_address();
    let options = json!({ "urls": [url], "tls_ca_file": authority.certificate() });
    ledger_over(&with(options), Arc::<Objects>::default()).check().await.unwrap();
    misconfigured(json!({ "urls": [url] }), "certificate").await;
    let fault = refused(&with(json!({ "urls": [url.replace("rediss", "redis")], "response_timeout": 5 }))).await;
    assert_eq!(fault.kind, FaultKind::Unavailable, "{fault:?}");
}
