//! What a tenant notices of another one's flood: how long its responses take alone and under the flood, in one run, and in
//! which parts two that both flood get the slots.
//!
//! `cargo bench -p stoq --bench tenants`. Lanes in memory and on a RabbitMQ server that is started for it, where each intake
//! and the worker have connections of their own, as processes have. The server has a core of its own: what is asked is how
//! the fleet shares, not how a broker does that has more than it can carry. A worker with two jailed slots in this process;
//! hash, mimetype and yara with 70 rules on payloads of 12 KiB. The quiet tenant's payloads come at fixed times, whether or
//! not earlier ones are done: as many as a tenth of what the flood gets when it is alone.
//! The flood keeps its lane full. Times are from the moment at which a payload comes to the one at which its response is on the result lane.
#![expect(clippy::unwrap_used, reason = "a measurement stops at the first surprise")]
#![expect(clippy::print_stdout, reason = "a measurement is printed")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};
use stoq_api::plugin::{NotTold, Provider, Reference, Root, RootBytes, Taking};
use stoq_api::queue::{LaneOptions, Prefetch, Queue};
use stoq_api::scanner::{Build, SourceFile};
use stoq_api::{Budgets, Content, Fault, PayloadMeta, RequestMeta, results};
use stoq_engine::intake::{Intake, IntakeSettings};
use stoq_engine::lanes::TaskLane;
use stoq_engine::rules::Rules;
use stoq_engine::{Lanes, Links, Plan, PlannedPlugin, Settings, Surroundings, TenantLanes, Worker, rounds};
use stoq_jail::{Pool, PoolConfig, Sharing};
use stoq_memory::{MemoryLedger, MemoryQueue, MemoryStore};
use stoq_testkit::services::RabbitMq;
use stoq_testkit::services::cores::{self, Cores};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const RULES: &str = include_str!("../../scanners/benches/rules70.yar");
/// So large that tasks name it and do not carry it: what is asked is how the fleet shares, not how much a broker carries.
const SIZE: usize = 128 << 10;
const SLOTS: usize = 2;
/// Messages in work, as in a fleet.
const CONCURRENCY: usize = 32 * SLOTS;
/// Payloads of the quiet tenant whose way is timed, after so many that are not: the first find no slot of their tenant.
const QUIET: usize = 1_500;
const WARM: usize = 150;
/// Times that the quiet tenant is measured alone and under the flood, by turns.
const TURNS: usize = 5;
/// The flood gets so many times as much.
const FLOOD: u32 = 10;
/// How long floods are measured.
const WINDOW: Duration = Duration::from_secs(8);
/// Messages of roots that wait at most.
const BACKLOG: u64 = 200;
const TENANTS: [&str; 2] = ["flood", "quiet"];

/// Opens a lane by its name, with a bound or without.
type OpenLane = dyn Fn(&str, Option<u64>) -> Arc<dyn Queue>;
/// Connects once more to the same lanes.
type Connect = dyn Fn() -> Box<OpenLane>;

fn build(config: &[u8]) -> Result<stoq_jail::Hello, String> {
    rounds::build(config, &stoq_scanners::registry())
}

fn main() {
    stoq_jail::enter_if_asked(build);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        measure("in memory", &|_| {
            let all: Arc<Mutex<BTreeMap<String, Arc<MemoryQueue>>>> = Arc::default();
            Box::new(move || {
                let all = Arc::clone(&all);
                Box::new(move |name: &str, bound: Option<u64>| -> Arc<dyn Queue> {
                    let made = || match bound {
                        Some(bound) => MemoryQueue::bounded(name, bound as usize),
                        None => MemoryQueue::new(name),
                    };
                    Arc::<MemoryQueue>::clone(all.lock().entry(name.to_owned()).or_insert_with(|| Arc::new(made())))
                })
            })
        })
        .await;
        cores::take(Cores::Server);
        let server = RabbitMq::start().await;
        cores::take(Cores::Others);
        measure("RabbitMQ", &|prefix| {
            let options = json!({
                "addresses": [server.address()], "user": server.user(), "password": server.password(), "prefix": prefix,
            });
            Box::new(move || {
                let broker = (stoq_rabbitmq::registration().open)(options.as_object().unwrap()).unwrap();
                Box::new(move |name: &str, bound| broker.lane(name, LaneOptions { bound }))
            })
        })
        .await;
    });
}

