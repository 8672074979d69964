//! Clients that do the same three hops and nothing else: intake, task, result. What they publish is packed as the fleet packs
//! it, and as large; each hop is confirmed before the one before it is acknowledged. As in the fleet, whoever moves messages
//! on is a process of its own.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use stoq_api::queue::{Deliveries, Delivery, LaneOptions, Message, Prefetch, Queue};

use crate::fleet::{Broker, Kind};
use crate::load::Load;
use crate::rig::{broker, process_of, publish_at};
use crate::usage::{self, Run};

/// Messages that each client holds; the fleet's worker with two slots holds as many.
const PREFETCH: u32 = 64;
/// Messages of the intake that are held, as by the fleet's provider.
const INTAKE: u32 = 256;
/// Messages that are published in one call by the generator.
const PUBLISH: usize = 100;
/// Messages under way when one goes out that is not full.
const EAGER: usize = stoq_engine::intake::EAGER_IN_FLIGHT;
/// Messages in one packed one, and its bytes, as the fleet has it.
const ITEMS: usize = stoq_engine::lanes::BATCH_ITEMS;
const BYTES: usize = stoq_engine::lanes::BATCH_BYTES;

/// Where a process of a hop is told which.
const HOP: &str = "FLEET_HOP";
/// What it says once it takes messages.
const READY: &str = "ready";
/// What the queues' names begin with.
const PREFIX: &str = "bare";

/// How large the fleet's messages are, in bytes a payload.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Sizes {
    /// What a task has beside its payload.
    pub(crate) header: usize,
    /// A response.
    pub(crate) response: usize,
}

/// One of the two hops, and what it needs to know.
#[derive(Serialize, Deserialize)]
struct Hop {
    broker: String,
    options: Map<String, Value>,
    step: Step,
    sizes: Sizes,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum Step {
    /// From the intake to the tasks.
    Provide,
    /// From the tasks to the results.
    Work,
}

/// Does what a hop does, if this process was started for one, until it is killed.
pub(crate) async fn hop_if_asked() {
    let Ok(text) = std::env::var(HOP) else { return };
    let Hop { broker, options, step, sizes } = serde_json::from_str(&text).unwrap();
    let registration = match broker.as_str() {
        "kafka" => stoq_kafka::registration(),
        "pubsub" => stoq_pubsub::registration(),
        _ => stoq_rabbitmq::registration(),
    };
    let broker = (registration.open)(&options).unwrap();
    let lane = |name: &str| broker.lane(name, LaneOptions::default());
    let (from, to, messages): (_, _, u32) = match step {
        Step::Provide => ("intake", "tasks", INTAKE),
        Step::Work => ("tasks", "results", PREFETCH),
    };
    let deliveries = lane(from).subscribe("next", Prefetch { messages }).await.unwrap();
    println!("{READY}");
    let measure = move |packed: &[Delivery]| {
        let count = packed.iter().map(|delivery| items(&delivery.message)).sum::<usize>();
        let bytes = match step {
            Step::Provide => packed.iter().map(|delivery| delivery.message.body.len() + sizes.header).sum(),
            Step::Work => count * sizes.response,
        };
        (bytes, count)
    };
    hop(deliveries, lane(to), measure).await;
}

/// A hop's process. Dropping it kills it.
struct Mover(Child);

impl Mover {
    fn start(broker: &Broker, step: Step, sizes: Sizes) -> Self {
        let (kind, options) = broker.options(PREFIX);
        let Value::Object(options) = options else { panic!("options are an object") };
        let hop = Hop { broker: kind.to_owned(), options, step, sizes };
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(HOP, serde_json::to_string(&hop).unwrap()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said.trim_end(), READY, "a hop does not start");
        Self(child)
    }
}

impl Drop for Mover {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

struct Chain {
    /// Kept until the end: what is measured runs on it.
    broker: Broker,
    process: Option<u32>,
    intake: Arc<dyn Queue>,
    results: Box<dyn Deliveries>,
    hops: [Mover; 2],
}

impl Chain {
    async fn start(kind: Kind, sizes: Sizes) -> Self {
        let mut broker = broker(kind).await;
        let process = process_of(&mut broker);
        // Generator and sink have connections of their own, too.
        let lane = async |name: &str| {
            let lane = broker.client(PREFIX).lane(name, LaneOptions::default());
            lane.declare(&["next"]).await.unwrap();
            lane
        };
        let intake = lane("intake").await;
        lane("tasks").await;
        let results = lane("results").await.subscribe("next", Prefetch { messages: PREFETCH }).await.unwrap();
        let hops = [Step::Provide, Step::Work].map(|step| Mover::start(&broker, step, sizes));
        Self { broker, process, intake, results, hops }
    }

