//! Options of `rabbitmq`.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use stoq_api::backend::Options;
use stoq_api::scanner::{BuildError, OptionInfo, OptionKind, PluginInfo, PluginKind};
use stoq_runtime::secret::{Secret, mask_urls};

/// The longest name that the protocol carries, in bytes.
pub(crate) const NAME_LIMIT: usize = 255;
/// What the prefix may take of that.
const PREFIX_LIMIT: usize = 64;
/// Messages without a confirm that one queue may have.
const WINDOW: std::ops::RangeInclusive<usize> = 1..=65_535;
/// Seconds that the protocol's heartbeat can have; 0 would leave a silent peer unnoticed.
const HEARTBEAT: std::ops::RangeInclusive<u16> = 1..=3_600;
/// The longest time-out that is accepted: a day.
const LONGEST: Duration = Duration::from_secs(86_400);
/// The largest message that any version of RabbitMQ can be set to take.
const LARGEST: u64 = 512 << 20;

const OPTIONS: &[OptionInfo] = &[
    option(
        "addresses",
        OptionKind::List,
        r#"["amqp://localhost:5672"]"#,
        "nodes of one cluster, amqp:// or amqps:// with host and port; the next is tried when one is away",
    ),
    option("user", OptionKind::Text, r#""guest""#, "user name"),
    option("password", OptionKind::Text, r#""guest""#, "the user's password"),
    option(
        "password_file",
        OptionKind::Text,
        r#""""#,
        "file that holds the password instead; read at every connect, so that it may change",
    ),
    option("vhost", OptionKind::Text, r#""/""#, "virtual host; lanes should have one of their own"),
    option("prefix", OptionKind::Text, r#""stoq""#, "what the names of exchanges and queues of lanes begin with"),
    option(
        "queue_type",
        OptionKind::Text,
        r#""quorum""#,
        "quorum, or classic for lanes on a single node: cheaper, but not safe against a power cut",
    ),
    option("replicas", OptionKind::Int, "0", "nodes that keep a copy of a new quorum queue; 0 leaves it to the broker"),
    option(
        "heartbeat",
        OptionKind::Duration,
        r#""30 s""#,
        "a peer that is silent for twice as long is gone; whole seconds",
    ),
    option("connect_timeout", OptionKind::Duration, r#""10 s""#, "how long making a connection may take"),
    option(
        "confirm_timeout",
        OptionKind::Duration,
        r#""30 s""#,
        "how long publishing waits for the broker before it fails and may be tried again",
    ),
    option("confirm_window", OptionKind::Int, "1000", "messages of one queue that may wait for their confirm"),
    option("confirm_bytes", OptionKind::Size, r#""64 MiB""#, "bytes of one queue that may wait for their confirm"),
    option(
        "max_message",
        OptionKind::Size,
        r#""16 MiB""#,
        "larger messages are refused; the broker's own max_message_size must be as large",
    ),
    option(
        "tls_ca_file",
        OptionKind::Text,
        r#""""#,
        "PEM file of the authorities that may have signed the broker's certificate, instead of the system's",
    ),
    option("tls_client_cert_file", OptionKind::Text, r#""""#, "PEM file of a certificate to show to the broker"),
    option("tls_client_key_file", OptionKind::Text, r#""""#, "PEM file of that certificate's private key"),
];

const fn option(name: &'static str, kind: OptionKind, default: &'static str, help: &'static str) -> OptionInfo {
    OptionInfo { name, kind, default, help }
}

/// What is known of it before it is opened.
pub(crate) fn info() -> PluginInfo {
    PluginInfo {
        name: "rabbitmq",
        description: "lanes and intakes on RabbitMQ",
        kinds: &[PluginKind::Queue],
        options: OPTIONS,
        required_workers: &[],
    }
}

/// As they stand in the configuration.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    addresses: Vec<String>,
    user: String,
    password: Secret,
    password_file: PathBuf,
    vhost: String,
    prefix: String,
    queue_type: QueueType,
    replicas: u32,
    heartbeat: f64,
    connect_timeout: f64,
    confirm_timeout: f64,
    confirm_window: usize,
    confirm_bytes: u64,
    max_message: u64,
    tls_ca_file: PathBuf,
    tls_client_cert_file: PathBuf,
    tls_client_key_file: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            addresses: vec!["amqp://localhost:5672".to_owned()],
            user: "guest".to_owned(),
            password: Secret::new(DEFAULT_PASSWORD),
            password_file: PathBuf::new(),
            vhost: "/".to_owned(),
            prefix: "stoq".to_owned(),
            queue_type: QueueType::Quorum,
            replicas: 0,
            heartbeat: 30.0,
            connect_timeout: 10.0,
            confirm_timeout: 30.0,
            confirm_window: 1_000,
            confirm_bytes: 64 << 20,
            max_message: 16 << 20,
            tls_ca_file: PathBuf::new(),
            tls_client_cert_file: PathBuf::new(),
            tls_client_key_file: PathBuf::new(),
        }
    }
}

/// What a fresh broker gives its only user, who may connect from the same machine only.
const DEFAULT_PASSWORD: &str = "guest";

/// The kind of queue that lanes are made as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum QueueType {
    /// Replicated, and on the disk when it confirms.
    Quorum,
    /// On one node.
    Classic,
}

impl QueueType {
    /// As the broker calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Quorum => "quorum",
            Self::Classic => "classic",
        }
    }
}

/// Where a node is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: bool,
}

/// Where the password stands.
#[derive(Clone, Debug)]
pub(crate) enum Password {
    Given(Secret),
    In(PathBuf),
}

/// Files of a client's own certificate.
#[derive(Clone, Debug)]
pub(crate) struct ClientCertificate {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// As they are used.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) addresses: Vec<Address>,
    pub(crate) user: String,
    pub(crate) password: Password,
    pub(crate) vhost: String,
    pub(crate) prefix: String,
    pub(crate) queue_type: QueueType,
    pub(crate) replicas: Option<u32>,
    pub(crate) heartbeat: u16,
    pub(crate) connect_timeout: Duration,
    pub(crate) confirm_timeout: Duration,
    pub(crate) confirm_window: usize,
    pub(crate) confirm_bytes: usize,
    pub(crate) max_message: usize,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) client: Option<ClientCertificate>,
}

