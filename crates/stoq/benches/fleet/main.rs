//! What a fleet costs: provider, worker and connector as processes on real servers, against clients that do nothing but the
//! same three hops.
//!
//! `cargo bench -p stoq --bench fleet [-- BROKER] [PARTS]`: the broker is `rabbitmq` (the default), `kafka` or `pubsub`, the
//! parts are those letters of `abcdef` that are wanted. Servers, roles, generator and a sink that discards share this
//! machine. `FLEET_PAYLOADS` says how many payloads a turn has, `FLEET_SECONDS` how long memory is watched.
//!
//! - `a` payloads a second with the plugin hash alone, as a ratio to bare clients;
//! - `b` hash, mimetype and yara with 70 rules, by kind of intake, and the CPU time of each process;
//! - `c` from publishing to the response at a tenth of the rate of `a`, as a ratio to bare clients;
//! - `d` messages, ledger and store operations a payload;
//! - `e` memory of each role while far more comes than it can take;
//! - `f` CPU time a payload, by how many wait.
//!
//! The bare clients are the queues of `stoq_api::queue` without anything around them: consume, publish confirmed, acknowledge,
//! twice, and consume, each hop in a process of its own; messages are packed and as large as the fleet's.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a measurement stops at the first surprise")]
#![expect(clippy::print_stdout, reason = "a measurement is printed")]

mod bare;
#[path = "../../../../tests/support/fleet.rs"]
mod fleet;
mod load;
mod rig;
#[path = "../../../../tests/support/mod.rs"]
mod support;
mod usage;
#[path = "../../../../tests/support/watching.rs"]
mod watching;

use std::time::Duration;

use crate::fleet::Kind;
use crate::load::Load;
use crate::rig::Rig;

/// Payloads of one turn.
const PAYLOADS: usize = 20_000;
/// Turns of which the median is told.
const TURNS: usize = 3;
/// Payloads whose way is timed, the first tenth of which does not count: some ten seconds, so that one pause is no twentieth.
const TIMED: usize = 3_000;
/// How much may wait when a payload's cost is measured.
const WAITING: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// How long memory is watched.
const WATCHED: u64 = 120;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|e| panic!("{name}={text:?}: {e}")))
}

#[tokio::main]
async fn main() {
    bare::hop_if_asked().await;
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let kind = arguments.iter().find_map(|argument| Kind::of(argument)).unwrap_or(Kind::RabbitMq);
    let letters = |argument: &&String| argument.chars().all(|letter| ('a'..='f').contains(&letter));
    let parts = arguments.iter().find(letters).map_or("abcdef", String::as_str);
    let payloads = usize::try_from(setting("FLEET_PAYLOADS", PAYLOADS as u64)).unwrap();
    println!("{kind:?}, {payloads} payloads a turn");
    let mut rate = None;
    if parts.contains('a') || parts.contains('c') {
        rate = Some(throughput(kind, payloads).await);
    }
    if parts.contains('b') {
        for load in [Load::Singles, Load::References, Load::Packed] {
            full(kind, load, payloads).await;
        }
    }
    if let Some(rate) = rate.filter(|_| parts.contains('c')) {
        latency(kind, rate / 10.0).await;
    }
    if parts.contains('d') {
        operations(kind, payloads).await;
    }
    if parts.contains('e') {
        memory(kind, Duration::from_secs(setting("FLEET_SECONDS", WATCHED))).await;
    }
    if parts.contains('f') {
        for waiting in WAITING {
            cost(kind, waiting).await;
        }
    }
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// (a): fleet and bare clients in turns. Says how many payloads a second the fleet made.
async fn throughput(kind: Kind, payloads: usize) -> f64 {
    let (mut fleets, mut bares, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let rig = Rig::start(kind, rig::HASH).await;
        let run = rig.run(Load::Singles, payloads).await;
        let sizes = rig.sizes();
        rig.end().await;
        let bare = bare::run(kind, payloads, sizes).await;
        println!("(a) fleet {:.0}/s; {run}", run.rate());
        println!("(a) bare {:.0}/s; {bare}; ratio {:.2}", bare.rate(), run.rate() / bare.rate());
        ratios.push(run.rate() / bare.rate());
        fleets.push(run.rate());
        bares.push(bare.rate());
    }
    let rate = median(fleets);
    println!("(a) median: fleet {rate:.0}/s, bare {:.0}/s, ratio {:.2}", median(bares), median(ratios));
    rate
}

/// (b).
async fn full(kind: Kind, load: Load, payloads: usize) {
    let mut rates = Vec::new();
    for _ in 0..TURNS {
        let rig = Rig::start(kind, rig::FULL).await;
        let run = rig.run(load, payloads / load.payloads_each()).await;
        rig.end().await;
        println!("(b) {load:?}: {:.0}/s; {run}", run.rate());
        rates.push(run.rate());
    }
    println!("(b) {load:?}: median {:.0}/s", median(rates));
}

/// (c): fleet and bare clients in turns.
async fn latency(kind: Kind, rate: f64) {
    let sorted = |mut times: Vec<f64>| {
        let mut times = times.split_off(TIMED / 10);
        times.sort_by(f64::total_cmp);
        times
    };
    let at = |sorted: &[f64], part: f64| sorted[((sorted.len() - 1) as f64 * part) as usize];
    let mut ratios = Vec::new();
    for _ in 0..TURNS {
        let rig = Rig::without_connector(kind, rig::HASH).await;
        let fleet = sorted(rig.times(TIMED, rate).await);
        let sizes = rig.sizes();
        rig.end().await;
        let bare = sorted(bare::times(kind, TIMED, rate, sizes).await);
        for (who, times) in [("fleet", &fleet), ("bare", &bare)] {
            println!("(c) {who} at {rate:.0}/s: p50 {:.2} ms, p95 {:.2} ms", at(times, 0.5), at(times, 0.95));
        }
        ratios.push(at(&fleet, 0.5) / at(&bare, 0.5));
    }
    println!("(c) p50 of the fleet / bare: {:.2}, of {ratios:.2?}", median(ratios.clone()));
}

/// (d).
async fn operations(kind: Kind, payloads: usize) {
    for load in [Load::Singles, Load::Archives] {
        let rig = Rig::start(kind, rig::HASH).await;
        let before = rig.counts();
        let run = rig.run(load, payloads / load.payloads_each()).await;
        let counts = rig.counts().since(&before);
        rig.end().await;
        println!("(d) {load:?}: a payload: {}", counts.each(run.payloads, run.references));
    }
}

/// (e).
async fn memory(kind: Kind, time: Duration) {
    let rig = Rig::start(kind, rig::FULL).await;
    rig.overload(time).await;
    rig.end().await;
}

/// (f).
async fn cost(kind: Kind, waiting: usize) {
    let mut rig = Rig::start(kind, rig::HASH).await;
    let run = rig.work_off(Load::Small, waiting).await;
    rig.end().await;
    println!("(f) {waiting} waiting: {:.0}/s; {run}", run.rate());
}
