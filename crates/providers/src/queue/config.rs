//! Options of `queue`.

use std::path::PathBuf;

use serde::Deserialize;
use stoq_api::scanner::{BuildError, OptionInfo, OptionKind};

use crate::decode::Format;

/// Messages that are held at a time where `prefetch` is not set: enough for thousands a second, as a message is held until its
/// task is confirmed, which takes a broker tens of milliseconds.
const PREFETCH: u32 = 256;
/// Most messages that are held at a time.
const MAX_PREFETCH: i64 = 1_000;

const fn option(name: &'static str, kind: OptionKind, default: &'static str, help: &'static str) -> OptionInfo {
    OptionInfo { name, kind, default, help }
}

/// As they are listed.
pub(super) const OPTIONS: [OptionInfo; 14] = [
    option("broker", OptionKind::Text, "", "the broker, as [queues.NAME] calls it"),
    option("queue", OptionKind::Text, "", "the queue or topic to read"),
    option(
        "format",
        OptionKind::Text,
        "\"auto\"",
        "auto, native, stoq_task, stoq_payload, raw, s3, gcs, suricata or zeek",
    ),
    option("root", OptionKind::Text, "", "the directory that paths in references lie beneath"),
    option("strip_prefix", OptionKind::Text, "", "cut off the front of paths in references"),
    option("allow_archivers", OptionKind::List, "[]", "archivers that references may name, of archive.sources"),
    option("allow_buckets", OptionKind::List, "[]", "buckets that references may name"),
    option("store", OptionKind::Text, "", "the store whose endpoint and credentials are used for those buckets"),
    option(
        "allow_hosts",
        OptionKind::List,
        "[]",
        "hosts that URLs may name: files.example.org, *.example.org, host:port",
    ),
    option("allow_private", OptionKind::List, "[]", "hosts, too, and these may have private addresses"),
    option("fetch", OptionKind::Text, "\"worker\"", "who reads what a reference names: worker or provider"),
    option("max_message", OptionKind::Size, "67108864", "larger messages go to the dead lane"),
    option("prefetch", OptionKind::Int, "256", "messages held at a time"),
    option("file_wait", OptionKind::Duration, "6", "how long a file that is not there yet is waited for"),
];

/// As they stand in the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    #[serde(default)]
    pub(super) broker: String,
    #[serde(default)]
    pub(super) queue: String,
    #[serde(default)]
    pub(super) format: Format,
    #[serde(default)]
    pub(super) root: PathBuf,
    #[serde(default)]
    pub(super) strip_prefix: String,
    #[serde(default)]
    pub(super) allow_archivers: Vec<String>,
    #[serde(default)]
    pub(super) allow_buckets: Vec<String>,
    #[serde(default)]
    pub(super) store: String,
    #[serde(default)]
    pub(super) allow_hosts: Vec<String>,
    #[serde(default)]
    pub(super) allow_private: Vec<String>,
    #[serde(default)]
    pub(super) fetch: FetchBy,
    #[serde(default = "max_message")]
    pub(super) max_message: u64,
    #[serde(default = "prefetch")]
    pub(super) prefetch: i64,
    #[serde(default = "file_wait")]
    pub(super) file_wait: f64,
}

fn prefetch() -> i64 {
    PREFETCH.into()
}

fn max_message() -> u64 {
    64 << 20
}

fn file_wait() -> f64 {
    6.0
}

/// Who reads what a reference names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FetchBy {
    /// The worker that scans it.
    #[default]
    Worker,
    /// The provider, which puts it into the task or the store.
    Provider,
}

impl Config {
    /// Messages to hold at a time.
    pub(super) fn prefetch(&self) -> Result<u32, BuildError> {
        let given = Some(self.prefetch).filter(|given| (1..=MAX_PREFETCH).contains(given));
        let given = given.and_then(|given| u32::try_from(given).ok());
        given.ok_or_else(|| BuildError(format!("prefetch is {}: give 1 to {MAX_PREFETCH}", self.prefetch)))
    }

    /// What one of them alone can be wrong about.
    pub(super) fn validate(self) -> Result<Self, BuildError> {
        for (name, value) in [("broker", &self.broker), ("queue", &self.queue)] {
            if value.is_empty() {
                return Err(BuildError(format!("{name} is not set")));
            }
        }
        if !self.file_wait.is_finite() || !(0.0..=3_600.0).contains(&self.file_wait) {
            return Err(BuildError("file_wait: at most an hour".to_owned()));
        }
        let needs_root = matches!(self.format, Format::Suricata | Format::Zeek);
        if needs_root && self.root.as_os_str().is_empty() {
            return Err(BuildError("root is not set: name the directory in which the files lie".to_owned()));
        }
        self.prefetch()?;
        Ok(self)
    }
}
