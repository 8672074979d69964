//! A task's header in version 1, as it is written and as it is read.

use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use crate::digest::Sha256;
use crate::id::{PayloadId, ScanId};
use crate::payload::{Ancestor, PayloadMeta};
use crate::task::{Location, ScanHead, Task};

/// A header to be written. The order of fields is the order of keys.
#[derive(Serialize)]
pub(super) struct Out<'a> {
    scan_id: ScanId,
    payload_id: PayloadId,
    #[serde(skip_serializing_if = "Option::is_none")]
    scan: Option<&'a ScanHead>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<PayloadId>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    ancestors: &'a [Ancestor],
    depth: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<Sha256>,
    size: u64,
    location: &'a Location,
    payload_meta: &'a PayloadMeta,
}

impl<'a> Out<'a> {
    /// The header of `task`; without what is said of its scan if the frame before `said` it.
    pub(super) fn of(task: &'a Task, said: bool) -> Self {
        Self {
            scan_id: task.scan_id,
            payload_id: task.payload_id,
            scan: (!said).then_some(&*task.scan),
            parent: task.parent,
            ancestors: &task.ancestors,
            depth: task.depth,
            sha256: task.sha256,
            size: task.size,
            location: &task.location,
            payload_meta: &task.payload_meta,
        }
    }
}

/// For people: whoever is shown a task sees what its header says.
impl Serialize for Task {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Out::of(self, false).serialize(serializer)
    }
}

/// A header that was read.
#[derive(Deserialize)]
pub(super) struct In {
    pub(super) scan_id: ScanId,
    pub(super) payload_id: PayloadId,
    #[serde(default)]
    pub(super) scan: Option<ScanHead>,
    #[serde(default)]
    parent: Option<PayloadId>,
    #[serde(default)]
    ancestors: Vec<Ancestor>,
    depth: u16,
    #[serde(default)]
    sha256: Option<Sha256>,
    size: u64,
    location: Location,
    payload_meta: PayloadMeta,
}

impl In {
    /// The task, without its inline bytes.
    pub(super) fn task(self, scan: Arc<ScanHead>) -> Task {
        Task {
            scan_id: self.scan_id,
            payload_id: self.payload_id,
            scan,
            parent: self.parent,
            ancestors: self.ancestors,
            depth: self.depth,
            sha256: self.sha256,
            size: self.size,
            location: self.location,
            payload_meta: self.payload_meta,
            inline: bytes::Bytes::new(),
        }
    }
}
