//! Payloads that kill what works on them, in the midst of others, on the lanes of a real fleet: the others are answered in
//! full, and the poison is given up, kept and told of.
//!
//! No plugin of the program does such a thing, so the worker here is this very test with two plugins more: one that aborts
//! its slot, and one outside of slots that aborts the worker's process.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on is to stop")]

#[path = "support/fleet.rs"]
mod fleet;
mod support;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use libtest_mimic::{Arguments, Trial};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use stoq_api::plugin::{ExternalOutput, ExternalWorker, NotTold, Provider, Reference, Root, RootBytes, Taking};
use stoq_api::queue::{Broker, LaneOptions, Prefetch};
use stoq_api::scanner::{
    Build, BuildError, Built, Context, Output, Payload, PluginInfo, PluginKind, Registration, ScanError, Scanner,
};
use stoq_api::{Budgets, Content, Fault, Json, PayloadMeta, RequestMeta, Sha256, Task, envelope};
use stoq_engine::intake::{Intake, IntakeSettings};
use stoq_engine::lanes::{self, BATCH_ITEMS, WORKERS};
use stoq_engine::rules::Rules;
use stoq_engine::{
    Breaker, ExternalPlugin, Lanes, Links, Meters, Plan, PlannedPlugin, Settings, Surroundings, TenantLanes, Worker,
    rounds,
};
use stoq_jail::{Mode, Pool, PoolConfig};
use stoq_testkit::services::Process;
use tokio_util::sync::CancellationToken;

use crate::fleet::{Fleet, Kind, PREFIX, stops_well};
use crate::support::{PATIENCE, command, name_of, text, until};

/// Holds a [`Place`] where this program is to be a worker.
const PLACE: &str = "POISON_PLACE";
/// The worker in slots, and outside of them.
const IN_SLOT: &str = "in_slot";
const OUTSIDE: &str = "outside";
/// What they die on.
const KILLS_SLOT: &[u8] = b"kills its slot";
const KILLS_PROCESS: &[u8] = b"kills its process";
/// Attempts until a payload is given up.
const MAX_ATTEMPTS: u32 = 3;
/// How long the worker outside of slots works on what is harmless: when poison kills the process, all others are in work.
const WORK: Duration = Duration::from_millis(400);
/// How long it works on what kills it.
const BEFORE_DEATH: Duration = Duration::from_millis(150);
/// Which payload of a batch is poison.
const POISON: usize = 5;
/// As the configuration's default says, so that both mean the same lane.
const ROOT_BACKLOG: u64 = 10_000;
/// Signal 6 of signal(7).
const ABRT: i32 = 6;

fn main() {
    // In this order: a slot's fork server is this program, started by the worker, which is this program too.
    stoq_jail::enter_if_asked(workload);
    if let Ok(place) = std::env::var(PLACE) {
        return in_runtime(work(serde_json::from_str(&place).unwrap()));
    }
    let trial = Trial::test("poison_is_given_up_and_nothing_else", || {
        in_runtime(poison_is_given_up_and_nothing_else());
        Ok(())
    });
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit();
}

fn in_runtime(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(work);
}

/// Where a worker finds the fleet.
#[derive(Serialize, Deserialize)]
struct Place {
    broker: Map<String, Value>,
    ledger: Map<String, Value>,
    store: Map<String, Value>,
    spool: std::path::PathBuf,
}

impl Place {
    fn of(fleet: &Fleet) -> Self {
        let object = |value: Value| value.as_object().unwrap().clone();
        let spool = fleet.path("spool");
        std::fs::create_dir(&spool).unwrap();
        Self {
            broker: object(fleet.broker.options(PREFIX).1),
            ledger: object(json!({ "urls": [fleet.redis.address()] })),
            store: object(json!({ "path": fleet.path("payloads") })),
            spool,
        }
    }

    fn broker(&self) -> Arc<dyn Broker> {
        (stoq_rabbitmq::registration().open)(&self.broker).unwrap()
    }

    fn links(&self) -> Arc<Links> {
        let broker = self.broker();
        let lane = |name: &str, bound| broker.lane(name, LaneOptions { bound });
        let plain = TenantLanes::plain(lane("children", None), lane("roots", Some(ROOT_BACKLOG)));
        let lanes = Lanes::new(plain, [], lane("results", None), lane("dead", None));
        let local = stoq_stores::registry().into_iter().find(|kind| kind.info.name == "local").unwrap();
        let store = (local.open)(&self.store).unwrap();
        let ledger = (stoq_redis::registration().open)(&self.ledger, Arc::clone(&store)).unwrap();
        // All of a batch is in work at once, also after it was taken apart.
        let settings = Settings { max_attempts: MAX_ATTEMPTS, concurrency: 2 * BATCH_ITEMS, ..Settings::default() };
        Arc::new(Links::new(lanes, ledger, store, settings))
    }

