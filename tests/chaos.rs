//! A fleet under which everything breaks, again and again: nothing is lost, nothing is doubled, nothing is left open.
//!
//! `cargo xtask chaos` runs this with other figures; see `docs/reliability.md`. `CHAOS_SEED` repeats a run's decisions,
//! though not its timing.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on is to stop")]
#![expect(clippy::print_stdout, reason = "the figures of a run are what it is for")]

#[path = "support/fleet.rs"]
mod fleet;
mod support;
#[path = "support/verdict.rs"]
mod verdict;
#[path = "support/watching.rs"]
mod watching;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use stoq_api::queue::{Message, Queue};
use stoq_testkit::services::{Process, Proxy, VersityGw, client_of};

use crate::fleet::{Bucket, Fleet, Kind, intake_of, stops_well};
use crate::support::files::{self, Random};
use crate::support::{text, until};
use crate::verdict::{Run, balanced, check, scans_in};
use crate::watching::{address, metrics, sum};

/// Time between two faults.
const PAUSE: Duration = Duration::from_millis(2_500);
/// How long a stopped worker stays stopped: beyond what the broker tolerates.
const STOPPED: Duration = Duration::from_secs(15);
/// How long the store answers 503: longer than its client tries again by itself.
const STORE_AWAY: Duration = Duration::from_secs(12);
/// Without a write for so long, nothing of the ledger can be forgotten just now.
const UNUSED: Duration = Duration::from_secs(15);
/// What the ledger forgets at times.
const FORGOTTEN: Duration = Duration::from_secs(1);
/// Until a scan is given up as partial: only those that the ledger forgot something of may come to that.
const MAX_TIME: Duration = Duration::from_secs(300);
/// How long a worker holds what it cannot go on with, and so for how long a sweeper watches before it ends a scan as partial:
/// longer than any fault here lasts.
const HOLD: &str = "fleet.hold_max=60 s";
/// Faults in a row of which one is each of the rare ones, and all others are kills of a role.
const CARDS: u64 = 9;
/// Messages of the intake published at a time.
const PUBLISH: usize = 20;
/// How many times fewer roots brokers get that are one among others in a run.
const OTHERS: usize = 5;
/// How long the fleet may take to finish what is left, once nothing breaks any more.
const SETTLE: Duration = Duration::from_secs(1_200);
/// One root of so many is too large to travel in its task, and holds a payload that is.
const LARGE: usize = 10;
const LARGE_BYTES: usize = 90_000;
/// What kills the worker that keeps it.
const POISON: &[u8] = b"whoever keeps this dies";
/// Signal 9 of signal(7).
const KILL: i32 = 9;
/// Most poisonous roots.
const MAX_POISON: usize = 8;

/// How long Pub/Sub's stand-in keeps what nobody takes: letters of the dead lane.
const STAND_IN_KEEPS: Duration = Duration::from_secs(600);

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
            for kind in others() {
                chaos(kind, roots / OTHERS, time / 2, seed).await;
            }
        }
    }
}

/// Brokers beside the one of every run: one a day in turn, or all with `CI_FULL=1`.
fn others() -> Vec<Kind> {
    let mut all = vec![Kind::Kafka, Kind::PubSub];
    if std::env::var("CI_FULL").as_deref() != Ok("1") {
        let day = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() / (24 * 60 * 60);
        all.rotate_left(usize::from(day % 2 == 1));
        all.truncate(1);
    }
    all
}

/// The roots of a run, each with its content; the same ones every time.
pub(crate) struct Roots {
    pub(crate) count: usize,
}

/// What is special about a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nature {
    Harmless,
    /// It is poison itself.
    Poison,
    /// Poison lies in it, beside what is harmless.
    Poisoned,
}

impl Roots {
    /// Poison is spread over the roots, so that what comes after it shows that the fleet goes on.
    pub(crate) fn nature(&self, n: usize) -> Nature {
        let count = (1 + self.count / 1_000).min(MAX_POISON);
        let step = (self.count / (count + 1)).max(1);
        match n / step {
            turn if !n.is_multiple_of(step) || turn == 0 || turn > count => Nature::Harmless,
            turn if turn.is_multiple_of(2) => Nature::Poison,
            _ => Nature::Poisoned,
        }
    }

    pub(crate) fn poison(n: usize) -> Vec<u8> {
        [POISON, format!(" ({n})").as_bytes()].concat()
    }

    pub(crate) fn content(&self, n: usize) -> Vec<u8> {
        let inner = ("nested.zip".to_owned(), files::nested_zip(n));
        match self.nature(n) {
            Nature::Poison => Self::poison(n),
            // Packed, so that the archive itself can be kept.
            Nature::Poisoned => files::zip(&[inner, ("poison.gz".to_owned(), files::gz(&Self::poison(n)))]),
            Nature::Harmless if n % LARGE == 3 => {
                files::zip(&[inner, ("large.bin".to_owned(), Random(n as u64).bytes(LARGE_BYTES))])
            }
            Nature::Harmless => files::nested_zip(n),
        }
    }

