//! What can be configured, and the client's configuration that follows from it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rdkafka::ClientConfig;
use serde::Deserialize;
use serde_json::{Map, Value};
use stoq_api::backend::Options;
use stoq_api::scanner::{BuildError, OptionInfo, OptionKind, PluginInfo, PluginKind};
use stoq_runtime::secret::Secret;

pub(crate) const INFO: PluginInfo = PluginInfo {
    name: "kafka",
    description: "Lanes and intakes on Apache Kafka",
    kinds: &[PluginKind::Queue],
    options: &[
        option("servers", OptionKind::List, r#"["127.0.0.1:9092"]"#, "brokers to ask first, as host:port"),
        option("prefix", OptionKind::Text, r#""stoq""#, "what names of topics and groups begin with"),
        option("partitions", OptionKind::Int, "12", "partitions of a lane: the most processes that can share one"),
        option("replication", OptionKind::Int, "3", "brokers that keep a copy; 1 where there is only one"),
        option("min_insync", OptionKind::Int, "2", "copies that must be written before a publish counts"),
        option("retention", OptionKind::Duration, r#""7 d""#, "how long a lane keeps messages, read or not"),
        option(
            "retention_size",
            OptionKind::Size,
            "0",
            "most bytes that a partition keeps, read or not; 0 for no bound",
        ),
        option("max_message", OptionKind::Size, r#""8 MiB""#, "largest message of a lane"),
        option(
            "window",
            OptionKind::Int,
            "1000",
            "how far a partition is worked on ahead of its oldest unfinished message",
        ),
        option("user", OptionKind::Text, "", "user for SASL"),
        option("password", OptionKind::Text, "", "its password"),
        option("password_file", OptionKind::Text, "", "file that holds the password"),
        option("mechanism", OptionKind::Text, r#""SCRAM-SHA-512""#, "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"),
        option("tls", OptionKind::Bool, "false", "encrypt, and check the brokers' certificates"),
        option("tls_ca_file", OptionKind::Text, "", "authorities to trust instead of the system's"),
        option("tls_cert_file", OptionKind::Text, "", "certificate to show the brokers"),
        option("tls_key_file", OptionKind::Text, "", "its key"),
        option("timeout", OptionKind::Duration, r#""10 s""#, "how long an operation is tried before it fails"),
        option("session_timeout", OptionKind::Duration, r#""15 s""#, "silence after which a consumer counts as dead"),
        option("properties", OptionKind::Json, "{}", "further properties of librdkafka"),
    ],
    required_workers: &[],
};

const fn option(name: &'static str, kind: OptionKind, default: &'static str, help: &'static str) -> OptionInfo {
    OptionInfo { name, kind, default, help }
}

/// Largest password file that is read.
const MAX_PASSWORD_FILE: u64 = 64 << 10;
/// Most bytes of messages that wait to be sent before publishers wait.
const SEND_BUFFER_KIB: &str = "131072";
/// Most bytes of messages that librdkafka fetches ahead, a consumer.
const FETCH_BUFFER_KIB: &str = "16384";
/// What the queue's promises rest on, and what has an option of its own.
const OURS: [&str; 19] = [
    "bootstrap.servers",
    "metadata.broker.list",
    "security.protocol",
    "group.id",
    "group.protocol",
    "group.instance.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "acks",
    "request.required.acks",
    "auto.offset.reset",
    "partition.assignment.strategy",
    "allow.auto.create.topics",
    "session.timeout.ms",
    "message.max.bytes",
    "message.timeout.ms",
    "delivery.timeout.ms",
];

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Given {
    servers: Vec<String>,
    prefix: String,
    partitions: i32,
    replication: i32,
    min_insync: i32,
    retention: f64,
    retention_size: u64,
    max_message: u32,
    window: u32,
    user: String,
    password: Secret,
    password_file: String,
    mechanism: String,
    tls: bool,
    tls_ca_file: String,
    tls_cert_file: String,
    tls_key_file: String,
    timeout: f64,
    session_timeout: f64,
    properties: Map<String, Value>,
}

impl Default for Given {
    fn default() -> Self {
        Self {
            servers: vec!["127.0.0.1:9092".to_owned()],
            prefix: "stoq".to_owned(),
            partitions: 12,
            replication: 3,
            min_insync: 2,
            retention: 7.0 * 86_400.0,
            retention_size: 0,
            max_message: 8 << 20,
            window: 1000,
            user: String::new(),
            password: Secret::default(),
            password_file: String::new(),
            mechanism: "SCRAM-SHA-512".to_owned(),
            tls: false,
            tls_ca_file: String::new(),
            tls_cert_file: String::new(),
            tls_key_file: String::new(),
            timeout: 10.0,
            session_timeout: 15.0,
            properties: Map::new(),
        }
    }
}

/// Checked options.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) servers: String,
    pub(crate) prefix: String,
    pub(crate) lane: LaneSettings,
    /// Offsets of a partition that may be started above the lowest unfinished one.
    pub(crate) window: i64,
    pub(crate) timeout: Duration,
    pub(crate) session_timeout: Duration,
    tls: Option<Tls>,
    login: Option<Login>,
    properties: Vec<(String, Property)>,
}

/// How topics of lanes are made.
#[derive(Clone, Debug)]
pub(crate) struct LaneSettings {
    pub(crate) partitions: i32,
    pub(crate) replication: i32,
    pub(crate) min_insync: i32,
    pub(crate) retention: Duration,
    /// `None` for no bound.
    pub(crate) retention_bytes: Option<u64>,
    pub(crate) max_message: u32,
}

#[derive(Clone, Debug)]
struct Tls {
    ca: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
}

#[derive(Clone, Debug)]
struct Login {
    user: String,
    mechanism: String,
    password: Password,
}

#[derive(Clone, Debug)]
enum Password {
    Given(Secret),
    /// Read whenever a client is made, so that a rotated one is found.
    File(PathBuf),
}

/// A property's value; some are secrets, and none is worth showing.
type Property = Secret;

impl Settings {
    /// Checks `options`; reads no file and connects to nothing.
    ///
    /// # Errors
    /// An option's value cannot be used; the text names it.
    pub(crate) fn new(options: &Options) -> Result<Self, BuildError> {
        let given: Given =
            serde_json::from_value(Value::Object(options.clone())).map_err(|e| BuildError(e.to_string()))?;
        let session_timeout = duration("session_timeout", given.session_timeout)?;
        let settings = Self {
            servers: servers(&given.servers)?,
            lane: lane(&given)?,
            window: within("window", i64::from(given.window), 1, 1 << 20)?,
            timeout: duration("timeout", given.timeout)?,
            session_timeout,
            tls: tls(&given)?,
            login: login(&given)?,
            properties: properties(&given.properties)?,
            prefix: prefix(given.prefix)?,
        };
        Ok(settings)
    }

    /// What every client is configured with.
    ///
    /// # Errors
    /// The password's file cannot be read; the text says why.
    pub(crate) fn client(&self) -> Result<ClientConfig, String> {
        let mut config = ClientConfig::new();
        config.set("client.id", "stoq").set("allow.auto.create.topics", "false");
        // Lines of the client go through its context, which passes on what is worth it.
        config.set("log_level", "5").set("log.connection.close", "false");
        for (name, value) in &self.properties {
            config.set(name, value.expose());
        }
        config.set("bootstrap.servers", &self.servers);
        let protocol = match (&self.tls, &self.login) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        if let Some(tls) = &self.tls {
            if let Some(ca) = &tls.ca {
                config.set("ssl.ca.location", ca.to_string_lossy());
            }
            if let Some((certificate, key)) = &tls.identity {
                config.set("ssl.certificate.location", certificate.to_string_lossy());
                config.set("ssl.key.location", key.to_string_lossy());
            }
        }
        if let Some(login) = &self.login {
            let password = login.password.read()?;
            config.set("sasl.mechanism", &login.mechanism).set("sasl.username", &login.user);
            config.set("sasl.password", password.expose());
        }
        Ok(config)
    }

    /// The producer's configuration.
    ///
    /// # Errors
    /// As for [`Settings::client`].
    pub(crate) fn producer(&self) -> Result<ClientConfig, String> {
        let mut config = self.client()?;
        let mut default = |name: &str, value: &str| {
            if config.get(name).is_none() {
                config.set(name, value);
            }
        };
        // Without linger each message costs the client three to four times the work.
        default("linger.ms", "5");
        default("queue.buffering.max.kbytes", SEND_BUFFER_KIB);
        default("queue.buffering.max.messages", "1000000");
        config.set("enable.idempotence", "true").set("acks", "all");
        config.set("message.max.bytes", self.lane.max_message.to_string());
        config.set("message.timeout.ms", self.timeout.as_millis().to_string());
        Ok(config)
    }

    /// The configuration of a consumer in `group`.
    ///
    /// # Errors
    /// As for [`Settings::client`].
    pub(crate) fn consumer(&self, group: &str) -> Result<ClientConfig, String> {
        let mut config = self.client()?;
        if config.get("queued.max.messages.kbytes").is_none() {
            config.set("queued.max.messages.kbytes", FETCH_BUFFER_KIB);
        }
        let session = self.session_timeout.as_millis();
        config.set("group.id", group).set("session.timeout.ms", session.to_string());
        config.set("heartbeat.interval.ms", (session / 5).clamp(100, 3000).to_string());
        config.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
        // A group whose offset is gone, expired or beyond what is kept, reads again rather than skips.
        config.set("auto.offset.reset", "earliest").set("isolation.level", "read_committed");
        config.set("partition.assignment.strategy", "cooperative-sticky");
        Ok(config)
    }
}

impl Password {
    fn read(&self) -> Result<Secret, String> {
        match self {
            Self::Given(secret) => Ok(secret.clone()),
            Self::File(path) => read_password(path),
        }
    }
}

fn read_password(path: &Path) -> Result<Secret, String> {
    let failed = |why: String| format!("password_file {} cannot be used: {why}", path.display());
    let size = std::fs::metadata(path).map_err(|e| failed(e.to_string()))?.len();
    if size > MAX_PASSWORD_FILE {
        return Err(failed(format!("it has {size} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
    Ok(Secret::new(text.trim_end_matches(['\r', '\n'])))
}

fn wrong(option: &str, why: impl std::fmt::Display) -> BuildError {
    BuildError(format!("{option}: {why}"))
}

fn within(option: &str, value: i64, least: i64, most: i64) -> Result<i64, BuildError> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(wrong(option, format!("{value} is not from {least} to {most}")))
}

fn duration(option: &str, seconds: f64) -> Result<Duration, BuildError> {
    // The client counts milliseconds in 31 bits.
    if (0.1..=86_400.0 * 20.0).contains(&seconds) {
        return Ok(Duration::from_secs_f64(seconds));
    }
    Err(wrong(option, format!("{seconds} s is not from 0.1 s to 20 days")))
}

fn prefix(prefix: String) -> Result<String, BuildError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if prefix.is_empty() || !prefix.chars().all(legal) {
        return Err(wrong(
            "prefix",
            format!("{prefix:?} is not made of letters, digits, dots, dashes and underscores"),
        ));
    }
    Ok(prefix)
}

fn servers(servers: &[String]) -> Result<String, BuildError> {
    if servers.is_empty() {
        return Err(wrong("servers", "name at least one broker as host:port"));
    }
    for server in servers {
        if server.contains('@') {
            return Err(wrong("servers", "credentials do not belong into an address; use user and password_file"));
        }
        let named = server.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if !named || server.contains([',', '/', ' ']) {
            return Err(wrong("servers", format!("{server:?} is not host:port")));
        }
    }
    Ok(servers.join(","))
}

fn lane(given: &Given) -> Result<LaneSettings, BuildError> {
    let small = |option, value: i32, most| -> Result<i32, BuildError> {
        within(option, i64::from(value), 1, most).map(|_| value)
    };
    let retention = if given.retention >= 60.0 && given.retention.is_finite() && given.retention < 1e10 {
        Duration::from_secs_f64(given.retention)
    } else {
        return Err(wrong("retention", "less than a minute, or no time at all"));
    };
    let settings = LaneSettings {
        partitions: small("partitions", given.partitions, 10_000)?,
        replication: small("replication", given.replication, 100)?,
        min_insync: small("min_insync", given.min_insync, 100)?,
        retention,
        retention_bytes: (given.retention_size > 0).then_some(given.retention_size),
        max_message: given.max_message,
    };
    // The bounds that the client has for `message.max.bytes`.
    within("max_message", i64::from(given.max_message), 1000, 1_000_000_000)?;
    if settings.min_insync > settings.replication {
        let text = format!("{} is more than replication = {}", settings.min_insync, settings.replication);
        return Err(wrong("min_insync", text));
    }
    Ok(settings)
}

fn file(path: &str) -> Option<PathBuf> {
    (!path.is_empty()).then(|| PathBuf::from(path))
}

fn tls(given: &Given) -> Result<Option<Tls>, BuildError> {
    let identity = match (file(&given.tls_cert_file), file(&given.tls_key_file)) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err(wrong("tls_cert_file", "goes together with tls_key_file")),
    };
    let ca = file(&given.tls_ca_file);
    if !given.tls && (ca.is_some() || identity.is_some()) {
        return Err(wrong("tls", "has to be true for the files of TLS to be used"));
    }
    Ok(given.tls.then_some(Tls { ca, identity }))
}

fn login(given: &Given) -> Result<Option<Login>, BuildError> {
    let password = match (given.password.expose().is_empty(), file(&given.password_file)) {
        (false, Some(_)) => return Err(wrong("password", "goes without password_file; keep one of them")),
        (false, None) => Some(Password::Given(given.password.clone())),
        (true, Some(path)) => Some(Password::File(path)),
        (true, None) => None,
    };
    let (user, password) = match (given.user.is_empty(), password) {
        (true, None) => return Ok(None),
        (true, Some(_)) => return Err(wrong("user", "has to be given with a password")),
        (false, None) => return Err(wrong("password_file", "or password has to be given with a user")),
        (false, Some(password)) => (given.user.clone(), password),
    };
    let mechanism = given.mechanism.to_ascii_uppercase();
    if !["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"].contains(&mechanism.as_str()) {
        let text = format!("{:?} is not PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", given.mechanism);
        return Err(wrong("mechanism", text));
    }
    Ok(Some(Login { user, mechanism, password }))
}

fn properties(given: &Map<String, Value>) -> Result<Vec<(String, Property)>, BuildError> {
    let mut properties = Vec::with_capacity(given.len());
    for (name, value) in given {
        if OURS.contains(&name.as_str()) || name.starts_with("sasl.") || name == "ssl.key.pem" {
            let text = format!("{name} has an option of its own, or is what the promises of a queue rest on");
            return Err(wrong("properties", text));
        }
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            _ => return Err(wrong("properties", format!("{name} is neither text, number nor true or false"))),
        };
        properties.push((name.clone(), Secret::new(value)));
    }
    let mut probe = ClientConfig::new();
    for (name, value) in &properties {
        probe.set(name, value.expose());
        probe.create_native_config().map_err(|_| {
            wrong("properties", format!("librdkafka knows no {name}, or the value is none that it takes there"))
        })?;
    }
    Ok(properties)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn open(options: Value) -> Result<Settings, String> {
        let Value::Object(options) = options else { panic!("options are a table") };
        Settings::new(&options).map_err(|e| e.to_string())
    }

    #[test]
    fn says_which_option_is_wrong() {
        for (options, word) in [
            (json!({"servers": []}), "servers"),
            (json!({"servers": ["kafka://u:p@h:9092"]}), "password_file"),
            (json!({"servers": ["h"]}), "host:port"),
            (json!({"prefix": "a b"}), "prefix"),
            (json!({"partitions": 0}), "partitions"),
            (json!({"replication": 1}), "min_insync"),
            (json!({"retention": 1.0}), "retention"),
            (json!({"user": "u"}), "password_file"),
            (json!({"password": "p"}), "user"),
            (json!({"user": "u", "password": "p", "password_file": "f"}), "password"),
            (json!({"user": "u", "password": "p", "mechanism": "GSSAPI"}), "mechanism"),
            (json!({"tls_ca_file": "ca.pem"}), "tls"),
            (json!({"tls": true, "tls_key_file": "k"}), "tls_cert_file"),
            (json!({"properties": {"acks": "1"}}), "acks"),
            (json!({"properties": {"sasl.password": "x"}}), "sasl.password"),
            (json!({"properties": {"no.such": "x"}}), "no.such"),
            (json!({"properties": {"linger.ms": "soon"}}), "linger.ms"),
            (json!({"timeout": 0.0}), "timeout"),
            (json!({"partition": 3}), "partition"),
        ] {
            let error = open(options.clone()).expect_err(&options.to_string());
            assert!(error.contains(word), "{options}: {error}");
        }
    }

    #[test]
    fn the_listed_defaults_are_the_defaults() {
        let listed: Vec<&str> = INFO.options.iter().map(|o| o.name).collect();
        let Value::Object(known) = json!({
            "servers": ["127.0.0.1:9092"], "prefix": "stoq", "partitions": 12, "replication": 3, "min_insync": 2,
            "retention": 604_800.0, "retention_size": 0, "max_message": 8 << 20, "window": 1000, "user": "",
            "password": "", "password_file": "", "mechanism": "SCRAM-SHA-512", "tls": false, "tls_ca_file": "",
            "tls_cert_file": "", "tls_key_file": "", "timeout": 10.0, "session_timeout": 15.0, "properties": {},
        }) else {
            panic!("a table");
        };
        assert_eq!(listed, known.keys().map(String::as_str).collect::<Vec<_>>());
        let written = Settings::new(&known).unwrap();
        let (left_out, written) = (format!("{:?}", open(json!({})).unwrap()), format!("{written:?}"));
        assert_eq!(left_out, written);
    }

    #[test]
    fn secrets_reach_the_client_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        std::fs::write(&path, "hunter2\n").unwrap();
        let settings = open(json!({
            "user": "u", "password_file": path, "tls": true, "mechanism": "plain",
            "properties": {"ssl.key.password": "hunter3", "linger.ms": 20},
        }))
        .unwrap();
        let config = settings.producer().unwrap();
        assert_eq!(config.get("sasl.password"), Some("hunter2"));
        assert_eq!(config.get("security.protocol"), Some("sasl_ssl"));
        assert_eq!(config.get("linger.ms"), Some("20"));
        assert!(!format!("{settings:?}").contains("hunter"));
        std::fs::remove_file(&path).unwrap();
        assert!(settings.client().unwrap_err().contains("password_file"));
    }
}
