//! A fleet under which everything breaks, again and again: nothing is lost, nothing is doubled, nothing is left open.
//!
//! `cargo xtask chaos` runs this with other figures; see `docs/reliability.md`. `CHAOS_SEED` repeats a run's decisions,
//! though not its timing.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on is to stop")]
#![expect(clippy::print_stdout, reason = "the figures of a run are what it is for")]

#[path = "support/fleet.rs"]
mod fleet;
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use stoq_api::queue::{Message, Queue};
use stoq_testkit::services::Process;

use crate::fleet::{Fleet, Kind, ROUTES, intake_of, stops_well};
use crate::support::files::{self, Random};
use crate::support::{assert_same, by_name, run, stoq, text};

/// Time between two faults.
const PAUSE: Duration = Duration::from_millis(2_500);
/// How long a stopped worker stays stopped: beyond what the broker tolerates.
const STOPPED: Duration = Duration::from_secs(15);
/// Faults in a row of which one is each of the rare ones, and all others are kills of a role.
const CARDS: u64 = 7;
/// Messages of the intake published at a time.
const PUBLISH: usize = 20;
/// How long the fleet may take to finish what is left, once nothing breaks any more.
const SETTLE: Duration = Duration::from_secs(600);

/// What runs, by role and how many.
const ROLES: [(&str, usize); 3] = [("provider", 2), ("worker", 4), ("connector", 2)];

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|e| panic!("{name}={text:?}: {e}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_whatever_breaks() {
    let roots = usize::try_from(setting("CHAOS_ROOTS", 2_000)).unwrap();
    let time = Duration::from_secs(setting("CHAOS_SECONDS", 60));
    let seed = setting("CHAOS_SEED", u64::from(std::process::id()) << 20 | roots as u64);
    println!("CHAOS_SEED={seed} CHAOS_ROOTS={roots} CHAOS_SECONDS={}", time.as_secs());
    match std::env::var("CHAOS_BROKER") {
        Ok(names) => {
            for name in names.split(',') {
                let kind = Kind::of(name).unwrap_or_else(|| panic!("no broker is called {name:?}"));
                chaos(kind, roots, time, seed).await;
            }
        }
        Err(_) => {
            chaos(Kind::RabbitMq, roots, time, seed).await;
            chaos(Kind::Kafka, roots / 5, time / 2, seed).await;
        }
    }
}

