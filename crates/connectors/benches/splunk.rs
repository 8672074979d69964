//! What the `splunk` connector costs beside the requests themselves: events a second through it, with acknowledgement,
//! against a loop that sends the same events, encoded beforehand, with as many requests open and the same questions.
//!
//! `cargo bench -p stoq-connectors --bench splunk`. The server runs in the same process and takes most of the time on both
//! sides. Rounds of both alternate, and the medians are compared; memory is that of the whole process after a round.
#![expect(clippy::unwrap_used, reason = "a measurement stops at the first surprise")]
#![expect(clippy::print_stdout, reason = "a measurement is printed")]

use std::fs;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use stoq_api::plugin::{Connector, Item, Verdict};
use stoq_connectors::{Context, registry};
use stoq_testkit::NoQueues;
use stoq_testkit::connector::response_with;
use stoq_testkit::services::hec::{HecServer, Options, Token};

/// Responses of a round, with two events each.
const RESPONSES: usize = 10_000;
/// Responses of a batch, as the frame makes them.
const BATCH: usize = 100;
/// Batches at a time.
const BATCHES: usize = 8;
/// Bytes of events in a request: the connector's default.
const REQUEST: usize = 1_000_000;
/// Rounds of each side.
const ROUNDS: usize = 9;
/// The connector's own first wait before it asks.
const ASK: Duration = Duration::from_millis(25);

#[tokio::main]
async fn main() {
    let server = HecServer::start(Options::new(vec![Token::new("bench", true)])).await;
    let items: Vec<Item> = (0..RESPONSES).map(|n| response_with(&format!("{n:>1000}"))).collect();
    let connector = connector(&server.url());
    through(&*connector, &items).await;
    let requests = requests(&server);
    let events = server.count();
    let bytes: usize = requests.iter().map(Vec::len).sum();
    println!("{events} events, {} KB packed in {} requests", bytes / 1000, requests.len());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let (mut ours, mut bare, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        server.clear();
        let begun = Instant::now();
        loop_of(&client, &server.url(), &requests).await;
        bare.push(begun.elapsed());
        assert_eq!(server.count(), events);
        server.clear();
        let begun = Instant::now();
        through(&*connector, &items).await;
        ours.push(begun.elapsed());
        assert_eq!(server.count(), events);
        server.clear();
        memory.push(resident());
    }
    let rate = |times: &mut Vec<Duration>| {
        times.sort();
        events as f64 / times[times.len() / 2].as_secs_f64()
    };
    let (ours, bare) = (rate(&mut ours), rate(&mut bare));
    println!("bare loop {bare:.0} events/s, connector {ours:.0} events/s: {:.2}", ours / bare);
    println!("resident after each round, MiB: {memory:?}");
}

fn connector(url: &str) -> Arc<dyn Connector> {
    let registration = registry().into_iter().find(|r| r.info.name == "splunk").unwrap();
    let options = json!({ "urls": [url], "token": "bench" });
    let context = Context { name: "bench".to_owned(), queues: Arc::new(NoQueues) };
    (registration.build)(options.as_object().unwrap(), &context).unwrap()
}

async fn through(connector: &dyn Connector, items: &[Item]) {
    let batches = items.chunks(BATCH).map(|batch| connector.deliver(batch));
    let mut going = stream::iter(batches).buffer_unordered(BATCHES);
    while let Some(verdicts) = going.next().await {
        assert!(verdicts.unwrap().iter().all(|verdict| *verdict == Verdict::Delivered));
    }
}

/// What the server took, as requests of the same size, packed.
fn requests(server: &HecServer) -> Vec<Vec<u8>> {
    let mut bodies = vec![String::new()];
    for event in server.indexed() {
        let time: Value = serde_json::from_str(&event.time.unwrap()).unwrap();
        let line = json!({
            "time": time, "source": event.source, "sourcetype": event.sourcetype, "event": event.event, "fields": event.fields,
        });
        let line = line.to_string();
        if bodies.last().unwrap().len() + line.len() > REQUEST.min(BATCH * 2 * line.len()) {
            bodies.push(String::new());
        }
        bodies.last_mut().unwrap().push_str(&line);
    }
    bodies.iter().map(|body| pack(body)).collect()
}

fn pack(body: &str) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(1));
    packer.write_all(body.as_bytes()).unwrap();
    packer.finish().unwrap()
}

async fn loop_of(client: &reqwest::Client, url: &str, requests: &[Vec<u8>]) {
    let sends = requests.iter().map(async |body| {
        let channel = uuid::Uuid::new_v4().to_string();
        let post = |path: &str| {
            let request = client.post(format!("{url}/services/collector/{path}"));
            request.header("authorization", "Splunk bench").header("x-splunk-request-channel", &channel)
        };
        let reply = post("event").header("content-encoding", "gzip").body(body.clone()).send().await.unwrap();
        let reply: Value = serde_json::from_slice(&reply.bytes().await.unwrap()).unwrap();
        let mut wait = ASK;
        loop {
            tokio::time::sleep(wait).await;
            wait *= 2;
            let asked = post("ack").body(json!({ "acks": [reply["ackId"]] }).to_string()).send().await.unwrap();
            if asked.text().await.unwrap().contains("true") {
                return;
            }
        }
    });
    stream::iter(sends).buffer_unordered(BATCHES).collect::<Vec<()>>().await;
}

/// MiB.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
}
