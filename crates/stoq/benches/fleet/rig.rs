//! A fleet of one process a role on servers of its own, and what it is asked to do.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stoq_api::queue::{Deliveries, LaneOptions, Prefetch, Queue};
use stoq_api::{envelope, results};
use stoq_testkit::services::{Process, RabbitMq, RabbitMqOptions};
use tokio::task::JoinSet;

use crate::bare::Sizes;
use crate::fleet::{Broker, Fleet, Kind, ROUTES, intake_of, stops_well};
use crate::load::{FILES, Load, file, file_content};
use crate::support::{PATIENCE, command, text};
use crate::usage::{self, Run};
use crate::watching::{address, metrics, sum};

/// Which plugins look at everything: what bare clients are compared with, and what a fleet usually has.
pub(crate) const HASH: &str = "[routes]\nalways = [\"hash\"]\n";
pub(crate) const FULL: &str = "[routes]\nalways = [\"hash\", \"mimetype\", \"yara\"]\n";
const RULES: &str = include_str!("../../../scanners/benches/rules70.yar");
/// Messages that are published in one call, and calls under way at once.
const PUBLISH: usize = 50;
/// How often it is looked how far the sink is.
const LOOK: Duration = Duration::from_millis(20);
/// How often memory is looked at.
const SAMPLE: Duration = Duration::from_secs(5);
/// Messages that wait in an intake that is overloaded: each turn of the generator fills it up again.
const OVERLOAD: u64 = 20_000;
/// Payloads that go through before anything is measured.
const WARM: usize = 200;

/// A broker that may use all cores, and tells what it does.
pub(crate) async fn broker(kind: Kind) -> Broker {
    match kind {
        Kind::RabbitMq => {
            let options = RabbitMqOptions { all_cores: true, prometheus: true, ..RabbitMqOptions::default() };
            Broker::RabbitMq(Box::new(RabbitMq::start_with(options).await))
        }
        other => Broker::start(other).await,
    }
}

/// The process of a broker, where it is one of its own.
pub(crate) fn process_of(broker: &mut Broker) -> Option<u32> {
    match broker {
        Broker::Kafka(server) => Some(server.service().process().id()),
        Broker::PubSub(_) => None,
        Broker::RabbitMq(server) => Some(server.service().process().id()),
    }
}

/// The fleet.
pub(crate) struct Rig {
    fleet: Fleet,
    broker: Option<u32>,
    ledger: u32,
    /// By format.
    intakes: BTreeMap<&'static str, Arc<dyn Queue>>,
    roles: Vec<(&'static str, Process)>,
    sizes: Sizes,
    /// CPU time of a provider that has started and done nothing.
    start: f64,
}

impl Rig {
    /// Servers and roles, warm.
    pub(crate) async fn start(kind: Kind, routes: &str) -> Self {
        let mut rig = Self::without_connector(kind, routes).await;
        rig.connect().await;
        rig
    }

    /// The same, but for the connector.
    pub(crate) async fn without_connector(kind: Kind, routes: &str) -> Self {
        let mut fleet = Fleet::on(broker(kind).await, None, configuration).await;
        write_files(&fleet, routes);
        fleet.command(&["setup"]).expect(0);
        let (broker, ledger) = (process_of(&mut fleet.broker), fleet.redis.service().process().id());
        let mut intakes = BTreeMap::new();
        for format in ["raw", "native"] {
            intakes.insert(format, intake_of(&fleet, "other", format).await);
        }
        let sizes = Sizes { header: 0, response: 0 };
        let mut rig = Self { fleet, broker, ledger, intakes, roles: Vec::new(), sizes, start: 0.0 };
        rig.take_sizes().await;
        rig
    }

