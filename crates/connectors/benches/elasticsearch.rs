//! Documents a second into a real server, through the connector and by bare loops of the same requests.
//!
//! What bare loops post is what was seen of the connector: the same documents to the same targets, in as many requests, and
//! as many of them at a time. One loop has the bodies compressed beforehand, so that it does nothing but send. The other
//! compresses them as it goes, which nobody who has documents gets around. Each turn of each side fills an empty index of
//! the same name, and sides take turns. What is compared is therefore what making (and compressing) documents, judging
//! answers and keeping count cost, on a machine where the server has to do without what the client takes.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark talks to a person, and stops at a surprise")]

#[path = "common/mod.rs"]
mod common;

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{BATCH, PAYLOADS, batches, connector, cpu, median, watched};
use flate2::Compression;
use flate2::write::GzEncoder;
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
const TURNS: usize = 26;
const WARM: usize = 5;
/// Turns in a row while memory is looked at.
const LONG: usize = 4;
/// Batches at a time, as the connector has them by default, and requests, since each batch is one.
const AT_ONCE: usize = 4;
/// As the connector compresses.
const GZIP_LEVEL: u32 = 1;
const INDEX: &str = "bench-2026.01";

/// Who sends.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    /// A loop over bodies that are compressed already.
    Bare,
    /// A loop that compresses them.
    Packs,
    Connector,
}

const SIDES: [Side; 3] = [Side::Bare, Side::Connector, Side::Packs];

/// A request as it was seen.
struct Posted {
    target: String,
    /// As it was on the wire.
    body: Bytes,
    /// Before it was compressed.
    plain: Bytes,
}

struct Bench {
    search: Search,
    batches: Vec<Vec<Item>>,
    posted: Vec<Posted>,
    gzip: bool,
}

impl Bench {
    async fn new(search: Search, gzip: bool) -> Self {
        let mut bench = Self { search, batches: batches(BATCHES), posted: Vec::new(), gzip };
        let port = bench.search.port();
        let front = HttpFront::start(Some(([127, 0, 0, 1], port).into())).await;
        let out = bench.connector(&front.url(), false);
        out.setup(true).await.unwrap();
        bench.empty().await;
        bench.deliver(&*out).await;
        for one in front.seen().into_iter().filter(|one| one.target.starts_with("/_bulk")) {
            let packed = if gzip { packed(one.body.clone()).await } else { one.body.clone() };
            bench.posted.push(Posted { target: one.target, body: packed, plain: one.body });
        }
        bench
    }

    fn connector(&self, url: &str, gzip: bool) -> Arc<dyn Connector> {
        let options = json!({ "nodes": [url], "index": "bench-%Y.%m", "replicas": 0, "gzip": gzip });
        connector("elasticsearch", &options)
    }

    /// An index without a document, settled after what went before.
    async fn empty(&self) {
        let (status, _) = self.search.ask("DELETE", &format!("/{INDEX}"), "").await;
        assert!(status == 200 || status == 404);
        let (status, _) = self.search.ask("PUT", &format!("/{INDEX}"), "").await;
        assert_eq!(status, 200);
    }