    fn worker(&self, log: &std::path::Path) -> Process {
        let this = std::env::current_exe().unwrap();
        let mut command = command(text(&this), &[]);
        command.env(PLACE, serde_json::to_string(self).unwrap());
        Process::spawn(command, log)
    }
}

/// Is a worker of the fleet until it dies.
async fn work(place: Place) {
    let plain = |name: &str| PlannedPlugin {
        name: name.to_owned(),
        build: Build::default(),
        required_workers: Default::default(),
    };
    let plan = Plan {
        plugins: vec![plain("hash"), plain(IN_SLOT)],
        external: BTreeMap::from([(OUTSIDE.to_owned(), ExternalPlugin::default())]),
        always: ["hash", IN_SLOT, OUTSIDE].map(String::from).to_vec(),
        max_required_depth: 10,
        plugin_deadline_ms: 60_000,
        ..Plan::default()
    };
    // One slot: all of a batch lies in it when it dies.
    let config = PoolConfig {
        slots: 1,
        batch_items: BATCH_ITEMS,
        spool_dir: place.spool.clone(),
        mode: Mode::Prefer,
        ..Default::default()
    };
    let pool = Pool::start(config, serde_json::to_vec(&plan).unwrap().into()).unwrap();
    let around = Surroundings {
        meters: Meters::default(),
        breaker: Breaker::default(),
        links: place.links(),
        files: Arc::default(),
        fetchers: BTreeMap::new(),
        runner: Arc::new(pool),
        plugins: plan.plugins.iter().map(|plugin| plugin.name.clone()).collect(),
        externals: BTreeMap::from([(OUTSIDE.to_owned(), Arc::new(Outside) as Arc<dyn ExternalWorker>)]),
        rules: Rules::default(),
        archivers: BTreeMap::new(),
        decorators: BTreeMap::new(),
        spool_dir: std::env::temp_dir(),
        engine: Arc::default(),
    };
    let never = CancellationToken::new();
    Worker::new(Arc::new(around)).run(&never, &never).await.unwrap();
}

fn workload(config: &[u8]) -> Result<stoq_jail::Hello, String> {
    let mut registry = stoq_scanners::registry();
    let info = PluginInfo {
        name: IN_SLOT,
        description: "aborts on what asks for it",
        kinds: &[PluginKind::Worker],
        options: &[],
        required_workers: &[],
    };
    let build =
        |_: &Build| -> Result<Built, BuildError> { Ok(Built { scanner: Some(Arc::new(InSlot)), ..Built::default() }) };
    registry.push(Registration { info, build });
    rounds::build(config, &registry)
}

struct InSlot;

impl Scanner for InSlot {
    fn scan(&self, payload: &Payload<'_>, _cx: &mut Context<'_>) -> Result<Output, ScanError> {
        if payload.content.starts_with(KILLS_SLOT) {
            std::process::abort();
        }
        Ok(Output::of("harmless"))
    }
}

struct Outside;

#[async_trait]
impl ExternalWorker for Outside {
    async fn scan(&self, content: &Content, _meta: &PayloadMeta, _tenant: Option<&str>) -> ExternalOutput {
        if matches!(content, Content::Bytes(bytes) if bytes.starts_with(KILLS_PROCESS)) {
            tokio::time::sleep(BEFORE_DEATH).await;
            std::process::abort();
        }
        tokio::time::sleep(WORK).await;
        ExternalOutput { results: Some(Json::of(&json!("harmless"))), ..ExternalOutput::default() }
    }
}

/// Payloads of one batch, one of which is poison.
struct Batch {
    name: &'static str,
    poison: &'static [u8],
}

impl Batch {
    fn content(&self, n: usize) -> Vec<u8> {
        let text = if n == POISON { self.poison } else { b"is harmless" };
        [text, format!(" ({} {n})", self.name).as_bytes()].concat()
    }

    fn file(&self, n: usize) -> String {
        format!("{}-{n}", self.name)
    }

