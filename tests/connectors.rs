//! Connectors of a fleet on a real broker: one that is away holds up only itself, leaves the others their rate, falls back on
//! the payload store, and catches up; what one refuses stays its own; killed again and again, they deliver everything once.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on is to stop")]

#[path = "support/fleet.rs"]
mod fleet;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use stoq_testkit::services::Process;
use stoq_testkit::services::hec::{HecServer, Options, Token};

use crate::fleet::{Fleet, Kind, ends_well, stops_well};
use crate::support::{files, stoq, text, until};

/// Files that are scanned.
const FILES: usize = 200;
/// Rounds in which the rate of a sink is measured, beside one that works and beside one that is away in turn.
const ROUNDS: usize = 3;
/// Least part of its rate that a sink keeps beside one that is away. It loses nothing in truth; the rest is for what else the
/// machine does.
const KEPT: f64 = 0.7;
/// Times that connectors are killed.
const KILLS: usize = 20;

/// A connector `NAME` into the folder of that name.
fn filedir(dir: &Path, name: &str, more: &str) -> String {
    format!("[connectors.{name}.filedir]\nresults_dir = \"{}\"\n{more}\n", text(&dir.join(name)))
}

/// Responses that lie in a folder, by their scans.
fn scans(dir: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    entries.flatten().map(|e| e.file_name().into_string().unwrap()).filter(|name| !name.starts_with('.')).collect()
}

async fn scan_all(fleet: &mut Fleet, from: usize, to: usize) {
    let source = fleet.path(&format!("in-{from}"));
    std::fs::create_dir(&source).unwrap();
    for n in from..to {
        // Some responses are too large for a message.
        let name = format!("{n:04}{}", if n % 10 == 0 { ".zip" } else { ".txt" });
        let members: Vec<_> = (0..80).map(|m| (format!("member-{m}-{n}"), format!("{n} {m}").into_bytes())).collect();
        let bytes = if n % 10 == 0 { files::zip(&members) } else { format!("text {n}").into_bytes() };
        files::write(&source, &name, &bytes);
    }
    let provider = format!("providers.in.filedir.source_dir={}", text(&source));
    ends_well("the provider", fleet.role("provider", &["--set", &provider])).await;
}

fn spilled(fleet: &Fleet, name: &str) -> u64 {
    let status = fleet.status();
    status["spilled"][name]["messages"].as_u64().unwrap()
}

/// A sink that is away during the whole run, beside one that works.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_away_holds_up_only_itself_and_catches_up() {
    let mut fleet = Fleet::start(Kind::RabbitMq, |_| String::new()).await;
    let dir = fleet.path("");
    let slow = "max_backlog = 3\non_backlog = \"spill\"\nprefetch = 4\nbatch_items = 5\nretry_most = \"2 s\"";
    let only_zips = "when = { filename = [\"*.zip\"] }";
    let more = [filedir(&dir, "slow", slow), filedir(&dir, "choosy", only_zips)].concat();
    let configuration = std::fs::read_to_string(fleet.configuration()).unwrap();
    std::fs::write(fleet.configuration(), configuration + &more).unwrap();
    fleet.command(&["setup"]).expect(0);

    let worker = fleet.role("worker", &["--slots", "1"]);
    let connector = fleet.role("connector", &[]);
    until("the connectors have started", || connector.log().contains("started"));
    // The disk of one sink is away: nothing can be written below a file.
    block(&dir.join("slow"));
    scan_all(&mut fleet, 0, FILES).await;
    until("the sink that works has everything", || fleet.response_count() == FILES);
    let chosen = FILES / 10;
    until("the one with conditions has its share", || scans(&dir.join("choosy")).len() == chosen);
    // Whatever the machine's speed: they are done, and it has not one.
    assert!(dir.join("slow").is_file(), "the sink that is away has nothing while the others have everything");
    until("the one that is behind falls back on the store", || spilled(&fleet, "slow") >= 5);

    // Nothing of it is lost by clean-ups, and other connectors get none of it again.
    assert!(fleet.command(&["gc", "--max-wait", "1 d"]).expect(0).out.starts_with("0 days"));
    std::fs::remove_file(dir.join("slow")).unwrap();
    until("it caught up by itself", || scans(&dir.join("slow")).len() == FILES && spilled(&fleet, "slow") == 0);
    assert_eq!(scans(&dir.join("slow")), scans(&dir.join("out")));
    let same = |scan: &String| {
        std::fs::read(dir.join("slow").join(scan)).unwrap() == std::fs::read(dir.join("out").join(scan)).unwrap()
    };
    assert!(scans(&dir.join("out")).iter().all(same), "responses come back as they were");
    until("nothing is left", || fleet.is_idle());
    assert_eq!(scans(&dir.join("choosy")).len(), chosen);
    stops_well("the worker", worker).await;
    stops_well("the connector", connector).await;
    assert!(fleet.command(&["dead", "list", "--json"]).expect(0).out.is_empty());
}

