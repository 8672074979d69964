//! Processes that die, or stand still for longer than their group believes in them.

use std::collections::BTreeSet;
use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use stoq_api::queue::{LaneOptions, Message, Prefetch};
use stoq_testkit::services::Kafka;
use stoq_testkit::wait::{must_end, until};

use crate::common::{all_committed, broker_at, next};

/// Tells a process of this test, run again as a child, where its broker is.
const BROKER: &str = "STOQ_TEST_KAFKA_BROKER";
const GROUP: (&str, &str) = ("t.killed.s", "t.killed");
const PARTITIONS: i32 = 2;
const COUNT: usize = 300;

fn options() -> Value {
    json!({"partitions": PARTITIONS, "session_timeout": 6.0})
}

/// A process that takes deliveries, says which, and acknowledges every second one; then goes on with what it is told.
struct Consumer {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Consumer {
    fn start(server: &Kafka) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "killed::consumer", "--nocapture"]).env(BROKER, server.address());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// What it says next; what the test harness prints around it does not begin like this.
    fn says(&mut self) -> String {
        loop {
            let line = self.lines.next().expect("the consumer says more").unwrap();
            if let Some((_, said)) = line.split_once('@') {
                return said.to_owned();
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().unwrap();
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "@{line}").unwrap();
    out.flush().unwrap();
}

/// The child's part; as a test of its own it has nothing to do.
#[tokio::test]
async fn consumer() {
    let Ok(address) = env::var(BROKER) else { return };
    let lane = broker_at(&address, options()).lane("killed", LaneOptions::default());
    let mut deliveries = lane.subscribe("s", Prefetch { messages: 200 }).await.unwrap();
    let mut held = Vec::new();
    for n in 0..200 {
        let delivery = deliveries.next().await.unwrap().unwrap();
        say(&format!("delivered {} {}", delivery.first, delivery.message.id));
        if n % 2 == 0 && n > 10 {
            let id = delivery.message.id.clone();
            delivery.ack().await.unwrap();
            say(&format!("acknowledged {id}"));
        } else {
            held.push(delivery);
        }
    }
    say("full");
    // It stands still now, until it is told to go on.
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await.unwrap().unwrap();
    let mut stale = 0;
    for delivery in held {
        stale += u32::from(delivery.ack().await.is_err());
    }
    say(&format!("stale {stale}"));
}

/// Reads what a consumer says until it is full. What it is the first to get says so while its group is `fresh`; later the
/// lease of a process that was killed may reach beyond what that one started.
async fn fill(mut consumer: Consumer, fresh: bool) -> (Consumer, BTreeSet<String>, BTreeSet<String>) {
    let filled = tokio::task::spawn_blocking(move || {
        let (mut delivered, mut acknowledged) = (BTreeSet::new(), BTreeSet::new());
        loop {
            let said = consumer.says();
            match said.split(' ').collect::<Vec<_>>()[..] {
                ["delivered", first, id] => {
                    assert!(first == "true" || !fresh, "{id} was never delivered before");
                    delivered.insert(id.to_owned());
                }
                ["acknowledged", id] => drop(acknowledged.insert(id.to_owned())),
                ["full"] => return (consumer, delivered, acknowledged),
                _ => panic!("{said}"),
            }
        }
    });
    must_end("a full consumer", filled).await.unwrap()
}

async fn publish(server: &Kafka, from: usize) {
    let lane = broker_at(&server.address(), options()).lane("killed", LaneOptions::default());
    lane.declare(&["s"]).await.unwrap();
    lane.publish((from..from + COUNT).map(|n| Message::new(n.to_string(), "x")).collect()).await.unwrap();
}

/// Takes everything that is left; what `delivered` names must not be first.
async fn take_the_rest(server: &Kafka, delivered: &BTreeSet<String>, expected: usize) {
    let client = broker_at(&server.address(), options());
    let lane = client.lane("killed", LaneOptions::default());
    let mut deliveries = lane.subscribe("s", Prefetch { messages: 50 }).await.unwrap();
    let mut got = BTreeSet::new();
    while got.len() < expected {
        let delivery = next(&mut deliveries).await;
        let id = delivery.message.id.clone();
        assert!(!(delivery.first && delivered.contains(&id)), "{id} was delivered before");
        got.insert(id);
        delivery.ack().await.unwrap();
    }
    until("nothing is left", || async { lane.depth("s").await.unwrap().ready == 0 }).await;
    client.close().await;
}

pub(crate) async fn brings_back_what_a_killed_process_held(server: &Kafka) {
    publish(server, 0).await;
    let (consumer, delivered, acknowledged) = fill(Consumer::start(server), true).await;
    consumer.signal(Signal::KILL);
    drop(consumer);
    // The eleven oldest were held, so that little can be committed; nothing that was held may be missing.
    let held: BTreeSet<String> = delivered.difference(&acknowledged).cloned().collect();
    assert!(held.len() > 100);
    let not_held = acknowledged.len();
    let client = broker_at(&server.address(), options());
    let lane = client.lane("killed", LaneOptions::default());
    let left = usize::try_from(lane.depth("s").await.unwrap().ready).unwrap();
    assert!(left >= COUNT - not_held, "{left} of {COUNT} are left, {not_held} were acknowledged");
    take_the_rest(server, &delivered, left).await;
}

pub(crate) async fn survives_a_process_that_stood_still(server: &Kafka) {
    publish(server, COUNT).await;
    let (mut consumer, delivered, _) = fill(Consumer::start(server), false).await;
    consumer.signal(Signal::STOP);
    let client = broker_at(&server.address(), options());
    let lane = client.lane("killed", LaneOptions::default());
    let left = usize::try_from(lane.depth("s").await.unwrap().ready).unwrap();
    // Its group gives it up, and all comes to somebody else.
    take_the_rest(server, &delivered, left).await;
    let before = all_committed(&server.address(), GROUP.0, GROUP.1, PARTITIONS);
    consumer.signal(Signal::CONT);
    writeln!(consumer.child.stdin.take().unwrap(), "go on").unwrap();
    let said = tokio::task::spawn_blocking(move || {
        let said = consumer.says();
        // Whatever it believes to be its own when it wakes, it ends without harm.
        assert!(consumer.child.wait().unwrap().success());
        said
    });
    let said = must_end("its last word", said).await.unwrap();
    assert!(said.starts_with("stale "), "{said}");
    let after = all_committed(&server.address(), GROUP.0, GROUP.1, PARTITIONS);
    assert_eq!(before, after, "the offsets of those who went on are not overwritten");
}