    fn cpu(&self) -> BTreeMap<&'static str, f64> {
        let [provider, worker] = &self.hops;
        let mut all = BTreeMap::from([
            ("provider", usage::cpu(provider.0.id())),
            ("worker", usage::cpu(worker.0.id())),
            // Its children are the others.
            ("generator and sink", usage::own()),
        ]);
        all.extend(self.process.map(|process| ("broker", usage::cpu(process))));
        all
    }

    async fn end(self) {
        drop((self.hops, self.results, self.intake, self.broker));
    }
}

/// How many payloads a message stands for.
fn items(message: &Message) -> usize {
    message.header("items").map_or(1, |items| items.parse().unwrap())
}

/// Moves messages on: whatever is ready goes out as one, confirmed, and is then acknowledged. Many are under way at once; as in
/// the fleet only few of them went out before they were full. `measure` says how many bytes messages become, and how many payloads
/// they stand for.
async fn hop(mut from: Box<dyn Deliveries>, to: Arc<dyn Queue>, measure: impl Fn(&[Delivery]) -> (usize, usize)) {
    let mut under_way = FuturesUnordered::new();
    let mut taken: Vec<Delivery> = Vec::new();
    loop {
        let full = measure(&taken).1 >= ITEMS || measure(&taken).0 >= BYTES;
        tokio::select! {
            biased;
            Some(()) = under_way.next(), if !under_way.is_empty() => {}
            next = from.next(), if !full => taken.push(next.unwrap().unwrap()),
            // Nothing more is ready.
            () = std::future::ready(()), if full || (!taken.is_empty() && under_way.len() < EAGER) => {
                let packed = std::mem::take(&mut taken);
                let (bytes, count) = measure(&packed);
                // The first payload's name is what its way is timed by.
                let mut message = Message::new(packed[0].message.id.clone(), Bytes::from(vec![b'x'; bytes]));
                message.headers.push(("items".to_owned(), count.to_string()));
                let to = Arc::clone(&to);
                under_way.push(async move {
                    to.publish(vec![message]).await.unwrap();
                    for delivery in packed {
                        delivery.ack().await.unwrap();
                    }
                });
            }
        }
    }
}

/// As many payloads as a turn of the fleet has, as fast as they go.
pub(crate) async fn run(kind: Kind, payloads: usize, sizes: Sizes) -> Run {
    let mut chain = Chain::start(kind, sizes).await;
    let (begun, before) = (Instant::now(), chain.cpu());
    let intake = Arc::clone(&chain.intake);
    let generator = tokio::spawn(async move {
        for start in (0..payloads).step_by(PUBLISH) {
            let messages = (start..payloads.min(start + PUBLISH)).map(|n| Load::Singles.message(n)).collect();
            intake.publish(messages).await.unwrap();
        }
    });
    let mut come = 0;
    while come < payloads {
        let delivery = chain.results.next().await.unwrap().unwrap();
        come += items(&delivery.message);
        delivery.ack().await.unwrap();
    }
    let time = begun.elapsed();
    generator.await.unwrap();
    let after = chain.cpu();
    let cpu = after.iter().map(|(name, after)| (*name, after - before[name])).collect();
    chain.end().await;
    Run { references: payloads, payloads, time, cpu }
}

/// How long each payload took, in milliseconds, as they came.
pub(crate) async fn times(kind: Kind, payloads: usize, rate: f64, sizes: Sizes) -> Vec<f64> {
    let mut chain = Chain::start(kind, sizes).await;
    let begun = tokio::time::Instant::now();
    let due = move |n: usize| begun + Duration::from_secs_f64(n as f64 / rate);
    let generator = tokio::spawn(publish_at(Arc::clone(&chain.intake), payloads, due, |n| n.to_string()));
    let (mut come, mut took) = (0, Vec::with_capacity(payloads));
    while come < payloads {
        let delivery = chain.results.next().await.unwrap().unwrap();
        come += items(&delivery.message);
        // Of several in one message the first has waited longest.
        let first: usize = delivery.message.id.parse().unwrap();
        took.push(due(first).elapsed().as_secs_f64() * 1e3);
        delivery.ack().await.unwrap();
    }
    generator.await.unwrap();
    chain.end().await;
    took
}
