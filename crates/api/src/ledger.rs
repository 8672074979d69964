//! The ledger: which payloads of a scan are outstanding, and the outcomes so far.
//!
//! Every operation is atomic and idempotent: a worker may crash after it and another repeats it, with the same or other
//! children. A scan moves one way only: open → frozen (complete or partial) → closed, then a tombstone until no
//! redelivery can come any more.

use std::io::BufReader;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::de::{DeserializeOwned, DeserializeSeed};

use crate::budget::SpentKind;
use crate::content::Content;
use crate::digest::Sha256;
use crate::fault::{Fault, FaultKind};
use crate::id::{PayloadId, ScanId};
use crate::outcome::Outcome;
use crate::stamp::Timestamp;
use crate::task::ScanHead;

/// A child as the ledger admits it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ChildRecord {
    /// Its id.
    pub id: PayloadId,
    /// Its content.
    pub sha256: Sha256,
    /// Its size in bytes.
    pub size: u64,
    /// Its depth.
    pub depth: u16,
}

/// Most children in one [`Ledger::admit`].
pub const MAX_ADMIT: usize = 500;

/// How long the caller of the [`Ledger::settle`] that froze a scan has for finishing it, before the scan shows among
/// the overdue ones.
pub const FINISH_LEASE: Duration = Duration::from_secs(60);

/// How long attempts at payloads of a scan that the ledger does not know are remembered.
pub const ATTEMPTS_KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What became of one child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Now outstanding, by this call: publish its task.
    New,
    /// Outstanding already. `own` if the same parent admitted it: its task may never have been published.
    Known {
        /// The asking parent admitted it.
        own: bool,
    },
    /// Settled already: nothing to do.
    Settled,
    /// A budget has no room for it.
    Refused(SpentKind),
}

/// The answer to [`Ledger::admit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// One [`Admission`] for each child, in order.
    Open(Vec<Admission>),
    /// The ledger does not know the scan, and the caller was not allowed to open it.
    Unknown,
    /// The scan is frozen.
    Frozen,
    /// The scan is closed.
    Closed,
}

/// The answer to [`Ledger::settle`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Recorded (or recorded before). `unsettled` names this payload's admitted children that are still outstanding.
    Open {
        /// Children to publish, unless this caller just did.
        unsettled: Vec<PayloadId>,
    },
    /// The scan is frozen, by this call or before: whoever gets this assembles, publishes and closes.
    Frozen,
    /// The scan is closed: acknowledge, nothing else.
    Closed,
    /// The ledger does not know the scan, and the caller was not allowed to open it.
    Unknown,
}

/// How a scan was frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Completeness {
    /// Every admitted payload has its outcome.
    Complete,
    /// Time ran out; what is missing is named.
    Partial,
}

/// A frozen scan: all that a response is assembled from. It never changes.
#[derive(Clone, Debug, PartialEq)]
pub struct FrozenScan<O = Kept> {
    /// The scan.
    pub scan_id: ScanId,
    /// What all its tasks carried.
    pub head: Arc<ScanHead>,
    /// How it was frozen.
    pub completeness: Completeness,
    /// Outcomes, in no order.
    pub outcomes: Vec<O>,
    /// Admitted payloads without outcome, in no order.
    pub missing: Vec<PayloadId>,
}

impl FrozenScan {
    /// The same with every outcome in memory.
    ///
    /// # Errors
    /// As for [`Kept::read_text`].
    pub fn read(self) -> Result<FrozenScan<Outcome>, Fault> {
        let Self { scan_id, head, completeness, outcomes, missing } = self;
        let outcomes = outcomes.into_iter().map(Kept::into_outcome).collect::<Result<_, _>>()?;
        Ok(FrozenScan { scan_id, head, completeness, outcomes, missing })
    }
}

/// Text of an outcome that is read into memory at once: that is faster, and nearly all are far smaller.
const READ_WHOLE: u64 = 1 << 20;
/// What is read at a time of a larger one.
const READ_AHEAD: usize = 64 << 10;

