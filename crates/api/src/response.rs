//! The document of a finished scan: stoQ v3's schema, key for key, with additions under new keys.
//!
//! The order of fields is the order of keys. `docs/results.md` lists what was added and why.

pub mod split;
pub mod stream;
pub mod v2;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::digest::Sha256;
use crate::finding::Finding;
use crate::id::{PayloadId, ScanId};
use crate::json::{Json, Named};
use crate::outcome::{ErrorEntry, NotRun, RunStatus};
use crate::payload::{PayloadMeta, RequestMeta};

/// A finished scan. Whoever only writes it may have its errors in any form that is written the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response<E = Vec<ErrorEntry>> {
    /// Payloads: roots first, then breadth first.
    pub results: Vec<PayloadResults>,
    /// The request's metadata.
    pub request_meta: RequestMeta,
    /// Errors of all payloads, by (payload, plugin, text).
    pub errors: E,
    /// When the reference was first seen: ISO 8601, UTC, microseconds, no zone.
    pub time: String,
    /// What decorators added, by decorator.
    pub decorators: Named<Json>,
    /// The scan.
    pub scan_id: ScanId,
    /// New in this version of stoQ: whether every payload has its outcome.
    pub complete: bool,
    /// New: facts about the scan as a whole.
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// New: what scanned it.
    pub engine: Arc<EngineInfo>,
    /// New: whose scan it is, where providers say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// New: the scan whose dead letter was scanned anew by this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_of: Option<ScanId>,
}

/// Which versions produced a response.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EngineInfo {
    /// stoQ's version.
    pub version: String,
    /// Digests of rule sets, by plugin.
    pub rulesets: Named<String>,
}

/// What is known of one payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PayloadResults {
    /// Bytes of content.
    pub size: u64,
    /// The payload.
    pub payload_id: PayloadId,
    /// How it was treated.
    pub payload_meta: PayloadMeta,
    /// Plugins that ran.
    pub plugins_run: PluginsRun,
    /// Parents, in the order of [`PayloadResults::extracted_by`].
    pub extracted_from: Vec<PayloadId>,
    /// Plugins that extracted it.
    pub extracted_by: Vec<String>,
    /// Results, by worker, in the order of `plugins_run`.
    pub workers: Named<Json>,
    /// What destination archivers said, by archiver.
    pub archivers: Named<Json>,
    /// New: content address; absent if the payload could not be fetched.
    pub sha256: Option<Sha256>,
    /// New: distance from the nearest root.
    pub depth: u16,
    /// New: every name under which it was extracted, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// New: each plugin's run, why it ran, how it ended and how long it took.
    pub runs: Vec<RunInfo>,
    /// New: workers that were expected and did not run, with the reason.
    pub not_run: Vec<NotRun>,
    /// New: facts about the scan of this payload.
    pub findings: Vec<Finding>,
}

/// Names of plugins that ran on a payload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginsRun {
    /// Workers, by (round, name).
    pub workers: Vec<String>,
    /// Archivers, by name.
    pub archivers: Vec<String>,
}

/// One plugin's run on one payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunInfo {
    /// The plugin.
    pub plugin: String,
    /// The round, from 1.
    pub round: u32,
    /// Why it ran.
    pub why: Vec<String>,
    /// How it ended.
    pub status: RunStatus,
    /// How long it took, in microseconds.
    pub micros: u64,
}

impl Response {
    /// Whether a plugin with a notion of hits had one: a worker result with a non-empty `matches` list.
    pub fn has_match(&self) -> bool {
        self.results.iter().any(PayloadResults::has_match)
    }
}

impl PayloadResults {
    /// The same of one payload.
    pub fn has_match(&self) -> bool {
        self.workers.iter().any(|(_, json)| {
            json.get().contains("\"matches\"")
                && json.value().get("matches").and_then(serde_json::Value::as_array).is_some_and(|m| !m.is_empty())
        })
    }
}
