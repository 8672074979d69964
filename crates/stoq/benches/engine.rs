//! What the engine adds to the libraries that it drives: CPU time of whole scans in memory, against the bare library calls
//! on the same bytes in the same run.
//!
//! `cargo bench -p stoq --bench engine`. Each figure is a median of several rounds that take turns, in CPU time of this
//! process and its slots together, so that it is a figure per core and other load on the machine matters little.
#![expect(clippy::unwrap_used, reason = "a measurement stops at the first surprise")]
#![expect(clippy::print_stdout, reason = "a measurement is printed")]

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use md5::Digest as _;
use serde_json::{Map, json};
use stoq_api::plugin::{NotTold, Provider, Reference, Root, RootBytes, Taking};
use stoq_api::queue::{Prefetch, Queue};
use stoq_api::scanner::{Build, Context, Payload, Remaining, SourceFile};
use stoq_api::{Budgets, Content, Fault, PayloadMeta, RequestMeta, Sha256};
use stoq_engine::intake::{Intake, IntakeSettings};
use stoq_engine::rules::Rules;
use stoq_engine::{Lanes, Links, Plan, PlannedPlugin, Settings, Surroundings, TenantLanes, Worker, rounds};
use stoq_jail::{Inline, Pool, PoolConfig, Runner, Sharing};
use stoq_memory::{MemoryLedger, MemoryQueue, MemoryStore};
use stoq_scanners::memory_sink::MemorySink;
use tokio_util::sync::CancellationToken;

const FILES: usize = 4_096;
const ROUNDS: usize = 7;
/// Payloads that are scanned at the same time.
const SLOTS: usize = 2;
/// Messages of tasks that wait for a worker, as in `stoq scan`.
const ROOTS: usize = 32;
const RULES: &str = include_str!("../../scanners/benches/rules70.yar");

fn build(config: &[u8]) -> Result<stoq_jail::Hello, String> {
    rounds::build(config, &stoq_scanners::registry())
}

/// `cargo bench … -- PART` measures one part only, for a profiler.
fn main() {
    stoq_jail::enter_if_asked(build);
    let corpus = corpus();
    let bytes: usize = corpus.iter().map(Bytes::len).sum();
    println!("{} payloads, {:.1} MB, 70 rules, {ROUNDS} rounds", corpus.len(), bytes as f64 / 1e6);
    let part = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let mut parts = vec![
        Part::new("bare", bare_calls),
        Part::new("plugins", plugins),
        Part::new("off", |corpus| engine(corpus, false)),
        Part::new("jailed", |corpus| engine(corpus, true)),
    ];
    parts.retain(|known| part.as_ref().is_none_or(|part| *part == known.name));
    for _ in 0..ROUNDS {
        for Part { work, costs, .. } in &mut parts {
            // Compiling rules and starting slots are no part of it.
            let nothing = cost(|| work(&[]));
            costs.push(cost(|| work(&corpus)).saturating_sub(nothing));
        }
    }
    let mut bare = None;
    for Part { name, costs, .. } in parts {
        let each = median(costs).as_secs_f64() * 1e6 / corpus.len() as f64;
        let ratio = *bare.get_or_insert(each) / each;
        println!("{name:8} {each:8.1} us a payload  ratio {ratio:.2}");
    }
}

/// A way to do the work, and what it took each time.
struct Part {
    name: &'static str,
    work: fn(&[Bytes]),
    costs: Vec<Duration>,
}

impl Part {
    fn new(name: &'static str, work: fn(&[Bytes])) -> Self {
        Self { name, work, costs: Vec::new() }
    }
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() / 2]
}

/// CPU time that `work` takes, in this process and in children that end meanwhile.
fn cost(work: impl FnOnce()) -> Duration {
    let before = used();
    work();
    used() - before
}