    /// Takes the payloads in and makes sure that they wait in one message; the tasks in it.
    async fn publish(&self, place: &Place, links: &Arc<Links>) -> Vec<Task> {
        take(links, (0..BATCH_ITEMS).map(|n| (self.file(n), self.content(n))).collect()).await;
        // On a connection of its own: once that is closed, nothing that comes later goes to this subscription.
        let broker = place.broker();
        let roots = broker.lane("roots", LaneOptions { bound: Some(ROOT_BACKLOG) });
        let mut deliveries = roots.subscribe(WORKERS, Prefetch { messages: 1 }).await.unwrap();
        let delivery = deliveries.next().await.unwrap().unwrap();
        let message = delivery.message.clone();
        let frames = envelope::decode(&message.body).unwrap();
        let tasks: Vec<Task> = frames.into_iter().map(|frame| *frame.task.unwrap()).collect();
        assert_eq!(tasks.len(), BATCH_ITEMS, "all payloads are in one message");
        // Given back it would not come for the first time any more.
        delivery.ack().await.unwrap();
        drop(deliveries);
        broker.close().await;
        links.lanes.of(None).roots.publish(vec![message]).await.unwrap();
        tasks
    }

    /// The response of each of its payloads, in their order, out of `responses`. All but the poison's are whole.
    fn check(&self, responses: &[Value]) -> Value {
        let mut poison = Value::Null;
        for n in 0..BATCH_ITEMS {
            let of = |response: &&Value| name_of(response) == self.file(n);
            let [response] = responses.iter().filter(of).collect::<Vec<_>>()[..] else {
                panic!("{} does not have one response", self.file(n));
            };
            assert_eq!(response["complete"], true, "{response:#}");
            let payload = &response["results"][0];
            if n == POISON {
                poison = response.clone();
                continue;
            }
            assert!(response["errors"] == json!([]) && response["findings"] == json!([]), "{response:#}");
            assert!(payload["findings"] == json!([]) && payload["not_run"] == json!([]), "{response:#}");
            assert_eq!(payload["workers"]["hash"]["sha256"], Sha256::of(&self.content(n)).to_string());
            assert_eq!(
                (&payload["workers"][IN_SLOT], &payload["workers"][OUTSIDE]),
                (&json!("harmless"), &json!("harmless"))
            );
        }
        poison
    }
}

/// Takes in payloads with their names.
async fn take(links: &Arc<Links>, payloads: Vec<(String, Vec<u8>)>) {
    let settings = IntakeSettings {
        source: "poison".into(),
        budgets: Budgets::default(),
        start_dispatch: Vec::new(),
        request_meta: RequestMeta::default(),
        tenant: None,
    };
    let intake = Intake::new(Arc::clone(links), settings);
    intake.run(&mut InMemory(payloads.into_iter()), &CancellationToken::new()).await.unwrap();
}

/// A provider of payloads that are in memory already.
struct InMemory(std::vec::IntoIter<(String, Vec<u8>)>);

#[async_trait]
impl Provider for InMemory {
    async fn next(&mut self) -> Result<Option<Taking>, Fault> {
        let reference = self.0.next().map(|(name, content)| Reference {
            identity: name.clone().into_bytes(),
            roots: vec![Root {
                bytes: RootBytes::Content(Content::Bytes(Bytes::from(content))),
                meta: PayloadMeta::with("filename", name),
            }],
            request_meta: RequestMeta::default(),
            taken: Box::new(NotTold),
        });
        Ok(reference.map(Into::into))
    }
}

async fn poison_is_given_up_and_nothing_else() {
    let mut fleet = Fleet::start(Kind::RabbitMq, |_| String::new()).await;
    fleet.command(&["setup"]).expect(0);
    let place = Place::of(&fleet);
    let links = place.links();
    let connector = fleet.role("connector", &[]);
    kills_its_slot(&fleet, &place, &links).await;
    let letter = kills_its_process(&fleet, &place, &links).await;
    replayed(&mut fleet, &letter).await;
    stops_well("the connector", connector).await;
}

/// The slot dies, and nothing else: its other payloads have another.
async fn kills_its_slot(fleet: &Fleet, place: &Place, links: &Arc<Links>) {
    let batch = Batch { name: "slot", poison: KILLS_SLOT };
    batch.publish(place, links).await;
    let mut worker = place.worker(&fleet.path("slot.log"));
    until("all of the batch is answered", || {
        assert!(worker.exited().is_none(), "the worker died:\n{}", worker.log());
        fleet.response_count() == BATCH_ITEMS
    });
    let poison = batch.check(&fleet.responses());
    let payload = &poison["results"][0];
    assert!(poison.to_string().contains("plugin_stopped"), "{poison:#}");
    assert!(payload["workers"].get(IN_SLOT).is_none(), "{poison:#}");
    // What did not kill it has looked at the poison too.
    assert_eq!(payload["workers"]["hash"]["sha256"], Sha256::of(&batch.content(POISON)).to_string());
    assert_eq!(payload["workers"][OUTSIDE], "harmless");
    assert!(dead(fleet).is_empty(), "nothing was given up");
}

