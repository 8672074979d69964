//! The ledger suite: what every [`Ledger`] promises.

mod life;
mod model;
mod random;
mod tree;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use stoq_api::ledger::{Admission, Admitted, ChildRecord, FrozenScan, Ledger, Settled};
use stoq_api::task::ScanHead;
use stoq_api::{Budgets, Outcome, PayloadId, ScanId, Timestamp};

use crate::samples::{child, fresh_scan, head, outcome};

/// Makes the ledgers that the suite looks at.
#[async_trait]
pub trait LedgerHarness: Send {
    /// A client's view of the one ledger.
    async fn ledger(&mut self) -> Arc<dyn Ledger>;

    /// Ends the client as hard as can be (or the server) and starts it again. `false` if the implementation keeps
    /// nothing beyond its life.
    async fn reopen(&mut self) -> bool;
}

/// Runs every check against the ledger of `harness`. Scans are fresh ones, so that it need not be empty.
///
/// # Panics
/// A promise is broken.
pub async fn ledger_suite(harness: &mut dyn LedgerHarness) {
    let ledger = harness.ledger().await;
    let ledger = &*ledger;
    checks! {
        tree::finishes_a_root_without_children(ledger);
        tree::finishes_when_the_last_outcome_arrives(ledger);
        tree::does_not_know_scans_that_a_child_names(ledger);
        tree::waits_for_every_root(ledger);
        tree::says_who_admitted_a_child(ledger);
        tree::names_own_children_that_are_outstanding(ledger);
        tree::takes_in_payloads_it_does_not_know(ledger);
        tree::takes_in_children_that_it_lost(ledger);
        tree::keeps_the_first_outcome(ledger);
        tree::charges_each_budget_once_and_in_order(ledger);
        tree::refuses_too_many_children_at_once(ledger);
        tree::finishes_once_among_many(harness.ledger().await);
        life::never_changes_what_is_frozen(ledger);
        life::leaves_a_tombstone_for_its_time(ledger);
        life::closes_only_what_is_frozen(ledger);
        life::names_what_is_overdue(ledger);
        life::hands_a_frozen_scan_to_one_at_a_time(ledger);
        life::counts_attempts(ledger);
        life::counts_open_scans(ledger);
        life::tells_whose_a_scan_is(ledger);
        random::agrees_with_the_model(ledger);
    }
    if harness.reopen().await {
        checks! {
            life::outlives_a_restart(harness);
        }
    }
}

/// One scan and the clock that its operations are given.
struct Case<'a> {
    ledger: &'a dyn Ledger,
    scan: ScanId,
    head: ScanHead,
    now: Timestamp,
}

impl<'a> Case<'a> {
    fn new(ledger: &'a dyn Ledger, root_sizes: &[u64], budgets: Budgets) -> Self {
        let scan = fresh_scan();
        Self { ledger, scan, head: head(scan, root_sizes, budgets), now: Timestamp(1_767_400_000_000_000) }
    }

    fn root(&self) -> PayloadId {
        PayloadId::root(self.scan, 0)
    }

    fn child(&self, tag: &str, size: u64) -> ChildRecord {
        child(self.scan, tag, size)
    }

    /// What a root's worker asks for.
    async fn admit_as_root(&self, children: &[ChildRecord]) -> Vec<Admission> {
        let admitted = self.ledger.admit(self.scan, Some(&self.head), self.root(), children, self.now).await.unwrap();
        let Admitted::Open(admissions) = admitted else { panic!("the scan is open, not {admitted:?}") };
        admissions
    }

    async fn admit(&self, parent: PayloadId, children: &[ChildRecord]) -> Admitted {
        self.ledger.admit(self.scan, None, parent, children, self.now).await.unwrap()
    }

    async fn settle_as_root(&self, outcome: &Outcome) -> Settled {
        self.ledger.settle(self.scan, Some(&self.head), outcome, &[], self.now).await.unwrap()
    }

    async fn settle(&self, payload: PayloadId, mark: u64) -> Settled {
        self.ledger.settle(self.scan, None, &outcome(payload, mark), &[], self.now).await.unwrap()
    }

    async fn frozen(&self) -> FrozenScan<Outcome> {
        sorted(self.ledger.frozen(self.scan).await.unwrap().expect("the scan is frozen").read().unwrap())
    }

    async fn close(&self, keep: Duration) {
        self.ledger.close(self.scan, keep, self.now).await.unwrap();
    }
}

/// The same scan with its lists, whose order is not promised, in an order.
fn sorted(mut scan: FrozenScan<Outcome>) -> FrozenScan<Outcome> {
    scan.outcomes.sort_by_key(|o| o.payload_id);
    scan.missing.sort();
    scan
}

fn open(unsettled: &[PayloadId]) -> Settled {
    Settled::Open { unsettled: unsettled.to_vec() }
}

/// The named children of a [`Settled::Open`], whose order is not promised.
fn unsettled(settled: Settled) -> BTreeSet<PayloadId> {
    match settled {
        Settled::Open { unsettled } => unsettled.into_iter().collect(),
        other => panic!("the scan is open, not {other:?}"),
    }
}