impl Settings {
    /// Reads and checks the options.
    pub(crate) fn read(options: &Options) -> Result<Self, BuildError> {
        let config: Config =
            serde_json::from_value(Value::Object(options.clone())).map_err(|e| BuildError(e.to_string()))?;
        config.validate().map_err(BuildError)
    }
}

impl Config {
    fn validate(self) -> Result<Settings, String> {
        if self.addresses.is_empty() {
            return Err("addresses: name at least one node".to_owned());
        }
        let file = |path: PathBuf| (!path.as_os_str().is_empty()).then_some(path);
        let password = match file(self.password_file) {
            Some(_) if self.password != Secret::new(DEFAULT_PASSWORD) => {
                return Err("password and password_file: give one of them".to_owned());
            }
            Some(path) => Password::In(path),
            None => Password::Given(self.password),
        };
        let client = match (file(self.tls_client_cert_file), file(self.tls_client_key_file)) {
            (Some(certificate), Some(key)) => Some(ClientCertificate { certificate, key }),
            (None, None) => None,
            _ => return Err("tls_client_cert_file and tls_client_key_file: give both or none".to_owned()),
        };
        if self.prefix.is_empty() || self.prefix.len() > PREFIX_LIMIT || self.prefix.starts_with("amq.") {
            return Err(format!(
                "prefix: must have 1 to {PREFIX_LIMIT} bytes and not begin with amq., which is the broker's own"
            ));
        }
        if !WINDOW.contains(&self.confirm_window) {
            return Err(format!("confirm_window: must be {} to {}", WINDOW.start(), WINDOW.end()));
        }
        if self.max_message == 0 || self.max_message > LARGEST {
            return Err(format!("max_message: must be 1 byte to {} MiB", LARGEST >> 20));
        }
        let heartbeat = duration("heartbeat", self.heartbeat)?.as_secs();
        let heartbeat = u16::try_from(heartbeat).ok().filter(|h| HEARTBEAT.contains(h));
        let heartbeat = heartbeat.ok_or("heartbeat: must be 1 second to 1 hour")?;
        let bytes = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        Ok(Settings {
            addresses: self.addresses.iter().map(|a| address(a)).collect::<Result<_, _>>()?,
            user: self.user,
            password,
            vhost: self.vhost,
            prefix: self.prefix,
            queue_type: self.queue_type,
            replicas: (self.replicas > 0).then_some(self.replicas),
            heartbeat,
            connect_timeout: duration("connect_timeout", self.connect_timeout)?,
            confirm_timeout: duration("confirm_timeout", self.confirm_timeout)?,
            confirm_window: self.confirm_window,
            confirm_bytes: bytes(self.confirm_bytes),
            max_message: bytes(self.max_message),
            ca: file(self.tls_ca_file),
            client,
        })
    }
}

