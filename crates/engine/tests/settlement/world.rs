//! A world small enough to be tried in every way: memory lanes, ledger and store that outlive workers, a scanner whose
//! payloads say what is in them, and workers that live under a plan of faults.

#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use parking_lot::Mutex;
use serde_json::Value;
use stoq_api::fetch::{FetchedBytes, Fetcher, Fetching};
use stoq_api::ledger::Ledger;
use stoq_api::plugin::RootBytes;
use stoq_api::queue::{Message, Prefetch, Queue};
use stoq_api::scanner::{
    Build, BuildError, Built, Context, Output, Payload, PluginInfo, Registration, Remaining, ScanError, Scanner, Sink,
    Spent,
};
use stoq_api::store::Store;
use stoq_api::task::{Place, RemoteRef};
use stoq_api::{Budgets, Content, Fault, FaultKind, PackedMeta, PayloadMeta, RequestMeta, Sha256, SpentKind, results};
use stoq_engine::intake::{Intake, IntakeSettings};
use stoq_engine::lanes::{DEAD, TaskLane, WORKERS};
use stoq_engine::rules::Rules;
use stoq_engine::{Lanes, Links, Plan, PlannedPlugin, Settings, Surroundings, TenantLanes, Worker, rounds};
use stoq_jail::{Answer, Child, Item, JobItem, Runner, Wire, Workload};
use stoq_memory::{MemoryLedger, MemoryQueue, MemoryStore};
use stoq_testkit::fault::{FaultPlan, FaultyLedger, FaultyQueue, FaultyStore};
use tokio_util::sync::CancellationToken;

use crate::silent::{Ahead, Silent};

/// The one connector.
pub(crate) const SINK: &str = "sink";

/// The one tenant.
pub(crate) const TENANT: &str = "acme";

/// A tenant's children and roots.
struct Pair(Arc<MemoryQueue>, Arc<MemoryQueue>);

