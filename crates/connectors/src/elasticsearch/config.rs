//! Options of `elasticsearch`.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};
use stoq_api::scanner::{BuildError, OptionInfo, OptionKind, PluginInfo, PluginKind};
use stoq_runtime::secret::Secret;

use super::names::Names;
use crate::common::http::{Auth, SecretValue, Settings};
use crate::config_of;
use crate::model::Model;

/// Requests may have so many bytes before they are compressed. Elasticsearch takes 100 MB by default.
const REQUEST: std::ops::RangeInclusive<u64> = 64 << 10..=90 << 20;
/// Where nodes are by default.
const PORT: u16 = 9200;

const OPTIONS: &[OptionInfo] = &[
    option("nodes", OptionKind::List, r#"["http://localhost:9200"]"#, "addresses of nodes, http:// or https://"),
    option("api_key", OptionKind::Text, r#""""#, "API key in its encoded form (Elasticsearch)"),
    option("api_key_file", OptionKind::Text, r#""""#, "file that holds the API key; read again when it is refused"),
    option("user", OptionKind::Text, r#""""#, "user name"),
    option("password", OptionKind::Text, r#""""#, "the user's password"),
    option("password_file", OptionKind::Text, r#""""#, "file that holds the password; read again when it is refused"),
    option("ca_file", OptionKind::Text, r#""""#, "PEM file of authorities to trust instead of the system's"),
    option(
        "index",
        OptionKind::Text,
        r#""stoq-%Y.%m""#,
        "index of a document: %Y %m %d of when its scan was first seen (UTC), {tenant} and {source}",
    ),
    option("data_stream", OptionKind::Text, r#""""#, "data stream instead of an index; may have {tenant} and {source}"),
    option("model", OptionKind::Text, r#""payload""#, "what documents are: payload, ecs, plugin or response"),
    option(
        "op_type",
        OptionKind::Text,
        r#""create""#,
        "create: the first document of an id stays; index: the last one does, at the cost of a look-up",
    ),
    option("pipeline", OptionKind::Text, r#""""#, "ingest pipeline that documents go through"),
    option("max_request", OptionKind::Size, r#""8 MiB""#, "most bytes of one request, before it is compressed"),
    option("gzip", OptionKind::Bool, "true", "whether requests are compressed"),
    option(
        "concurrency",
        OptionKind::Int,
        "4",
        "batches that are tried at a time: while some are made and compressed, the server has others",
    ),
    option("timeout", OptionKind::Duration, r#""60 s""#, "how long one request may take"),
    option("connect_timeout", OptionKind::Duration, r#""10 s""#, "how long making a connection may take"),
    option("use_proxy", OptionKind::Bool, "false", "whether the environment's proxy variables count"),
    option("template", OptionKind::Bool, "true", "whether `stoq setup` installs an index template"),
    option("shards", OptionKind::Int, "1", "primary shards of a new index, by that template"),
    option("replicas", OptionKind::Int, "1", "copies of each shard, by that template"),
    option(
        "retention",
        OptionKind::Duration,
        r#""0 s""#,
        "whole days after which indices are deleted, by a policy that `stoq setup` installs; 0: none",
    ),
    option("es_host", OptionKind::Text, r#""""#, "stoQ's name for one of `nodes`: host, host:port or an address"),
    option("es_index", OptionKind::Text, r#""""#, "stoQ's name for `index`"),
    option("index_by_month", OptionKind::Bool, "true", "with `es_index`: whether -YYYY-MM is put behind it"),
    option("es_timeout", OptionKind::Duration, r#""0 s""#, "stoQ's name for `timeout`"),
    option("es_options", OptionKind::Json, "{}", "options of stoQ's client library; only {} is taken"),
    option(
        "es_retry",
        OptionKind::Bool,
        "true",
        "taken and without effect: what can be delivered is retried until it is",
    ),
    option("es_max_retries", OptionKind::Int, "10", "taken and without effect, as es_retry"),
];

const fn option(name: &'static str, kind: OptionKind, default: &'static str, help: &'static str) -> OptionInfo {
    OptionInfo { name, kind, default, help }
}

/// What is known of it before it is built.
pub(super) fn info() -> PluginInfo {
    PluginInfo {
        name: "elasticsearch",
        description: "Puts documents into Elasticsearch or OpenSearch",
        kinds: &[PluginKind::Connector],
        options: OPTIONS,
        required_workers: &[],
    }
}

/// As they stand in the configuration.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    nodes: Vec<String>,
    api_key: Secret,
    api_key_file: PathBuf,
    user: String,
    password: Secret,
    password_file: PathBuf,
    ca_file: PathBuf,
    index: String,
    data_stream: String,
    model: Model,
    op_type: OpType,
    pipeline: String,
    max_request: u64,
    gzip: bool,
    timeout: f64,
    connect_timeout: f64,
    use_proxy: bool,
    template: bool,
    shards: u32,
    replicas: u32,
    retention: f64,
    es_host: String,
    es_index: String,
    index_by_month: bool,
    es_timeout: f64,
    es_options: Map<String, Value>,
    #[serde(rename = "es_retry")]
    _es_retry: bool,
    #[serde(rename = "es_max_retries")]
    _es_max_retries: i64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            nodes: vec![DEFAULT_NODE.to_owned()],
            api_key: Secret::default(),
            api_key_file: PathBuf::new(),
            user: String::new(),
            password: Secret::default(),
            password_file: PathBuf::new(),
            ca_file: PathBuf::new(),
            index: DEFAULT_INDEX.to_owned(),
            data_stream: String::new(),
            model: Model::default(),
            op_type: OpType::Create,
            pipeline: String::new(),
            max_request: 8 << 20,
            gzip: true,
            timeout: 60.0,
            connect_timeout: 10.0,
            use_proxy: false,
            template: true,
            shards: 1,
            replicas: 1,
            retention: 0.0,
            es_host: String::new(),
            es_index: String::new(),
            index_by_month: true,
            es_timeout: 0.0,
            es_options: Map::new(),
            _es_retry: true,
            _es_max_retries: 10,
        }
    }
}

const DEFAULT_NODE: &str = "http://localhost:9200";
const DEFAULT_INDEX: &str = "stoq-%Y.%m";
const DAY: f64 = 86_400.0;

/// What a second document of an id does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum OpType {
    /// Nothing.
    Create,
    /// Takes the place of the first.
    Index,
}

impl OpType {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Index => "index",
        }
    }
}

/// Options that fit together.
pub(super) struct Validated {
    pub(super) http: Settings,
    pub(super) names: Names,
    pub(super) model: Model,
    pub(super) op_type: OpType,
    pub(super) pipeline: String,
    pub(super) max_request: usize,
    pub(super) template: bool,
    pub(super) shards: u32,
    pub(super) replicas: u32,
    /// 0: for ever.
    pub(super) retention_days: u32,
}

impl Validated {
    pub(super) fn read(options: &Map<String, Value>) -> Result<Self, BuildError> {
        let mut given: Config = config_of(options)?;
        given.take_old_names()?;
        let wrong = |text: &str| Err(BuildError(text.to_owned()));
        if !REQUEST.contains(&given.max_request) {
            return wrong("max_request must be from 64 KiB to 90 MiB");
        }
        if !given.data_stream.is_empty() && given.op_type != OpType::Create {
            return wrong("a data stream takes new documents only: leave op_type at create");
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !given.pipeline.chars().all(plain) {
            return wrong("pipeline may have letters, digits and - _ .");
        }
        let days = given.retention / DAY;
        if !(0.0..=36_500.0).contains(&days) || days.fract() != 0.0 {
            return wrong("retention must be whole days, at most 100 years");
        }
        let names = match given.data_stream.as_str() {
            "" => Names::index(&given.index)?,
            stream => Names::data_stream(stream)?,
        };
        Ok(Self {
            names,
            model: given.model,
            op_type: given.op_type,
            pipeline: std::mem::take(&mut given.pipeline),
            max_request: usize::try_from(given.max_request).unwrap_or(usize::MAX),
            template: given.template,
            shards: given.shards.max(1),
            replicas: given.replicas,
            retention_days: days as u32,
            http: given.http()?,
        })
    }
}

impl Config {
    /// stoQ's names become ours.
    fn take_old_names(&mut self) -> Result<(), BuildError> {
        if !self.es_options.is_empty() {
            let text =
                "es_options are options of a Python library: use user, password, api_key, ca_file, timeout and nodes";
            return Err(BuildError(text.to_owned()));
        }
        if !self.es_host.is_empty() {
            if self.nodes != [DEFAULT_NODE] {
                return Err(BuildError("give nodes or es_host, not both".to_owned()));
            }
            let host = &self.es_host;
            let after = host.rsplit(']').next().unwrap_or(host);
            let node = match (host.contains("://"), after.contains(':')) {
                (true, _) => host.clone(),
                (false, true) => format!("http://{host}"),
                (false, false) => format!("http://{host}:{PORT}"),
            };
            self.nodes = vec![node];
        }
        if !self.es_index.is_empty() {
            if self.index != DEFAULT_INDEX {
                return Err(BuildError("give index or es_index, not both".to_owned()));
            }
            self.index = format!("{}{}", self.es_index, if self.index_by_month { "-%Y-%m" } else { "" });
        }
        if self.es_timeout > 0.0 {
            self.timeout = self.es_timeout;
        }
        Ok(())
    }

    fn http(self) -> Result<Settings, BuildError> {
        let key = SecretValue::of("api_key", &self.api_key, &self.api_key_file)?;
        let password = SecretValue::of("password", &self.password, &self.password_file)?;
        let auth = match (key, self.user.as_str(), password) {
            (None, "", None) => Auth::None,
            (Some(secret), "", None) => Auth::Scheme { scheme: "ApiKey", secret },
            (None, user, Some(password)) if !user.is_empty() => Auth::Basic { user: user.to_owned(), password },
            (None, _, _) => return Err(BuildError("user and password or password_file go together".to_owned())),
            (Some(_), _, _) => return Err(BuildError("give an API key, or user and password, not both".to_owned())),
        };
        let seconds = |name: &str, seconds: f64| {
            Duration::try_from_secs_f64(seconds).map_err(|e| BuildError(format!("{name}: {e}")))
        };
        Ok(Settings {
            nodes: self.nodes,
            ca_file: self.ca_file,
            auth,
            connect_timeout: seconds("connect_timeout", self.connect_timeout)?,
            timeout: seconds("timeout", self.timeout)?,
            gzip: self.gzip,
            use_proxy: self.use_proxy,
            ..Settings::default()
        })
    }
}
