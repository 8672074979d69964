//! What a lane costs beside the client library alone, on Google's fake: published, delivered and acknowledged.
//!
//! `cargo bench -p stoq-pubsub`. The fake hands out at most one message a stream every few milliseconds, so only this
//! process's CPU time says something of reading; of publishing the wall time does, too.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark ends at the first error, and prints")]

use std::time::{Duration, Instant};

use futures::future::try_join_all;
use google_cloud_auth::credentials::anonymous;
use google_cloud_pubsub::client::{BasePublisher, Subscriber};
use google_cloud_pubsub::model;
use rustix::time::ClockId;
use serde_json::json;
use stoq_api::queue::{LaneOptions, Message, Prefetch, Queue};
use stoq_testkit::services::PubSub;

const BODY: usize = 12 << 10;
const COUNT: usize = 4_000;
/// Messages of one call of `publish`, and as many a reader holds.
const AT_ONCE: usize = 200;
const ROUNDS: usize = 3;

fn cpu() -> Duration {
    rustix::time::clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap()
}

/// Microseconds a message: wall time, and CPU time of this process.
async fn measure(work: impl Future) -> (f64, f64) {
    let (start, cpu_start) = (Instant::now(), cpu());
    work.await;
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / COUNT as f64;
    (micros(start.elapsed()), micros(cpu() - cpu_start))
}

async fn publish(queue: &dyn Queue) {
    for batch in 0..COUNT / AT_ONCE {
        let message = |n| Message::new(format!("{batch}/{n}"), vec![7; BODY]);
        queue.publish((0..AT_ONCE).map(message).collect()).await.unwrap();
    }
}

async fn consume(queue: &dyn Queue) {
    let mut deliveries = queue.subscribe("s", Prefetch { messages: u32::try_from(AT_ONCE).unwrap() }).await.unwrap();
    for _ in 0..COUNT {
        deliveries.next().await.unwrap().unwrap().ack().await.unwrap();
    }
}

async fn publish_bare(host: &str, topic: &str) {
    let endpoint = format!("http://{host}");
    let credentials = anonymous::Builder::new().build();
    let base = BasePublisher::builder().with_endpoint(endpoint).with_credentials(credentials).build().await.unwrap();
    let publisher = base.publisher(topic).set_message_count_threshold(500).build();
    for batch in 0..COUNT / AT_ONCE {
        let message =
            |n| model::Message::new().set_data(vec![7; BODY]).set_attributes([("stoq-id", format!("{batch}/{n}"))]);
        try_join_all((0..AT_ONCE).map(|n| publisher.publish(message(n)))).await.unwrap();
    }
}

async fn consume_bare(host: &str, subscription: &str) {
    let endpoint = format!("http://{host}");
    let credentials = anonymous::Builder::new().build();
    let client = Subscriber::builder().with_endpoint(endpoint).with_credentials(credentials).build().await.unwrap();
    let most = i64::try_from(AT_ONCE).unwrap();
    let mut stream = client.subscribe(subscription).set_max_outstanding_messages(most).build();
    for _ in 0..COUNT {
        let (_message, handler) = stream.next().await.unwrap().unwrap();
        handler.ack();
    }
    stream.shutdown_token().shutdown().await;
}

#[tokio::main]
async fn main() {
    let server = PubSub::start().await;
    let options = json!({"project": "bench", "emulator_host": server.host()});
    let broker = (stoq_pubsub::registration().open)(options.as_object().unwrap()).unwrap();
    println!("{COUNT} messages of {BODY} bytes, {AT_ONCE} at once, µs a message: wall (CPU of this process)");
    for round in 0..ROUNDS {
        for (what, name) in [("lane", format!("lane{round}")), ("client alone", format!("bare{round}"))] {
            let queue = broker.lane(&name, LaneOptions::default());
            queue.declare(&["s"]).await.unwrap();
            let (topic, subscription) =
                (format!("projects/bench/topics/{name}"), format!("projects/bench/subscriptions/{name}.s"));
            let (published, consumed) = if what == "lane" {
                (measure(publish(&*queue)).await, measure(consume(&*queue)).await)
            } else {
                let published = measure(publish_bare(&server.host(), &topic)).await;
                (published, measure(consume_bare(&server.host(), &subscription)).await)
            };
            let show = |(wall, cpu): (f64, f64)| format!("{wall:6.0} ({cpu:4.0})");
            println!("{what:12}: publish {}, deliver and acknowledge {}", show(published), show(consumed));
        }
    }
    broker.close().await;
}
