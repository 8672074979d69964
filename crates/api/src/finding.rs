//! Findings: what a reader of a response must know about how the scan went, beyond plugin results.

use serde::{Deserialize, Serialize};

use crate::budget::SpentKind;

/// A fact about the scan itself: a limit that was reached, a plugin that was stopped, a reference that did not match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What happened.
    pub kind: FindingKind,
    /// The plugin concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
    /// One sentence for a person, with the figures.
    pub detail: String,
}

impl Finding {
    /// A finding of `kind`, not bound to a plugin.
    pub fn new(kind: FindingKind, detail: impl Into<String>) -> Self {
        Self { kind, plugin: None, detail: detail.into() }
    }

    /// The same finding, said of `plugin`.
    pub fn of_plugin(mut self, plugin: impl Into<String>) -> Self {
        self.plugin = Some(plugin.into());
        self
    }
}

/// Kinds of findings. New kinds may be added; readers must accept ones that they do not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// The depth budget left payloads unscanned.
    DepthLimit,
    /// The payload count budget refused children.
    PayloadLimit,
    /// The byte budget refused children.
    ByteLimit,
    /// The expansion budget refused children.
    ExpansionLimit,
    /// The scan ran out of time; see which payloads are missing.
    TimeLimit,
    /// A payload was larger than is scanned.
    SizeLimit,
    /// A plugin's own limit cut its answer short.
    PluginLimit,
    /// A plugin was stopped by the jail: time, memory, a forbidden system call, a crash.
    PluginStopped,
    /// An archive or message member could not be read, or is encrypted and no password opened it.
    MemberUnreadable,
    /// The format was recognised, and is one that nothing here reads.
    Unsupported,
    /// The content was not what its reference said.
    ReferenceMismatch,
    /// The payload could not be fetched.
    Unfetched,
    /// The payload was given up after too many attempts.
    Quarantined,
    /// An outcome of an admitted payload never came.
    Missing,
    /// A kind that this version does not know.
    #[serde(other)]
    Other,
}

impl From<SpentKind> for FindingKind {
    fn from(spent: SpentKind) -> Self {
        match spent {
            SpentKind::Depth => Self::DepthLimit,
            SpentKind::Payloads => Self::PayloadLimit,
            SpentKind::Bytes => Self::ByteLimit,
            SpentKind::Expansion => Self::ExpansionLimit,
            SpentKind::Time => Self::TimeLimit,
        }
    }
}
