//! `elasticsearch` against the real servers, through the real frame.
//!
//! `STOQ_TEST_AWAY` says how many seconds a killed server stays away, 3 by default.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on is to stop")]

mod common;
mod secure;
mod suite;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{Fleet, PAYLOADS, ask, connector, count, ids, item, payload_id, response};
use serde_json::{Value, json};
use stoq_api::plugin::{Connector, Verdict};
use stoq_api::queue::PartState;
use stoq_testkit::services::{Search, SearchOptions};
use tokio::sync::Mutex;

/// Documents that are delivered while the server is killed.
const DOCUMENTS: usize = 50_000;
const RESPONSES: usize = DOCUMENTS / PAYLOADS;
const INDEX: &str = "stoq-2026.01";

/// One server at a time: each has a heap and a start that a small machine feels.
static TURN: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elasticsearch_has_each_document_once() {
    let _turn = TURN.lock().await;
    all(Search::elasticsearch(SearchOptions::default()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opensearch_has_each_document_once() {
    let _turn = TURN.lock().await;
    all(Search::opensearch(SearchOptions::default()).await).await;
}

/// One server for all, since each takes long to start.
async fn all(mut search: Search) {
    let options = json!({ "nodes": [search.url()], "replicas": 0, "timeout": 20.0 });
    let out = connector(options.clone());
    out.check().await.unwrap();
    templates_are_installed_once(&search, &*out).await;
    models_are_found_by_their_fields(&search).await;
    what_no_index_takes_is_dead_and_says_why(&search, options.clone()).await;
    retention_that_the_server_lacks_is_said(&search).await;
    nothing_is_lost_or_doubled_when_the_server_dies(&mut search, options).await;
}

async fn templates_are_installed_once(search: &Search, out: &dyn Connector) {
    for (make, state) in [
        (false, PartState::Missing),
        (true, PartState::Missing),
        (false, PartState::Present),
        (true, PartState::Present),
    ] {
        let parts = out.setup(make).await.unwrap();
        assert_eq!(parts.iter().map(|part| &part.state).collect::<Vec<_>>(), [&state], "{parts:?}");
    }
    let other = connector(json!({ "nodes": [search.url()], "replicas": 2 }));
    for _ in 0..2 {
        let parts = other.setup(true).await.unwrap();
        assert!(matches!(parts[0].state, PartState::Different(_)), "{parts:?}");
    }
}

/// Each model in a data stream of its own, with what makes it worth having.
async fn models_are_found_by_their_fields(search: &Search) {
    let fixture: Value = serde_json::from_str(include_str!("../../src/model/testdata/response.json")).unwrap();
    for (model, documents, query) in [
        ("payload", 4, json!({ "term": { "workers.yara.matches.rule": "Loader_A" } })),
        ("ecs", 4, json!({ "term": { "file.hash.md5": "c".repeat(32) } })),
        ("ecs", 4, json!({ "term": { "source.ip": "192.0.2.0/24" } })),
        ("plugin", 7, json!({ "term": { "results.workers.yara.matches.rule": "Loader_A" } })),
        (
            "response",
            1,
            json!({ "range": { "@timestamp": { "gte": "2026-01-02T03:04:05Z", "lt": "2026-01-02T03:04:06Z" } } }),
        ),
    ] {
        let stream = format!("stream-{model}");
        let options = json!({
            "nodes": [search.url()], "replicas": 0, "model": model, "data_stream": format!("stream-{model}"),
        });
        let out = connector(options);
        out.setup(true).await.unwrap();
        for _ in 0..2 {
            assert_eq!(out.deliver(&[item(&fixture)]).await.unwrap(), [Verdict::Delivered], "{model}");
        }
        assert_eq!(count(search, &stream, json!({ "match_all": {} })).await, documents, "{model}");
        assert!(count(search, &stream, query).await > 0, "{model}");
        let mapping = ask(search, "GET", &format!("/{stream}/_mapping"), &Value::Null).await;
        assert!(!mapping.to_string().contains("LoadLibraryA"), "{mapping}");
    }
}

/// A document that no mapping takes is dead, with the server's word; its siblings are safe, and so are results that only
/// cannot be indexed.
async fn what_no_index_takes_is_dead_and_says_why(search: &Search, mut options: Value) {
    options["index"] = "stoq-hard".into();
    let out = connector(options);
    out.setup(true).await.unwrap();
    let fleet = Fleet::start(out).await;
    let mut wrong = response(RESPONSES);
    wrong["results"][3]["size"] = "not a number".into();
    let mut long = response(RESPONSES + 1);
    long["results"][5]["workers"]["strings"] =
        json!({ "longest": "x".repeat(40_000), "k".repeat(40_000): 1, "a\0b": 2 });
    fleet.publish(&[item(&wrong), item(&long)]).await;
    fleet.down_to(0).await;
    let dead = fleet.dead.0.lock().clone();
    let [(id, reason)] = &dead[..] else { panic!("{dead:?}") };
    assert_eq!(id, wrong["scan_id"].as_str().unwrap());
    assert!(reason.contains(&payload_id(RESPONSES, 3)) && reason.contains("size"), "{reason}");
    assert_eq!(count(search, "stoq-hard", json!({ "match_all": {} })).await, 2 * PAYLOADS as u64 - 1);
    assert_eq!(count(search, "stoq-hard", json!({ "exists": { "field": "unindexed.reason" } })).await, 1);
    let whole = ask(search, "GET", &format!("/stoq-hard/_doc/{}", payload_id(RESPONSES + 1, 5)), &Value::Null).await;
    let kept = &whole["_source"]["unindexed"];
    assert_eq!(kept["workers"]["strings"], long["results"][5]["workers"]["strings"]);
    assert!(kept["reason"].as_str().unwrap().contains("40"), "{}", kept["reason"]);
    fleet.end().await.unwrap();
}

async fn retention_that_the_server_lacks_is_said(search: &Search) {
    let out = connector(json!({ "nodes": [search.url()], "replicas": 0, "retention": 864_000.0, "template": false }));
    let parts = out.setup(true).await.unwrap();
    let PartState::Different(why) = &parts[0].state else { panic!("{parts:?}") };
    assert!(why.contains("no such thing") && why.contains("retention"), "{why}");
}

async fn nothing_is_lost_or_doubled_when_the_server_dies(search: &mut Search, options: Value) {
    let fleet = Fleet::start(connector(options)).await;
    // Made before, so that a busy machine does not deliver as fast as it makes them.
    let items: Vec<_> = (0..RESPONSES).map(|number| item(&response(number))).collect();
    let messages = fleet.publish(&items).await;
    fleet.down_to(messages * 4 / 5).await;
    assert!(fleet.left().await > messages / 5, "the server is to be killed in the middle");
    search.kill();
    let away = std::env::var("STOQ_TEST_AWAY").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(3);
    tokio::time::sleep(Duration::from_secs(away)).await;
    search.restart().await;
    fleet.down_to(0).await;
    assert!(fleet.dead.0.lock().is_empty(), "{:?}", fleet.dead.0.lock().first());
    assert_eq!(count(search, INDEX, json!({ "match_all": {} })).await, DOCUMENTS as u64);
    let expected: BTreeSet<String> =
        (0..RESPONSES).flat_map(|number| (0..PAYLOADS).map(move |payload| payload_id(number, payload))).collect();
    assert_eq!(ids(search, INDEX).await, expected);
    fleet.end().await.unwrap();
}
