//! A ledger under a plan.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use stoq_api::ledger::{Admitted, ChildRecord, Claim, FrozenScan, Ledger, Overdue, Settled};
use stoq_api::task::ScanHead;
use stoq_api::{Fault, Outcome, PayloadId, ScanId, Timestamp};

use super::FaultPlan;

/// Does what `inner` does, unless the plan says otherwise.
pub struct FaultyLedger {
    inner: Arc<dyn Ledger>,
    plan: FaultPlan,
}

impl FaultyLedger {
    /// `inner` under `plan`.
    pub fn new(inner: Arc<dyn Ledger>, plan: FaultPlan) -> Self {
        Self { inner, plan }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Ledger for FaultyLedger {
    async fn open(&self, scan: ScanId, head: &ScanHead, now: Timestamp) -> Result<(), Fault> {
        self.plan.run("ledger.open", self.inner.open(scan, head, now)).await
    }

    async fn admit(
        &self,
        scan: ScanId,
        head: Option<&ScanHead>,
        parent: PayloadId,
        children: &[ChildRecord],
        now: Timestamp,
    ) -> Result<Admitted, Fault> {
        self.plan.run("ledger.admit", self.inner.admit(scan, head, parent, children, now)).await
    }

    async fn settle(
        &self,
        scan: ScanId,
        head: Option<&ScanHead>,
        outcome: &Outcome,
        children: &[PayloadId],
        now: Timestamp,
    ) -> Result<Settled, Fault> {
        self.plan.run("ledger.settle", self.inner.settle(scan, head, outcome, children, now)).await
    }

    async fn begin(&self, scan: ScanId, payload: PayloadId, now: Timestamp) -> Result<u32, Fault> {
        self.plan.run("ledger.begin", self.inner.begin(scan, payload, now)).await
    }

    async fn survived(&self, scan: ScanId, payload: PayloadId) -> Result<(), Fault> {
        self.plan.run("ledger.survived", self.inner.survived(scan, payload)).await
    }

    async fn spent(&self, scan: ScanId) -> Result<Option<(u64, u64)>, Fault> {
        self.plan.run("ledger.spent", self.inner.spent(scan)).await
    }

    async fn head(&self, scan: ScanId) -> Result<Option<ScanHead>, Fault> {
        self.plan.run("ledger.head", self.inner.head(scan)).await
    }

    async fn frozen(&self, scan: ScanId) -> Result<Option<FrozenScan>, Fault> {
        self.plan.run("ledger.frozen", self.inner.frozen(scan)).await
    }

    async fn close(&self, scan: ScanId, keep: Duration, now: Timestamp) -> Result<(), Fault> {
        self.plan.run("ledger.close", self.inner.close(scan, keep, now)).await
    }

    async fn overdue(&self, horizon: Timestamp, now: Timestamp, limit: usize) -> Result<Vec<Overdue>, Fault> {
        self.plan.run("ledger.overdue", self.inner.overdue(horizon, now, limit)).await
    }

    async fn freeze(&self, scan: ScanId, lease: Duration, now: Timestamp) -> Result<Claim, Fault> {
        self.plan.run("ledger.freeze", self.inner.freeze(scan, lease, now)).await
    }

    async fn open_scans(&self) -> Result<u64, Fault> {
        self.plan.run("ledger.open_scans", self.inner.open_scans()).await
    }

    async fn check(&self) -> Result<(), Fault> {
        self.plan.run("ledger.check", self.inner.check()).await
    }
}