async fn chaos(kind: Kind, roots: usize, time: Duration, seed: u64) {
    let mut fleet = Fleet::start(kind, |broker| {
        let queue = broker.name_of_intake("other", "intake");
        format!("[providers.in.queue]\nbroker = \"main\"\nqueue = \"{queue}\"\nformat = \"native\"\n")
    })
    .await;
    fleet.command(&["setup"]).expect(0);
    let publisher = intake_of(&fleet, "other", "intake").await;
    let feeding = tokio::spawn(feed(publisher, roots, time));

    let mut rig = Rig { running: Vec::new(), random: Random(seed), deck: Vec::new(), faults: BTreeMap::new() };
    for (role, count) in ROLES {
        for _ in 0..count {
            rig.running.push((role, rig_start(&mut fleet, role)));
        }
    }
    let begun = Instant::now();
    while begun.elapsed() < time || !feeding.is_finished() {
        assert!(begun.elapsed() < time + SETTLE, "the intake does not take what is published");
        tokio::time::sleep(PAUSE).await;
        rig.one_fault(&mut fleet).await;
    }
    feeding.await.unwrap();
    println!("{kind:?}: {roots} roots in {:?}, faults: {:?}", begun.elapsed(), rig.faults);

    let calm = Instant::now();
    while fleet.response_count() < roots || !fleet.is_idle() {
        assert!(
            calm.elapsed() < SETTLE,
            "{} of {roots} roots answered; {}",
            fleet.response_count(),
            fleet.command(&["status"]).out
        );
        rig.revive(&mut fleet);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    println!("{kind:?}: settled {:?} after the last fault", calm.elapsed());
    for (role, process) in rig.running {
        stops_well(role, process).await;
    }
    let responses = fleet.responses();
    assert!(responses.iter().all(|response| response["complete"] == true), "a scan is not complete");
    assert_same(&expected(&fleet, roots), &by_name(responses), "after chaos");
    let dead = fleet.command(&["dead", "list", "--json"]).expect(0).out;
    assert!(dead.is_empty(), "the dead lane is not empty: {dead}");
}

/// Publishes the references, spread over the time.
async fn feed(intake: Arc<dyn Queue>, roots: usize, time: Duration) {
    let begun = tokio::time::Instant::now();
    for start in (0..roots).step_by(PUBLISH) {
        let due = time.mul_f64(start as f64 / roots as f64 * 0.9);
        tokio::time::sleep_until(begun + due).await;
        let messages: Vec<_> = (start..roots.min(start + PUBLISH)).map(reference).collect();
        while let Err(fault) = intake.publish(messages.clone()).await {
            assert!(fault.is_transient(), "the intake refuses: {fault:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

fn reference(n: usize) -> Message {
    let payload = json!({ "base64": STANDARD.encode(files::nested_zip(n)), "filename": format!("{n}.zip") });
    Message::new(format!("reference-{n}"), serde_json::to_vec(&json!({ "payload": payload })).unwrap())
}

/// What one machine says of the same files.
fn expected(fleet: &Fleet, roots: usize) -> BTreeMap<String, serde_json::Value> {
    let source = fleet.path("same");
    std::fs::create_dir(&source).unwrap();
    for n in 0..roots {
        files::write(&source, &format!("{n}.zip"), &files::nested_zip(n));
    }
    let alone = fleet.path("alone.toml");
    std::fs::write(&alone, ROUTES).unwrap();
    let scanned = run(stoq(&["scan", "--config-file", text(&alone), text(&source)])).expect(0);
    let mut responses = scanned.responses();
    for response in &mut responses {
        // A reference has no directory.
        response["results"][0]["payload_meta"]["extra_data"].as_object_mut().unwrap().remove("source_dir");
    }
    by_name(responses)
}

fn rig_start(fleet: &mut Fleet, role: &str) -> Process {
    let more: &[&str] = if role == "worker" { &["--slots", "1"] } else { &[] };
    fleet.role(role, more)
}

/// What runs, and what was done to it.
struct Rig {
    running: Vec<(&'static str, Process)>,
    random: Random,
    deck: Vec<u64>,
    faults: BTreeMap<&'static str, usize>,
}

impl Rig {
    /// Every kind of fault comes once in so many, in another order each time.
    fn next_card(&mut self) -> u64 {
        if self.deck.is_empty() {
            self.deck = (0..CARDS).collect();
        }
        let at = usize::try_from(self.random.below(self.deck.len() as u64)).unwrap();
        self.deck.swap_remove(at)
    }

    async fn one_fault(&mut self, fleet: &mut Fleet) {
        let fault = match self.next_card() {
            0 => {
                fleet.broker.crash().await;
                "broker killed"
            }
            1 => {
                fleet.redis.kill();
                fleet.redis.restart().await;
                "ledger killed"
            }
            2 => {
                self.stop_a_worker().await;
                "worker stopped for a while"
            }
            _ => self.kill_one(fleet),
        };
        *self.faults.entry(fault).or_default() += 1;
        self.revive(fleet);
    }

    fn kill_one(&mut self, fleet: &mut Fleet) -> &'static str {
        let at = usize::try_from(self.random.below(self.running.len() as u64)).unwrap();
        let (role, process) = &mut self.running[at];
        process.kill();
        *process = rig_start(fleet, role);
        match *role {
            "provider" => "provider killed",
            "worker" => "worker killed",
            _ => "connector killed",
        }
    }

    async fn stop_a_worker(&mut self) {
        let workers: Vec<_> = (0..self.running.len()).filter(|at| self.running[*at].0 == "worker").collect();
        let at = workers[usize::try_from(self.random.below(workers.len() as u64)).unwrap()];
        self.running[at].1.freeze();
        tokio::time::sleep(STOPPED).await;
        self.running[at].1.thaw();
    }

    /// Starts again what ended by itself, as an orchestrator would. What panicked fails the test.
    fn revive(&mut self, fleet: &mut Fleet) {
        for (role, process) in &mut self.running {
            if let Some(status) = process.exited() {
                assert!(!process.log().contains("panicked"), "{role} panicked:\n{}", process.log());
                *self.faults.entry("ended by itself").or_default() += 1;
                println!("{role} ended with {status}: {}", process.log().lines().last().unwrap_or_default());
                *process = rig_start(fleet, role);
            }
        }
    }
}