fn duration(name: &str, seconds: f64) -> Result<Duration, String> {
    let duration = Duration::try_from_secs_f64(seconds).ok().filter(|d| !d.is_zero() && *d <= LONGEST);
    duration.ok_or_else(|| format!("{name}: must be more than nothing and at most a day"))
}

/// Reads one address. It holds no more than where the node is: the rest has options, which are kept secret where they
/// have to be.
fn address(text: &str) -> Result<Address, String> {
    let wrong = |why: &str| Err(format!("addresses: {}: {why}", mask_urls(text)));
    let (tls, rest) = match (text.strip_prefix("amqp://"), text.strip_prefix("amqps://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => return wrong("must begin with amqp:// or amqps://"),
    };
    if rest.contains('@') {
        return wrong("name the user in `user`, and the password in `password` or `password_file`");
    }
    let rest = rest.trim_end_matches('/');
    if rest.contains(['/', '?', '#']) {
        return wrong("nothing may follow the port; the virtual host has the option `vhost`");
    }
    let (host, after) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']').unwrap_or((rest, ":")),
        None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
    };
    let port = match after.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port != 0),
        None if after.is_empty() => Some(if tls { 5671 } else { 5672 }),
        None => None,
    };
    match port {
        Some(port) if !host.is_empty() => Ok(Address { host: host.to_owned(), port, tls }),
        Some(_) => wrong("has no host"),
        None => wrong("has no port that could be"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(options: Value) -> Result<Settings, String> {
        Settings::read(options.as_object().unwrap()).map_err(|e| e.0)
    }

    #[test]
    fn addresses() {
        let at = |text: &str| address(text).map(|a| (a.host, a.port, a.tls));
        assert_eq!(at("amqp://rabbit"), Ok(("rabbit".to_owned(), 5672, false)));
        assert_eq!(at("amqps://rabbit/"), Ok(("rabbit".to_owned(), 5671, true)));
        assert_eq!(at("amqp://[::1]:7"), Ok(("::1".to_owned(), 7, false)));
        for (text, says) in [
            ("http://rabbit", "amqp://"),
            ("amqp://u:hunter2@rabbit", "`password_file`"),
            ("amqp://rabbit/vhost", "`vhost`"),
            ("amqp://rabbit:5672?heartbeat=1", "port"),
            ("amqp://", "host"),
            ("amqp://rabbit:amqp", "port"),
            ("amqp://rabbit:0", "port"),
            ("amqp://[::1", "port"),
        ] {
            let why = at(text).unwrap_err();
            assert!(why.contains(says) && !why.contains("hunter2"), "{why}");
        }
    }

    #[test]
    fn what_cannot_be_is_named() {
        assert!(read(json!({})).is_ok());
        for (options, names) in [
            (json!({"addresses": []}), "addresses"),
            (json!({"password": "a", "password_file": "b"}), "password_file"),
            (json!({"tls_client_cert_file": "a"}), "tls_client_key_file"),
            (json!({"queue_type": "stream"}), "stream"),
            (json!({"confirm_window": 0}), "confirm_window"),
            (json!({"heartbeat": 0.5}), "heartbeat"),
            (json!({"connect_timeout": 0}), "connect_timeout"),
            (json!({"max_message": 0}), "max_message"),
            (json!({"prefix": "amq.x"}), "prefix"),
            (json!({"perfetch": 1}), "perfetch"),
        ] {
            let why = read(options).unwrap_err();
            assert!(why.contains(names), "{why}");
        }
    }

    #[test]
    fn secrets_are_known_as_such() {
        assert!(stoq_runtime::secret::is_secret("password"));
        let settings = read(json!({"password": "hunter2"})).unwrap();
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}
