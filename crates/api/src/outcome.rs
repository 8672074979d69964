//! What scanning one payload gave. Outcomes are what the ledger keeps and what a response is assembled from.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::digest::Sha256;
use crate::finding::Finding;
use crate::id::PayloadId;
use crate::json::{Json, Named};
use crate::payload::PackedMeta;

/// The outcome of one payload. The first one that the ledger gets for a payload is the one that counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The payload.
    pub payload_id: PayloadId,
    /// Its content; absent if it could not be fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    /// Its size in bytes.
    pub size: u64,
    /// Whether destination archivers were allowed to keep it, after dispatchers had their say.
    pub should_archive: bool,
    /// Workers that ran, by (round, name).
    pub runs: Vec<Run>,
    /// Workers that were expected and did not run, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_run: Vec<NotRun>,
    /// Destination archivers that ran, by name, with what they said.
    #[serde(default, skip_serializing_if = "Named::is_empty")]
    pub archivers: Named<Option<Json>>,
    /// Children, in the order of plugin run and emission.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edges: Vec<Edge>,
    /// Errors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<ErrorEntry>,
    /// Findings about the scan of this payload.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
}

impl Outcome {
    /// An outcome without any run.
    pub fn empty(payload_id: PayloadId, sha256: Option<Sha256>, size: u64) -> Self {
        Self {
            payload_id,
            sha256,
            size,
            should_archive: true,
            runs: Vec::new(),
            not_run: Vec::new(),
            archivers: Named::default(),
            edges: Vec::new(),
            errors: Vec::new(),
            findings: Vec::new(),
        }
    }
}

/// One worker that ran on one payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The worker.
    pub plugin: String,
    /// The round, from 1.
    pub round: u32,
    /// Why it ran: `always`, `start`, `dispatch_to of smtp`, `yara: rule exe`, `required by decompress`.
    pub why: Vec<String>,
    /// How it ended.
    pub status: RunStatus,
    /// How long it took, in microseconds.
    pub micros: u64,
    /// What it found, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Json>,
}

/// How a plugin's run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// It answered.
    Ok,
    /// It said that it could not.
    Failed,
    /// It was stopped for its time.
    TimedOut,
    /// It died, or was stopped for memory or a forbidden call.
    Killed,
    /// A budget ended it early; what it had found counts.
    Cut,
}

/// A worker that was expected to run on a payload and did not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotRun {
    /// The worker.
    pub plugin: String,
    /// Why not: unknown name, a required worker is missing, the payload is too large, the plugin is switched off.
    pub reason: String,
}

/// A child as one plugin of one parent emitted it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Edge {
    /// The child; several edges may name the same one.
    pub child: PayloadId,
    /// The plugin that emitted it. A payload may have very many children of one plugin, whose name they share.
    pub plugin: Arc<str>,
    /// Its place among that plugin's children, from 0.
    pub ordinal: u32,
    /// Its content.
    pub sha256: Sha256,
    /// Its size in bytes.
    pub size: u64,
    /// Its metadata as emitted on this edge.
    pub meta: PackedMeta,
}

/// An error in stoQ's form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ErrorEntry {
    /// What went wrong.
    pub error: String,
    /// The plugin concerned.
    pub plugin_name: Option<String>,
    /// The payload concerned.
    pub payload_id: Option<PayloadId>,
}
