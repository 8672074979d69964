//! What a person is told whose commands for a fleet cannot use its services: what is wrong with the configuration is told
//! apart from what is away.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on is to stop")]

#[path = "support/fleet.rs"]
mod fleet;
mod support;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use stoq_api::queue::Message;

use crate::fleet::{Broker, Fleet, Kind, ends_well, intake_of, stops_well};
use crate::support::{files, text, until};

/// Files that are scanned while something is paused.
const FILES: usize = 40;

/// Commands that only look, or make what is missing.
const COMMANDS: [&[&str]; 5] = [&["setup", "--dry-run"], &["setup"], &["status"], &["dead", "list"], &["gc"]];

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_the_callers_to_mend_and_a_broker_that_is_away_is_not() {
    let mut fleet = Fleet::start(Kind::RabbitMq, |_| String::new()).await;
    let with = |command: &[&'static str], set: &'static str| [command, &["--set", set]].concat();
    for command in COMMANDS {
        let wrong = fleet.command(&with(command, "queues.main.rabbitmq.password=wrong")).expect(2);
        assert!(wrong.err.contains("password"), "{command:?}: {}", wrong.err);
        fleet.command(command).expect(0);
    }
    // A ledger with a password that nobody has.
    let wrong = fleet.command(&with(&["status"], "ledgers.main.redis.password=wrong")).expect(2);
    assert!(wrong.out.contains("open scans") && wrong.out.contains("password"), "{}", wrong.out);

    fleet.broker.kill();
    for command in COMMANDS {
        fleet.command(command).expect(4);
    }
    fleet.broker.restart().await;
    fleet.command(&["status"]).expect(0);
}

/// A sink that is being worked on, and a source that is to wait: paused by one command, over restarts, in every process,
/// until another command. Nothing is lost, and others go on.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_paused_stays_so_until_it_is_resumed_and_holds_up_nothing_else() {
    let mut fleet = Fleet::start(Kind::RabbitMq, |_| String::new()).await;
    let (other, source) = (fleet.path("other"), fleet.path("in"));
    let more = format!(
        "[connectors.other.filedir]\nresults_dir = \"{}\"\n[providers.in.filedir]\nsource_dir = \"{}\"\n",
        text(&other),
        text(&source)
    );
    let configuration = std::fs::read_to_string(fleet.configuration()).unwrap();
    std::fs::write(fleet.configuration(), configuration + &more).unwrap();
    std::fs::create_dir(&source).unwrap();
    (0..FILES).for_each(|n| files::write(&source, &format!("{n:04}.txt"), format!("text {n}").as_bytes()));
    fleet.command(&["setup"]).expect(0);
    let unknown = fleet.command(&["pause", "othr"]).expect(2);
    assert!(unknown.err.contains("connector other") && unknown.err.contains("provider in"), "{}", unknown.err);
    let idle = fleet.command(&["resume", "other"]).expect(2);
    assert!(idle.err.contains("is not paused"), "{}", idle.err);

    // One that runs already notices; one that starts takes nothing at all.
    let running = fleet.role("connector", &[]);
    until("the connectors have started", || running.log().contains("started"));
    fleet.command(&["pause", "other", "in", "--reason", "new disks"]).expect(0);
    until("it is noticed", || running.log().contains("paused by an operator"));
    let worker = fleet.role("worker", &["--slots", "1"]);
    let mut provider = fleet.role("provider", &[]);
    until("the provider is paused", || provider.log().contains("paused by an operator"));
    let status = fleet.command(&["status", "--json"]).expect(0).response();
    let paused: Vec<_> =
        status["paused"].as_array().unwrap().iter().map(|mark| (&mark["kind"], &mark["name"])).collect();
    assert_eq!(paused, [(&"connector".into(), &"other".into()), (&"provider".into(), &"in".into())]);
    assert_eq!(status["paused"][0]["reason"], "new disks");
    assert!(fleet.command(&["status"]).expect(0).out.contains("connector other paused since"));
    assert!(fleet.is_idle() && provider.exited().is_none(), "the provider took something");

    fleet.command(&["resume", "in", "--kind", "provider"]).expect(0);
    ends_well("the provider", provider).await;
    until("the sink that is not paused has everything", || fleet.response_count() == FILES);
    stops_well("the connector", running).await;
    let again = fleet.role("connector", &[]);
    until("it has looked", || again.log().contains("paused by an operator") && again.log().contains("started"));
    assert_eq!(fleet.response_count_in("other"), 0, "it stays paused over a restart");
    fleet.command(&["resume", "other"]).expect(0);
    until("it catches up", || fleet.response_count_in("other") == FILES && fleet.is_idle());
    assert!(fleet.command(&["status", "--json"]).expect(0).response()["paused"].as_array().unwrap().is_empty());
    stops_well("the connector", again).await;
    stops_well("the worker", worker).await;
}