    pub(crate) fn name(n: usize) -> String {
        format!("{n}.zip")
    }

    fn reference(&self, n: usize) -> Message {
        let payload = json!({ "base64": STANDARD.encode(self.content(n)), "filename": Self::name(n) });
        // Only poison is kept: keeping is what it kills at.
        let keep = self.nature(n) != Nature::Harmless;
        let body = json!({ "payload": payload, "request_meta": { "archive_payloads": keep } });
        Message::new(format!("reference-{n}"), serde_json::to_vec(&body).unwrap())
    }
}

/// An archiver's bucket behind a line on which poison kills the worker that sends it, however healthy that is.
async fn trap(bucket: &Bucket) -> (Proxy, Arc<AtomicUsize>) {
    bucket.server.make_bucket("kept");
    let killed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&killed);
    let line = Proxy::mined(bucket.server.service.port(0), POISON, move |ends| {
        // Whoever is not there any more was killed by others.
        if let Some(worker) = client_of(ends) {
            let sent = std::process::Command::new("kill").args(["-s", "KILL", &worker.to_string()]).status();
            count.fetch_add(usize::from(sent.is_ok_and(|status| status.success())), Ordering::Relaxed);
        }
    });
    (line.await, killed)
}

async fn start(kind: Kind) -> (Fleet, Proxy, Arc<AtomicUsize>) {
    let bucket = Bucket::start().await;
    let (line, killed) = trap(&bucket).await;
    let fleet = Fleet::start_over(kind, Some(bucket), |broker, dir| {
        let queue = broker.name_of_intake("other", "intake");
        format!(
            "[providers.in.queue]\nbroker = \"main\"\nqueue = \"{queue}\"\nformat = \"native\"\n[budgets]\nmax_time = \
             \"{} s\"\n[archive]\ndestinations = [\"trap\"]\n[archivers.trap.s3]\narchive_bucket = \"kept\"\nendpoint = \
             \"http://{}\"\nallow_http = true\naccess_key = \"{}\"\nsecret_key = \"{}\"\n[http]\nlisten = \
             \"127.0.0.1:0\"\n[core.log]\nformat = \"json\"\n[connectors.copy.filedir]\nresults_dir = \"{}\"\n",
            MAX_TIME.as_secs(),
            line.address(),
            VersityGw::ACCESS_KEY,
            VersityGw::SECRET_KEY,
            text(&dir.join("copy")),
        )
    });
    (fleet.await, line, killed)
}

