//! Clients that do the same three hops and nothing else: intake, task, result. What they publish is packed as the fleet packs
//! it, and as large; each hop is confirmed before the one before it is acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use stoq_api::queue::{Deliveries, Delivery, LaneOptions, Message, Prefetch, Queue};
use tokio::task::JoinHandle;

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

/// How large the fleet's messages are, in bytes a payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// What a task has beside its payload.
    pub(crate) header: usize,
    /// A response.
    pub(crate) response: usize,
}

struct Chain {
    /// Kept until the end: what is measured runs on it.
    broker: Broker,
    process: Option<u32>,
    intake: Arc<dyn Queue>,
    results: Box<dyn Deliveries>,
    hops: [JoinHandle<()>; 2],
}

impl Chain {
    async fn start(kind: Kind, sizes: Sizes) -> Self {
        let mut broker = broker(kind).await;
        let process = process_of(&mut broker);
        // Each hop has connections of its own, as processes have.
        let lane = async |name: &str| {
            let lane = broker.client("bare").lane(name, LaneOptions::default());
            lane.declare(&["next"]).await.unwrap();
            lane
        };
        let intake = lane("intake").await;
        let tasks = lane("tasks").await;
        let results = lane("results").await;
        let prefetch = Prefetch { messages: PREFETCH };
        let from_intake = lane("intake").await.subscribe("next", Prefetch { messages: INTAKE }).await.unwrap();
        let from_tasks = lane("tasks").await.subscribe("next", prefetch).await.unwrap();
        let from_results = lane("results").await.subscribe("next", prefetch).await.unwrap();
        let provide = tokio::spawn(hop(
            from_intake,
            tasks,
            Box::new(move |packed: &[Delivery]| {
                let bytes = packed.iter().map(|delivery| delivery.message.body.len() + sizes.header).sum();
                (bytes, packed.len())
            }),
        ));
        let work = tokio::spawn(hop(
            from_tasks,
            results,
            Box::new(move |packed: &[Delivery]| {
                let count = packed.iter().map(|delivery| items(&delivery.message)).sum::<usize>();
                (count * sizes.response, count)
            }),
        ));
        Self { broker, process, intake, results: from_results, hops: [provide, work] }
    }

    fn cpu(&self) -> BTreeMap<&'static str, f64> {
        let broker = self.process.map(|process| ("broker", usage::cpu(process)));
        broker.into_iter().chain([("clients", usage::own())]).collect()
    }

    async fn end(self) {
        self.hops.iter().for_each(JoinHandle::abort);
        drop((self.results, self.intake, self.broker));
    }
}

/// How many payloads a message stands for.
fn items(message: &Message) -> usize {
    message.header("items").map_or(1, |items| items.parse().unwrap())
}

/// Bytes of messages, and how many payloads they stand for.
type Measure = Box<dyn Fn(&[Delivery]) -> (usize, usize) + Send>;

/// Moves messages on: whatever is ready goes out as one, confirmed, and is then acknowledged. Many are under way at once; as in
/// the fleet only few of them went out before they were full.
async fn hop(mut from: Box<dyn Deliveries>, to: Arc<dyn Queue>, measure: Measure) {
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
