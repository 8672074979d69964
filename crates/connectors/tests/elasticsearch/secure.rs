//! TLS, users and roles.

use serde_json::{Value, json};
use stoq_api::FaultKind;
use stoq_api::plugin::Verdict;
use stoq_testkit::services::{Search, SearchOptions};
use stoq_testkit::wait::PATIENCE;
use tokio::time::{Instant, sleep};

use crate::common::{connector, item, response};

fn options(search: &Search, user: &str, password: &str) -> Value {
    json!({
        "nodes": [search.url()], "ca_file": search.authority(), "user": user, "password": password, "replicas": 0,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elasticsearch_tells_who_may_write_from_who_may_not() {
    let _turn = crate::TURN.lock().await;
    check(Search::elasticsearch(SearchOptions { security: true, ..SearchOptions::default() }).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opensearch_tells_who_may_write_from_who_may_not() {
    let _turn = crate::TURN.lock().await;
    match Search::secure_opensearch().await {
        Some(search) => check(search).await,
        None => eprintln!("NOT RUN: OpenSearch with security needs a Java 21"),
    }
}

async fn check(search: Search) {
    let admin = connector(options(&search, "admin", Search::PASSWORD));
    // It listens before it knows its users.
    let end = Instant::now() + PATIENCE;
    while let Err(fault) = admin.check().await {
        assert!(Instant::now() < end, "{fault}");
        sleep(std::time::Duration::from_millis(50)).await;
    }
    admin.setup(true).await.unwrap();
    let batch = [item(&response(0))];

    let writer = connector(options(&search, "writer", Search::PASSWORD));
    writer.check().await.unwrap();
    for _ in 0..2 {
        assert_eq!(writer.deliver(&batch).await.unwrap(), [Verdict::Delivered]);
    }

    let stranger = connector(options(&search, "writer", "wrong"));
    for fault in [stranger.check().await.unwrap_err(), stranger.deliver(&batch).await.unwrap_err()] {
        assert_eq!(fault.kind, FaultKind::Misconfigured);
        assert!(fault.to_string().contains("401") && fault.to_string().contains("look at the credentials"), "{fault}");
    }
    let reader = connector(options(&search, "reader", Search::PASSWORD));
    reader.check().await.unwrap();
    let fault = reader.deliver(&batch).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Misconfigured);
    assert!(fault.to_string().contains("lack a right") && fault.to_string().contains("reader"), "{fault}");
    let fault = reader.setup(true).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Misconfigured, "{fault}");

    let mut unknown = options(&search, "writer", Search::PASSWORD);
    unknown["ca_file"] = "".into();
    let fault = connector(unknown).check().await.unwrap_err();
    assert!(fault.kind == FaultKind::Misconfigured && fault.to_string().contains("ca_file"), "{fault}");
}
