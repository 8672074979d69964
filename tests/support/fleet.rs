//! A fleet on real servers of its own: broker, ledger, a shared store, and the roles as processes.

#![allow(dead_code, reason = "each test is a program of its own and uses a part of this")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use stoq_api::queue::{LaneOptions, Queue};
use stoq_testkit::services::{Kafka, Process, Proxy, PubSub, RabbitMq, RabbitMqOptions, Redis, VersityGw};

use crate::support::{Ended, PATIENCE, responses_in, run, stoq, text, until};

/// What is run on payloads: enough to take archives apart, without rules whose compilation is most of a start.
pub(crate) const ROUTES: &str = "[routes]\nalways = [\"hash\", \"mimetype\"]\ndispatchers = [\"rules\"]\n";

/// What the names of a fleet's own queues begin with.
pub(crate) const PREFIX: &str = "stoq";

/// The exit code of a command that could not reach a service.
const SERVICE_AWAY: i32 = 4;

/// Brokers that a fleet can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Kafka,
    /// Its stand-in keeps everything in memory, so it is never killed.
    PubSub,
    RabbitMq,
}

impl Kind {
    /// The broker of that name.
    pub(crate) fn of(name: &str) -> Option<Self> {
        match name {
            "kafka" => Some(Self::Kafka),
            "pubsub" => Some(Self::PubSub),
            "rabbitmq" => Some(Self::RabbitMq),
            _ => None,
        }
    }
}

/// A running broker.
pub(crate) enum Broker {
    Kafka(Box<Kafka>),
    PubSub(Box<PubSub>),
    RabbitMq(Box<RabbitMq>),
}

impl Broker {
    pub(crate) async fn start(kind: Kind) -> Self {
        match kind {
            Kind::Kafka => Self::Kafka(Box::new(Kafka::start().await)),
            Kind::PubSub => Self::PubSub(Box::new(PubSub::start().await)),
            // A heartbeat of five seconds is the clients'; deliveries that hang must come back within the test.
            Kind::RabbitMq => {
                let options = RabbitMqOptions { consumer_timeout: Some(60_000), ..RabbitMqOptions::default() };
                Self::RabbitMq(Box::new(RabbitMq::start_with(options).await))
            }
        }
    }

    /// Its kind in a configuration, with the options there.
    pub(crate) fn options(&self, prefix: &str) -> (&'static str, Value) {
        match self {
            // One broker keeps one copy; a session that ends soon lets a test see it.
            Self::Kafka(server) => (
                "kafka",
                json!({
                    "servers": [server.address()],
                    "prefix": prefix,
                    "partitions": 6,
                    "replication": 1,
                    "min_insync": 1,
                    "session_timeout": 6,
                }),
            ),
            Self::PubSub(server) => (
                "pubsub",
                json!({ "project": "test", "emulator_host": server.host(), "prefix": prefix, "ack_deadline": 10 }),
            ),
            Self::RabbitMq(server) => (
                "rabbitmq",
                json!({
                    "addresses": [server.address()],
                    "user": server.user(),
                    "password": server.password(),
                    "prefix": prefix,
                    "heartbeat": 5,
                }),
            ),
        }
    }

    /// Its table in a configuration.
    fn table(&self, name: &str) -> String {
        let (kind, options) = self.options(PREFIX);
        let lines = options.as_object().unwrap().iter().map(|(option, value)| format!("{option} = {value}\n"));
        format!("[queues.{name}.{kind}]\n{}", lines.collect::<String>())
    }

    /// A client that is not the fleet's own: its queues begin with `prefix`.
    pub(crate) fn client(&self, prefix: &str) -> Arc<dyn stoq_api::queue::Broker> {
        let registration = match self {
            Self::Kafka(_) => stoq_kafka::registration(),
            Self::PubSub(_) => stoq_pubsub::registration(),
            Self::RabbitMq(_) => stoq_rabbitmq::registration(),
        };
        let (_, Value::Object(options)) = self.options(prefix) else { panic!("options are an object") };
        (registration.open)(&options).unwrap()
    }

    /// How others call the queue that [`intake_of`] makes.
    pub(crate) fn name_of_intake(&self, prefix: &str, name: &str) -> String {
        match self {
            Self::Kafka(_) => format!("{prefix}.{name}"),
            Self::PubSub(_) | Self::RabbitMq(_) => format!("{prefix}.{name}.main"),
        }
    }