/// A plugin that costs too much today: payloads are scanned without it, and say so, until it is resumed.
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_plugin_is_named_where_it_did_not_run() {
    let mut fleet = Fleet::start(Kind::RabbitMq, |_| String::new()).await;
    let source = fleet.path("in");
    let more = format!("[providers.in.filedir]\nsource_dir = \"{}\"\n", text(&source));
    let configuration = std::fs::read_to_string(fleet.configuration()).unwrap();
    std::fs::write(fleet.configuration(), configuration + &more).unwrap();
    fleet.command(&["setup"]).expect(0);
    let unknown = fleet.command(&["pause", "hsah"]).expect(2);
    assert!(unknown.err.contains("plugin hash"), "{}", unknown.err);
    fleet.command(&["pause", "hash", "--reason", "too slow today"]).expect(0);
    assert!(fleet.command(&["status"]).expect(0).out.contains("plugin hash paused since"));

    let worker = fleet.role("worker", &["--slots", "1"]);
    let connector = fleet.role("connector", &[]);
    until("the worker has looked", || worker.log().contains("paused by an operator"));
    let without = scanned(&mut fleet, "scanned while hash is paused", 1).await;
    assert!(without["workers"].get("hash").is_none(), "{without}");
    let not_run = without["not_run"].as_array().unwrap();
    let hash = not_run.iter().find(|entry| entry["plugin"] == "hash").expect("it says that hash did not run");
    assert_eq!(hash["reason"], "it was paused by an operator");

    fleet.command(&["resume", "hash"]).expect(0);
    until("the worker goes on", || worker.log().contains("an operator has resumed it"));
    let with = scanned(&mut fleet, "scanned with hash again, at last", 2).await;
    assert!(with["workers"]["hash"]["sha256"].is_string(), "{with}");
    stops_well("the worker", worker).await;
    stops_well("the connector", connector).await;
}

/// A scan that nobody works on ends by a command, with what is known of it: its response names what is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_scan_ends_at_once_and_says_what_is_missing() {
    let more = |broker: &Broker| {
        let queue = broker.name_of_intake("others", "two");
        format!("[providers.in.queue]\nbroker = \"main\"\nqueue = \"{queue}\"\nformat = \"native\"\n")
    };
    let mut fleet = Fleet::start(Kind::RabbitMq, more).await;
    let intake = intake_of(&fleet, "others", "two").await;
    fleet.command(&["setup"]).expect(0);
    let malformed = fleet.command(&["cancel", "everything"]).expect(2);
    assert!(malformed.err.contains("SCAN"), "{}", malformed.err);

    // A scan of several payloads is open from the start.
    let payload = |text: &str| json!({ "base64": STANDARD.encode(text) });
    let body = json!({ "payloads": [payload("one"), payload("two")] }).to_string();
    intake.publish(vec![Message::new("two", body.into_bytes())]).await.unwrap();
    let provider = fleet.role("provider", &[]);
    let status = || fleet.command(&["status", "--json"]).expect(0).response();
    until("the scan is open", || status()["open_scans"] == 1);
    let scan = status()["oldest_scans"][0]["scan_id"].as_str().unwrap().to_owned();
    let table = fleet.command(&["status"]).expect(0).out;
    assert!(table.contains(&format!("scan {scan}: open")), "{table}");

    let cancelled = fleet.command(&["cancel", &scan]).expect(0);
    assert!(cancelled.out.contains("cancelled"), "{}", cancelled.out);
    let connector = fleet.role("connector", &[]);
    let worker = fleet.role("worker", &["--slots", "1"]);
    until("it is answered", || fleet.response_count() == 1 && fleet.is_idle());
    let response = fleet.responses().remove(0);
    assert_eq!(response["complete"], false, "{response}");
    let details: Vec<_> =
        response["findings"].as_array().unwrap().iter().map(|finding| finding["detail"].to_string()).collect();
    assert!(details.iter().any(|detail| detail.contains("cancelled")), "{details:?}");
    let again = fleet.command(&["cancel", &scan]).expect(2);
    assert!(again.err.contains("not open") && again.err.contains(&scan), "{}", again.err);
    for (what, process) in [("the provider", provider), ("the worker", worker), ("the connector", connector)] {
        stops_well(what, process).await;
    }
}

/// What is said of a text that is the only one in the source, and the `count`th that is answered.
async fn scanned(fleet: &mut Fleet, content: &str, count: usize) -> serde_json::Value {
    let source = fleet.path("in");
    std::fs::remove_dir_all(&source).ok();
    std::fs::create_dir(&source).unwrap();
    files::write(&source, "text.txt", content.as_bytes());
    ends_well("the provider", fleet.role("provider", &[])).await;
    until("it is answered", || fleet.response_count() == count);
    let mut results = fleet.responses().into_iter().map(|response| response["results"][0].clone());
    results.find(|result| result["size"] == content.len()).expect("it has a result")
}