    /// Starts provider and worker, and looks at what one payload becomes on its way.
    async fn take_sizes(&mut self) {
        self.begin("provider", &[]).await;
        self.start = usage::cpu(self.roles[0].1.id());
        self.publish(Load::Singles, 0..1).await;
        let broker = self.fleet.broker_client();
        let mut tasks = broker.lane("roots", LaneOptions::default()).subscribe("workers", ONE).await.unwrap();
        let task = tasks.next().await.unwrap().unwrap();
        let frames = envelope::decode(&task.message.body).unwrap();
        let inline: usize = frames.iter().map(|frame| frame.task.as_ref().unwrap().inline.len()).sum();
        self.sizes.header = task.message.body.len() - inline;
        drop((task, tasks));
        broker.close().await;
        self.begin("worker", &["--slots", "2"]).await;
        let mut responses = self.responses().await;
        let delivery = responses.next().await.unwrap().unwrap();
        self.sizes.response = results::unpack(&delivery.message).unwrap().iter().map(|item| item.json.len()).sum();
        delivery.ack().await.unwrap();
    }

    /// The responses themselves, where no connector takes them.
    async fn responses(&self) -> Box<dyn Deliveries> {
        let lane = self.fleet.broker_client().lane("results", LaneOptions::default());
        lane.subscribe("out", Prefetch { messages: 256 }).await.unwrap()
    }

    async fn connect(&mut self) {
        self.begin("connector", &[]).await;
        self.run(Load::Singles, WARM).await;
    }

    /// Starts a role, what it writes to standard output being nobody's, and waits until it runs.
    async fn begin(&mut self, role: &'static str, more: &[&str]) {
        let dir = self.fleet.path(&format!("{role}-{}", self.roles.len()));
        let log = dir.with_extension("log");
        let configuration = self.fleet.configuration();
        let mut args = vec!["-c", "exec \"$0\" \"$@\" > /dev/null", env!("CARGO_BIN_EXE_stoq"), role];
        args.extend(["--config-file", text(&configuration), "--data-dir", text(&dir)]);
        args.extend(more);
        let process = Process::spawn(command("sh", &args), &log);
        let begun = Instant::now();
        while address(&process.log()).is_none_or(|at| metrics(at).is_none()) {
            assert!(begun.elapsed() < PATIENCE, "{role} does not start:\n{}", process.log());
            tokio::time::sleep(LOOK).await;
        }
        self.roles.retain(|(name, _)| *name != role);
        self.roles.push((role, process));
    }

    /// What a payload became on its way.
    pub(crate) fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Publishes messages of the intake.
    pub(crate) async fn publish(&self, load: Load, numbers: Range<usize>) {
        publish(Arc::clone(&self.intakes[load.format()]), load, numbers).await;
    }

    /// What the connector has delivered.
    fn delivered(&self) -> usize {
        let (_, connector) = self.roles.iter().find(|(role, _)| *role == "connector").expect("there is a connector");
        let told = address(&connector.log()).and_then(metrics).expect("the connector runs");
        sum(&told, "stoq_out_total", &["role=\"connector\""]) as usize
    }

    async fn until_delivered(&self, count: usize) {
        let (mut most, mut since) = (self.delivered(), Instant::now());
        while most < count {
            tokio::time::sleep(LOOK).await;
            let now = self.delivered();
            if now > most {
                (most, since) = (now, Instant::now());
            }
            assert!(since.elapsed() < PATIENCE, "{most} of {count} delivered, and no more");
        }
    }

    fn cpu(&self) -> BTreeMap<&'static str, f64> {
        let mut all: BTreeMap<_, _> =
            self.roles.iter().map(|(role, process)| (*role, usage::cpu(process.id()))).collect();
        all.extend(self.broker.map(|broker| ("broker", usage::cpu(broker))));
        all.insert("ledger", usage::cpu(self.ledger));
        // Its children are the others.
        all.insert("generator", usage::own());
        all
    }

    /// Publishes messages while the fleet works, until all are delivered.
    pub(crate) async fn run(&self, load: Load, references: usize) -> Run {
        let (before, delivered, begun) = (self.cpu(), self.delivered(), Instant::now());
        let intake = Arc::clone(&self.intakes[load.format()]);
        let generator = tokio::spawn(publish(intake, load, 0..references));
        self.until_delivered(delivered + references).await;
        let time = begun.elapsed();
        generator.await.unwrap();
        self.ran(&before, time, references, references * load.payloads_each())
    }