    /// Kills it with signal 9 and starts it again on the same data.
    pub(crate) async fn crash(&mut self) {
        self.kill();
        self.restart().await;
    }

    /// Kills it with signal 9.
    pub(crate) fn kill(&mut self) {
        match self {
            Self::Kafka(server) => server.kill(),
            Self::PubSub(_) => {}
            Self::RabbitMq(server) => server.kill(),
        }
    }

    /// Starts it again after it was killed, on the same data.
    pub(crate) async fn restart(&mut self) {
        match self {
            Self::Kafka(server) => server.restart().await,
            Self::PubSub(_) => {}
            Self::RabbitMq(server) => server.restart().await,
        }
    }
}

/// A payload store that is a bucket, reached over a line that can fail.
pub(crate) struct Bucket {
    pub(crate) server: VersityGw,
    pub(crate) line: Proxy,
}

impl Bucket {
    /// The bucket of payloads.
    const PAYLOADS: &str = "payloads";

    /// Starts the server, with the bucket.
    pub(crate) async fn start() -> Self {
        let server = VersityGw::start().await;
        server.make_bucket(Self::PAYLOADS);
        let line = Proxy::start(server.service.port(0)).await;
        Self { server, line }
    }

    /// Where the server keeps its objects.
    pub(crate) fn objects(&self) -> PathBuf {
        self.server.bucket(Self::PAYLOADS)
    }

    /// Its table in a configuration.
    fn table(&self) -> String {
        format!(
            "[stores.main.s3]\nbucket = \"{}\"\nendpoint = \"http://{}\"\nallow_http = true\naccess_key_id = \
             \"{}\"\nsecret_access_key = \"{}\"\n",
            Self::PAYLOADS,
            self.line.address(),
            VersityGw::ACCESS_KEY,
            VersityGw::SECRET_KEY,
        )
    }
}

/// Servers, a configuration that names them, and folders that all roles share.
pub(crate) struct Fleet {
    pub(crate) broker: Broker,
    pub(crate) redis: Redis,
    /// The payload store, where it is no folder.
    pub(crate) bucket: Option<Bucket>,
    dir: tempfile::TempDir,
    started: usize,
}

impl Fleet {
    /// Starts the servers and writes the configuration: one connector into a folder, and whatever `more` says.
    pub(crate) async fn start(kind: Kind, more: impl FnOnce(&Broker) -> String) -> Self {
        Self::start_over(kind, None, |broker, _| more(broker)).await
    }

    /// The same, with the payload store in `bucket`; `more` is also told the folder that all roles share.
    pub(crate) async fn start_over(
        kind: Kind,
        bucket: Option<Bucket>,
        more: impl FnOnce(&Broker, &Path) -> String,
    ) -> Self {
        Self::on(Broker::start(kind).await, bucket, more).await
    }

    /// The same, on a broker that runs already.
    pub(crate) async fn on(
        broker: Broker,
        bucket: Option<Bucket>,
        more: impl FnOnce(&Broker, &Path) -> String,
    ) -> Self {
        let redis = Redis::start().await;
        let dir = tempfile::tempdir().unwrap();
        let this = Self { broker, redis, bucket, dir, started: 0 };
        let more = more(&this.broker, this.dir.path());
        let store = match &this.bucket {
            Some(bucket) => bucket.table(),
            None => format!("[stores.main.local]\npath = \"{}\"\n", text(&this.path("payloads"))),
        };
        let configuration = format!(
            "{ROUTES}\n[fleet]\nqueue = \"main\"\nledger = \"main\"\nstore = \"main\"\n\n{}\n[ledgers.main.redis]\nurls = \
             [\"{}\"]\n\n{store}\n[connectors.out.filedir]\nresults_dir = \"{}\"\n\n{more}\n",
            this.broker.table("main"),
            this.redis.address(),
            text(&this.path("out")),
        );
        std::fs::write(this.configuration(), configuration).unwrap();
        this
    }

    /// A client with which to look at the fleet's own queues.
    pub(crate) fn broker_client(&self) -> Arc<dyn stoq_api::queue::Broker> {
        self.broker.client(PREFIX)
    }

    /// A path that all roles share.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The configuration file.
    pub(crate) fn configuration(&self) -> PathBuf {
        self.path("stoq.toml")
    }

