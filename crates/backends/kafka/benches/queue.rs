//! What a lane costs beside the bare client with the same settings: CPU time of this process, per message.
//!
//! `cargo bench -p stoq-kafka` starts a broker of its own. Wall time is that of the broker as well, on the same cores.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark ends at the first error, and prints")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use rustix::time::ClockId;
use serde_json::{Value, json};
use stoq_api::queue::{LaneOptions, Message, Prefetch, Queue};
use stoq_testkit::services::{Kafka, KafkaOptions};
use tokio::task::JoinSet;

const BODY: usize = 12 << 10;
const COUNT: usize = 20_000;
const AT_ONCE: usize = 512;
const PARTITIONS: i32 = 6;
/// Each figure is the median of so many.
const ROUNDS: usize = 3;

fn cpu() -> Duration {
    rustix::time::clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap()
}

/// Wall and CPU time a message, in microseconds.
async fn measure(work: impl Future<Output = ()>) -> (f64, f64) {
    let (start, cpu_start) = (Instant::now(), cpu());
    work.await;
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / COUNT as f64;
    (micros(start.elapsed()), micros(cpu() - cpu_start))
}

async fn lane_publishes(queue: &Arc<dyn Queue>) {
    let mut callers = JoinSet::new();
    for caller in 0..AT_ONCE {
        let queue = Arc::clone(queue);
        callers.spawn(async move {
            for n in (caller..COUNT).step_by(AT_ONCE) {
                queue.publish(vec![Message::new(n.to_string(), vec![n as u8; BODY])]).await.unwrap();
            }
        });
    }
    callers.join_all().await;
}

async fn lane_consumes(queue: &Arc<dyn Queue>) {
    let mut deliveries = queue.subscribe("s", Prefetch { messages: AT_ONCE as u32 }).await.unwrap();
    for _ in 0..COUNT {
        deliveries.next().await.unwrap().unwrap().ack().await.unwrap();
    }
}

async fn bare_publishes(producer: &FutureProducer) {
    let mut callers = JoinSet::new();
    for caller in 0..AT_ONCE {
        let producer = producer.clone();
        callers.spawn(async move {
            for n in (caller..COUNT).step_by(AT_ONCE) {
                let (id, body) = (n.to_string(), vec![n as u8; BODY]);
                let headers = OwnedHeaders::new().insert(Header { key: "stoq-id", value: Some(&id) });
                let record = FutureRecord::<(), _>::to("bench.bare").payload(&body).headers(headers);
                producer.send(record, Timeout::Never).await.map_err(|(e, _)| e).unwrap();
            }
        });
    }
    callers.join_all().await;
}

/// Stores each offset after its record was copied, and lets the client commit once in a while.
fn bare_consumes(address: &str) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("group.id", "bare").set("auto.offset.reset", "earliest");
    config.set("enable.auto.offset.store", "false").set("partition.assignment.strategy", "cooperative-sticky");
    config.set("auto.commit.interval.ms", "50").set("queued.max.messages.kbytes", "16384");
    let consumer: BaseConsumer = config.create().unwrap();
    consumer.subscribe(&["bench.bare"]).unwrap();
    for _ in 0..COUNT {
        let message = consumer.poll(Timeout::Never).unwrap().unwrap();
        drop(message.detach());
        consumer.store_offset_from_message(&message).unwrap();
    }
}

fn show(what: &str, mut lane: Vec<(f64, f64)>, mut bare: Vec<(f64, f64)>) {
    let median = |all: &mut Vec<(f64, f64)>| {
        all.sort_by(|a, b| a.1.total_cmp(&b.1));
        all[all.len() / 2]
    };
    let (lane, bare) = (median(&mut lane), median(&mut bare));
    println!(
        "{what}: lane {:.0} µs CPU ({:.0} wall), bare client {:.0} µs CPU ({:.0} wall), ratio {:.2}",
        lane.1,
        lane.0,
        bare.1,
        bare.0,
        lane.1 / bare.1
    );
}

#[tokio::main]
async fn main() {
    let server = Kafka::start_with(KafkaOptions { fast: true, ..KafkaOptions::default() }).await;
    let Value::Object(options) = json!({
        "servers": [server.address()], "prefix": "bench", "partitions": PARTITIONS, "replication": 1, "min_insync": 1,
    }) else {
        return;
    };
    let broker = (stoq_kafka::registration().open)(&options).unwrap();
    let lane = broker.lane("lane", LaneOptions::default());
    lane.declare(&["s"]).await.unwrap();
    broker.lane("bare", LaneOptions::default()).declare(&[]).await.unwrap();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", server.address()).set("enable.idempotence", "true").set("acks", "all");
    config.set("linger.ms", "5").set("queue.buffering.max.kbytes", "131072");
    let producer: FutureProducer = config.create().unwrap();
    let mut figures = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        figures[0].push(measure(lane_publishes(&lane)).await);
        figures[1].push(measure(bare_publishes(&producer)).await);
        figures[2].push(measure(lane_consumes(&lane)).await);
        let address = server.address();
        let bare = async { tokio::task::spawn_blocking(move || bare_consumes(&address)).await.unwrap() };
        figures[3].push(measure(bare).await);
    }
    let [publish, bare_publish, consume, bare_consume] = figures;
    println!("{BODY} bytes a message, {AT_ONCE} at once, {PARTITIONS} partitions, median of {ROUNDS}");
    show("publish", publish, bare_publish);
    show("consume and acknowledge", consume, bare_consume);
    broker.close().await;
}
