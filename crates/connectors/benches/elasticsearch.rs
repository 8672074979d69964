//! Documents a second into a real server, through the connector and by a bare loop of the same requests.
//!
//! Both send the same documents with the same number of requests at a time, in turns, each into an index of its own that
//! the same template covers. What is compared is therefore what making documents, judging answers and keeping count cost.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark talks to a person, and stops at a surprise")]

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};
use stoq_api::plugin::{Connector, Item, Verdict};
use stoq_connectors::model::Model;
use stoq_testkit::NoQueues;
use stoq_testkit::services::{Search, SearchOptions};
use uuid::Uuid;

/// Payloads in one response.
const PAYLOADS: usize = 25;
/// Responses in one batch, which is one request.
const BATCH: usize = 100;
/// Batches in one turn.
const BATCHES: usize = 12;
/// Turns of each side; the first is not counted.
const TURNS: usize = 6;
/// Requests at a time, as the frame has them by default.
const AT_ONCE: usize = 2;

fn uuid(kind: &str, number: usize) -> String {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{kind}{number}").as_bytes()).to_string()
}

fn response(number: usize) -> Item {
    let payload = |payload: usize| {
        let place = number * PAYLOADS + payload;
        let hash = format!("{place:064x}");
        json!({
            "size": 1000 + payload, "payload_id": uuid("payload", place),
            "payload_meta": {
                "should_archive": true, "should_scan": true, "dispatch_to": [],
                "extra_data": { "filename": format!("file-{payload}.exe") },
            },
            "plugins_run": { "workers": ["hash", "pe", "yara"], "archivers": [] }, "extracted_from": [], "extracted_by": [],
            "workers": {
                "hash": { "sha256": hash, "md5": &hash[..32] },
                "pe": { "sections": [{ "name": ".text", "entropy": 6.5 }, { "name": format!(".{payload}"), "entropy": 1.5 }] },
                "yara": { "matches": [{ "rule": "Loader", "tags": ["apt"], "meta": {}, "strings": [[0, "$a", "MZ"]] }] },
            },
            "archivers": {}, "sha256": hash, "depth": 0, "runs": [], "not_run": [], "findings": [],
        })
    };
    let scan_id = uuid("scan", number);
    let whole = json!({
        "results": (0..PAYLOADS).map(payload).collect::<Vec<_>>(),
        "request_meta": { "archive_payloads": true, "source": "mail", "extra_data": {} }, "errors": [],
        "time": "2026-01-02T03:04:05.678901", "decorators": {}, "scan_id": scan_id, "complete": true, "findings": [],
        "engine": { "version": "0.1.0", "rulesets": {} },
    });
    Item { id: scan_id, json: whole.to_string().into() }
}

fn connector(url: &str, index: &str) -> Arc<dyn Connector> {
    let registry = stoq_connectors::registry();
    let registration = registry.iter().find(|one| one.info.name == "elasticsearch").unwrap();
    let context = stoq_connectors::Context { name: "out".to_owned(), queues: Arc::new(NoQueues) };
    let options = json!({ "nodes": [url], "index": index, "replicas": 0, "max_request": 64 << 20 });
    (registration.build)(options.as_object().unwrap(), &context).unwrap()
}

/// The request of one batch, as it goes out.
fn body(items: &[Item], index: &str) -> Bytes {
    let mut packed = GzEncoder::new(Vec::new(), Compression::new(1));
    for document in items.iter().flat_map(|item| Model::Payload.documents(item).unwrap()) {
        let document = document.unwrap();
        writeln!(packed, r#"{{"create":{{"_index":"{index}","_id":"{}"}}}}"#, document.id).unwrap();
        packed.write_all(&document.json).unwrap();
        packed.write_all(b"\n").unwrap();
    }
    packed.finish().unwrap().into()
}

async fn bare(url: &str, bodies: Vec<Bytes>) -> Duration {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let started = Instant::now();
    let sent = stream::iter(bodies).map(Ok::<_, reqwest::Error>).try_for_each_concurrent(AT_ONCE, |body| {
        let request = client.post(format!("{url}/_bulk?filter_path=errors")).header("content-encoding", "gzip");
        let request = request.header("content-type", "application/x-ndjson").body(body);
        async {
            let answer: Value = serde_json::from_slice(&request.send().await?.bytes().await?).unwrap();
            assert_eq!(answer["errors"], false);
            Ok(())
        }
    });
    sent.await.unwrap();
    started.elapsed()
}

async fn ours(out: &dyn Connector, batches: &[Vec<Item>]) -> Duration {
    let started = Instant::now();
    stream::iter(batches)
        .for_each_concurrent(AT_ONCE, |batch| async {
            assert!(out.deliver(batch).await.unwrap().iter().all(|verdict| *verdict == Verdict::Delivered));
        })
        .await;
    started.elapsed()
}

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().trim().to_owned()
}

#[tokio::main]
async fn main() {
    let open = std::env::args().any(|word| word == "opensearch");
    let options = SearchOptions { fast: true, ..SearchOptions::default() };
    let search = if open { Search::opensearch(options).await } else { Search::elasticsearch(options).await };
    let url = search.url();
    connector(&url, "bench-setup").setup(true).await.unwrap();
    let batches: Vec<Vec<Item>> =
        (0..BATCHES).map(|batch| (batch * BATCH..(batch + 1) * BATCH).map(response).collect()).collect();
    let documents = (BATCHES * BATCH * PAYLOADS) as f64;
    let (mut ratios, mut rates) = (Vec::new(), Vec::new());
    println!("turn  bare docs/s  connector docs/s  ratio  resident");
    for turn in 0..TURNS {
        let names = [format!("bench-setup-bare-{turn}"), format!("bench-setup-ours-{turn}")];
        for name in &names {
            connector(&url, name).setup(true).await.unwrap();
        }
        let bodies = batches.iter().map(|batch| body(batch, &names[0])).collect();
        let out = connector(&url, &names[1]);
        // Whoever comes second finds a busier server: take turns at that, too.
        let (bare, ours) = if turn % 2 == 0 {
            let bare = bare(&url, bodies).await;
            (bare, ours(&*out, &batches).await)
        } else {
            let ours = ours(&*out, &batches).await;
            (bare(&url, bodies).await, ours)
        };
        let (bare, ours) = (documents / bare.as_secs_f64(), documents / ours.as_secs_f64());
        println!("{turn:4}  {bare:11.0}  {ours:16.0}  {:5.2}  {}", ours / bare, resident());
        if turn > 0 {
            ratios.push(ours / bare);
            rates.push(ours);
        }
    }
    ratios.sort_by(f64::total_cmp);
    rates.sort_by(f64::total_cmp);
    println!("median: {:.0} documents/s, ratio {:.2}", rates[rates.len() / 2], ratios[ratios.len() / 2]);
}