    /// Starts a role in a data directory of its own.
    pub(crate) fn role(&mut self, role: &str, more: &[&str]) -> Process {
        self.started += 1;
        let own = self.path(&format!("{role}-{}", self.started));
        std::fs::create_dir(&own).unwrap();
        let configuration = self.configuration();
        let mut args = vec![role, "--config-file", text(&configuration)];
        if role != "setup" {
            args.extend(["--data-dir", text(&own)]);
        }
        args.extend(more);
        Process::spawn(stoq(&args), &own.with_extension("log"))
    }

    /// Runs a command of an operator to its end.
    pub(crate) fn command(&self, args: &[&str]) -> Ended {
        let (configuration, own) = (self.configuration(), self.path("operator"));
        let mut all = args.to_vec();
        all.extend(["--config-file", text(&configuration)]);
        if args[0] != "setup" {
            all.extend(["--data-dir", text(&own)]);
        }
        run(stoq(&all))
    }

    /// Responses that were delivered.
    pub(crate) fn responses(&self) -> Vec<Value> {
        responses_in(&self.path("out"))
    }

    /// How many there are, without reading them.
    pub(crate) fn response_count(&self) -> usize {
        self.response_count_in("out")
    }

    /// The same, of the connector that writes into this folder.
    pub(crate) fn response_count_in(&self, folder: &str) -> usize {
        count(&self.path(folder))
    }

    /// What all roles said of `id`, each line with the role's name.
    pub(crate) fn trail(&self, id: &str) -> String {
        let files = std::fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut lines = Vec::new();
        for log in files.filter(|path| path.extension().is_some_and(|e| e == "log")) {
            let said = std::fs::read(&log).unwrap();
            let role = log.file_stem().unwrap().to_string_lossy().into_owned();
            let of_id = String::from_utf8_lossy(&said);
            lines.extend(of_id.lines().filter(|line| line.contains(id)).map(|line| format!("{line} ({role})")));
        }
        // Each begins with its time.
        lines.sort();
        lines.join("\n")
    }

    /// What the command tells of the fleet. A broker that is busy for a moment is asked again.
    pub(crate) fn status(&self) -> Value {
        let mut told = None;
        until("the fleet's state is told", || {
            told = self.told();
            told.is_some()
        });
        told.unwrap()
    }

    /// The same, unless a service is away just now.
    fn told(&self) -> Option<Value> {
        let told = self.command(&["status", "--json"]);
        (told.code() != SERVICE_AWAY).then(|| told.expect(0).response())
    }

    /// Whether nothing waits on any lane and no scan is open, as far as the broker tells. What processes hold of a lane on
    /// RabbitMQ is not told.
    pub(crate) fn is_idle(&self) -> bool {
        // A broker that is away for a moment may hold anything.
        let Some(status) = self.told() else { return false };
        let lanes = status["lanes"].as_object().unwrap();
        let waits = lanes.iter().filter(|(name, _)| *name != "dead");
        let nothing = |lane: &Value| lane["waiting"] == 0 && lane["held"] == 0;
        // What a broker never tells is nobody's to wait for.
        waits.into_iter().all(|(_, lane)| nothing(lane) || lane["untold"].is_string()) && status["open_scans"] == 0
    }
}

/// A queue of other people, made and ready to be published to. Its one subscription is called `main`.
pub(crate) async fn intake_of(fleet: &Fleet, prefix: &str, name: &str) -> Arc<dyn Queue> {
    let queue = fleet.broker.client(prefix).lane(name, LaneOptions::default());
    queue.declare(&["main"]).await.unwrap();
    queue
}

fn count(dir: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries.flatten().filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')).count()
}

/// Waits until a role has ended by itself, and expects that it did well.
pub(crate) async fn ends_well(what: &str, mut process: Process) {
    let limit = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(status) = process.exited() {
            assert!(status.success(), "{what} ended with {status}:\n{}", process.log());
            return;
        }
        assert!(tokio::time::Instant::now() < limit, "{what} did not end:\n{}", process.log());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Asks a role to end, and expects that it does so well.
pub(crate) async fn stops_well(what: &str, mut process: Process) {
    process.stop(PATIENCE).await;
    let status = process.exited();
    assert!(status.is_some_and(|s| s.success()), "{what} ended with {status:?}:\n{}", process.log());
    assert!(!process.log().contains("panicked"), "{what}:\n{}", process.log());
}
