//! The suite of all connectors, against the real servers behind a front that fails as servers and networks do.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use stoq_api::plugin::{Connector, Item};
use stoq_testkit::connector::{ConnectorHarness, PARTLY, Promise, connector_suite, response};
use stoq_testkit::front::{Act, HttpFront};
use stoq_testkit::services::{Authority, Search, SearchOptions};

use crate::common::{ask, connector};

const INDEX: &str = "stoq-2026.01";
/// Documents that one search shows; the suite makes some hundreds.
const MOST: usize = 10_000;
/// Payloads in each response of the suite.
const PAYLOADS: usize = 2;
/// Seconds that an answer is waited for: an act that never answers holds the suite up for so long.
const TIMEOUT: f64 = 10.0;

/// A server, a front before it, one before it with TLS of an authority that nobody trusts, and one with users.
struct Harness {
    search: Search,
    front: HttpFront,
    stranger: HttpFront,
    /// Of somebody else than who signed the stranger's certificate.
    authority: Authority,
    secure: Option<Search>,
}

impl Harness {
    async fn start(search: Search, secure: Option<Search>) -> Self {
        let upstream: SocketAddr = ([127, 0, 0, 1], search.port()).into();
        let front = HttpFront::start(Some(upstream)).await;
        front.count_only(|method, target| method == "POST" && target.starts_with("/_bulk"));
        let stranger = HttpFront::start_tls(Some(upstream), &Authority::new().server()).await;
        let harness = Self { search, front, stranger, authority: Authority::new(), secure };
        harness.made(&harness.front.url(), json!({})).setup(true).await.unwrap();
        harness
    }

    fn made(&self, node: &str, more: Value) -> Arc<dyn Connector> {
        let mut options = json!({
            "nodes": [node], "replicas": 0, "timeout": TIMEOUT,
        });
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        connector(options)
    }
}

/// Changes what an answer of `_bulk` says of the documents.
fn items(change: impl Fn(&mut Vec<Value>) + Send + Sync + 'static) -> Act {
    Act::edit(move |body| {
        let mut answer: Value = serde_json::from_slice(&body).unwrap();
        answer["errors"] = true.into();
        change(answer["items"].as_array_mut().unwrap());
        answer.to_string().into()
    })
}

/// One document was not taken, though its siblings were.
fn one(status: u16, kind: &'static str) -> Act {
    items(move |items| {
        items[3] = json!({ "create": { "status": status, "error": { "type": kind, "reason": "by script" } } });
    })
}

#[async_trait]
impl ConnectorHarness for Harness {
    fn promise(&self) -> Promise {
        Promise::Once
    }

    async fn connector(&mut self) -> Arc<dyn Connector> {
        self.made(&self.front.url(), json!({}))
    }

    async fn documents(&mut self) -> BTreeMap<String, usize> {
        ask(&self.search, "POST", &format!("/{INDEX}/_refresh?ignore_unavailable=true"), &Value::Null).await;
        let query = json!({ "size": MOST, "_source": ["scan_id"], "track_total_hits": true });
        let target = format!("/{INDEX}/_search?ignore_unavailable=true");
        let found = ask(&self.search, "POST", &target, &query).await;
        let total = found["hits"]["total"]["value"].as_u64().unwrap();
        assert!(total < MOST as u64, "{total} documents are more than one search shows");
        let mut documents = BTreeMap::<String, usize>::new();
        for hit in found["hits"]["hits"].as_array().unwrap() {
            *documents.entry(hit["_source"]["scan_id"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        for (scan, count) in &mut documents {
            assert_eq!(*count % PAYLOADS, 0, "{count} documents of scan {scan}, which has {PAYLOADS} payloads");
            *count /= PAYLOADS;
        }
        documents
    }

    /// None of its documents can be mapped.
    fn refused(&self) -> Option<Item> {
        let item = response();
        let mut json: Value = serde_json::from_slice(&item.json).unwrap();
        for payload in json["results"].as_array_mut().unwrap() {
            payload["size"] = "no number".into();
        }
        Some(Item { json: json.to_string().into(), ..item })
    }

    async fn away(&mut self, away: bool) -> bool {
        if away {
            self.search.kill();
        } else {
            self.search.restart().await;
        }
        true
    }

    async fn unknown(&mut self) -> Option<Arc<dyn Connector>> {
        let secure = self.secure.as_ref()?;
        let user = json!({ "ca_file": secure.authority(), "user": "writer", "password": "wrong" });
        Some(self.made(&secure.url(), user))
    }

    fn front(&self) -> Option<&HttpFront> {
        Some(&self.front)
    }

    fn own_faults(&self) -> Vec<Act> {
        let whole = |status, kind: &str, reason: &str| {
            let body = json!({ "error": { "type": kind, "reason": reason }, "status": status });
            Act::answer(status, "application/json", body.to_string())
        };
        vec![
            // In part: a full queue, a shard without its primary, a full disk, too many shards.
            one(429, "es_rejected_execution_exception"),
            one(503, "unavailable_shards_exception"),
            one(403, "cluster_block_exception"),
            one(400, "validation_exception"),
            // Every document, and each of its own kind.
            items(|items| {
                for (place, item) in items.iter_mut().enumerate() {
                    let status = [429, 500, 503, 408][place % 4];
                    *item = json!({ "create": { "status": status, "error": { "type": "by_script", "reason": "no" } } });
                }
            }),
            // Nothing is known of those that the answer does not tell of.
            items(|items| items.truncate(PARTLY)),
            items(|items| items[0] = json!({})),
            // The request as a whole.
            whole(429, "circuit_breaking_exception", "[parent] Data too large"),
            whole(413, "content_too_long_exception", "entity content is too long"),
            whole(400, "illegal_argument_exception", "Malformed content, found extra data after parsing"),
            whole(503, "cluster_block_exception", "blocked by: [SERVICE_UNAVAILABLE/1/state not recovered]"),
        ]
    }

    async fn untrusting(&mut self) -> Option<Arc<dyn Connector>> {
        Some(self.made(&self.stranger.url(), json!({ "ca_file": self.authority.certificate() })))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elasticsearch_keeps_what_connectors_promise() {
    let _turn = crate::TURN.lock().await;
    let secure = Search::elasticsearch(SearchOptions { security: true, ..SearchOptions::default() }).await;
    let search = Search::elasticsearch(SearchOptions::default()).await;
    let mut harness = Harness::start(search, Some(secure)).await;
    connector_suite(&mut harness).await;
    assert!(harness.stranger.seen().is_empty(), "nobody speaks to a stranger");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opensearch_keeps_what_connectors_promise() {
    let _turn = crate::TURN.lock().await;
    let mut harness = Harness::start(Search::opensearch(SearchOptions::default()).await, None).await;
    connector_suite(&mut harness).await;
    assert!(harness.stranger.seen().is_empty(), "nobody speaks to a stranger");
}