fn used() -> Duration {
    let own = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap().split(' ').collect();
    // cutime and cstime of proc_pid_stat(5), counted from the state behind the name; in hundredths of a second.
    let children: u64 = [13, 14].iter().map(|at| fields[*at].parse::<u64>().unwrap()).sum();
    Duration::new(u64::try_from(own.tv_sec).unwrap(), u32::try_from(own.tv_nsec).unwrap())
        + Duration::from_millis(children * 10)
}

/// Has `work` done on as many threads as there are slots: cores that are all at work are slower than one alone.
fn on_all_threads(corpus: &[Bytes], work: impl Fn(&[Bytes]) + Sync) {
    std::thread::scope(|scope| {
        for part in corpus.chunks(corpus.len().div_ceil(SLOTS).max(1)) {
            scope.spawn(|| work(part));
        }
    });
}

/// The libraries that the plugins are made of, called in a loop.
fn bare_calls(corpus: &[Bytes]) {
    let mut compiler = boreal::Compiler::new();
    compiler.add_rules_str(RULES).unwrap();
    let scanner = compiler.finalize();
    on_all_threads(corpus, |part| {
        for content in part {
            black_box(sha2::Sha256::digest(content));
            black_box(md5::Md5::digest(content));
            black_box(sha1::Sha1::digest(content));
            black_box(file_format::FileFormat::from_bytes(content));
            black_box(scanner.scan_mem(content).unwrap().rules.len());
        }
    });
}

/// The plugins themselves, called in a loop: they do more than those libraries, to tell texts apart above all.
fn plugins(corpus: &[Bytes]) {
    let registry = stoq_scanners::registry();
    let planned = plan().plugins;
    let scanner = |plugin: &PlannedPlugin| {
        let registration = registry.iter().find(|known| known.info.name == plugin.name).unwrap();
        (registration.build)(&plugin.build).unwrap().scanner.unwrap()
    };
    let scanners: Vec<_> = planned.iter().map(scanner).collect();
    let (meta, request_meta, none) = (PayloadMeta::default(), RequestMeta::default(), Map::new());
    let serial = AtomicU64::new(0);
    on_all_threads(corpus, |part| {
        let mut sink = MemorySink::new(Remaining { children: 0, bytes: 0 });
        for content in part {
            let payload = Payload {
                serial: serial.fetch_add(1, Ordering::Relaxed),
                content,
                sha256: Some(Sha256::of(content)),
                meta: &meta,
                request_meta: &request_meta,
                ancestors: &[],
                dispatch_meta: &none,
                results: &none,
            };
            for scanner in &scanners {
                let mut cx = Context::new(&mut sink, None);
                black_box(scanner.scan(&payload, &mut cx).unwrap().results);
            }
        }
    });
}

fn engine(corpus: &[Bytes], jail: bool) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let plan = plan();
    let config = serde_json::to_vec(&plan).unwrap();
    let runner: Arc<dyn Runner> = if jail {
        Arc::new(Pool::start(PoolConfig { slots: SLOTS, ..PoolConfig::default() }, config.into()).unwrap())
    } else {
        Arc::new(Inline::start(build, &config, SLOTS, std::env::temp_dir(), &Sharing::default()).unwrap())
    };
    runtime.block_on(run(corpus, &plan, runner));
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

