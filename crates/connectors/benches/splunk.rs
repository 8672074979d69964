//! Documents a second into a strict event collector, through the connector and by a bare loop of the same requests.
//!
//! The collector is a process of its own on a core of its own, and the senders have the others, as sinks and connectors have
//! machines of their own: our collector does for an event hardly more than to read it, so on shared cores the comparison
//! would be about who gets them. What the bare loop posts is what it saw of the connector: the same bytes, compressed
//! already, in the same requests, and as many of them at a time. With acknowledgement it asks for each as the connector
//! does. `shared` leaves both all cores.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark talks to a person, and stops at a surprise")]

#[path = "common/mod.rs"]
mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{BATCH, PAYLOADS, batches, connector, cpu, median, watched};
use futures::stream::{self, StreamExt as _};
use parking_lot::Mutex;
use serde_json::{Value, json};
use stoq_api::plugin::{Connector, Item, Verdict};
use stoq_testkit::front::HttpFront;
use stoq_testkit::services::cores::{self, Cores};
use stoq_testkit::services::hec::{HecServer, Options, Token};
use tokio::time::sleep;
use uuid::Uuid;

/// Batches that are made; a turn sends them several times over.
const BATCHES: usize = 12;
/// How often a turn sends them, and how often a long one does, to see whether memory grows.
const PASSES: usize = 4;
const LONG: usize = 16;
/// Turns of each side; the first ones are not counted.
const TURNS: usize = 12;
const WARM: usize = 2;
/// Batches at a time: the connector's default.
const AT_ONCE: usize = 8;
/// Requests of one batch at a time: the same.
const REQUESTS: usize = 4;
/// The wait before the first question for an acknowledgement, as the connector's.
const FIRST_QUESTION: Duration = Duration::from_millis(25);
/// What says that a process is the collector's.
const SERVER: &str = "--server";
/// What says that nobody has a core of its own.
const SHARED: &str = "shared";
/// How often the collector's process empties its indexes.
const EMPTY: Duration = Duration::from_millis(20);

/// The collector's process. It ends with its standard input.
struct Server {
    child: Child,
    asked: ChildStdin,
    answers: BufReader<ChildStdout>,
    url: String,
}