/// An outcome as a ledger hands it out. A scan may have very many, and whoever assembles them looks at one at a time.
#[derive(Clone, Debug)]
pub enum Kept {
    /// As it is.
    Whole(Box<Outcome>),
    /// As JSON, in memory or in a file.
    Text {
        /// Whose outcome it is.
        payload_id: PayloadId,
        /// The text.
        json: Content,
    },
}

impl Kept {
    /// Whose outcome it is.
    pub fn payload_id(&self) -> PayloadId {
        match self {
            Self::Whole(outcome) => outcome.payload_id,
            Self::Text { payload_id, .. } => *payload_id,
        }
    }

    /// How long its text is; 0 where there is none.
    pub fn text_len(&self) -> u64 {
        match self {
            Self::Whole(_) => 0,
            Self::Text { json, .. } => json.len(),
        }
    }

    /// An outcome's text, as it was written.
    ///
    /// # Errors
    /// [`FaultKind::Corrupt`]: it does not say whose outcome it is.
    pub fn of_text(json: Bytes) -> Result<Self, Fault> {
        #[derive(serde::Deserialize)]
        struct Whose {
            payload_id: PayloadId,
        }
        let Whose { payload_id } = serde_json::from_slice(&json).map_err(corrupt)?;
        Ok(Self::Text { payload_id, json: Content::Bytes(json) })
    }

    /// The outcome itself; blocks while it reads.
    ///
    /// # Errors
    /// As for [`Kept::read_text`].
    pub fn into_outcome(self) -> Result<Outcome, Fault> {
        match self {
            Self::Whole(outcome) => Ok(*outcome),
            Self::Text { json, .. } => Self::read_text(&json),
        }
    }

    /// Reads the text of an outcome, or some members of it; blocks while it reads.
    ///
    /// # Errors
    /// [`FaultKind::Corrupt`]: the text is not what it should be; [`FaultKind::Unavailable`]: its file cannot be read.
    pub fn read_text<T: DeserializeOwned>(json: &Content) -> Result<T, Fault> {
        Self::read_text_with(json, PhantomData)
    }

    /// The same into something that is there already.
    ///
    /// # Errors
    /// As for [`Kept::read_text`].
    pub fn read_text_with<T>(json: &Content, into: impl for<'de> DeserializeSeed<'de, Value = T>) -> Result<T, Fault> {
        let unreadable = |e| Fault::because(FaultKind::Unavailable, "an outcome cannot be read from its file", e);
        if json.len() > READ_WHOLE {
            let text = BufReader::with_capacity(READ_AHEAD, json.reader());
            let mut text = serde_json::Deserializer::from_reader(text);
            let read = into.deserialize(&mut text).and_then(|read| text.end().map(|()| read));
            return read.map_err(|e| if e.is_io() { unreadable(e.into()) } else { corrupt(e) });
        }
        let text = json.to_bytes().map_err(unreadable)?;
        let mut text = serde_json::Deserializer::from_slice(&text);
        into.deserialize(&mut text).and_then(|read| text.end().map(|()| read)).map_err(corrupt)
    }
}

fn corrupt(error: serde_json::Error) -> Fault {
    Fault::because(FaultKind::Corrupt, "the ledger holds what this version of stoq cannot read", error)
}

impl From<Outcome> for Kept {
    fn from(outcome: Outcome) -> Self {
        Self::Whole(Box::new(outcome))
    }
}

/// A scan that is past its time.
#[derive(Clone, Debug, PartialEq)]
pub struct Overdue {
    /// The scan.
    pub scan_id: ScanId,
    /// When its time was over, or its lease if it is frozen.
    pub due: Timestamp,
    /// Frozen already: its response was perhaps never published.
    pub frozen: bool,
}

/// The answer to [`Ledger::freeze`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The scan is frozen and this caller's to finish until its lease ends.
    Taken(Completeness),
    /// Another caller holds the lease.
    Held,
    /// Closed or unknown: nothing to do.
    Gone,
}

