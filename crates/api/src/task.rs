//! The envelope's content: what a worker needs to scan one payload of one scan.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::budget::Budgets;
use crate::digest::Sha256;
use crate::id::{PayloadId, ScanId};
use crate::payload::{Ancestor, PayloadMeta, RequestMeta};
use crate::stamp::Timestamp;

/// Asks a worker to scan one payload. Everything but the inline bytes stands in the envelope's header.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// The scan.
    pub scan_id: ScanId,
    /// The payload.
    pub payload_id: PayloadId,
    /// What is the same for every task of the scan.
    pub scan: Arc<ScanHead>,
    /// The payload that this one came from; none for a root.
    pub parent: Option<PayloadId>,
    /// The payloads above, root first.
    pub ancestors: Vec<Ancestor>,
    /// 0 for a root.
    pub depth: u16,
    /// The content's digest; absent where the reference was passed through and nobody has read the bytes.
    pub sha256: Option<Sha256>,
    /// The content's size in bytes, as far as known.
    pub size: u64,
    /// Where the bytes are.
    pub location: Location,
    /// How to treat the payload.
    pub payload_meta: PayloadMeta,
    /// Inline bytes; empty unless [`Location::Inline`].
    pub inline: Bytes,
}

/// What every task of a scan carries, so that the scan can be made anew from any of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScanHead {
    /// The configured name of the intake or provider.
    pub source: String,
    /// When the reference was first seen.
    pub first_seen: Timestamp,
    /// The scan's roots, in order.
    pub roots: Vec<RootRef>,
    /// The scan's budgets.
    pub budgets: Budgets,
    /// The request's metadata.
    pub request_meta: RequestMeta,
    /// Workers that run on roots, beside `payload_meta.dispatch_to`: stoQ's start dispatch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub start_dispatch: Vec<String>,
    /// Whose scan this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Only these plugins may run, for replays and retro-hunts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_plugins: Option<Vec<String>>,
    /// The scan whose dead letter this one replays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_of: Option<ScanId>,
    /// W3C `traceparent` of the span that took the reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

/// A root payload and where its bytes are, so that its task can be published again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RootRef {
    /// Its id.
    pub id: PayloadId,
    /// Its digest, once somebody has read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    /// Its size in bytes, as far as known.
    pub size: u64,
    /// Where it is. [`Location::Inline`] only in the root's own task, and in scans whose roots have no children.
    pub location: Location,
    /// How to treat it.
    pub payload_meta: PayloadMeta,
}

/// Where a payload's bytes are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Location {
    /// Behind the header, in the same frame.
    Inline,
    /// In the payload store, under this day and the task's digest.
    Store {
        /// `YYYYMMDD`.
        day: u32,
        /// The content.
        sha256: Sha256,
    },
    /// A regular file beneath a named root that workers can read themselves.
    File(FileRef),
    /// Behind a network, where workers fetch it themselves.
    Remote(RemoteRef),
    /// Nowhere: the provider could not read it, and asking again will not help. The scan still gets its response.
    Unreadable {
        /// Why, for a person.
        reason: String,
    },
}

/// A file as it was when its reference was taken. A difference at the fetch is a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRef {
    /// Name of the file root in the configuration.
    pub root: String,
    /// Path beneath it.
    pub path: RawPath,
    /// Size in bytes.
    pub size: u64,
    /// Modification time, nanoseconds since the epoch.
    pub mtime_ns: i128,
    /// Inode number.
    pub inode: u64,
}

/// Something behind a network as its reference described it. A difference at the fetch is a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteRef {
    /// The intake that brought the reference: its rules say what may be fetched, whoever fetches.
    pub via: String,
    /// Where it is.
    pub place: Place,
    /// Size in bytes, where the reference says one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// Where something behind a network is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// What an HTTP server answers.
    Url(String),
    /// An object of a bucket.
    Object {
        /// The bucket.
        bucket: String,
        /// The object's name in it, as it is, not encoded.
        key: String,
        /// Its version (S3) or generation (Google), where the reference names one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<String>,
        /// Its entity tag without quotes, where the reference names one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        etag: Option<String>,
    },
    /// What a source archiver brings back.
    Archive {
        /// The archiver.
        archiver: String,
        /// What it is asked for: what it said itself when it archived the payload.
        task: Map<String, Value>,
    },
}

/// A path as bytes: text on the wire where it is UTF-8, else hexadecimal under `bytes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RawPath {
    /// UTF-8.
    Text(String),
    /// Anything else.
    Raw {
        /// Hexadecimal digits of the bytes.
        bytes: String,
    },
}

impl RawPath {
    /// The path's bytes on the wire.
    pub fn from_bytes(path: &[u8]) -> Self {
        match std::str::from_utf8(path) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Raw { bytes: hex::encode(path) },
        }
    }

    /// The bytes again; `None` if the hexadecimal form is broken.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        match self {
            Self::Text(text) => Some(text.clone().into_bytes()),
            Self::Raw { bytes } => hex::decode(bytes).ok(),
        }
    }
}

impl Task {
    /// Whether the payload is one of the scan's roots.
    pub fn is_root(&self) -> bool {
        self.parent.is_none()
    }

    /// Bytes of the scan's roots together, as far as known: what the expansion budget compares with.
    pub fn root_bytes(&self) -> u64 {
        self.scan.roots.iter().map(|r| r.size).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_are_not_utf8_survive() {
        for path in [&b"a/b.txt"[..], b"a/\xff\xfe", b""] {
            let text = serde_json::to_string(&RawPath::from_bytes(path)).unwrap();
            let back: RawPath = serde_json::from_str(&text).unwrap();
            assert_eq!(back.to_bytes().unwrap(), path);
        }
    }
}
