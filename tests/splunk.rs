//! `stoq connector` with Splunk's event collector: killed again and again, and the indexer, too, nothing is lost, and
//! what is there twice was in flight.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on is to stop")]

#[path = "support/fleet.rs"]
mod fleet;
mod support;

use std::collections::BTreeMap;

use stoq_testkit::services::hec::{HecServer, Options, Token};

use crate::fleet::{Fleet, Kind, ends_well, stops_well};
use crate::support::{files, responses_in, text, until};

/// Files that are scanned, each of one payload, while the connector is killed.
const FILES: usize = 600;
/// And while the indexer is.
const MORE: usize = 200;
/// How often the connector is killed.
const KILLS: usize = 4;
/// How often the indexer is.
const CRASHES: usize = 2;
/// Batches that a connector tries at a time, and the responses of one: the defaults, and the rest of a message of the lane.
const IN_FLIGHT: usize = 8 * (100 + 16);

/// How often each document is there.
fn copies(server: &HecServer) -> BTreeMap<String, usize> {
    let mut copies = BTreeMap::new();
    for event in server.indexed() {
        *copies.entry(event.fields["stoq_id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    copies
}

/// Scans so many new files.
async fn provide(fleet: &mut Fleet, name: &str, count: usize) {
    let source = fleet.path(name);
    std::fs::create_dir(&source).unwrap();
    for n in 0..count {
        files::write(&source, &format!("{n:04}.txt"), format!("{name} {n}\n").as_bytes());
    }
    let provider = format!("providers.in.filedir.source_dir={}", text(&source));
    ends_well("the provider", fleet.role("provider", &["--set", &provider])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_kill_loses_an_event() {
    let mut server = HecServer::start(Options::new(vec![Token::new("ours", true)])).await;
    let table = format!(
        "[connectors.siem.splunk]\nurls = [\"{}\"]\ntoken = \"ours\"\nack_timeout = \"3 s\"\nack_poll = \"50 ms\"\n\
         request_bytes = \"16 KiB\"\n",
        server.url()
    );
    let mut fleet = Fleet::start(Kind::RabbitMq, |_| table).await;
    fleet.command(&["setup"]).expect(0);
    let worker = fleet.role("worker", &["--slots", "1"]);
    provide(&mut fleet, "in", FILES).await;

    for kill in 1..=KILLS {
        // Nothing more is acknowledged: what is in flight stays so until the connector is killed.
        server.withhold(true);
        let before = server.count();
        let connector = fleet.role("connector", &[]);
        // Another that was quick may have left nothing.
        until("events without acknowledgement", || server.count() > before || copies(&server).len() == FILES);
        drop(connector);
        // Another lives until some more are settled.
        server.withhold(false);
        let connector = fleet.role("connector", &[]);
        let wanted = FILES * kill / (KILLS + CRASHES + 1);
        until("more events", || copies(&server).len() >= wanted);
        drop(connector);
    }
    server.hold(true);
    let connector = fleet.role("connector", &[]);
    provide(&mut fleet, "more", MORE).await;
    for _ in 0..CRASHES {
        until("events in memory", || server.waiting() > 0);
        server.crash().await;
    }
    server.hold(false);
    let all = FILES + MORE;
    until("all documents and responses", || copies(&server).len() == all && fleet.response_count() == all);
    until("nothing is left", || fleet.is_idle());
    stops_well("the connector", connector).await;
    stops_well("the worker", worker).await;

    let copies = copies(&server);
    let wanted = responses_in(&fleet.path("out"));
    assert_eq!(wanted.len(), FILES + MORE);
    for response in &wanted {
        let id = response["results"][0]["payload_id"].as_str().unwrap();
        assert!(copies.contains_key(id), "{id} is lost");
    }
    let doubled = server.count() - copies.len();
    let (kills, documents) = (2 * KILLS, copies.len());
    println!("{documents} documents and {doubled} copies after {kills} kills and {CRASHES} crashes");
    assert!(doubled > 0, "the kills came when nothing was in flight");
    assert!(doubled <= (2 * KILLS + CRASHES) * IN_FLIGHT, "{doubled} more than was ever in flight");
    assert!(fleet.command(&["dead", "list", "--json"]).expect(0).out.is_empty());
}
