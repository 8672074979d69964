//! RabbitMQ, as Debian packages it.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Authority, Identity, Place, Process, Service};

/// Where packages put the server's own scripts. The ones on the path change the user first.
const HOME: &str = "/usr/lib/rabbitmq/lib";
/// Erlang nodes of one test know each other by it.
const COOKIE: &str = "stoqtest";
/// The user that the server is made with, who may do everything.
const USER: &str = "stoq";
const PASSWORD: &str = "loopback-only";
/// Written by the server once it has started everything.
const STARTED: &str = "Server startup complete";

/// The ports, by index.
const AMQP: usize = 0;
const AMQPS: usize = 1;
const DISTRIBUTION: usize = 2;
const EPMD: usize = 3;
const MANAGEMENT: usize = 4;
const PROMETHEUS: usize = 5;
const PORTS: usize = 6;

/// What a server is started with.
#[derive(Clone, Debug, Default)]
pub struct RabbitMqOptions {
    /// Listens for TLS too, with a certificate of an authority of its own.
    pub tls: bool,
    /// Asks TLS clients for a certificate of that authority.
    pub client_certificates: bool,
    /// With the management plugin and its HTTP interface: a second more to start.
    pub management: bool,
    /// With the Prometheus plugin.
    pub prometheus: bool,
    /// How long a delivery may stay without a verdict, in milliseconds, before the server closes its channel; its own
    /// default is 30 minutes.
    pub consumer_timeout: Option<u64>,
    /// Uses every core instead of one, and spins for work: for benchmarks.
    pub all_cores: bool,
    /// Further lines for its configuration file.
    pub lines: Vec<String>,
}

/// A server with one user, who may do everything in the virtual host `/`.
pub struct RabbitMq {
    // Fields end in this order: the server before the port mapper that it is registered with.
    server: Service,
    epmd: Process,
    tls: Option<(Authority, Identity)>,
}

impl RabbitMq {
    /// Starts one with a plain listener.
    ///
    /// # Panics
    /// It cannot be started.
    pub async fn start() -> Self {
        Self::start_with(RabbitMqOptions::default()).await
    }

    /// Starts one.
    ///
    /// # Panics
    /// It cannot be started.
    pub async fn start_with(options: RabbitMqOptions) -> Self {
        let tls = options.tls.then(|| {
            let authority = Authority::new();
            let identity = authority.server();
            (authority, identity)
        });
        let given = options.clone();
        let server = Service::new(
            "rabbitmq",
            PORTS,
            move |place| server_command(place, &given),
            |place| Box::pin(async move { answers(&place).await }),
        );
        let place = server.place();
        fs::write(place.directory.join("rabbitmq.conf"), configuration(place, &options, tls.as_ref())).unwrap();
        fs::write(place.directory.join("enabled_plugins"), plugins(&options)).unwrap();
        // In the foreground and ours; the server would else leave one behind.
        let mut epmd = Command::new("epmd");
        epmd.args(["-address", "127.0.0.1", "-port", &place.ports[EPMD].to_string()]);
        let epmd = Process::spawn(epmd, &place.directory.join("epmd.log"));
        let mut this = Self { server, epmd, tls };
        this.server.start().await;
        this
    }

