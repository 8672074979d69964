//! What the engine tells the rounds of one payload, and what they answer. Both cross the slot's socket as
//! [`super::codec`] says.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use stoq_api::{Ancestor, Finding, NotRun, PayloadMeta, RequestMeta, Run, Sha256};

/// Told to the rounds. The engine only borrows what it tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Header<'a> {
    /// The content's digest, computed outside of the slot.
    #[serde(skip, default = "no_digest")]
    pub(crate) sha256: Sha256,
    /// The payload's metadata.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub(crate) meta: Cow<'a, PayloadMeta>,
    /// The request's metadata.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub(crate) request_meta: Cow<'a, RequestMeta>,
    /// The payloads above.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub(crate) ancestors: Cow<'a, [Ancestor]>,
    /// Workers wanted from outside, with the reason.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub(crate) wanted: Cow<'a, [(String, String)]>,
    /// Only these plugins may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) allowed: Option<Cow<'a, [String]>>,
    /// Plugins that are switched off, each with the reason.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub(crate) off: Cow<'a, BTreeMap<String, String>>,
    /// Where earlier rounds of this payload stood, if there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<Cow<'a, State>>,
}

fn is_usual<T: Default + PartialEq>(said: &T) -> bool {
    *said == T::default()
}

/// Stands where the digest, which is no part of the JSON, is put in its place afterwards.
fn no_digest() -> Sha256 {
    Sha256::from_bytes([0; 32])
}

/// Where the rounds of one payload stand between two visits to a slot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Rounds so far.
    pub(crate) round: u32,
    /// Workers that ran, with their results.
    pub(crate) runs: Vec<Run>,
    /// What dispatchers said.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub(crate) dispatch_meta: Map<String, Value>,
    /// Workers that wait for others, with reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) deferred: Vec<(String, Vec<String>)>,
    /// A dispatcher kept destination archivers away.
    #[serde(default)]
    pub(crate) keep_from_archive: bool,
    /// Workers that will not run, said already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) not_run: Vec<NotRun>,
}

/// Answered by the rounds. Everything in it was said by a slot and is believed no further than that.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Where the rounds stand now.
    pub(crate) state: State,
    /// External workers that can run now: (worker, round, reasons).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) external: Vec<(String, u32, Vec<String>)>,
    /// Errors of this visit: (plugin, text).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) errors: Vec<(String, String)>,
    /// Findings of this visit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) findings: Vec<Finding>,
}