/// Keeps scans. Every implementation passes the ledger suite of the test kit.
///
/// `now` is the caller's clock. It is compared with earlier values of other callers, so clocks of a fleet are expected
/// to agree within a few seconds; only deadlines, leases and tombstones depend on it, never the end state.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Opens a scan with all its roots outstanding; for scans of several roots, before their tasks are published.
    /// Idempotent.
    async fn open(&self, scan: ScanId, head: &ScanHead, now: Timestamp) -> Result<(), Fault>;

    /// Admits children of `parent`, in order, within the budgets of the scan. Each new child counts once, whoever
    /// admits it again; a refused one is not recorded. `head` is given by the task of a root and opens the scan if need
    /// be. A `parent` that the ledger does not know, in a scan that it knows, becomes outstanding, uncharged: the scan
    /// must not finish while somebody works on it. Where a child is new, the scan's time begins once more: tasks wait
    /// behind whatever waits already, however long that takes.
    ///
    /// # Errors
    /// [`crate::FaultKind::Unavailable`]; [`crate::FaultKind::Refused`] for more than [`MAX_ADMIT`] children.
    async fn admit(
        &self,
        scan: ScanId,
        head: Option<&ScanHead>,
        parent: PayloadId,
        children: &[ChildRecord],
        now: Timestamp,
    ) -> Result<Admitted, Fault>;

    /// Records an outcome, unless the payload has one, and closes the payload. A payload that the ledger does not know,
    /// in a scan that it knows, is admitted by this, uncharged. The scan is frozen as complete when nothing is
    /// outstanding any more; whoever did that holds it for [`FINISH_LEASE`].
    ///
    /// `children` are those that the caller was told are admitted. One that the ledger does not know now was lost with its
    /// last operations; by the same operation it becomes outstanding again as a child of this payload, uncharged, or the
    /// scan could end without it.
    async fn settle(
        &self,
        scan: ScanId,
        head: Option<&ScanHead>,
        outcome: &Outcome,
        children: &[PayloadId],
        now: Timestamp,
    ) -> Result<Settled, Fault>;

    /// Counts an attempt at a payload and says how many there were, this one included. For redelivered work only. Does
    /// not open the scan; a closed one needs no attempt any more, and none is counted (the answer is 0).
    async fn begin(&self, scan: ScanId, payload: PayloadId, now: Timestamp) -> Result<u32, Fault>;

    /// Takes back one attempt that [`Ledger::begin`] counted: whoever counted it has lived through it, so it says nothing
    /// against the payload. What is left is the number of those who died, or are still at it. Does nothing where nothing
    /// is counted.
    async fn survived(&self, scan: ScanId, payload: PayloadId) -> Result<(), Fault>;

    /// What the scan has spent of its budgets: (payloads, bytes) admitted. `None` for a scan that is neither open nor
    /// frozen.
    async fn spent(&self, scan: ScanId) -> Result<Option<(u64, u64)>, Fault>;

    /// What all tasks of a scan carry, as it was when the scan was opened; `None` for one that is neither open nor frozen.
    async fn head(&self, scan: ScanId) -> Result<Option<ScanHead>, Fault>;

    /// A frozen scan; `None` unless it is frozen.
    async fn frozen(&self, scan: ScanId) -> Result<Option<FrozenScan>, Fault>;

    /// Ends a frozen scan: its outcomes are dropped, a tombstone stays for `keep`. Idempotent; does nothing to a scan
    /// that is not frozen.
    async fn close(&self, scan: ScanId, keep: Duration, now: Timestamp) -> Result<(), Fault>;

    /// Open scans whose own time (their budget of it, since they were opened or grew last) was over before `horizon`, and
    /// frozen scans whose lease is over; at most `limit`, those first whose time ended first. The caller passes a `horizon` behind
    /// now by whatever time must not count.
    async fn overdue(&self, horizon: Timestamp, now: Timestamp, limit: usize) -> Result<Vec<Overdue>, Fault>;

    /// Freezes an overdue scan as partial, or takes over a frozen one whose lease is over, for `lease`.
    async fn freeze(&self, scan: ScanId, lease: Duration, now: Timestamp) -> Result<Claim, Fault>;

    /// Scans that are open or frozen.
    async fn open_scans(&self) -> Result<u64, Fault>;

    /// Whether it can be used now: address, credentials. Cheap, so that readiness can ask every few seconds.
    ///
    /// # Errors
    /// [`crate::FaultKind::Unavailable`] while it is away; [`crate::FaultKind::Misconfigured`] for what waiting does not
    /// mend.
    async fn check(&self) -> Result<(), Fault>;
}