    /// The address for clients: `amqp://127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("amqp://127.0.0.1:{}", self.port())
    }

    /// The address for clients that use TLS, with the authority's certificate.
    ///
    /// # Panics
    /// The server was started without TLS.
    pub fn tls_address(&self) -> (String, &Authority) {
        let (authority, _) = self.tls.as_ref().expect("the server has a TLS listener");
        (format!("amqps://localhost:{}", self.server.port(AMQPS)), authority)
    }

    /// The port of the plain listener.
    pub fn port(&self) -> u16 {
        self.server.port(AMQP)
    }

    /// The port of the management interface, if the plugin was asked for.
    pub fn management_port(&self) -> u16 {
        self.server.port(MANAGEMENT)
    }

    /// The port of the metrics, if the plugin was asked for.
    pub fn prometheus_port(&self) -> u16 {
        self.server.port(PROMETHEUS)
    }

    /// Its user.
    pub fn user(&self) -> &str {
        USER
    }

    /// The user's password.
    pub fn password(&self) -> &str {
        PASSWORD
    }

    /// Kills the server as a crash would.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Stops the server in good order.
    ///
    /// # Panics
    /// It does not end within a minute.
    pub async fn stop(&mut self) {
        self.server.stop().await;
    }

    /// Starts it again after [`RabbitMq::kill`] or [`RabbitMq::stop`], on the same data and ports.
    ///
    /// # Panics
    /// It cannot be started.
    pub async fn restart(&mut self) {
        assert!(self.epmd.exited().is_none(), "the port mapper ended:\n{}", self.epmd.log());
        self.server.start().await;
    }

    /// The server's process and log.
    pub fn service(&mut self) -> &mut Service {
        &mut self.server
    }

    /// Runs `rabbitmqctl` and answers what it says; takes a second or two.
    ///
    /// # Panics
    /// It fails.
    pub async fn ctl(&self, arguments: &[&str]) -> String {
        let place = self.server.place();
        let mut command = tokio::process::Command::new(script("rabbitmqctl"));
        command.envs(environment(place)).args(["--quiet", "--erlang-cookie", COOKIE, "--node", &node(place)]);
        let output = command.args(arguments).kill_on_drop(true).output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "rabbitmqctl {arguments:?}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }

    /// Makes a virtual host, and a user who may do there what the three patterns say (configure, write, read).
    ///
    /// # Panics
    /// `rabbitmqctl` fails.
    pub async fn add_user(&self, vhost: &str, user: &str, password: &str, permissions: [&str; 3]) {
        if vhost != "/" {
            self.ctl(&["add_vhost", vhost]).await;
        }
        self.ctl(&["add_user", user, password]).await;
        let [configure, write, read] = permissions;
        self.ctl(&["set_permissions", "-p", vhost, user, configure, write, read]).await;
    }
}

/// The path of one of the server's own scripts.
fn script(name: &str) -> PathBuf {
    let versions = fs::read_dir(HOME).map(|entries| entries.flatten().map(|e| e.path()).collect::<Vec<_>>());
    let newest = versions.unwrap_or_default().into_iter().max();
    let home = newest.unwrap_or_else(|| panic!("no RabbitMQ in {HOME}; `cargo xtask test` installs what tests need"));
    home.join("sbin").join(name)
}

fn node(place: &Place) -> String {
    format!("stoq{}@localhost", place.ports[AMQP])
}

