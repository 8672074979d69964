//! Apache Kafka as one broker that is its own controller, from the project's published jars.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Authority, Identity, Place, Service, cached};

/// The jars' folder in the cache, and one of them.
const KAFKA: &str = "kafka-4.4.0";
const CORE: &str = "kafka_2.13-4.4.0.jar";
/// Written by the broker once it has started everything.
const STARTED: &str = "Kafka Server started";
/// `ApiVersions` 0 without a client id: a length, then key, version, correlation and the absent id.
const HELLO: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
/// Formats the data directory once, and becomes the broker.
const RUN: &str = r#"set -e
data=$1 config=$2 jars=$3; shift 3
[ -f "$data/meta.properties" ] || "$@" -cp "$jars/*" kafka.tools.StorageTool format -t MkU3OEVBNTcwNTJENDM2Qg \
  -c "$config" --add-scram 'SCRAM-SHA-256=[name=scram,password=loopback-only]' \
  --add-scram 'SCRAM-SHA-512=[name=scram,password=loopback-only]'
exec "$@" -cp "$jars/*" kafka.Kafka "$config"
"#;

/// The ports, by index.
const PLAIN: usize = 0;
const CONTROLLER: usize = 1;
const SASL: usize = 2;
const TLS: usize = 3;
const PORTS: usize = 4;

/// What a broker is started with.
#[derive(Clone, Debug, Default)]
pub struct KafkaOptions {
    /// Listens for TLS too, with a certificate of an authority of its own.
    pub tls: bool,
    /// Compiles what runs hot for speed instead of for a quick start: for benchmarks.
    pub fast: bool,
    /// Further lines for its configuration file.
    pub lines: Vec<String>,
}

/// A broker with a plain listener, and one that asks for a login.
pub struct Kafka {
    broker: Service,
    tls: Option<(Authority, Identity)>,
}

impl Kafka {
    /// Starts one.
    ///
    /// # Panics
    /// It cannot be started.
    pub async fn start() -> Self {
        Self::start_with(KafkaOptions::default()).await
    }

    /// Starts one with options.
    ///
    /// # Panics
    /// It cannot be started.
    pub async fn start_with(options: KafkaOptions) -> Self {
        let tls = options.tls.then(|| {
            let authority = Authority::new();
            let identity = authority.server();
            (authority, identity)
        });
        let fast = options.fast;
        let broker = Service::new(
            "kafka",
            PORTS,
            move |place| command(place, fast),
            |place| Box::pin(async move { answers(&place).await }),
        );
        let place = broker.place();
        if let Some((_, identity)) = &tls {
            let pem = [&identity.key, &identity.certificate].map(|path| fs::read_to_string(path).unwrap()).concat();
            fs::write(place.directory.join("server.pem"), pem).unwrap();
        }
        fs::write(place.directory.join("server.properties"), configuration(place, &options)).unwrap();
        let mut kafka = Self { broker, tls };
        kafka.broker.start().await;
        kafka
    }

    /// The plain listener, as host:port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.broker.port(PLAIN))
    }

    /// The listener that asks for a login: `plain` by PLAIN or `scram` by SCRAM, both with [`Kafka::password`].
    pub fn sasl_address(&self) -> String {
        format!("127.0.0.1:{}", self.broker.port(SASL))
    }

    /// The password of both users.
    pub fn password(&self) -> &'static str {
        "loopback-only"
    }

    /// The TLS listener, with the authority that its certificate comes from.
    ///
    /// # Panics
    /// The broker was started without TLS.
    pub fn tls_address(&self) -> (String, &Authority) {
        let (authority, _) = self.tls.as_ref().expect("the broker has a TLS listener");
        (format!("localhost:{}", self.broker.port(TLS)), authority)
    }

    /// Kills the broker as a crash would.
    pub fn kill(&mut self) {
        self.broker.kill();
    }

    /// Starts it again after [`Kafka::kill`], on the same data and ports.
    ///
    /// # Panics
    /// It cannot be started.
    pub async fn restart(&mut self) {
        self.broker.start().await;
    }

    /// The broker's process and log.
    pub fn service(&mut self) -> &mut Service {
        &mut self.broker
    }
}

fn jars() -> PathBuf {
    let jar = cached(KAFKA, CORE);
    jar.parent().expect("a jar lies in a folder").to_owned()
}

fn command(place: &Place, fast: bool) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", RUN, "kafka"]);
    command.arg(place.directory.join("data")).arg(place.directory.join("server.properties")).arg(jars());
    command.args(["java", "-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-Dorg.apache.logging.log4j.level=INFO"]);
    if !fast {
        command.arg("-XX:TieredStopAtLevel=1");
    }
    command.current_dir(&place.directory);
    command
}

fn configuration(place: &Place, options: &KafkaOptions) -> String {
    let [plain, controller, sasl, tls] = [PLAIN, CONTROLLER, SASL, TLS].map(|index| place.ports[index]);
    let tls_listener = if options.tls { format!(",TLS://localhost:{tls}") } else { String::new() };
    let data = place.directory.join("data");
    let mut text = format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{plain},SASL://127.0.0.1:{sasl},CONTROLLER://127.0.0.1:{controller}{tls_listener}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{plain},SASL://127.0.0.1:{sasl}{tls_listener}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SSL\n\
         controller.listener.names=CONTROLLER\ninter.broker.listener.name=PLAINTEXT\nlog.dirs={}\n\
         auto.create.topics.enable=true\noffsets.topic.replication.factor=1\noffsets.topic.num.partitions=4\n\
         transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
         transaction.state.log.num.partitions=4\ngroup.initial.rebalance.delay.ms=0\n\
         group.min.session.timeout.ms=500\nbroker.session.timeout.ms=3000\nbroker.heartbeat.interval.ms=500\n\
         sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\n\
         listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
         user_plain=\"loopback-only\";\n",
        data.display(),
    );
    for mechanism in ["scram-sha-256", "scram-sha-512"] {
        let module = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
        // Writing to a string does not fail.
        writeln!(text, "listener.name.sasl.{mechanism}.sasl.jaas.config={module}").unwrap();
    }
    if options.tls {
        let pem = place.directory.join("server.pem");
        let name = "listener.name.tls.ssl.keystore";
        writeln!(text, "{name}.type=PEM\n{name}.location={}", pem.display()).unwrap();
    }
    for line in &options.lines {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// Whether the broker has started everything, and answers on its plain listener.
async fn answers(place: &Place) -> bool {
    let log = fs::read(&place.log).unwrap_or_default();
    if !String::from_utf8_lossy(&log).contains(STARTED) {
        return false;
    }
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, place.ports[PLAIN])).await else { return false };
    let mut length = [0; 4];
    stream.write_all(&HELLO).await.is_ok() && stream.read_exact(&mut length).await.is_ok()
}