/// What outlives processes.
pub(crate) struct World {
    /// Task lanes: those of scans without a tenant, and of [`TENANT`].
    tasks: [Pair; 2],
    results: Arc<MemoryQueue>,
    dead: Arc<MemoryQueue>,
    pub(crate) ledger: Arc<MemoryLedger>,
    store: Arc<MemoryStore>,
    pub(crate) budgets: Budgets,
    /// Children longer than this go into the store.
    pub(crate) inline_limit: u64,
    /// Messages that a worker handles at a time.
    pub(crate) concurrency: usize,
    /// Whose the references are that are taken.
    pub(crate) tenant: Option<&'static str>,
    /// Whether workers take tasks of scans without a tenant, and of the tenant.
    pub(crate) takes: [bool; 2],
    /// Task lanes do not tell what waits.
    pub(crate) silent: Option<Ahead>,
    /// The most scans that were open when a payload was scanned.
    peak: Arc<AtomicU64>,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with_roots(MemoryQueue::new).await
    }

    /// With lanes of roots that `queue` makes of their names.
    pub(crate) async fn with_roots(queue: impl Fn(String) -> MemoryQueue) -> Self {
        let world = Self {
            tasks: [None, Some(TENANT)].map(|tenant| {
                let children = MemoryQueue::new(TaskLane::Children.name(tenant));
                Pair(Arc::new(children), Arc::new(queue(TaskLane::Roots.name(tenant))))
            }),
            results: Arc::new(MemoryQueue::new("results")),
            dead: Arc::new(MemoryQueue::new("dead")),
            ledger: Arc::new(MemoryLedger::new()),
            store: Arc::new(MemoryStore::new()),
            budgets: Budgets { max_seconds: 60, ..Budgets::default() },
            inline_limit: 8,
            concurrency: Settings::default().concurrency,
            tenant: None,
            takes: [true, true],
            silent: None,
            peak: Arc::default(),
        };
        world.around(&FaultPlan::calm(), |_| ()).lanes.declare(&[SINK]).await.unwrap();
        world
    }

    /// The world as one process sees it, whose operations fail by `plan`, and whose extracting plugin changes its mind by
    /// `twist`.
    pub(crate) fn around(&self, plan: &FaultPlan, twist: fn(&mut Vec<String>)) -> Arc<Surroundings> {
        let queue = |queue: &Arc<MemoryQueue>| -> Arc<dyn Queue> {
            let inner: Arc<dyn Queue> = Arc::new(FaultyQueue::new(Arc::clone(queue) as Arc<dyn Queue>, plan.clone()));
            match &self.silent {
                Some(ahead) => Arc::new(Silent { inner, ahead: Arc::clone(ahead) }),
                None => inner,
            }
        };
        let ledger = Arc::clone(&self.ledger) as Arc<dyn Ledger>;
        let store = Arc::clone(&self.store) as Arc<dyn Store>;
        let [plain, own] =
            self.tasks.each_ref().map(|Pair(children, roots)| TenantLanes::plain(queue(children), queue(roots)));
        let plain = TenantLanes { taken: self.takes[0], ..plain };
        let own = TenantLanes { tenant: Some(TENANT.into()), taken: self.takes[1], ..own };
        let lanes = Lanes::new(plain, [own], queue(&self.results), queue(&self.dead));
        let links = Links::new(
            lanes,
            Arc::new(FaultyLedger::new(ledger, plan.clone())),
            Arc::new(FaultyStore::new(store, plan.clone())),
            Settings { inline_limit: self.inline_limit, concurrency: self.concurrency, ..Settings::default() },
        );
        Arc::new(Surroundings {
            meters: stoq_engine::Meters::default(),
            breaker: stoq_engine::Breaker::default(),
            links: Arc::new(links),
            files: Arc::default(),
            fetchers: BTreeMap::from([("test".to_owned(), Arc::new(Shelf) as Arc<dyn Fetcher>)]),
            runner: Arc::new(Direct::new(twist, Arc::clone(&self.ledger), Arc::clone(&self.peak))),
            plugins: vec!["open".into()],
            externals: BTreeMap::new(),
            rules: Rules::default(),
            archivers: BTreeMap::new(),
            decorators: BTreeMap::new(),
            spool_dir: std::env::temp_dir(),
            engine: Arc::default(),
        })
    }

    /// Puts `times` copies of the message of one reference on the lane, as if it had come again.
    pub(crate) async fn take(&self, content: &[u8], times: usize) {
        self.take_all(times, || vec![RootBytes::Content(Content::from(content.to_vec()))]).await;
    }

    /// Puts one message on the lane with the tasks of several references.
    pub(crate) async fn take_together(&self, contents: &[&[u8]]) {
        let all = || contents.iter().map(|content| RootBytes::Content(Content::from(content.to_vec()))).collect();
        self.take_all(1, all).await;
    }

    /// Takes a reference to what lies on the [`Shelf`] as `url` and is said to have `size` bytes.
    pub(crate) async fn take_remote(&self, url: &str, size: Option<u64>) {
        let remote = RemoteRef { via: "test".into(), place: Place::Url(url.to_owned()), size };
        self.take_all(1, || vec![RootBytes::Remote(remote.clone())]).await;
    }

    async fn take_all(&self, times: usize, bytes: impl Fn() -> Vec<RootBytes>) {
        let settings = IntakeSettings {
            source: "test".into(),
            budgets: self.budgets,
            start_dispatch: Vec::new(),
            request_meta: RequestMeta::default(),
            tenant: self.tenant.map(str::to_owned),
        };
        let intake = Intake::new(Arc::clone(&self.around(&FaultPlan::calm(), |_| ()).links), settings);
        for _ in 0..times {
            let mut given = Given(bytes().into_iter().enumerate());
            intake.run(&mut given, &CancellationToken::new()).await.unwrap();
        }
    }

    /// Lets `workers` workers of one process work under `plan` until it dies or nothing is left to do.
    pub(crate) async fn live(&self, plan: &FaultPlan, workers: usize, twist: fn(&mut Vec<String>)) {
        self.live_until(plan, workers, twist, self.idle()).await;
    }

    /// As [`World::live`], until `done`.
    pub(crate) async fn live_until(
        &self,
        plan: &FaultPlan,
        workers: usize,
        twist: fn(&mut Vec<String>),
        done: impl Future<Output = ()>,
    ) {
        let (stop, force) = (CancellationToken::new(), CancellationToken::new());
        let mut at_work = tokio::task::JoinSet::new();
        for _ in 0..workers {
            let worker = Worker::new(self.around(plan, twist));
            let (stop, force) = (stop.clone(), force.clone());
            at_work.spawn(async move { worker.run(&stop, &force).await });
        }
        tokio::select! {
            () = plan.crashed() => {}
            () = done => {}
        }
        // Dropping a worker is what the death of its process does: nothing it held has a verdict. A worker's own tasks
        // end with it only if they are told to.
        force.cancel();
        at_work.shutdown().await;
    }

    pub(crate) async fn idle(&self) {
        loop {
            if self.waiting().await == 0 {
                return;
            }
            // Virtual time: this costs nothing and lets everybody else go on.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// Task messages on the lanes.
    pub(crate) async fn waiting(&self) -> u64 {
        self.waiting_of(0).await + self.waiting_of(1).await
    }

    /// Messages on the lane of roots of scans without a tenant.
    pub(crate) async fn roots_waiting(&self) -> u64 {
        let depth = self.tasks[0].1.depth(WORKERS).await.unwrap();
        depth.ready + depth.held
    }

    /// Task messages on the lanes of scans without a tenant (0), or of the tenant (1).
    pub(crate) async fn waiting_of(&self, tenant: usize) -> u64 {
        let Pair(children, roots) = &self.tasks[tenant];
        let mut all = 0;
        for lane in [roots, children] {
            let depth = lane.depth(WORKERS).await.unwrap();
            all += depth.ready + depth.held;
        }
        all
    }

    /// The most scans that were open when a payload was scanned.
    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// The ledger loses everything.
    pub(crate) fn forget(&mut self) {
        self.ledger = Arc::new(MemoryLedger::new());
    }

    /// Whose the responses in the sink are, in the order in which they came. They are taken out.
    pub(crate) async fn order(&self) -> Vec<Option<String>> {
        let mut deliveries = self.results.subscribe(SINK, Prefetch { messages: 1000 }).await.unwrap();
        let mut order = Vec::new();
        for _ in 0..self.results.depth(SINK).await.unwrap().ready {
            let delivery = deliveries.next().await.unwrap().unwrap();
            for (_, response) in self.responses(&delivery.message).await {
                order.push(response["tenant"].as_str().map(str::to_owned));
            }
            delivery.ack().await.unwrap();
        }
        order
    }

    pub(crate) async fn dead_letters(&self) -> u64 {
        self.dead.depth(DEAD).await.unwrap().ready
    }

    /// Documents in the sink: by id, each distinct text once, without what only tells how long something took.
    pub(crate) async fn documents(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut documents: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut deliveries = self.results.subscribe(SINK, Prefetch { messages: 1000 }).await.unwrap();
        let mut left = self.results.depth(SINK).await.unwrap().ready;
        while left > 0 {
            let delivery = deliveries.next().await.unwrap().unwrap();
            for (id, mut response) in self.responses(&delivery.message).await {
                strip(&mut response);
                documents.entry(id).or_default().insert(response.to_string());
            }
            delivery.ack().await.unwrap();
            left -= 1;
        }
        documents
    }

    /// The responses in a message, with their ids.
    async fn responses(&self, message: &Message) -> Vec<(String, Value)> {
        let mut all = Vec::new();
        for mut response in results::unpack(message).unwrap() {
            if let Some(stored) = results::Stored::of(message).unwrap() {
                let chunks: Vec<_> = self.store.get(&stored.key).await.unwrap().collect().await;
                response.json = chunks.into_iter().flat_map(Result::unwrap).collect();
            }
            all.push((response.id, serde_json::from_slice(&response.json).unwrap()));
        }
        all
    }
}

/// Removes times: the same scan made anew was first seen and took as long as it did.
fn strip(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|name, _| name != "micros" && name != "time");
            members.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

/// A provider of these payloads.
struct Given(std::iter::Enumerate<std::vec::IntoIter<RootBytes>>);

#[async_trait]
impl stoq_api::plugin::Provider for Given {
    async fn next(&mut self) -> Result<Option<stoq_api::plugin::Taking>, stoq_api::Fault> {
        let reference = self.0.next().map(|(n, bytes)| stoq_api::plugin::Reference {
            identity: format!("message {}", n + 1).into_bytes(),
            roots: vec![stoq_api::plugin::Root { bytes, meta: PayloadMeta::default() }],
            request_meta: RequestMeta::default(),
            taken: Box::new(stoq_api::plugin::NotTold),
        });
        Ok(reference.map(Into::into))
    }
}

/// A network of few places.
struct Shelf;

#[async_trait]
impl Fetcher for Shelf {
    async fn fetch(&self, reference: &RemoteRef) -> Result<Fetching, Fault> {
        let Place::Url(url) = &reference.place else { panic!("{reference:?}") };
        let whole = |mismatch: Option<&str>| Fetching {
            bytes: FetchedBytes::Whole(Content::from(b"root(leaf)".to_vec())),
            size: None,
            mismatch: mismatch.map(str::to_owned),
        };
        match url.as_str() {
            "whole" => Ok(whole(None)),
            "stream" => {
                let parts = [b"root", &b"(leaf)"[..]].map(|part| Ok(Bytes::from_static(part)));
                Ok(Fetching { bytes: FetchedBytes::Stream(futures::stream::iter(parts).boxed()), ..whole(None) })
            }
            "large" => Ok(Fetching { size: Some(u64::MAX), ..whole(None) }),
            "changed" => Ok(whole(Some("another version"))),
            "gone" => Err(Fault::new(FaultKind::NotFound, "nothing is there")),
            _ => Err(Fault::new(FaultKind::Unavailable, "nobody answers")),
        }
    }
}

/// Payloads read `name(child)(child(grandchild))`: the plugin emits what stands in each outer pair of brackets.
struct Open(fn(&mut Vec<String>));

impl Scanner for Open {
    fn scan(&self, payload: &Payload<'_>, cx: &mut Context<'_>) -> Result<Output, ScanError> {
        let mut inner = parts(&String::from_utf8_lossy(payload.content));
        (self.0)(&mut inner);
        for child in &inner {
            cx.emit(child.as_bytes(), PayloadMeta::default())?;
        }
        Ok(Output::of(inner.len()))
    }
}

fn parts(text: &str) -> Vec<String> {
    let (mut depth, mut part, mut all) = (0, String::new(), Vec::new());
    for c in text.chars() {
        match c {
            '(' if depth == 0 => depth = 1,
            ')' if depth == 1 => {
                depth = 0;
                all.push(std::mem::take(&mut part));
            }
            c if depth > 0 => {
                depth += i32::from(c == '(') - i32::from(c == ')');
                part.push(c);
            }
            _ => {}
        }
    }
    all
}

/// Runs the rounds in place: no process, no thread, no clock. Before each payload it looks how many scans are open.
struct Direct {
    workload: Box<dyn Workload>,
    ledger: Arc<MemoryLedger>,
    peak: Arc<AtomicU64>,
}

impl Direct {
    fn new(twist: fn(&mut Vec<String>), ledger: Arc<MemoryLedger>, peak: Arc<AtomicU64>) -> Self {
        let plan = Plan {
            plugins: vec![PlannedPlugin {
                name: "open".into(),
                build: Build::default(),
                required_workers: BTreeSet::new(),
            }],
            always: vec!["open".into()],
            max_required_depth: 10,
            plugin_deadline_ms: 60_000,
            ..Plan::default()
        };
        // A registration is a plain function, so what the plugin does cannot be captured: build it here instead.
        let info = PluginInfo { name: "open", description: "", kinds: &[], options: &[], required_workers: &[] };
        let registration = Registration { info, build: honest };
        let hello = rounds::build(&serde_json::to_vec(&plan).unwrap(), &[registration]).unwrap();
        TWIST.with(|t| t.set(twist));
        Self { workload: hello.workload, ledger, peak }
    }
}

thread_local! {
    static TWIST: std::cell::Cell<fn(&mut Vec<String>)> = const { std::cell::Cell::new(|_| ()) };
}

fn honest(_: &Build) -> Result<Built, BuildError> {
    Ok(Built { scanner: Some(Arc::new(Open(|parts| TWIST.with(|t| t.get())(parts)))), ..Built::default() })
}

#[async_trait]
impl Runner for Direct {
    async fn run(&self, items: Vec<JobItem>) -> Vec<Answer> {
        let mut answers = Vec::new();
        self.peak.fetch_max(self.ledger.open_scans().await.unwrap(), Ordering::Relaxed);
        for item in items {
            let content = item.content.to_bytes().unwrap();
            let mut wire = Collect { left: item.remaining, children: Mutex::default() };
            let report = self
                .workload
                .run(&Item { serial: 0, header: &item.header, content: &content, excluded: &[] }, &mut wire);
            let children = wire.children.into_inner();
            let child = |(meta, bytes): (PayloadMeta, Vec<u8>)| Child {
                plugin: 0,
                meta: PackedMeta::from(&meta),
                sha256: Sha256::of(&bytes),
                content: Content::from(bytes),
            };
            answers.push(Answer {
                report: Some(Bytes::from(report)),
                children: children.into_iter().map(child).collect(),
                stopped: Vec::new(),
            });
        }
        answers
    }

    fn hello(&self) -> Bytes {
        Bytes::new()
    }
}

struct Collect {
    left: Remaining,
    children: Mutex<Vec<(PayloadMeta, Vec<u8>)>>,
}

impl Sink for Collect {
    fn remaining(&self) -> Remaining {
        self.left
    }

    fn open(&mut self, meta: PayloadMeta) -> std::io::Result<()> {
        let children = self.children.get_mut();
        if children.len() as u64 >= self.left.children {
            return Err(Spent(SpentKind::Payloads).into_io());
        }
        children.push((meta, Vec::new()));
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if let Some((_, content)) = self.children.get_mut().last_mut() {
            content.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn close(&mut self, keep: bool) -> std::io::Result<()> {
        if !keep {
            self.children.get_mut().pop();
        }
        Ok(())
    }
}

impl Wire for Collect {
    fn starting(&mut self, _: u16) {}

    fn sink(&mut self) -> &mut dyn Sink {
        self
    }
}