/// From the first file to the last one of those that were made since.
fn took(dir: &Path, since: SystemTime) -> Duration {
    let entries = std::fs::read_dir(dir).unwrap().flatten();
    let made = entries.map(|e| e.metadata().unwrap().modified().unwrap()).filter(|made| *made >= since);
    let mut made: Vec<SystemTime> = made.collect();
    made.sort();
    assert_eq!(made.len(), FILES);
    made[FILES - 1].duration_since(made[0]).unwrap()
}

/// Where nobody listens: the port of a service that no machine has had for decades.
const NOBODY: &str = "http://127.0.0.1:9";

/// What waits on the lane is delivered as fast beside a sink that is away for the whole time as beside one that works.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_away_leaves_the_other_its_rate() {
    let server = HecServer::start(Options::new(vec![Token::new("ours", true)])).await;
    let mut fleet = Fleet::start(Kind::RabbitMq, |_| String::new()).await;
    let dir = fleet.path("");
    let more = format!(
        "[connectors.siem.splunk]\nurls = [\"{NOBODY}\"]\ntoken = \"ours\"\nmodel = \"response\"\nack_poll = \"50 ms\"\n"
    );
    let configuration = std::fs::read_to_string(fleet.configuration()).unwrap();
    std::fs::write(fleet.configuration(), configuration + &more).unwrap();
    fleet.command(&["setup"]).expect(0);
    let works = format!("connectors.siem.splunk.urls={}", server.url());
    let worker = fleet.role("worker", &["--slots", "1"]);
    // The best round of each: a sink that slows down the other does so in all of them, and the machine's disk does not.
    let (mut beside_one_that_works, mut beside_one_that_is_away) = (Duration::MAX, Duration::MAX);
    let mut there = 0;
    for round in 0..2 * ROUNDS {
        let away = round % 2 == 1;
        scan_all(&mut fleet, there, there + FILES).await;
        there += FILES;
        until("all scans are done", || {
            let status = fleet.status();
            status["open_scans"] == 0 && status["lanes"]["roots"]["waiting"] == 0
        });
        let since = SystemTime::now();
        let there_or_not = ["--set", works.as_str()];
        let mut connector = fleet.role("connector", if away { &[] } else { &there_or_not });
        until("the sink that works has everything", || {
            assert!(connector.exited().is_none(), "{}", connector.log());
            fleet.response_count() == there
        });
        let best = if away { &mut beside_one_that_is_away } else { &mut beside_one_that_works };
        *best = (*best).min(took(&dir.join("out"), since));
        if away {
            assert_eq!(events(&server).len(), there - FILES, "the sink that is away has nothing of it");
            stops_well("the connector", connector).await;
            connector = fleet.role("connector", &["--set", &works]);
        }
        until("both have everything", || events(&server).len() == there);
        stops_well("the connector", connector).await;
    }
    let kept = beside_one_that_works.as_secs_f64() / beside_one_that_is_away.as_secs_f64();
    println!(
        "{there} responses, {beside_one_that_works:?} beside one that works, {beside_one_that_is_away:?} beside one away"
    );
    assert!(kept >= KEPT, "{kept:.2} of its rate is left beside one that is away");
    assert_eq!(events(&server).into_keys().collect::<BTreeSet<_>>(), scans(&dir.join("out")));
    stops_well("the worker", worker).await;
    assert!(fleet.command(&["dead", "list", "--json"]).expect(0).out.is_empty());
}