fn environment(place: &Place) -> Vec<(&'static str, String)> {
    let inside = |name: &str| place.directory.join(name).display().to_string();
    vec![
        ("HOME", place.directory.display().to_string()),
        ("RABBITMQ_NODENAME", node(place)),
        ("RABBITMQ_MNESIA_BASE", inside("mnesia")),
        ("RABBITMQ_LOG_BASE", inside("log")),
        ("RABBITMQ_PID_FILE", inside("pid")),
        ("RABBITMQ_DIST_PORT", place.ports[DISTRIBUTION].to_string()),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", inside("enabled_plugins")),
        ("RABBITMQ_CONFIG_FILE", inside("rabbitmq.conf")),
        ("RABBITMQ_CONF_ENV_FILE", "/dev/null".to_owned()),
        ("ERL_EPMD_PORT", place.ports[EPMD].to_string()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
        ("ERL_CRASH_DUMP", "/dev/null".to_owned()),
    ]
}

fn server_command(place: &Place, options: &RabbitMqOptions) -> Command {
    let mut command = Command::new(script("rabbitmq-server"));
    command.envs(environment(place)).current_dir(&place.directory);
    // Makes the script become the server instead of waiting for it.
    command.env("RUNNING_UNDER_SYSTEMD", "1").env_remove("NOTIFY_SOCKET");
    let mut arguments = format!("-setcookie {COOKIE} -start_epmd false -kernel inet_dist_use_interface {{127,0,0,1}}");
    if let Some(milliseconds) = options.consumer_timeout {
        // How often it looks; once a minute by default.
        let _infallible = write!(arguments, " -rabbit channel_tick_interval {}", (milliseconds / 2).max(1));
    }
    command.env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", arguments);
    if !options.all_cores {
        command.env("RABBITMQ_SERVER_ERL_ARGS", "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none");
    }
    command
}

fn configuration(place: &Place, options: &RabbitMqOptions, tls: Option<&(Authority, Identity)>) -> String {
    let mut text = format!(
        "listeners.tcp.default = 127.0.0.1:{}\nlog.file = false\nlog.console = true\nlog.console.level = info\n\
         default_user = {USER}\ndefault_pass = {PASSWORD}\n\
         management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {}\n\
         prometheus.tcp.ip = 127.0.0.1\nprometheus.tcp.port = {}\n",
        place.ports[AMQP], place.ports[MANAGEMENT], place.ports[PROMETHEUS],
    );
    if !options.management {
        text = text.lines().filter(|l| !l.starts_with("management.")).map(|l| format!("{l}\n")).collect();
    }
    if !options.prometheus {
        text = text.lines().filter(|l| !l.starts_with("prometheus.")).map(|l| format!("{l}\n")).collect();
    }
    if let Some((authority, identity)) = tls {
        let show = |path: &Path| path.display().to_string();
        let _infallible = write!(
            text,
            "listeners.ssl.default = 127.0.0.1:{}\nssl_options.cacertfile = {}\nssl_options.certfile = {}\n\
             ssl_options.keyfile = {}\nssl_options.verify = {}\nssl_options.fail_if_no_peer_cert = {}\n",
            place.ports[AMQPS],
            show(&authority.certificate()),
            show(&identity.certificate),
            show(&identity.key),
            if options.client_certificates { "verify_peer" } else { "verify_none" },
            options.client_certificates,
        );
    }
    if let Some(milliseconds) = options.consumer_timeout {
        let _infallible = writeln!(text, "consumer_timeout = {milliseconds}");
    }
    for line in &options.lines {
        text.push_str(line);
        text.push('\n');
    }
    text
}

fn plugins(options: &RabbitMqOptions) -> String {
    let names = [(options.management, "rabbitmq_management"), (options.prometheus, "rabbitmq_prometheus")];
    let names: Vec<&str> = names.into_iter().filter(|(wanted, _)| *wanted).map(|(_, name)| name).collect();
    format!("[{}].\n", names.join(","))
}

/// Whether the server has started everything, and greets a client as the protocol says.
async fn answers(place: &Place) -> bool {
    let log = fs::read(&place.log).unwrap_or_default();
    if !String::from_utf8_lossy(&log).contains(STARTED) {
        return false;
    }
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, place.ports[AMQP])).await else { return false };
    let mut kind = [0];
    // The protocol's header, and the type of the first frame: a method.
    stream.write_all(b"AMQP\0\0\x09\x01").await.is_ok() && stream.read_exact(&mut kind).await.is_ok() && kind == [1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn starts_again_on_its_data_after_a_crash_and_leaves_nothing_behind() {
        let mut server = RabbitMq::start().await;
        server.ctl(&["add_vhost", "kept"]).await;
        let first = server.service().process().id();
        server.kill();
        server.restart().await;
        assert_ne!(server.service().process().id(), first);
        assert!(server.ctl(&["list_vhosts"]).await.contains("kept"));
        server.stop().await;
        assert!(!server.service().is_running());
        server.restart().await;
        let (port, directory) = (server.port(), server.service().place().directory.clone());
        drop(server);
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err());
        assert!(!directory.exists());
    }
}
