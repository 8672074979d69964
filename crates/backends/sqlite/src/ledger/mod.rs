//! The ledger trait: JSON is written and read here, beside the writer thread; what happens in the file is in `sql`.

mod sql;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;
use stoq_api::ledger::{Admitted, ChildRecord, Claim, FrozenScan, Kept, Ledger, MAX_ADMIT, Overdue, Settled};
use stoq_api::task::ScanHead;
use stoq_api::{Fault, FaultKind, Outcome, PayloadId, ScanId, Timestamp};

use crate::writer::Writer;

/// Outcomes of more bytes than this are read beside the runtime.
const READ_INLINE: usize = 64 << 10;

/// The ledger in the file.
pub struct SqliteLedger {
    writer: Arc<Writer>,
}

impl SqliteLedger {
    pub(crate) fn new(writer: Arc<Writer>) -> Self {
        Self { writer }
    }
}

/// A head as it is stored.
struct Head {
    roots: Vec<PayloadId>,
    root_bytes: u64,
    max_seconds: Duration,
    budgets: String,
    data: Vec<u8>,
}

impl Head {
    fn of(head: &ScanHead) -> Result<Self, Fault> {
        Ok(Self {
            roots: head.roots.iter().map(|r| r.id).collect(),
            root_bytes: head.roots.iter().fold(0, |sum, r| sum.saturating_add(r.size)),
            max_seconds: head.budgets.deadline(),
            budgets: String::from_utf8(to_json(&head.budgets)?)
                .map_err(|e| Fault::because(FaultKind::Refused, "cannot write budgets", e))?,
            data: to_json(head)?,
        })
    }

    fn maybe(head: Option<&ScanHead>) -> Result<Option<Self>, Fault> {
        head.map(Self::of).transpose()
    }
}

#[async_trait]
impl Ledger for SqliteLedger {
    async fn open(&self, scan: ScanId, head: &ScanHead, now: Timestamp) -> Result<(), Fault> {
        let head = Head::of(head)?;
        self.writer.call("open a scan", move |t| sql::find(t.connection, scan, Some(&head), now).map(drop)).await
    }

    async fn admit(
        &self,
        scan: ScanId,
        head: Option<&ScanHead>,
        parent: PayloadId,
        children: &[ChildRecord],
        now: Timestamp,
    ) -> Result<Admitted, Fault> {
        if children.len() > MAX_ADMIT {
            let text = format!("{} children in one admission, at most {MAX_ADMIT} are taken", children.len());
            return Err(Fault::new(FaultKind::Refused, text));
        }
        let (head, children) = (Head::maybe(head)?, children.to_vec());
        let work = move |t: &mut crate::writer::Transaction<'_>| {
            sql::admit(t.connection, scan, head.as_ref(), parent, &children, now)
        };
        self.writer.call("admit children", work).await
    }

    async fn settle(
        &self,
        scan: ScanId,
        head: Option<&ScanHead>,
        outcome: &Outcome,
        children: &[PayloadId],
        now: Timestamp,
    ) -> Result<Settled, Fault> {
        let (head, payload, data) = (Head::maybe(head)?, outcome.payload_id, to_json(outcome)?);
        let children = children.to_vec();
        let work = move |t: &mut crate::writer::Transaction<'_>| {
            sql::settle(t.connection, scan, head.as_ref(), (payload, &data), &children, now)
        };
        self.writer.call("settle a payload", work).await
    }

    async fn begin(&self, scan: ScanId, payload: PayloadId, now: Timestamp) -> Result<u32, Fault> {
        self.writer.call("count an attempt", move |t| sql::begin(t.connection, scan, payload, now)).await
    }

    async fn survived(&self, scan: ScanId, payload: PayloadId) -> Result<(), Fault> {
        self.writer.call("take back an attempt", move |t| sql::survived(t.connection, scan, payload)).await
    }

    async fn spent(&self, scan: ScanId) -> Result<Option<(u64, u64)>, Fault> {
        self.writer.call("read a scan's budgets", move |t| sql::spent(t.connection, scan)).await
    }

    async fn head(&self, scan: ScanId) -> Result<Option<ScanHead>, Fault> {
        let data = self.writer.call("read a scan's head", move |t| sql::head(t.connection, scan)).await?;
        data.map(|data| from_json(&data)).transpose()
    }

    async fn frozen(&self, scan: ScanId) -> Result<Option<FrozenScan>, Fault> {
        let read = self.writer.call("read a frozen scan", move |t| sql::frozen(t.connection, scan)).await?;
        let Some(stored) = read else { return Ok(None) };
        let inline = stored.bytes() <= READ_INLINE;
        let assemble = move || {
            Ok(FrozenScan {
                scan_id: scan,
                head: from_json(&stored.head)?,
                completeness: stored.completeness,
                outcomes: stored
                    .outcomes
                    .into_iter()
                    .map(|data| Kept::of_text(data.into()))
                    .collect::<Result<_, _>>()?,
                missing: stored.missing,
            })
        };
        if inline {
            return assemble().map(Some);
        }
        let assembled = tokio::task::spawn_blocking(assemble).await;
        assembled.map_err(|e| Fault::because(FaultKind::Unavailable, "cannot read a frozen scan", e))?.map(Some)
    }

    async fn close(&self, scan: ScanId, keep: Duration, now: Timestamp) -> Result<(), Fault> {
        self.writer.call("close a scan", move |t| sql::close(t.connection, scan, keep, now)).await
    }

    async fn overdue(&self, horizon: Timestamp, now: Timestamp, limit: usize) -> Result<Vec<Overdue>, Fault> {
        self.writer.call("look for overdue scans", move |t| sql::overdue(t.connection, horizon, now, limit)).await
    }

    async fn freeze(&self, scan: ScanId, lease: Duration, now: Timestamp) -> Result<Claim, Fault> {
        self.writer.call("freeze a scan", move |t| sql::freeze(t.connection, scan, lease, now)).await
    }

    async fn open_scans(&self) -> Result<u64, Fault> {
        self.writer.call("count open scans", move |t| sql::open_scans(t.connection)).await
    }

    async fn check(&self) -> Result<(), Fault> {
        Ok(())
    }
}

fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>, Fault> {
    serde_json::to_vec(value).map_err(|e| Fault::because(FaultKind::Refused, "cannot write as JSON", e))
}

fn from_json<T: DeserializeOwned>(data: &[u8]) -> Result<T, Fault> {
    let text = "the ledger holds what this version of stoq cannot read";
    serde_json::from_slice(data).map_err(|e| Fault::because(FaultKind::Corrupt, text, e))
}