/// The process dies with all that is in work; the letter that tells of the poison.
async fn kills_its_process(fleet: &Fleet, place: &Place, links: &Arc<Links>) -> Value {
    let batch = Batch { name: "process", poison: KILLS_PROCESS };
    let tasks = batch.publish(place, links).await;
    let poison_task = &tasks[POISON];
    let mut lives = 1;
    let mut worker = place.worker(&fleet.path("life-1.log"));
    let limit = Instant::now() + PATIENCE;
    while fleet.response_count() < 2 * BATCH_ITEMS || !fleet.is_idle() {
        assert!(Instant::now() < limit, "{} responses in {lives} lives: {}", fleet.response_count(), worker.log());
        if let Some(status) = worker.exited() {
            assert_eq!(status.signal(), Some(ABRT), "{status}: {}", worker.log());
            // Once with all of its batch, which says nothing of any of them, and at each attempt.
            assert!(lives <= MAX_ATTEMPTS + 1, "the poison is not given up");
            lives += 1;
            worker = place.worker(&fleet.path(&format!("life-{lives}.log")));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(lives > 1, "nothing died");

    let poison = batch.check(&fleet.responses());
    let said = format!("given up after {MAX_ATTEMPTS} attempts");
    let payload = &poison["results"][0];
    assert_eq!(payload["findings"][0]["kind"], "quarantined", "{poison:#}");
    assert!(payload["findings"][0]["detail"].as_str().unwrap().contains(&said), "{poison:#}");
    assert!(poison["errors"][0]["error"].as_str().unwrap().contains(&said), "{poison:#}");
    let letters = dead(fleet);
    let [letter] = &letters[..] else { panic!("{letters:?}") };
    assert!(letter["kind"] == "task" && letter["reason"].as_str().unwrap().contains(&said), "{letter}");
    assert_eq!(letter["id"], poison_task.payload_id.to_string());
    assert_eq!(payload["payload_id"], letter["id"]);
    let kept = format!("payloads/quarantine/{}-{}", poison_task.scan_id, poison_task.payload_id);
    assert_eq!(std::fs::read(fleet.path(&kept)).unwrap(), batch.content(POISON));

    // A copy of the task that comes late, as any broker may send one, is not tried again: what comes after it, and takes
    // longer than the poison would, is answered.
    links.lanes.of(None).roots.publish(lanes::take_apart(std::slice::from_ref(poison_task)).unwrap()).await.unwrap();
    take(links, vec![("late".to_owned(), b"is harmless too".to_vec())]).await;
    until("what comes after the copy is answered", || {
        assert!(worker.exited().is_none(), "the worker died of a copy:\n{}", worker.log());
        fleet.response_count() > 2 * BATCH_ITEMS && fleet.is_idle()
    });
    assert!(fleet.responses().iter().any(|response| name_of(response) == "late"));
    assert_eq!(dead(fleet), letters);
    worker.kill();
    letter.clone()
}

/// A worker on which the poison has no effect scans it in a scan of its own.
async fn replayed(fleet: &mut Fleet, letter: &Value) {
    let before = fleet.responses();
    fleet.command(&["dead", "replay", letter["name"].as_str().unwrap()]).expect(0);
    let worker = fleet.role("worker", &["--slots", "1"]);
    until("the replay is answered", || fleet.response_count() > before.len() && fleet.is_idle());
    stops_well("the worker", worker).await;
    let batch = Batch { name: "process", poison: KILLS_PROCESS };
    let new: Vec<_> = fleet.responses().into_iter().filter(|response| !before.contains(response)).collect();
    let [response] = &new[..] else { panic!("{} responses to one replay", new.len()) };
    assert!(before.iter().all(|other| other["scan_id"] != response["scan_id"]), "it is a scan of its own");
    assert_eq!(name_of(response), batch.file(POISON));
    assert!(response["complete"] == true && response["errors"] == json!([]), "{response:#}");
    assert_eq!(response["results"][0]["findings"], json!([]), "{response:#}");
    assert_eq!(response["results"][0]["workers"]["hash"]["sha256"], Sha256::of(&batch.content(POISON)).to_string());
    assert!(dead(fleet).is_empty(), "the letter was replayed");
}

/// The letters on the dead lane.
fn dead(fleet: &Fleet) -> Vec<Value> {
    fleet.command(&["dead", "list", "--json"]).expect(0).responses()
}
