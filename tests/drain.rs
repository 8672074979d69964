//! SIGTERM under load: each role of a fleet finishes what it has in hand, gives back what it has not begun, and ends well.
//! Whoever comes after it gets nothing again but what was given back: nothing is answered, taken or delivered twice.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on is to stop")]

#[path = "support/fleet.rs"]
mod fleet;
mod support;
#[path = "support/watching.rs"]
mod watching;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use stoq_api::queue::{LaneOptions, Message, Prefetch};
use stoq_api::results;
use stoq_testkit::services::Process;

use crate::fleet::{Fleet, Kind, intake_of, stops_well};
use crate::support::{PATIENCE, files, until};
use crate::watching::{address, metrics, sum};

/// References in the intake: many more than any role holds at a time.
const ROOTS: usize = 4_000;
/// Every so many roots one is an archive of ten payloads; the others have nothing in them.
const ARCHIVE: usize = 4;
/// Messages of responses after which the worker is asked to end: it is in the midst of it.
const MIDST: u64 = 20;
/// A small bound of the root lane, so that the provider has to wait for the worker with most of its intake before it.
const BOUND: [&str; 2] = ["--set", "fleet.root_backlog=100"];
/// Messages that a worker with one slot holds at most: places for roots, and for children some more.
const WORKER_HOLDS: f64 = (32 + 32 + 32 / 4 + 1) as f64;
/// What the connector holds and delivers at a time.
const CONNECTOR_HOLDS: usize = 20;

fn reference(n: usize) -> Message {
    let content = if n.is_multiple_of(ARCHIVE) { files::nested_zip(n) } else { format!("text {n}").into_bytes() };
    let body = json!({ "payload": { "base64": STANDARD.encode(content), "filename": n.to_string() } });
    Message::new(format!("reference-{n}"), serde_json::to_vec(&body).unwrap())
}

/// What a process tells of itself.
fn told(process: &Process, family: &str, labels: &[&str]) -> f64 {
    let address = address(&process.log()).expect("it said where it listens");
    sum(&metrics(address).expect("it runs"), family, labels)
}

fn waiting(fleet: &Fleet, lane: &str) -> u64 {
    let status = fleet.status();
    status["lanes"][lane]["waiting"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_under_load_brings_nothing_again_but_what_was_in_hand() {
    let mut fleet = Fleet::start(Kind::RabbitMq, |broker| {
        format!(
            "[providers.in.queue]\nbroker = \"main\"\nqueue = \"{}\"\nformat = \"native\"\nprefetch = 64\n[http]\nlisten = \
             \"127.0.0.1:0\"\n[core.log]\nformat = \"json\"\n[connectors.watch.filedir]\nresults_dir = \"unused\"\n",
            broker.name_of_intake("other", "intake"),
        )
    })
    .await;
    fleet.command(&["setup", BOUND[0], BOUND[1]]).expect(0);
    let intake = intake_of(&fleet, "other", "intake").await;
    intake.publish((0..ROOTS).map(reference).collect()).await.unwrap();

    let work = [&["--slots", "1"][..], &BOUND].concat();
    let (provider, worker) = (fleet.role("provider", &BOUND), fleet.role("worker", &work));
    until("the worker is in the midst of it", || waiting(&fleet, "results for out") >= MIDST);
    stops_well("the worker", worker).await;
    until("there is more to do for a worker", || waiting(&fleet, "roots") > 0);
    stops_well("the provider", provider).await;
    let depth = intake.depth("main").await.unwrap();
    assert!(depth.ready > 0, "the provider had nothing to do any more");

    // The connector has more to do than it holds when it is asked to end.
    let batch = format!("connectors.out.filedir.batch_items={CONNECTOR_HOLDS}");
    let own = ["-C", "out", "--set", &batch, "--set", "connectors.out.filedir.prefetch=20"];
    let deliver = [&own[..], &BOUND].concat();
    let connector = fleet.role("connector", &deliver);
    until("the connector is in the midst of it", || fleet.response_count() >= CONNECTOR_HOLDS);
    stops_well("the connector", connector).await;
    let delivered = fleet.response_count();
    assert!(waiting(&fleet, "results for out") > 0, "the connector had nothing to do any more");

    let (worker, connector) = (fleet.role("worker", &work), fleet.role("connector", &deliver));
    let provider = fleet.role("provider", &BOUND);
    until("all responses", || fleet.response_count() == ROOTS);
    until("nothing is left", || {
        let status = fleet.status();
        let lanes = status["lanes"].as_object().unwrap().iter().filter(|(name, _)| *name != "results for watch");
        lanes.into_iter().all(|(_, lane)| lane["waiting"] == 0) && status["open_scans"] == 0
    });
    // Whoever has something in hand has not counted all of it.
    until("nothing is in flight", || [&worker, &connector].iter().all(|role| told(role, "stoq_in_flight", &[]) == 0.0));
    let again = told(&worker, "stoq_redelivered_total", &[]);
    assert!(again <= WORKER_HOLDS, "{again} messages came again");
    let rest = told(&connector, "stoq_out_total", &["role=\"connector\"", "name=\"out\""]);
    assert_eq!(rest as usize, ROOTS - delivered, "the second connector was given what the first had delivered");
    for (role, process) in [("worker", worker), ("connector", connector), ("provider", provider)] {
        stops_well(role, process).await;
    }
    assert!(fleet.responses().iter().all(|response| response["complete"] == true));
    assert!(fleet.command(&["dead", "list", "--json"]).expect(0).out.is_empty());

    // A reference that was taken twice, or a payload that was answered twice, has two responses on the lane.
    let answered = answers(&fleet).await;
    let twice: Vec<_> = answered.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "{} of {ROOTS} were answered more than once: {twice:.1000?}", twice.len());
    assert_eq!(answered.len(), ROOTS);
}

/// How often each scan was answered, on a subscription that nobody has read yet.
async fn answers(fleet: &Fleet) -> BTreeMap<String, usize> {
    let lane = fleet.broker_client().lane("results", LaneOptions::default());
    let mut left = lane.depth("watch").await.unwrap().ready;
    let mut deliveries = lane.subscribe("watch", Prefetch { messages: 100 }).await.unwrap();
    let mut answered = BTreeMap::new();
    while left > 0 {
        let next = tokio::time::timeout(PATIENCE, deliveries.next()).await.expect("what waits is delivered");
        let delivery = next.unwrap().unwrap();
        for item in results::unpack(&delivery.message).unwrap() {
            let response: Value = serde_json::from_slice(&item.json).unwrap();
            *answered.entry(response["scan_id"].to_string()).or_default() += 1;
        }
        delivery.ack().await.unwrap();
        left -= 1;
    }
    answered
}
