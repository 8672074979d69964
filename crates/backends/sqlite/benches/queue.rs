//! What a payload costs in the file: published, delivered and acknowledged, with more and more others waiting.
//!
//! `cargo bench -p stoq-sqlite -- [directory]`; the directory, by default a temporary one, decides which disk is
//! measured.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark ends at the first error, and prints")]

use std::env;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::ClockId;
use stoq_api::queue::{Message, Prefetch, Queue};
use stoq_sqlite::{Sqlite, SqliteOptions};
use tokio::task::JoinSet;

const BODY: usize = 12 << 10;
/// Messages that wait while others pass.
const WAITING: [usize; 3] = [1_000, 10_000, 100_000];
/// Messages that are measured at each depth.
const PASSING: usize = 6_000;
/// Callers that publish, and deliveries that are held, at the same time.
const AT_ONCE: [usize; 3] = [1, 32, 256];

async fn publish(queue: &Arc<dyn Queue>, count: usize, at_once: usize) {
    let mut callers = JoinSet::new();
    for caller in 0..at_once {
        let queue = Arc::clone(queue);
        callers.spawn(async move {
            for n in (caller..count).step_by(at_once) {
                queue.publish(vec![Message::new(n.to_string(), vec![n as u8; BODY])]).await.unwrap();
            }
        });
    }
    callers.join_all().await;
}

async fn consume(queue: &Arc<dyn Queue>, count: usize, at_once: usize) {
    let mut deliveries = queue.subscribe("s", Prefetch { messages: u32::try_from(at_once).unwrap() }).await.unwrap();
    let mut acks = JoinSet::new();
    for _ in 0..count {
        let delivery = deliveries.next().await.unwrap().unwrap();
        acks.spawn(async move { delivery.ack().await.unwrap() });
        if acks.len() >= at_once {
            acks.join_next().await.unwrap().unwrap();
        }
    }
    acks.join_all().await;
}

/// Wall time and this process's own CPU time, per message: on a busy machine only the second says something.
struct Cost {
    wall: Duration,
    cpu: Duration,
}

fn cpu() -> Duration {
    rustix::time::clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap()
}

async fn measure(count: usize, work: impl Future) -> String {
    let (start, cpu_start) = (Instant::now(), cpu());
    work.await;
    let cost = Cost { wall: start.elapsed(), cpu: cpu() - cpu_start };
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / count as f64;
    format!("{:7.0} ({:4.0})", micros(cost.wall), micros(cost.cpu))
}

#[tokio::main]
async fn main() {
    let given = env::args().skip(1).find(|a| !a.starts_with('-')).map(PathBuf::from);
    let temporary = tempfile::tempdir().unwrap();
    let directory = given.unwrap_or_else(|| temporary.path().to_owned());
    let sqlite = Sqlite::open(&directory, SqliteOptions::default()).unwrap();
    let queue: Arc<dyn Queue> = Arc::new(sqlite.queue("bench"));
    queue.declare(&["s"]).await.unwrap();
    println!("{BODY} bytes, µs a message (CPU); waiting, at once: publish, deliver and acknowledge, both together");
    for waiting in WAITING {
        let there = usize::try_from(queue.depth("s").await.unwrap().ready).unwrap();
        publish(&queue, waiting.saturating_sub(there), 256).await;
        for at_once in AT_ONCE {
            let count = if at_once == 1 { PASSING / 20 } else { PASSING };
            let published = measure(count, publish(&queue, count, at_once)).await;
            let consumed = measure(count, consume(&queue, count, at_once)).await;
            let both = async { tokio::join!(publish(&queue, count, at_once), consume(&queue, count, at_once)) };
            let both = measure(count, both).await;
            println!("{waiting:7} {at_once:4}: {published} {consumed} {both}");
        }
    }
    sqlite.close().await;
}