async fn measure(what: &str, fresh: &dyn Fn(&str) -> Box<Connect>) {
    let [most, _] = floods(&*fresh("most"), [1, 1], &TENANTS[..1]).await;
    let pace = WINDOW * FLOOD / u32::try_from(most).unwrap();
    println!("{what}: the flood alone: {:.0} responses a second", most as f64 / WINDOW.as_secs_f64());
    let mut ratios = Vec::with_capacity(TURNS);
    for turn in 0..TURNS {
        let solo = latencies(&*fresh(&format!("solo{turn}")), pace, false).await;
        let under = latencies(&*fresh(&format!("under{turn}")), pace, true).await;
        let (solo95, under95) = (at(&solo, 0.95), at(&under, 0.95));
        println!("{what}: the quiet tenant alone        median {:6.1} ms, p95 {solo95:6.1} ms", at(&solo, 0.5));
        println!("{what}: under the other one's flood   median {:6.1} ms, p95 {under95:6.1} ms", at(&under, 0.5));
        ratios.push(under95 / solo95);
    }
    ratios.sort_unstable_by(f64::total_cmp);
    println!("{what}: p95 under the flood / alone   {:.2}, the median of {ratios:.2?}", ratios[TURNS / 2]);
    for weights in [[1, 1], [3, 1]] {
        let [a, b] = floods(&*fresh(&format!("floods{}", weights[0])), weights, &TENANTS).await;
        println!("{what}: two floods of weights {weights:?}: {a} and {b} responses, {:.2} to 1", a as f64 / b as f64);
    }
}

/// A quantile, in milliseconds.
fn at(sorted: &[Duration], part: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3
}