impl Server {
    fn start() -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(std::env::args().skip(1)).arg(SERVER);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (asked, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut server = Self { child, asked, answers, url: String::new() };
        server.url = server.line();
        server
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Events that were indexed since this was asked last.
    fn taken(&mut self) -> usize {
        writeln!(self.asked, "taken").unwrap();
        self.line().parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What the process of the collector does.
async fn serve() {
    let server = HecServer::start(Options::new(vec![Token::new("acks", true), Token::new("takes", false)])).await;
    println!("{}", server.url());
    let (line, mut lines) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || {
        for one in std::io::stdin().lines() {
            one.unwrap();
            line.blocking_send(()).unwrap();
        }
    });
    let mut taken = 0;
    loop {
        tokio::select! {
            asked = lines.recv() => {
                if asked.is_none() {
                    return;
                }
                println!("{}", taken + server.clear());
                taken = 0;
            }
            () = sleep(EMPTY) => taken += server.clear(),
        }
    }
}

/// One side of the comparison.
struct Bench {
    server: Server,
    batches: Vec<Vec<Item>>,
    bodies: Vec<Bytes>,
    acknowledge: bool,
}

impl Bench {
    async fn new(server: Server, acknowledge: bool) -> Self {
        let mut bench = Self { server, batches: batches(BATCHES), bodies: Vec::new(), acknowledge };
        bench.bodies = bench.recorded().await;
        bench
    }

    fn token(&self) -> &'static str {
        if self.acknowledge { "acks" } else { "takes" }
    }

    fn connector(&self, url: &str) -> std::sync::Arc<dyn Connector> {
        connector("splunk", &json!({ "urls": [url], "token": self.token(), "acknowledge": self.acknowledge }))
    }

    /// What the connector posts.
    async fn recorded(&mut self) -> Vec<Bytes> {
        let port: u16 = self.server.url.rsplit(':').next().unwrap().parse().unwrap();
        let front = HttpFront::start(Some(([127, 0, 0, 1], port).into())).await;
        let out = self.connector(&front.url());
        self.deliver(&*out, 1).await;
        let posted = front.seen().into_iter().filter(|one| one.target.ends_with("/event"));
        posted
            .inspect(|one| assert!(one.headers.contains(&("content-encoding".into(), "gzip".into()))))
            .map(|one| one.body)
            .collect()
    }

    /// Checks that all came.
    fn told(&mut self, passes: usize, started: Instant, spent: Duration) -> (f64, f64) {
        let (took, spent) = (started.elapsed(), cpu() - spent);
        let documents = passes * BATCHES * BATCH * PAYLOADS;
        assert_eq!(self.server.taken(), documents, "each document is there");
        (documents as f64 / took.as_secs_f64(), spent.as_secs_f64() * 1e6 / documents as f64)
    }

    /// Documents a second, and what each took of the sender's processor, in microseconds.
    async fn deliver(&mut self, out: &dyn Connector, passes: usize) -> (f64, f64) {
        let (started, spent) = (Instant::now(), cpu());
        let all = (0..passes).flat_map(|_| &self.batches);
        stream::iter(all)
            .for_each_concurrent(AT_ONCE, |batch| async {
                assert!(out.deliver(batch).await.unwrap().iter().all(|verdict| *verdict == Verdict::Delivered));
            })
            .await;
        self.told(passes, started, spent)
    }

    /// The same of the bare loop.
    async fn bare(&mut self, passes: usize) -> (f64, f64) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let channels = Mutex::new(Vec::new());
        let (url, token) = (self.server.url.clone(), self.token());
        let (started, spent) = (Instant::now(), cpu());
        let post = async |target: &str, channel: Uuid, body: Bytes, packed: bool| -> Value {
            let request = client.post(format!("{url}{target}")).header("authorization", format!("Splunk {token}"));
            let request = request.header("x-splunk-request-channel", channel.to_string()).body(body);
            let request = if packed { request.header("content-encoding", "gzip") } else { request };
            serde_json::from_slice(&request.send().await.unwrap().bytes().await.unwrap()).unwrap()
        };
        let all = (0..passes).flat_map(|_| &self.bodies);
        stream::iter(all)
            .for_each_concurrent(AT_ONCE * REQUESTS, |body| async {
                let channel = channels.lock().pop().unwrap_or_else(Uuid::new_v4);
                let answer = post("/services/collector/event", channel, body.clone(), true).await;
                assert_eq!(answer["code"], 0);
                let number = &answer["ackId"];
                let mut open = self.acknowledge;
                while open {
                    sleep(FIRST_QUESTION).await;
                    let question = Bytes::from(format!("{{\"acks\":[{number}]}}"));
                    let told = post("/services/collector/ack", channel, question, false).await;
                    open = told["acks"][number.to_string()] != true;
                }
                channels.lock().push(channel);
            })
            .await;
        self.told(passes, started, spent)
    }

    async fn run(&mut self) {
        let said = if self.acknowledge { "with" } else { "without" };
        println!("{said} acknowledgement, {} requests of {BATCHES} batches", self.bodies.len());
        println!("        documents/s          CPU us/document");
        println!("turn    bare  connector      bare  connector  ratio");
        let url = self.server.url.clone();
        let (mut ratios, mut rates) = (Vec::new(), Vec::new());
        for turn in 0..TURNS {
            let out = self.connector(&url);
            // Whoever comes second may find another machine: take turns at that, too.
            let ((bare, bare_cpu), (ours, ours_cpu)) = if turn % 2 == 0 {
                let bare = self.bare(PASSES).await;
                (bare, self.deliver(&*out, PASSES).await)
            } else {
                let ours = self.deliver(&*out, PASSES).await;
                (self.bare(PASSES).await, ours)
            };
            println!("{turn:4}  {bare:6.0}  {ours:9.0}  {bare_cpu:8.1}  {ours_cpu:9.1}  {:5.2}", ours / bare);
            if turn >= WARM {
                ratios.push(ours / bare);
                rates.push(ours);
            }
        }
        println!("median: {:.0} documents/s, ratio {:.2}", median(rates), median(ratios));
        let out = self.connector(&url);
        for passes in [PASSES, LONG] {
            let (_, most) = watched(self.deliver(&*out, passes)).await;
            println!(
                "{:7} documents: {:.1} MB resident at most",
                passes * BATCHES * BATCH * PAYLOADS,
                most as f64 / 1e3
            );
        }
    }
}

fn main() {
    let says = |word: &str| std::env::args().any(|one| one == word);
    let collector = says(SERVER);
    // Threads that are made from now on have the same cores; collectors are started before.
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if collector {
        if !says(SHARED) {
            cores::take(Cores::Server);
        }
        return runtime().block_on(serve());
    }
    let servers = [true, false].map(|acknowledge| (Server::start(), acknowledge));
    if !says(SHARED) {
        cores::take(Cores::Others);
    }
    for (server, acknowledge) in servers {
        runtime().block_on(async { Bench::new(server, acknowledge).await.run().await });
    }
}