async fn run(corpus: &[Bytes], plan: &Plan, runner: Arc<dyn Runner>) {
    let results = Arc::new(MemoryQueue::bounded("results", 256));
    let plain =
        TenantLanes::plain(Arc::new(MemoryQueue::new("children")), Arc::new(MemoryQueue::bounded("roots", ROOTS)));
    let lanes = Lanes::new(plain, [], Arc::clone(&results) as Arc<dyn Queue>, Arc::new(MemoryQueue::new("dead")));
    let settings = Settings { coupled: true, ..Settings::default() };
    let ledger = Arc::new(MemoryLedger::new());
    let around = Arc::new(Surroundings {
        meters: stoq_engine::Meters::default(),
        breaker: stoq_engine::Breaker::default(),
        links: Arc::new(Links::new(lanes, ledger, Arc::new(MemoryStore::new()), settings)),
        files: Arc::default(),
        fetchers: BTreeMap::new(),
        runner,
        plugins: plan.plugins.iter().map(|plugin| plugin.name.clone()).collect(),
        externals: BTreeMap::new(),
        rules: Rules::default(),
        archivers: BTreeMap::new(),
        decorators: BTreeMap::new(),
        spool_dir: std::env::temp_dir(),
        engine: Arc::default(),
    });
    around.lanes.declare(&["drain"]).await.unwrap();
    let (stop, force) = (CancellationToken::new(), CancellationToken::new());
    let worker = Worker::new(Arc::clone(&around));
    let (s, f) = (stop.clone(), force.clone());
    let working = tokio::spawn(async move { worker.run(&s, &f).await });
    let wanted = corpus.len();
    let draining = tokio::spawn(async move {
        let mut deliveries = results.subscribe("drain", Prefetch { messages: 256 }).await.unwrap();
        let mut responses = 0;
        while responses < wanted {
            let delivery = deliveries.next().await.unwrap().unwrap();
            responses += black_box(stoq_api::results::unpack(&delivery.message).unwrap()).len();
            delivery.ack().await.unwrap();
        }
    });
    let intake = Intake::new(
        Arc::clone(&around.links),
        IntakeSettings {
            source: "bench".into(),
            budgets: Budgets::default(),
            start_dispatch: Vec::new(),
            request_meta: RequestMeta::default(),
            tenant: None,
        },
    );
    let payloads = corpus.to_vec();
    intake.run(&mut InMemory(payloads.into_iter().enumerate()), &stop).await.unwrap();
    draining.await.unwrap();
    stop.cancel();
    working.await.unwrap().unwrap();
}

/// A provider of payloads that are in memory already.
struct InMemory(std::iter::Enumerate<std::vec::IntoIter<Bytes>>);

#[async_trait]
impl Provider for InMemory {
    async fn next(&mut self) -> Result<Option<Taking>, Fault> {
        let reference = self.0.next().map(|(number, content)| Reference {
            identity: number.to_le_bytes().to_vec(),
            roots: vec![Root { bytes: RootBytes::Content(Content::Bytes(content)), meta: PayloadMeta::default() }],
            request_meta: RequestMeta::default(),
            taken: Box::new(NotTold),
        });
        Ok(reference.map(Into::into))
    }
}

/// Texts, markup, code, and compressed-looking content behind the magics of usual formats; 1 to 48 KiB, 15.8 KB on
/// average; the same every time.
fn corpus() -> Vec<Bytes> {
    const MAGICS: [&[u8]; 8] = [
        b"MZ\x90\0\x03\0\0\0",
        b"%PDF-1.7\n",
        b"PK\x03\x04",
        b"\x7fELF\x02\x01\x01",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        b"\x1f\x8b\x08\0",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
    ];
    const WORDS: [&str; 12] = [
        "the ",
        "function ",
        "return ",
        "<div class=\"a\">",
        "</div>\n",
        "value = ",
        "http://example.com/ ",
        "import os\n",
        "{\"key\": ",
        "1234567890 ",
        "\r\n",
        "select * from ",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    (0..FILES)
        .map(|number| {
            let size = 1024 + next(23 << 10) as usize + if number % 8 == 0 { 24 << 10 } else { 0 };
            let mut content = Vec::with_capacity(size + 32);
            if number % 2 == 0 {
                content.extend_from_slice(MAGICS[next(8) as usize]);
                while content.len() < size {
                    content.extend_from_slice(&next(u64::MAX).to_le_bytes());
                }
            } else {
                while content.len() < size {
                    content.extend_from_slice(WORDS[next(12) as usize].as_bytes());
                }
            }
            content.truncate(size);
            Bytes::from(content)
        })
        .collect()
}