    /// Checks that all came.
    async fn all_came(&self) {
        self.search.ask("POST", &format!("/{INDEX}/_refresh"), "").await;
        let (_, answer) = self.search.ask("GET", &format!("/{INDEX}/_count"), "").await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["count"], DOCUMENTS, "each document is there");
    }

    async fn deliver(&self, out: &dyn Connector) {
        stream::iter(&self.batches)
            .for_each_concurrent(AT_ONCE, |batch| async {
                assert!(out.deliver(batch).await.unwrap().iter().all(|verdict| *verdict == Verdict::Delivered));
            })
            .await;
    }

    async fn post(&self, packs: bool) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let (client, url) = (&client, self.search.url());
        stream::iter(&self.posted)
            .for_each_concurrent(AT_ONCE, |Posted { target, body, plain }| {
                let request = client.post(format!("{url}{target}")).header("content-type", "application/x-ndjson");
                let request = if self.gzip { request.header("content-encoding", "gzip") } else { request };
                async move {
                    let body = if packs && self.gzip { packed(plain.clone()).await } else { body.clone() };
                    let answer = request.body(body).send().await.unwrap().bytes().await.unwrap();
                    let answer: Value = serde_json::from_slice(&answer).unwrap();
                    assert_eq!(answer["errors"], false);
                }
            })
            .await;
    }

    /// One turn of one side: documents a second, and what it took of the processor for each, in microseconds.
    async fn turn(&self, side: Side, out: &dyn Connector) -> (f64, f64) {
        self.empty().await;
        let (started, spent) = (Instant::now(), cpu());
        match side {
            Side::Bare => self.post(false).await,
            Side::Packs => self.post(true).await,
            Side::Connector => self.deliver(out).await,
        }
        let (took, spent) = (started.elapsed(), cpu() - spent);
        self.all_came().await;
        let each = |time: Duration| time.as_secs_f64() / DOCUMENTS as f64;
        (1.0 / each(took), each(spent) * 1e6)
    }

    async fn run(&self) {
        let bytes = |of: fn(&Posted) -> usize| self.posted.iter().map(of).sum::<usize>() / self.posted.len() / 1000;
        let (wire, plain) = (bytes(|one| one.body.len()), bytes(|one| one.plain.len()));
        println!("gzip {}: {} requests of {wire} KB ({plain} KB), {AT_ONCE} at a time", self.gzip, self.posted.len());
        println!("        documents/s               CPU us/document           connector to");
        println!("turn    bare   packs  connector    bare   packs  connector    bare   packs");
        let out = self.connector(&self.search.url(), self.gzip);
        let (mut to_bare, mut to_packs, mut rates) = (Vec::new(), Vec::new(), Vec::new());
        for turn in 0..TURNS {
            let mut told = [(0.0, 0.0); SIDES.len()];
            // Whoever comes later finds a busier server: take turns at that, too.
            for place in 0..SIDES.len() {
                let place = (place + turn) % SIDES.len();
                told[place] = self.turn(SIDES[place], &*out).await;
            }
            let [(bare, bare_cpu), (ours, ours_cpu), (packs, packs_cpu)] = told;
            println!(
                "{turn:4}  {bare:6.0}  {packs:6.0}  {ours:9.0}  {bare_cpu:6.1}  {packs_cpu:6.1}  {ours_cpu:9.1}  {:6.2}  {:6.2}",
                ours / bare,
                ours / packs
            );
            if turn >= WARM {
                to_bare.push(ours / bare);
                to_packs.push(ours / packs);
                rates.push(ours);
            }
        }
        let (rate, bare, packs) = (median(rates), median(to_bare), median(to_packs));
        println!(
            "median: {rate:.0} documents/s, ratio {bare:.2} to the bare loop, {packs:.2} to the one that compresses"
        );
        for turns in [1, LONG] {
            let long = async {
                for _ in 0..turns {
                    self.turn(Side::Connector, &*out).await;
                }
            };
            let ((), most) = watched(long).await;
            println!("{:7} documents: {:.1} MB resident at most", turns * DOCUMENTS, most as f64 / 1e3);
        }
    }
}

async fn packed(plain: Bytes) -> Bytes {
    let packed = tokio::task::spawn_blocking(move || {
        let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::new(GZIP_LEVEL));
        encoder.write_all(&plain).unwrap();
        encoder.finish().unwrap()
    });
    packed.await.unwrap().into()
}

#[tokio::main]
async fn main() {
    let says = |word: &str| std::env::args().any(|one| one == word);
    let options = SearchOptions { fast: true, ..SearchOptions::default() };
    let search =
        if says("opensearch") { Search::opensearch(options).await } else { Search::elasticsearch(options).await };
    Bench::new(search, !says("plain")).await.run().await;
}