async fn chaos(kind: Kind, count: usize, time: Duration, seed: u64) {
    let roots = Arc::new(Roots { count });
    let (mut fleet, _line, poisoned) = start(kind).await;
    fleet.command(&["setup"]).expect(0);
    let publisher = intake_of(&fleet, "other", "intake").await;
    let feeding = tokio::spawn(feed(publisher, Arc::clone(&roots), time));

    let mut rig = Rig::new(seed, kind);
    for (role, count) in ROLES {
        for _ in 0..count {
            rig.running.push((role, rig_start(&mut fleet, role)));
        }
    }
    let begun = Instant::now();
    while begun.elapsed() < time || !feeding.is_finished() || rig.turns < CARDS {
        assert!(begun.elapsed() < time + SETTLE, "the intake does not take what is published");
        tokio::time::sleep(PAUSE).await;
        rig.one_fault(&mut fleet).await;
    }
    let published = feeding.await.unwrap();
    println!("{kind:?}: {count} roots in {:?}, faults: {:?}", begun.elapsed(), rig.faults);

    let calm = Instant::now();
    while ["out", "copy"].iter().any(|connector| fleet.response_count_in(connector) < count) || !fleet.is_idle() {
        assert!(
            calm.elapsed() < SETTLE,
            "{} and {} of {count} roots answered; {}",
            fleet.response_count(),
            fleet.response_count_in("copy"),
            fleet.command(&["status"]).out
        );
        rig.revive(&mut fleet);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // A copy of poison may have killed one since.
    rig.revive(&mut fleet);
    println!("{kind:?}: settled {:?} after the last fault", calm.elapsed());
    for (role, process) in &rig.running {
        if let Some(address) = address(&process.log()) {
            balanced(role, || metrics(address).expect("it still runs"));
        }
    }
    rig.running.iter().for_each(|(_, process)| rig.redelivered.see(process));
    for (role, process) in rig.running {
        stops_well(role, process).await;
    }
    println!(
        "{kind:?}: {} kills by poison, at least {} messages redelivered, something of {} scans forgotten",
        poisoned.load(Ordering::Relaxed),
        rig.redelivered.0.get(),
        rig.forgotten.len()
    );
    let keeps = (kind == Kind::PubSub).then_some(STAND_IN_KEEPS);
    check(&fleet, &Run { roots: &roots, forgotten: &rig.forgotten, published: &published, keeps });
}

/// Publishes the references, spread over the time. Says when each was.
async fn feed(intake: Arc<dyn Queue>, roots: Arc<Roots>, time: Duration) -> Vec<SystemTime> {
    let begun = tokio::time::Instant::now();
    let mut published = Vec::with_capacity(roots.count);
    for start in (0..roots.count).step_by(PUBLISH) {
        let due = time.mul_f64(start as f64 / roots.count as f64 * 0.9);
        tokio::time::sleep_until(begun + due).await;
        let messages: Vec<_> = (start..roots.count.min(start + PUBLISH)).map(|n| roots.reference(n)).collect();
        published.resize(published.len() + messages.len(), SystemTime::now());
        while let Err(fault) = intake.publish(messages.clone()).await {
            assert!(fault.is_transient(), "the intake refuses: {fault:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    published
}

fn rig_start(fleet: &mut Fleet, role: &str) -> Process {
    let more: &[&str] = if role == "worker" { &["--slots", "1", "--set", HOLD] } else { &[] };
    fleet.role(role, more)
}

/// Messages that came again, as far as processes told before they ended.
#[derive(Default)]
struct Redelivered(Cell<u64>);

impl Redelivered {
    fn see(&self, process: &Process) {
        let told = address(&process.log()).and_then(metrics);
        self.0.set(self.0.get() + told.map_or(0.0, |told| sum(&told, "stoq_redelivered_total", &[])) as u64);
    }
}

/// What runs, and what was done to it.
struct Rig {
    kind: Kind,
    running: Vec<(&'static str, Process)>,
    random: Random,
    deck: Vec<u64>,
    turns: u64,
    faults: BTreeMap<&'static str, usize>,
    redelivered: Redelivered,
    /// Scans of which the ledger forgot something: no others may end as partial.
    forgotten: BTreeSet<String>,
}

impl Rig {
    fn new(seed: u64, kind: Kind) -> Self {
        Self {
            kind,
            running: Vec::new(),
            random: Random(seed),
            deck: Vec::new(),
            turns: 0,
            faults: BTreeMap::new(),
            redelivered: Redelivered::default(),
            forgotten: BTreeSet::new(),
        }
    }

    /// Every kind of fault comes once in so many, in another order each time.
    fn next_card(&mut self) -> u64 {
        if self.deck.is_empty() {
            self.deck = (0..CARDS).collect();
        }
        let at = usize::try_from(self.random.below(self.deck.len() as u64)).unwrap();
        self.turns += 1;
        self.deck.swap_remove(at)
    }

    async fn one_fault(&mut self, fleet: &mut Fleet) {
        let fault = match self.next_card() {
            // A stand-in that keeps nothing would lose everything.
            0 if self.kind != Kind::PubSub => {
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
            3 => {
                // A ledger that nobody uses just now has nothing to forget. Poison may have killed every worker meanwhile,
                // and of a scan that it forgot something of nothing is written before the scan's time is over.
                let (idle, since) = (fleet.redis.moment(), Instant::now());
                until("the ledger is used", || {
                    self.revive(fleet);
                    idle.is_over() || since.elapsed() > UNUSED || fleet.is_idle()
                });
                let moment = fleet.redis.moment();
                tokio::time::sleep(FORGOTTEN).await;
                self.forgotten.extend(scans_in(&fleet.redis.fall_back(&moment).await));
                "ledger forgot its last second"
            }
            4 => {
                let line = &fleet.bucket.as_ref().unwrap().line;
                line.busy();
                tokio::time::sleep(STORE_AWAY).await;
                line.heal();
                "store answered 503 for a while"
            }
            _ => self.kill_one(fleet),
        };
        *self.faults.entry(fault).or_default() += 1;
        self.revive(fleet);
    }

    fn kill_one(&mut self, fleet: &mut Fleet) -> &'static str {
        let at = usize::try_from(self.random.below(self.running.len() as u64)).unwrap();
        let (role, process) = &mut self.running[at];
        self.redelivered.see(process);
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

    /// Starts again what ended by itself or by poison, as an orchestrator would. What panicked fails the test.
    fn revive(&mut self, fleet: &mut Fleet) {
        for (role, process) in &mut self.running {
            if let Some(status) = process.exited() {
                assert!(!process.log().contains("panicked"), "{role} panicked:\n{}", process.log());
                if (*role, status.signal()) != ("worker", Some(KILL)) {
                    *self.faults.entry("ended by itself").or_default() += 1;
                    println!("{role} ended with {status}: {}", process.log().lines().last().unwrap_or_default());
                }
                *process = rig_start(fleet, role);
            }
        }
    }
}