    fn ran(&self, before: &BTreeMap<&'static str, f64>, time: Duration, references: usize, payloads: usize) -> Run {
        let cpu = self.cpu().into_iter().map(|(name, after)| (name, after - before.get(name).copied().unwrap_or(0.0)));
        Run { references, payloads, time, cpu: cpu.collect() }
    }

    /// Lets messages gather before a provider comes, and has them worked off.
    pub(crate) async fn work_off(&mut self, load: Load, waiting: usize) -> Run {
        let at = self.roles.iter().position(|(role, _)| *role == "provider").expect("there is a provider");
        let (_, provider) = self.roles.remove(at);
        stops_well("the provider", provider).await;
        self.publish(load, 0..waiting).await;
        let (mut before, delivered, begun) = (self.cpu(), self.delivered(), Instant::now());
        // What starting costs has nothing to do with what waits.
        before.insert("provider", self.start);
        self.begin("provider", &[]).await;
        self.until_delivered(delivered + waiting).await;
        self.ran(&before, begun.elapsed(), waiting, waiting * load.payloads_each())
    }

    /// How long each of some payloads takes that come at a rate, in milliseconds, as they came. Without a connector.
    pub(crate) async fn times(&self, payloads: usize, rate: f64) -> Vec<f64> {
        let mut responses = self.responses().await;
        let begun = tokio::time::Instant::now();
        let due = move |n: usize| begun + Duration::from_secs_f64(n as f64 / rate);
        let generator =
            tokio::spawn(publish_at(Arc::clone(&self.intakes["raw"]), payloads, due, |n| format!("timed-{n}")));
        let mut took = Vec::with_capacity(payloads);
        while took.len() < payloads {
            let delivery = responses.next().await.unwrap().unwrap();
            for item in results::unpack(&delivery.message).unwrap() {
                let response: serde_json::Value = serde_json::from_slice(&item.json).unwrap();
                let name = &response["results"][0]["payload_meta"]["extra_data"]["filename"];
                took.push(due(name.as_str().unwrap().parse().unwrap()).elapsed().as_secs_f64() * 1e3);
            }
            delivery.ack().await.unwrap();
        }
        generator.await.unwrap();
        took
    }

    /// Keeps the intake full for `time`, and tells the memory of each role.
    pub(crate) async fn overload(&self, time: Duration) {
        let intake = &self.intakes["raw"];
        let (begun, mut sent, delivered) = (Instant::now(), 0, self.delivered());
        let mut samples: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        let mut sampled = Instant::now();
        while begun.elapsed() < time {
            let waiting = intake.depth("main").await.map_or(0, |depth| depth.ready);
            if waiting < OVERLOAD {
                let next = sent + PUBLISH * 10;
                self.publish(Load::Singles, sent..next).await;
                sent = next;
            } else {
                tokio::time::sleep(LOOK).await;
            }
            if sampled.elapsed() >= SAMPLE {
                sampled = Instant::now();
                for (role, process) in &self.roles {
                    samples.entry(role).or_default().push(usage::memory(process.id()) >> 20);
                }
            }
        }
        println!("(e) {sent} payloads came in {:?}, {} were delivered", begun.elapsed(), self.delivered() - delivered);
        for (role, samples) in samples {
            let (early, late) = samples.split_at(samples.len() / 2);
            let most = |of: &[u64]| of.iter().max().copied().unwrap_or_default();
            println!("(e) {role}: at most {} MiB in the first half, {} MiB in the second", most(early), most(late));
        }
    }

    /// What broker, ledger and store have been asked for so far.
    pub(crate) fn counts(&self) -> Counts {
        let published = match &self.fleet.broker {
            Broker::RabbitMq(server) => {
                let told = http(server.prometheus_port());
                sum(&told, "rabbitmq_global_messages_received_total", &[])
            }
            _ => f64::NAN,
        };
        let commands = ask(self.fleet.redis.port(), "INFO commandstats\r\nQUIT\r\n");
        let scripts = commands.lines().filter(|line| line.starts_with("cmdstat_evalsha"));
        let scripts = scripts.filter_map(|line| line.split("calls=").nth(1)?.split(',').next()?.parse::<f64>().ok());
        Counts { published, scripts: scripts.sum(), objects: files_in(&self.fleet.path("payloads")) as f64 }
    }

