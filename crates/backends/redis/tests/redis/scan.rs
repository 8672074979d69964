//! One scan as a worker sees it.

use std::slice::from_ref;
use std::time::Duration;

use stoq_api::ledger::{Admitted, ChildRecord, Ledger, Settled};
use stoq_api::task::ScanHead;
use stoq_api::{Budgets, Fault, FaultKind, PayloadId, ScanId, Timestamp};
use stoq_testkit::samples::{child, fresh_scan, head, outcome};
use tokio::time::{Instant, sleep};

/// How long the surroundings may stay away before a test gives up.
const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) struct Scan {
    pub(crate) id: ScanId,
    pub(crate) head: ScanHead,
    pub(crate) now: Timestamp,
}

impl Scan {
    pub(crate) fn new() -> Self {
        let id = fresh_scan();
        Self { id, head: head(id, &[10], Budgets::default()), now: Timestamp(1_767_400_000_000_000) }
    }

    pub(crate) fn root(&self) -> PayloadId {
        PayloadId::root(self.id, 0)
    }

    pub(crate) fn child(&self, tag: &str) -> ChildRecord {
        child(self.id, tag, 1)
    }

    pub(crate) async fn try_admit(
        &self,
        ledger: &dyn Ledger,
        parent: PayloadId,
        of: &[ChildRecord],
    ) -> Result<Admitted, Fault> {
        let head = (parent == self.root()).then_some(&self.head);
        ledger.admit(self.id, head, parent, of, self.now).await
    }

    pub(crate) async fn admit(&self, ledger: &dyn Ledger, parent: PayloadId, of: &[ChildRecord]) {
        let admitted = self.try_admit(ledger, parent, of).await.unwrap();
        assert!(matches!(admitted, Admitted::Open(_)), "{admitted:?}");
    }

    pub(crate) async fn try_settle(
        &self,
        ledger: &dyn Ledger,
        payload: PayloadId,
        children: &[PayloadId],
    ) -> Result<Settled, Fault> {
        let head = (payload == self.root()).then_some(&self.head);
        ledger.settle(self.id, head, &outcome(payload, 1), children, self.now).await
    }

    pub(crate) async fn settle(&self, ledger: &dyn Ledger, payload: PayloadId) -> Settled {
        in_order(self.try_settle(ledger, payload, &[]).await.unwrap())
    }

    /// Opens it with one child outstanding.
    pub(crate) async fn begin(&self, ledger: &dyn Ledger) -> ChildRecord {
        let child = self.child("only");
        self.admit(ledger, self.root(), from_ref(&child)).await;
        child
    }
}

/// Named children in an order.
pub(crate) fn in_order(settled: Settled) -> Settled {
    match settled {
        Settled::Open { mut unsettled } => {
            unsettled.sort();
            Settled::Open { unsettled }
        }
        other => other,
    }
}

/// The answer that these children are outstanding.
pub(crate) fn open(of: &[&ChildRecord]) -> Settled {
    in_order(Settled::Open { unsettled: of.iter().map(|child| child.id).collect() })
}

/// Repeats an operation as workers do, while it fails with what passes.
pub(crate) async fn insist<T>(mut operation: impl AsyncFnMut() -> Result<T, Fault>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match operation().await {
            Ok(value) => return value,
            Err(fault) => {
                let text = stoq_api::fault::chain(&fault);
                assert_eq!(fault.kind, FaultKind::Unavailable, "{text}");
                assert!(Instant::now() < end, "{text}");
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
}