/// What was put aside is delivered by hand, however often that is interrupted.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_put_aside_is_replayed_by_hand() {
    let mut fleet = Fleet::start(Kind::RabbitMq, |_| String::new()).await;
    let dir = fleet.path("");

    let slow = "max_backlog = 2\non_backlog = \"spill\"\nunspill = false\nprefetch = 3\nbatch_items = 2\nretry_most = \"200 ms\"";
    let configuration = std::fs::read_to_string(fleet.configuration()).unwrap();
    std::fs::write(fleet.configuration(), configuration + &filedir(&dir, "slow", slow)).unwrap();
    fleet.command(&["setup"]).expect(0);
    let worker = fleet.role("worker", &["--slots", "1"]);
    let connector = fleet.role("connector", &[]);
    until("the connectors have started", || connector.log().contains("started"));
    block(&dir.join("slow"));
    scan_all(&mut fleet, 0, FILES).await;
    until("the sink that works has everything", || fleet.response_count() == FILES);
    until("the other one put things aside", || spilled(&fleet, "slow") >= 5);
    std::fs::remove_file(dir.join("slow")).unwrap();
    until("what was on the lane is delivered", || fleet.is_idle());
    assert!(spilled(&fleet, "slow") >= 5, "it does not take anything back by itself");
    let before = scans(&dir.join("slow")).len();
    let (configuration, own) = (fleet.configuration(), fleet.path("replay"));
    let args = ["connector", "replay", "slow", "--config-file", text(&configuration), "--data-dir", text(&own)];
    let mut cut = Process::spawn(stoq(&args), &own.with_extension("log"));
    until("a replay has begun", || scans(&dir.join("slow")).len() > before || cut.exited().is_some());
    cut.kill();
    // What the connector held while the sink was away is delivered, or put aside, a little later.
    until("all is replayed and delivered", || {
        let replayed = fleet.command(&["connector", "replay", "slow"]);
        let nothing_left = replayed.code() == 0 && replayed.out.contains(" 0 left");
        nothing_left && spilled(&fleet, "slow") == 0 && scans(&dir.join("slow")) == scans(&dir.join("out"))
    });
    let unknown = fleet.command(&["connector", "replay", "slwo"]).expect(2);
    assert!(unknown.err.contains("no connector is called"), "{}", unknown.err);
    stops_well("the worker", worker).await;
    stops_well("the connector", connector).await;
}

/// Puts a file in the place of a sink's directory. A connector that looks whether it can write there makes it again at any
/// moment.
fn block(dir: &Path) {
    until("a file is in the way", || {
        std::fs::remove_dir_all(dir).ok();
        std::fs::File::create_new(dir).is_ok()
    });
}

