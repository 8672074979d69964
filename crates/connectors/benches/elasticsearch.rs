//! Documents a second into a real server, through the connector and by a bare loop of the same requests.
//!
//! What the bare loop posts is what it saw of the connector: the same bytes, compressed already, in the same requests, and
//! as many of them at a time. Each turn of each side fills an empty index of the same name. What is compared is
//! therefore what making and compressing documents, judging answers and keeping count cost.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark talks to a person, and stops at a surprise")]

#[path = "common/mod.rs"]
mod common;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use common::{BATCH, PAYLOADS, batches, connector, cpu, median, watched};
use futures::stream::{self, StreamExt as _};
use serde_json::{Value, json};
use stoq_api::plugin::{Connector, Item, Verdict};
use stoq_testkit::front::HttpFront;
use stoq_testkit::services::{Search, SearchOptions};

/// Batches in one turn.
const BATCHES: usize = 12;
/// Documents in one turn.
const DOCUMENTS: usize = BATCHES * BATCH * PAYLOADS;
/// Turns of each side; the first ones are not counted, as the server compiles what runs hot.
const TURNS: usize = 12;
const WARM: usize = 3;
/// Turns in a row while memory is looked at.
const LONG: usize = 4;
/// Batches at a time, as the frame has them by default, and requests, since each batch is one.
const AT_ONCE: usize = 2;
const INDEX: &str = "bench-2026.01";

struct Bench {
    search: Search,
    batches: Vec<Vec<Item>>,
    bodies: Vec<Bytes>,
    gzip: bool,
}

impl Bench {
    async fn new(search: Search, gzip: bool) -> Self {
        let mut bench = Self { search, batches: batches(BATCHES), bodies: Vec::new(), gzip };
        let port = bench.search.port();
        let front = HttpFront::start(Some(([127, 0, 0, 1], port).into())).await;
        let out = bench.connector(&front.url());
        out.setup(true).await.unwrap();
        bench.deliver(&*out).await;
        let posted = front.seen().into_iter().filter(|one| one.target.starts_with("/_bulk"));
        bench.bodies = posted.map(|one| one.body).collect();
        bench
    }

    fn connector(&self, url: &str) -> Arc<dyn Connector> {
        let options = json!({ "nodes": [url], "index": "bench-%Y.%m", "replicas": 0, "gzip": self.gzip });
        connector("elasticsearch", &options)
    }

    /// An index without a document, settled after what went before.
    async fn empty(&self) {
        let (status, _) = self.search.ask("DELETE", &format!("/{INDEX}"), "").await;
        assert!(status == 200 || status == 404);
        let (status, _) = self.search.ask("PUT", &format!("/{INDEX}"), "").await;
        assert_eq!(status, 200);
    }

    /// Checks that all came, and gives the documents a second.
    async fn rate(&self, started: Instant) -> f64 {
        let took = started.elapsed();
        self.search.ask("POST", &format!("/{INDEX}/_refresh"), "").await;
        let (_, answer) = self.search.ask("GET", &format!("/{INDEX}/_count"), "").await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["count"], DOCUMENTS, "each document is there");
        DOCUMENTS as f64 / took.as_secs_f64()
    }

    async fn deliver(&self, out: &dyn Connector) -> f64 {
        self.empty().await;
        let started = Instant::now();
        stream::iter(&self.batches)
            .for_each_concurrent(AT_ONCE, |batch| async {
                assert!(out.deliver(batch).await.unwrap().iter().all(|verdict| *verdict == Verdict::Delivered));
            })
            .await;
        self.rate(started).await
    }

    async fn bare(&self) -> f64 {
        self.empty().await;
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let target = format!("{}/_bulk?filter_path=errors", self.search.url());
        let started = Instant::now();
        stream::iter(&self.bodies)
            .for_each_concurrent(AT_ONCE, |body| async {
                let request = client.post(&target).header("content-type", "application/x-ndjson").body(body.clone());
                let request = if self.gzip { request.header("content-encoding", "gzip") } else { request };
                let answer = request.send().await.unwrap().bytes().await.unwrap();
                let answer: Value = serde_json::from_slice(&answer).unwrap();
                assert_eq!(answer["errors"], false);
            })
            .await;
        self.rate(started).await
    }

    async fn run(&self) {
        let bytes: usize = self.bodies.iter().map(Bytes::len).sum();
        println!("gzip {}: {} requests of {} KB", self.gzip, self.bodies.len(), bytes / self.bodies.len() / 1000);
        println!("turn  bare docs/s  connector docs/s  ratio  connector's CPU us/doc");
        let out = self.connector(&self.search.url());
        let (mut ratios, mut rates) = (Vec::new(), Vec::new());
        for turn in 0..TURNS {
            // Whoever comes second finds a busier server: take turns at that, too.
            let before = if turn % 2 == 0 { Some(self.bare().await) } else { None };
            let spent = cpu();
            let ours = self.deliver(&*out).await;
            let spent = (cpu() - spent).as_secs_f64() * 1e6 / DOCUMENTS as f64;
            let bare = match before {
                Some(bare) => bare,
                None => self.bare().await,
            };
            println!("{turn:4}  {bare:11.0}  {ours:16.0}  {:5.2}  {spent:6.1}", ours / bare);
            if turn >= WARM {
                ratios.push(ours / bare);
                rates.push(ours);
            }
        }
        println!("median: {:.0} documents/s, ratio {:.2}", median(rates), median(ratios));
        for turns in [1, LONG] {
            let long = async {
                for _ in 0..turns {
                    self.deliver(&*out).await;
                }
            };
            let ((), most) = watched(long).await;
            println!("{:7} documents: {:.1} MB resident at most", turns * DOCUMENTS, most as f64 / 1e3);
        }
    }
}

#[tokio::main]
async fn main() {
    let says = |word: &str| std::env::args().any(|one| one == word);
    let options = SearchOptions { fast: true, ..SearchOptions::default() };
    let search =
        if says("opensearch") { Search::opensearch(options).await } else { Search::elasticsearch(options).await };
    Bench::new(search, !says("plain")).await.run().await;
}
