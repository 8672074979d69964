//! Responses, connectors and a fleet's end of them, for tests against real servers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};
use stoq_api::Fault;
use stoq_api::plugin::{Connector, Item};
use stoq_api::queue::{Prefetch, Queue};
use stoq_api::results::pack;
use stoq_connectors::common::options::Backlog;
use stoq_connectors::common::{DeadLetters, Frame, Settings};
use stoq_memory::{MemoryQueue, MemoryStore};
use stoq_runtime::hold::Hold;
use stoq_testkit::NoQueues;
use stoq_testkit::services::Search;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Payloads in one response.
pub(crate) const PAYLOADS: usize = 25;
/// How long a delivery of everything may take where many tests run beside it.
const SLOWEST: Duration = Duration::from_secs(600);

pub(crate) fn connector(options: Value) -> Arc<dyn Connector> {
    let registry = stoq_connectors::registry();
    let registration = registry.iter().find(|one| one.info.name == "elasticsearch").unwrap();
    let context = stoq_connectors::Context { name: "out".to_owned(), queues: Arc::new(NoQueues) };
    (registration.build)(options.as_object().unwrap(), &context).unwrap()
}

fn uuid(kind: &str, number: usize) -> String {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{kind}{number}").as_bytes()).to_string()
}

/// The id of a payload of a response.
pub(crate) fn payload_id(response: usize, payload: usize) -> String {
    uuid("payload", response * PAYLOADS + payload)
}

/// A response like those of scans of archives, with nested results.
pub(crate) fn response(number: usize) -> Value {
    let results: Vec<Value> = (0..PAYLOADS)
        .map(|payload| {
            let hash = format!("{:064x}", number * PAYLOADS + payload);
            let (from, by) = if payload == 0 { (vec![], vec![]) } else { (vec![payload_id(number, 0)], vec!["decompress"]) };
            json!({
                "size": 1000 + payload, "payload_id": payload_id(number, payload),
                "payload_meta": {
                    "should_archive": true, "should_scan": true, "dispatch_to": [],
                    "extra_data": { "filename": format!("file-{payload}.exe") },
                },
                "plugins_run": { "workers": ["hash", "pe", "yara"], "archivers": [] },
                "extracted_from": from, "extracted_by": by,
                "workers": {
                    "hash": { "sha256": hash, "md5": &hash[..32] },
                    "pe": { "sections": [
                        { "name": ".text", "entropy": 6.5, "flags": { "execute": true } },
                        { "name": format!(".{payload}"), "entropy": 1, "imports": { "kernel32.dll": ["LoadLibraryA"] } },
                    ] },
                    "yara": { "matches": [{ "rule": "Loader", "tags": ["apt"], "meta": { "score": payload }, "strings": [[0, "$a", "MZ"]] }] },
                },
                "archivers": {}, "sha256": hash, "depth": usize::from(payload > 0),
                "runs": [{ "plugin": "pe", "round": 1, "why": ["always"], "status": "ok", "micros": 12 }],
                "not_run": [], "findings": [],
            })
        })
        .collect();
    json!({
        "results": results,
        "request_meta": { "archive_payloads": true, "source": "mail", "extra_data": { "network": { "src_ip": "192.0.2.1" } } },
        "errors": [], "time": "2026-01-02T03:04:05.678901", "decorators": {}, "scan_id": uuid("scan", number),
        "complete": true, "findings": [], "engine": { "version": "0.1.0", "rulesets": {} },
    })
}

pub(crate) fn item(response: &Value) -> Item {
    Item { id: response["scan_id"].as_str().unwrap().to_owned(), json: response.to_string().into() }
}

/// A dead lane that is looked into.
#[derive(Default)]
pub(crate) struct Dead(pub(crate) Mutex<Vec<(String, String)>>);

#[async_trait]
impl DeadLetters for Dead {
    async fn bury(&self, _: &str, item: &Item, reason: &str) -> Result<(), Fault> {
        self.0.lock().push((item.id.clone(), reason.to_owned()));
        Ok(())
    }
}

/// A result lane with one connector at it.
pub(crate) struct Fleet {
    pub(crate) lane: MemoryQueue,
    pub(crate) dead: Arc<Dead>,
    pub(crate) stop: CancellationToken,
    running: tokio::task::JoinHandle<Result<(), Fault>>,
}

impl Fleet {
    pub(crate) async fn start(connector: Arc<dyn Connector>) -> Self {
        let lane = MemoryQueue::new("results");
        lane.declare(&["out"]).await.unwrap();
        let dead = Arc::new(Dead::default());
        let frame = Frame {
            name: "out".into(),
            connector,
            store: Arc::new(MemoryStore::new()),
            dead: Arc::clone(&dead) as Arc<dyn DeadLetters>,
            settings: Settings { retry_most: Duration::from_secs(2), ..Settings::default() },
            route: Arc::default(),
            backlog: Backlog::default(),
            lane: None,
            hold: Hold::default(),
        };
        let stop = CancellationToken::new();
        let source = lane.subscribe("out", Prefetch { messages: 64 }).await.unwrap();
        let token = stop.clone();
        let running = tokio::spawn(async move { frame.run(source, token).await });
        Self { lane, dead, stop, running }
    }

    /// Gives the number of messages.
    pub(crate) async fn publish(&self, items: &[Item]) -> u64 {
        let messages = pack(items);
        let number = messages.len() as u64;
        self.lane.publish(messages).await.unwrap();
        number
    }

    /// Messages that wait or are held.
    pub(crate) async fn left(&self) -> u64 {
        assert!(!self.running.is_finished(), "the connector ended");
        let depth = self.lane.depth("out").await.unwrap();
        depth.ready + depth.held
    }

    /// Waits until no more than so many messages are left. A server on a busy machine takes its time.
    pub(crate) async fn down_to(&self, most: u64) {
        let end = tokio::time::Instant::now() + SLOWEST;
        while self.left().await > most {
            assert!(tokio::time::Instant::now() < end, "{} messages are left", self.left().await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn end(self) -> Result<(), Fault> {
        self.stop.cancel();
        self.running.await.unwrap()
    }
}

pub(crate) async fn ask(search: &Search, method: &str, target: &str, body: &Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let (status, text) = search.ask(method, target, &body).await;
    assert!(status < 300, "{method} {target}: {status} {text}");
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

/// The number of documents that a query finds.
pub(crate) async fn count(search: &Search, index: &str, query: Value) -> u64 {
    ask(search, "POST", &format!("/{index}/_refresh"), &Value::Null).await;
    let found = ask(search, "POST", &format!("/{index}/_count"), &json!({ "query": query })).await;
    found["count"].as_u64().unwrap()
}

/// All ids in an index; fails if one is there twice.
pub(crate) async fn ids(search: &Search, index: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let first = json!({ "size": 10_000, "_source": false, "sort": ["_doc"] });
    let mut page = ask(search, "POST", &format!("/{index}/_search?scroll=5m"), &first).await;
    loop {
        let hits = page["hits"]["hits"].as_array().unwrap();
        if hits.is_empty() {
            return all;
        }
        for hit in hits {
            let id = hit["_id"].as_str().unwrap().to_owned();
            assert!(all.insert(id.clone()), "{id} is there twice");
        }
        let next = json!({ "scroll": "5m", "scroll_id": page["_scroll_id"] });
        page = ask(search, "POST", "/_search/scroll", &next).await;
    }
}
