//! A fleet's connector into a real search engine, on a real broker: the engine away for long, and the connector killed
//! again and again.
//!
//! `STOQ_TEST_AWAY` says how many seconds the engine stays away, 10 by default; a long check takes 60 (docs/reliability.md).
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on is to stop")]

#[path = "support/fleet.rs"]
mod fleet;
mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;
use stoq_testkit::services::{Process, Search, SearchOptions};

use crate::fleet::{Fleet, Kind, ends_well, stops_well};
use crate::support::{files, text, until};

/// Archives that are scanned, and what is in each.
const ARCHIVES: usize = 60;
const MEMBERS: usize = 40;
/// Payloads, each of which is a document.
const DOCUMENTS: usize = ARCHIVES * (1 + MEMBERS);
/// How often connectors are killed.
const KILLS: usize = 20;
/// How long the engine is away where nothing else is said.
const AWAY: Duration = Duration::from_secs(10);
/// What the connector may take beyond what it had before the engine went, in KiB: its prefetch of messages, and no more
/// however long that lasts.
const GROWTH: u64 = 64 << 10;
const INDEX: &str = "stoq-*";

async fn fleet(search: &Search) -> Fleet {
    let table = format!(
        "[connectors.search.elasticsearch]\nnodes = [\"{}\"]\nreplicas = 0\nretry_most = \"2 s\"\nbatch_items = 5\n",
        search.url()
    );
    let fleet = Fleet::start(Kind::RabbitMq, |_| table).await;
    fleet.command(&["setup"]).expect(0);
    fleet
}

async fn scan(fleet: &mut Fleet, from: usize, to: usize) {
    let source = fleet.path(&format!("in-{from}"));
    std::fs::create_dir(&source).unwrap();
    for n in from..to {
        let members: Vec<_> = (0..MEMBERS).map(|m| (format!("member-{m}"), format!("{n} {m}").into_bytes())).collect();
        files::write(&source, &format!("{n:04}.zip"), &files::zip(&members));
    }
    let provider = format!("providers.in.filedir.source_dir={}", text(&source));
    ends_well("the provider", fleet.role("provider", &["--set", &provider])).await;
}

async fn ask(search: &Search, target: &str, body: &str) -> Value {
    let (status, answer) = search.ask("POST", target, body).await;
    assert!(status < 300, "{target}: {status} {answer}");
    serde_json::from_str(&answer).unwrap()
}

/// The ids of all documents; fails if one is there twice.
async fn ids(search: &Search) -> BTreeSet<String> {
    ask(search, &format!("/{INDEX}/_refresh"), "").await;
    let query = r#"{"size":10000,"_source":["payload_id"],"track_total_hits":true}"#;
    let found = ask(search, &format!("/{INDEX}/_search"), query).await;
    let hits = found["hits"]["hits"].as_array().unwrap();
    assert_eq!(found["hits"]["total"]["value"], hits.len(), "one search shows all");
    let ids: BTreeSet<String> =
        hits.iter().map(|hit| hit["_source"]["payload_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), hits.len(), "a document is there twice");
    ids
}

/// The ids that must be there: those of the payloads in the responses that the other sink has.
fn wanted(fleet: &Fleet) -> BTreeSet<String> {
    let responses = fleet.responses();
    let payloads = responses.iter().flat_map(|response| response["results"].as_array().unwrap());
    payloads.map(|payload| payload["payload_id"].as_str().unwrap().to_owned()).collect()
}

/// Resident memory of a process, in KiB.
fn resident(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

async fn count(search: &Search) -> usize {
    ask(search, &format!("/{INDEX}/_refresh"), "").await;
    let found = ask(search, &format!("/{INDEX}/_count"), "").await;
    usize::try_from(found["count"].as_u64().unwrap()).unwrap()
}

/// Waits until so many documents are there.
async fn documents(search: &Search, wanted: usize) {
    let limit = Instant::now() + support::PATIENCE;
    loop {
        let there = count(search).await;
        if there >= wanted {
            return;
        }
        assert!(Instant::now() < limit, "{there} documents of {wanted}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Scans go on while the engine is away: nothing is lost or doubled, and the connector holds no more than before.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_away_under_load_costs_no_document_and_no_memory() {
    let away = std::env::var("STOQ_TEST_AWAY").ok().map(|seconds| Duration::from_secs(seconds.parse().unwrap()));
    let away = away.unwrap_or(AWAY);
    let mut search = Search::opensearch(SearchOptions::default()).await;
    let mut fleet = fleet(&search).await;
    let worker = fleet.role("worker", &["--slots", "1"]);
    let connector = fleet.role("connector", &[]);
    scan(&mut fleet, 0, ARCHIVES / 3).await;
    documents(&search, (1 + MEMBERS) * ARCHIVES / 3).await;
    let before = resident(&connector);

    search.kill();
    let killed = Instant::now();
    let mut most = before;
    scan(&mut fleet, ARCHIVES / 3, ARCHIVES).await;
    until("the other sink has everything while this one is away", || {
        most = most.max(resident(&connector));
        fleet.response_count() == ARCHIVES
    });
    until("the engine was away for long enough", || {
        most = most.max(resident(&connector));
        killed.elapsed() >= away
    });
    search.restart().await;
    documents(&search, DOCUMENTS).await;
    most = most.max(resident(&connector));
    until("nothing is left", || fleet.is_idle());
    println!("away for {away:?}: {before} KiB before, {most} KiB at most");
    assert!(most <= before + GROWTH, "{before} KiB before, {most} KiB at most");
    let (there, wanted) = (ids(&search).await, wanted(&fleet));
    assert_eq!(there.len(), DOCUMENTS);
    assert_eq!(there, wanted);
    stops_well("the worker", worker).await;
    stops_well("the connector", connector).await;
    assert!(fleet.command(&["dead", "list", "--json"]).expect(0).out.is_empty());
}

/// Killed in the middle of deliveries, twenty times: the count is exact.
#[tokio::test(flavor = "multi_thread")]
async fn killed_connectors_leave_each_document_once() {
    let search = Search::opensearch(SearchOptions::default()).await;
    let mut fleet = fleet(&search).await;
    let worker = fleet.role("worker", &["--slots", "1"]);
    scan(&mut fleet, 0, ARCHIVES).await;
    until("all scans are done", || {
        let status = fleet.status();
        status["open_scans"] == 0 && status["lanes"]["roots"]["waiting"] == 0 && status["lanes"]["roots"]["held"] == 0
    });
    let batches = "connectors.search.elasticsearch.batch_items=1";
    for kill in 0..KILLS {
        let before = if kill == 0 { 0 } else { count(&search).await };
        let mut connector = fleet.role("connector", &["--set", batches]);
        documents(&search, (before + 1 + kill % 7 * 10).min(DOCUMENTS)).await;
        connector.kill();
    }
    let connector = fleet.role("connector", &[]);
    documents(&search, DOCUMENTS).await;
    until("nothing is left", || fleet.is_idle() && fleet.response_count() == ARCHIVES);
    let (there, wanted) = (ids(&search).await, wanted(&fleet));
    assert_eq!(there.len(), DOCUMENTS);
    assert_eq!(there, wanted);
    stops_well("the worker", worker).await;
    stops_well("the connector", connector).await;
    assert!(fleet.command(&["dead", "list", "--json"]).expect(0).out.is_empty());
}