/// How long each of the quiet tenant's payloads took, in order.
async fn latencies(connect: &Connect, pace: Duration, flood: bool) -> Vec<Duration> {
    let rig = Rig::start(connect, [1, 1]).await;
    if flood {
        rig.flood(TENANTS[0]);
        // From here on its lane is full.
        let lanes = rig.around.lanes.of(Some(TENANTS[0]));
        while lanes.roots.depth("workers").await.unwrap().ready < BACKLOG / 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let sent = Arc::new(Mutex::new(Vec::new()));
    let mut paced = Paced { next: Instant::now() + pace, pace, sent: Arc::clone(&sent) };
    let intake = rig.intake(TENANTS[1]);
    let stop = rig.stop.clone();
    tokio::spawn(async move { intake.run(&mut paced, &stop).await.unwrap() });
    let mut took = Vec::with_capacity(WARM + QUIET);
    let mut deliveries = rig.results.subscribe("drain", Prefetch { messages: 256 }).await.unwrap();
    while took.len() < WARM + QUIET {
        let delivery = deliveries.next().await.unwrap().unwrap();
        let now = Instant::now();
        for item in results::unpack(&delivery.message).unwrap() {
            let response: Value = serde_json::from_slice(&item.json).unwrap();
            if response["tenant"] == TENANTS[1] {
                let name = &response["results"][0]["payload_meta"]["extra_data"]["filename"];
                let number: usize = name.as_str().unwrap().parse().unwrap();
                took.push((number, now - sent.lock()[number]));
            }
        }
        delivery.ack().await.unwrap();
    }
    rig.end().await;
    let mut took: Vec<_> = took.into_iter().filter(|(number, _)| *number >= WARM).map(|(_, time)| time).collect();
    took.sort_unstable();
    took
}

/// Responses of tenants that flood, within a window after the first moments.
async fn floods(connect: &Connect, weights: [u32; 2], who: &[&str]) -> [usize; 2] {
    let rig = Rig::start(connect, weights).await;
    who.iter().for_each(|tenant| rig.flood(tenant));
    let mut deliveries = rig.results.subscribe("drain", Prefetch { messages: 256 }).await.unwrap();
    let start = Instant::now() + WINDOW / 4;
    let mut counts = [0, 0];
    while Instant::now() < start + WINDOW {
        let delivery = deliveries.next().await.unwrap().unwrap();
        for item in results::unpack(&delivery.message).unwrap() {
            let response: Value = serde_json::from_slice(&item.json).unwrap();
            counts[usize::from(response["tenant"] == TENANTS[1])] += usize::from(Instant::now() >= start);
        }
        delivery.ack().await.unwrap();
    }
    rig.end().await;
    counts
}

/// A worker with lanes of its own.
struct Rig {
    around: Arc<Surroundings>,
    /// For each tenant.
    intakes: [Arc<Links>; 2],
    results: Arc<dyn Queue>,
    working: tokio::task::JoinHandle<Result<(), Fault>>,
    stop: CancellationToken,
    force: CancellationToken,
}

impl Rig {
    async fn start(connect: &Connect, weights: [u32; 2]) -> Self {
        let ledger = Arc::new(MemoryLedger::new());
        let store = Arc::new(MemoryStore::new());
        let links = |open: Box<OpenLane>| {
            let lanes = lanes(&*open, weights);
            let settings = Settings { concurrency: CONCURRENCY, coupled: true, ..Settings::default() };
            Arc::new(Links::new(
                lanes,
                Arc::<MemoryLedger>::clone(&ledger),
                Arc::<MemoryStore>::clone(&store),
                settings,
            ))
        };
        let results = connect()("results", None);
        let work = links(connect());
        work.lanes.declare(&["drain"]).await.unwrap();
        let intakes = TENANTS.map(|_| links(connect()));
        let plan = plan();
        let config = PoolConfig {
            slots: SLOTS,
            sharing: Sharing { plain: 1, tenants: TENANTS.map(Into::into).into_iter().zip(weights).collect() },
            ..PoolConfig::default()
        };
        let pool = Pool::start(config, serde_json::to_vec(&plan).unwrap().into()).unwrap();
        let around = Arc::new(Surroundings {
            meters: stoq_engine::Meters::default(),
            breaker: stoq_engine::Breaker::default(),
            links: work,
            files: Arc::default(),
            fetchers: BTreeMap::new(),
            runner: Arc::new(pool),
            plugins: plan.plugins.iter().map(|plugin| plugin.name.clone()).collect(),
            externals: BTreeMap::new(),
            rules: Rules::default(),
            archivers: BTreeMap::new(),
            decorators: BTreeMap::new(),
            spool_dir: std::env::temp_dir(),
            engine: Arc::default(),
        });
        let (stop, force) = (CancellationToken::new(), CancellationToken::new());
        let (worker, s, f) = (Worker::new(Arc::clone(&around)), stop.clone(), force.clone());
        let working = tokio::spawn(async move { worker.run(&s, &f).await });
        Self { around, intakes, results, working, stop, force }
    }

    fn intake(&self, tenant: &str) -> Intake {
        let settings = IntakeSettings {
            source: tenant.to_owned(),
            budgets: Budgets::default(),
            start_dispatch: Vec::new(),
            request_meta: RequestMeta::default(),
            tenant: Some(tenant.to_owned()),
        };
        let of = TENANTS.iter().position(|name| *name == tenant).unwrap();
        Intake::new(Arc::clone(&self.intakes[of]), settings)
    }

    fn flood(&self, tenant: &str) {
        let (intake, stop) = (self.intake(tenant), self.stop.clone());
        tokio::spawn(async move { intake.run(&mut Flood(0), &stop).await });
    }

    async fn end(self) {
        self.stop.cancel();
        self.force.cancel();
        self.working.await.unwrap().unwrap();
    }
}

/// The lanes of a process, which knows all tenants.
fn lanes(open: &OpenLane, weights: [u32; 2]) -> Lanes {
    let of = |tenant: Option<&str>, weight| TenantLanes {
        tenant: tenant.map(Into::into),
        weight,
        taken: true,
        children: open(&TaskLane::Children.name(tenant), None),
        roots: open(&TaskLane::Roots.name(tenant), Some(BACKLOG)),
    };
    let tenants = TENANTS.iter().zip(weights).map(|(tenant, weight)| of(Some(tenant), weight));
    Lanes::new(of(None, 1), tenants.collect::<Vec<_>>(), open("results", None), open("dead", None))
}

fn plan() -> Plan {
    let plain =
        |name: &str, build: Build| PlannedPlugin { name: name.into(), build, required_workers: BTreeSet::new() };
    let rules = SourceFile { option: "worker_rules".into(), name: "rules70.yar".into(), content: RULES.into() };
    let options = json!({ "dispatch_rules": [], "worker_rules": ["rules70.yar"] });
    let yara = Build { options: options.as_object().unwrap().clone(), files: vec![rules] };
    Plan {
        plugins: vec![plain("hash", Build::default()), plain("mimetype", Build::default()), plain("yara", yara)],
        always: ["hash", "mimetype", "yara"].map(String::from).to_vec(),
        max_required_depth: 10,
        plugin_deadline_ms: 60_000,
        ..Plan::default()
    }
}

fn reference(number: usize) -> Taking {
    let text = format!("payload {number}: the quick brown fox {{\"key\": 1234567890}}\n");
    let mut content = text.repeat(SIZE / text.len() + 1).into_bytes();
    content.truncate(SIZE);
    let content = Content::Bytes(Bytes::from(content));
    let meta = PayloadMeta::with("filename", number.to_string());
    Reference {
        identity: number.to_le_bytes().to_vec(),
        roots: vec![Root { bytes: RootBytes::Content(content), meta }],
        request_meta: RequestMeta::default(),
        taken: Box::new(NotTold),
    }
    .into()
}

/// Payloads without end, as fast as they are taken.
struct Flood(usize);

#[async_trait]
impl Provider for Flood {
    async fn next(&mut self) -> Result<Option<Taking>, Fault> {
        self.0 += 1;
        Ok(Some(reference(self.0)))
    }
}

/// A payload every now and then.
struct Paced {
    next: Instant,
    pace: Duration,
    sent: Arc<Mutex<Vec<Instant>>>,
}

#[async_trait]
impl Provider for Paced {
    async fn next(&mut self) -> Result<Option<Taking>, Fault> {
        let number = self.sent.lock().len();
        if number == WARM + QUIET {
            return Ok(None);
        }
        tokio::time::sleep_until(self.next).await;
        // When it was due, even if this machine was too busy to notice.
        self.sent.lock().push(self.next);
        self.next += self.pace;
        Ok(Some(reference(number)))
    }
}