    /// Ends everything.
    pub(crate) async fn end(self) {
        for (role, process) in self.roles {
            stops_well(role, process).await;
        }
    }
}

const ONE: Prefetch = Prefetch { messages: 1 };

fn configuration(broker: &Broker, dir: &Path) -> String {
    let intake = |format: &str| {
        let queue = broker.name_of_intake("other", format);
        format!("[providers.{format}.queue]\nbroker = \"main\"\nqueue = \"{queue}\"\nformat = \"{format}\"\n")
    };
    format!(
        "{}{}root = \"{}\"\n[http]\nlisten = \"127.0.0.1:0\"\n[core.log]\nformat = \"json\"\nlevel = \"info\"\n\
         [plugins.yara]\nworker_rules = [\"{}\"]\n",
        intake("raw"),
        intake("native"),
        text(&dir.join("files")),
        text(&dir.join("rules70.yar")),
    )
}

/// The files that references name, the rules, and a configuration with other routes and a sink that discards.
fn write_files(fleet: &Fleet, routes: &str) {
    std::fs::create_dir(fleet.path("files")).unwrap();
    for n in 0..FILES {
        std::fs::write(fleet.path("files").join(file(n)), file_content(n)).unwrap();
    }
    std::fs::write(fleet.path("rules70.yar"), RULES).unwrap();
    let configuration = std::fs::read_to_string(fleet.configuration()).unwrap().replace(ROUTES, routes);
    let (front, rest) = configuration.split_once("[connectors.out.filedir]\n").unwrap();
    let (_, rest) = rest.split_once('\n').unwrap();
    std::fs::write(fleet.configuration(), format!("{front}[connectors.out.stdout]\n{rest}")).unwrap();
}

async fn publish(intake: Arc<dyn Queue>, load: Load, numbers: Range<usize>) {
    for start in numbers.clone().step_by(PUBLISH) {
        let messages = (start..numbers.end.min(start + PUBLISH)).map(|n| load.message(n)).collect();
        intake.publish(messages).await.unwrap();
    }
}

/// Publishes one payload at each of the times that `due` says, whether or not earlier ones are confirmed. Each has a name that
/// none had before.
pub(crate) async fn publish_at(
    intake: Arc<dyn Queue>,
    payloads: usize,
    due: impl Fn(usize) -> tokio::time::Instant,
    name: fn(usize) -> String,
) {
    let mut confirms = JoinSet::new();
    for n in 0..payloads {
        tokio::time::sleep_until(due(n)).await;
        let mut message = Load::Singles.message(n);
        message.id = name(n);
        let intake = Arc::clone(&intake);
        confirms.spawn(async move { intake.publish(vec![message]).await.unwrap() });
    }
    confirms.join_all().await;
}

fn http(port: u16) -> String {
    ask(port, "GET /metrics HTTP/1.0\r\nHost: broker\r\n\r\n")
}

/// What a server of this machine answers until it closes.
fn ask(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn files_in(dir: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries.flatten().map(|entry| if entry.path().is_dir() { files_in(&entry.path()) } else { 1 }).sum()
}

/// What was asked for.
pub(crate) struct Counts {
    /// Messages published.
    published: f64,
    /// Operations of the ledger.
    scripts: f64,
    /// Objects in the store.
    objects: f64,
}

impl Counts {
    pub(crate) fn since(self, before: &Self) -> Self {
        Self {
            published: self.published - before.published,
            scripts: self.scripts - before.scripts,
            objects: self.objects - before.objects,
        }
    }

    /// As text, of `payloads`; those of the intake, `references`, are the generator's.
    pub(crate) fn each(&self, payloads: usize, references: usize) -> String {
        let each = |count: f64| count / payloads as f64;
        format!(
            "{:.3} messages on the lanes, {:.3} operations of the ledger, {:.3} objects stored",
            each(self.published - references as f64),
            each(self.scripts),
            each(self.objects)
        )
    }
}
