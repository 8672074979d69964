//! Options of `splunk`.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use stoq_api::scanner::{BuildError, OptionInfo, OptionKind};
use stoq_runtime::secret::Secret;

use super::names::{Names, Place};
use crate::common::http;
use crate::common::http::{Auth, SecretValue};
use crate::model::Model;

const fn option(name: &'static str, kind: OptionKind, default: &'static str, help: &'static str) -> OptionInfo {
    OptionInfo { name, kind, default, help }
}

/// As they are listed.
pub(super) const OPTIONS: [OptionInfo; 19] = [
    option("urls", OptionKind::List, "[]", "collectors, as https://HOST:8088; one that fails rests while others work"),
    option("token", OptionKind::Text, "\"\"", "token of the event collector; or token_file"),
    option("token_file", OptionKind::Text, "\"\"", "file whose first line is the token; read again when it is refused"),
    option("ca_file", OptionKind::Text, "\"\"", "PEM file of authorities to trust instead of the system's"),
    option("model", OptionKind::Text, "\"payload\"", "what an event is: response, payload, plugin or ecs"),
    option("index", OptionKind::Text, "\"\"", "made of {tenant}, {source}, {date}, {hour}; empty: the token's own"),
    option("source", OptionKind::Text, "\"stoq\"", "the same for the event's source"),
    option("sourcetype", OptionKind::Text, "\"\"", "the same for its source type; empty: stoq:MODEL"),
    option("host", OptionKind::Text, "\"\"", "the same for its host; empty: as Splunk finds it"),
    option("acknowledge", OptionKind::Bool, "true", "wait until events are indexed; the token must have it enabled"),
    option("ack_timeout", OptionKind::Duration, "300", "what is not acknowledged by then is sent again"),
    option("ack_poll", OptionKind::Duration, "1", "longest wait between two questions for an acknowledgement"),
    option("gzip", OptionKind::Bool, "true", "compress requests"),
    option("request_bytes", OptionKind::Size, "1000000", "bytes of events in one request; one event may be larger"),
    option("requests", OptionKind::Int, "4", "requests of one batch that are open at a time"),
    // The frame's, with another default.
    option("concurrency", OptionKind::Int, "8", "batches that are tried at a time; an acknowledgement takes seconds"),
    option("timeout", OptionKind::Duration, "60", "how long one request may take"),
    option("connect_timeout", OptionKind::Duration, "10", "how long making a connection may take"),
    option("use_proxy", OptionKind::Bool, "false", "use the proxies that environment variables name"),
];

/// As they stand in the configuration.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Config {
    urls: Vec<String>,
    token: Secret,
    token_file: PathBuf,
    ca_file: PathBuf,
    model: Model,
    index: String,
    source: String,
    sourcetype: String,
    host: String,
    acknowledge: bool,
    ack_timeout: f64,
    ack_poll: f64,
    gzip: bool,
    request_bytes: usize,
    requests: usize,
    timeout: f64,
    connect_timeout: f64,
    use_proxy: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            token: Secret::default(),
            token_file: PathBuf::new(),
            ca_file: PathBuf::new(),
            model: Model::default(),
            index: String::new(),
            source: "stoq".to_owned(),
            sourcetype: String::new(),
            host: String::new(),
            acknowledge: true,
            ack_timeout: 300.0,
            ack_poll: 1.0,
            gzip: true,
            request_bytes: 1_000_000,
            requests: 4,
            timeout: 60.0,
            connect_timeout: 10.0,
            use_proxy: false,
        }
    }
}

/// Requests of one batch at a time, at most.
const MAX_REQUESTS: usize = 64;
/// Bytes of events in one request, at most: what Splunk takes by its own default.
const MAX_REQUEST_BYTES: usize = 838_860_800;
/// The largest answer: that to a question about one number, or the reason of a refusal.
const MAX_REPLY: usize = 64 << 10;
/// Longest time an acknowledgement is waited for: a day.
const MAX_SECONDS: f64 = 86_400.0;

/// As they are used.
pub(super) struct Validated {
    pub(super) http: http::Settings,
    pub(super) model: Model,
    pub(super) index: Option<Names>,
    pub(super) source: Option<Names>,
    pub(super) sourcetype: Option<Names>,
    pub(super) host: Option<Names>,
    /// Present with acknowledgement.
    pub(super) ack: Option<Ack>,
    pub(super) request_bytes: usize,
    pub(super) requests: usize,
}

/// How acknowledgements are waited for.
#[derive(Clone, Copy)]
pub(super) struct Ack {
    pub(super) timeout: Duration,
    pub(super) poll: Duration,
}

impl Config {
    pub(super) fn validate(self) -> Result<Validated, BuildError> {
        if self.urls.is_empty() {
            return Err(BuildError("urls: name at least one collector, as https://HOST:8088".to_owned()));
        }
        let secret = SecretValue::of("token", &self.token, &self.token_file)?;
        let secret = secret.ok_or_else(|| BuildError("give token or token_file, of an event collector".to_owned()))?;
        let template = |name: &str, text: &str, place: Place| match text {
            "" => Ok(None),
            text => Names::parse(text, place).map(Some).map_err(|why| BuildError(format!("{name} {text:?}: {why}"))),
        };
        let sourcetype =
            if self.sourcetype.is_empty() { format!("stoq:{}", self.model.name()) } else { self.sourcetype };
        let within = |name: &str, value: usize, most: usize| match value {
            0 => Err(BuildError(format!("{name} must be above zero"))),
            value if value > most => Err(BuildError(format!("{name} may be {most} at most"))),
            value => Ok(value),
        };
        let ack = Ack { timeout: seconds("ack_timeout", self.ack_timeout)?, poll: seconds("ack_poll", self.ack_poll)? };
        Ok(Validated {
            http: http::Settings {
                nodes: self.urls,
                ca_file: self.ca_file,
                auth: Auth::Scheme { scheme: "Splunk", secret },
                connect_timeout: seconds("connect_timeout", self.connect_timeout)?,
                timeout: seconds("timeout", self.timeout)?,
                gzip: self.gzip,
                use_proxy: self.use_proxy,
                max_reply: MAX_REPLY,
            },
            model: self.model,
            index: template("index", &self.index, Place::Index)?,
            source: template("source", &self.source, Place::Name)?,
            sourcetype: template("sourcetype", &sourcetype, Place::Name)?,
            host: template("host", &self.host, Place::Name)?,
            ack: self.acknowledge.then_some(ack),
            request_bytes: within("request_bytes", self.request_bytes, MAX_REQUEST_BYTES)?,
            requests: within("requests", self.requests, MAX_REQUESTS)?,
        })
    }
}

fn seconds(name: &str, value: f64) -> Result<Duration, BuildError> {
    if value > 0.0 && value <= MAX_SECONDS {
        Ok(Duration::from_secs_f64(value))
    } else {
        Err(BuildError(format!("{name} must be above zero and at most a day")))
    }
}