/// How often each scan stands in the files of the connector `log`, and in the index of `siem`.
fn lines(dir: &Path) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten().filter(|e| e.path().is_file()) {
        for line in std::fs::read_to_string(entry.path()).unwrap().lines() {
            let response: Value = serde_json::from_str(line).unwrap();
            *lines.entry(response["scan_id"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    lines
}

fn events(server: &HecServer) -> BTreeMap<String, usize> {
    let mut events = BTreeMap::new();
    for event in server.indexed() {
        *events.entry(event.fields["stoq_scan_id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    events
}

/// What an event collector finds too large is dead for it alone. The other sink keeps every copy that it is given, so one
/// that came to it by mistake, at the first time or at the replay, would show.
#[tokio::test(flavor = "multi_thread")]
async fn what_one_refuses_never_reaches_the_other() {
    /// More than the response of a text, less than that of an archive.
    const MOST: usize = 16 << 10;
    let mut small = Options::new(vec![Token::new("ours", true)]);
    small.max_content_length = MOST;
    let small = HecServer::start(small).await;
    let mut fleet = Fleet::start(Kind::RabbitMq, |_| String::new()).await;
    let dir = fleet.path("");
    let more = format!(
        "[connectors.log.files]\ndirectory = \"{}\"\nname = \"{{seq}}.jsonl\"\n\n[connectors.siem.splunk]\nurls = [\"{}\"]\n\
         token = \"ours\"\nmodel = \"response\"\nack_poll = \"50 ms\"\n",
        text(&dir.join("log")),
        small.url()
    );
    let configuration = std::fs::read_to_string(fleet.configuration()).unwrap();
    std::fs::write(fleet.configuration(), configuration + &more).unwrap();
    fleet.command(&["setup"]).expect(0);
    let worker = fleet.role("worker", &["--slots", "1"]);
    let connector = fleet.role("connector", &[]);
    scan_all(&mut fleet, 0, FILES).await;
    let letters = || fleet.command(&["dead", "list", "--json"]).expect(0).responses();
    // What a sink holds is not told, so each has to have its own.
    until("everything has its verdict", || {
        let each = fleet.response_count() == FILES && events(&small).len() == FILES - FILES / 10;
        each && fleet.is_idle() && letters().len() == FILES / 10
    });
    stops_well("the connector", connector).await;

    let archives: BTreeSet<String> = fleet
        .responses()
        .iter()
        .filter(|response| name_of(response).ends_with(".zip"))
        .map(|response| response["scan_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(archives.len(), FILES / 10);
    let all = scans(&dir.join("out"));
    let once = |scans: &BTreeSet<String>| scans.iter().map(|scan| (scan.clone(), 1)).collect::<BTreeMap<_, _>>();
    assert_eq!(lines(&dir.join("log")), once(&all), "the other one has each document once");
    let texts: BTreeSet<String> = all.difference(&archives).cloned().collect();
    assert_eq!(events(&small), once(&texts), "what is beside a refused one is delivered");
    let letters = letters();
    for letter in &letters {
        let (connector, reason) = (&letter["from"], letter["reason"].as_str().unwrap());
        assert!(connector == "siem" && reason.contains("larger than a request may be"), "{letter}");
    }
    let dead: Vec<String> = letters.iter().map(|letter| letter["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!((dead.len(), dead.into_iter().collect::<BTreeSet<_>>()), (archives.len(), archives.clone()));

    // Once the sink takes them they are replayed, to it alone.
    let large = HecServer::start(Options::new(vec![Token::new("ours", true)])).await;
    let urls = format!("connectors.siem.splunk.urls={}", large.url());
    let mut connector = fleet.role("connector", &["--set", &urls]);
    for letter in &letters {
        fleet.command(&["dead", "replay", letter["name"].as_str().unwrap()]).expect(0);
    }
    until("the archives are there", || {
        assert!(connector.exited().is_none(), "{}", connector.log());
        events(&large).len() == archives.len() && fleet.is_idle()
    });
    stops_well("the connector", connector).await;
    stops_well("the worker", worker).await;
    assert_eq!(events(&large), once(&archives));
    assert_eq!(lines(&dir.join("log")), once(&all), "a replay is for who refused");
    assert_eq!(fleet.response_count(), FILES);
    assert!(fleet.command(&["dead", "list", "--json"]).expect(0).out.is_empty());
}

/// Killed in the middle of deliveries, twenty times.
#[tokio::test(flavor = "multi_thread")]
async fn killed_connectors_deliver_everything_once() {
    let mut fleet = Fleet::start(Kind::RabbitMq, |_| String::new()).await;
    fleet.command(&["setup"]).expect(0);
    let worker = fleet.role("worker", &["--slots", "1"]);
    scan_all(&mut fleet, 0, FILES).await;
    until("all scans are done", || {
        let status = fleet.status();
        status["open_scans"] == 0 && status["lanes"]["roots"]["waiting"] == 0 && status["lanes"]["roots"]["held"] == 0
    });
    for kill in 0..KILLS {
        let before = fleet.response_count();
        let mut connector = fleet.role("connector", &["--set", "connectors.out.filedir.batch_items=3"]);
        let wanted = (before + 1 + kill % 5).min(FILES);
        until("some are delivered", || fleet.response_count() >= wanted);
        connector.kill();
    }
    let connector = fleet.role("connector", &[]);
    until("everything is delivered", || fleet.response_count() == FILES && fleet.is_idle());
    let names: BTreeSet<String> = fleet.responses().iter().map(name_of).collect();
    assert_eq!(names.len(), FILES, "each file once");
    stops_well("the worker", worker).await;
    stops_well("the connector", connector).await;
    assert!(fleet.command(&["dead", "list", "--json"]).expect(0).out.is_empty());
}

fn name_of(response: &Value) -> String {
    response["results"][0]["payload_meta"]["extra_data"]["filename"].as_str().unwrap().to_owned()
}
