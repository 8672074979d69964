//! Checks of a scan's way from open to forgotten.

use std::slice::from_ref;
use std::time::Duration;

use stoq_api::ledger::{Admission, Admitted, Claim, Completeness, FINISH_LEASE, Ledger, Overdue, Settled};
use stoq_api::{Budgets, PayloadId, ScanId, Timestamp};

use super::{Case, LedgerHarness, open};
use crate::samples::outcome;

const KEEP: Duration = Duration::from_secs(600);
const LEASE: Duration = Duration::from_secs(30);

fn later(now: Timestamp, by: Duration) -> Timestamp {
    now.after(by + Duration::from_secs(1))
}

pub(super) async fn never_changes_what_is_frozen(ledger: &dyn Ledger) {
    let mut case = Case::new(ledger, &[10], Budgets::default());
    let (a, b) = (case.child("a", 1), case.child("b", 1));
    case.admit_as_root(&[a.clone(), b.clone()]).await;
    case.settle(a.id, 1).await;
    assert_eq!(ledger.freeze(case.scan, LEASE, case.now).await.unwrap(), Claim::Taken(Completeness::Partial));
    let frozen = case.frozen().await;
    assert_eq!((frozen.completeness, &frozen.outcomes[..]), (Completeness::Partial, &[outcome(a.id, 1)][..]));
    let mut missing = vec![b.id, case.root()];
    missing.sort();
    assert_eq!(frozen.missing, missing);

    case.now = later(case.now, LEASE);
    assert_eq!(case.settle(b.id, 2).await, Settled::Frozen, "too late to count");
    assert_eq!(case.settle(a.id, 3).await, Settled::Frozen);
    assert_eq!(case.settle_as_root(&outcome(case.root(), 4)).await, Settled::Frozen);
    assert_eq!(case.settle(case.child("new", 1).id, 5).await, Settled::Frozen);
    assert_eq!(case.admit(a.id, &[case.child("newer", 1)]).await, Admitted::Frozen);
    ledger.open(case.scan, &case.head, case.now).await.unwrap();
    assert_eq!(ledger.freeze(case.scan, LEASE, case.now).await.unwrap(), Claim::Taken(Completeness::Partial));
    assert_eq!(case.frozen().await, frozen);
    assert!(ledger.spent(case.scan).await.unwrap().is_some());
}

pub(super) async fn leaves_a_tombstone_for_its_time(ledger: &dyn Ledger) {
    let mut case = Case::new(ledger, &[10], Budgets::default());
    let a = case.child("a", 1);
    case.settle_as_root(&outcome(case.root(), 1)).await;
    case.close(KEEP).await;
    case.close(KEEP).await;
    assert!(ledger.frozen(case.scan).await.unwrap().is_none());
    assert_eq!(ledger.spent(case.scan).await.unwrap(), None);
    case.now = case.now.after(KEEP - Duration::from_secs(1));
    assert_eq!(case.settle(a.id, 1).await, Settled::Closed);
    assert_eq!(case.settle_as_root(&outcome(case.root(), 1)).await, Settled::Closed);
    let head = Some(&case.head);
    assert_eq!(ledger.admit(case.scan, head, case.root(), from_ref(&a), case.now).await.unwrap(), Admitted::Closed);
    ledger.open(case.scan, &case.head, case.now).await.unwrap();
    assert!(ledger.frozen(case.scan).await.unwrap().is_none(), "a closed scan is not opened again");
    assert_eq!(ledger.freeze(case.scan, LEASE, case.now).await.unwrap(), Claim::Gone);
    assert_eq!(ledger.begin(case.scan, a.id, case.now).await.unwrap(), 0);

    case.now = case.now.after(Duration::from_secs(2));
    assert_eq!(case.settle(a.id, 1).await, Settled::Unknown, "the tombstone's time is over");
    assert_eq!(case.admit_as_root(&[a]).await, [Admission::New]);
}

pub(super) async fn closes_only_what_is_frozen(ledger: &dyn Ledger) {
    let case = Case::new(ledger, &[10], Budgets::default());
    case.close(KEEP).await;
    assert_eq!(case.settle(case.root(), 1).await, Settled::Unknown, "closing what is unknown leaves nothing");
    let a = case.child("a", 1);
    case.admit_as_root(from_ref(&a)).await;
    case.close(KEEP).await;
    assert_eq!(case.settle(a.id, 1).await, open(&[]), "an open scan stays open");
}

async fn overdue(ledger: &dyn Ledger, horizon: Timestamp, now: Timestamp, of: &[ScanId]) -> Vec<Overdue> {
    let all = ledger.overdue(horizon, now, 100_000).await.unwrap();
    all.into_iter().filter(|o| of.contains(&o.scan_id)).collect()
}

pub(super) async fn names_what_is_overdue(ledger: &dyn Ledger) {
    let budgets = Budgets { max_seconds: 100, ..Budgets::default() };
    let mut first = Case::new(ledger, &[10], budgets);
    let mut second = Case::new(ledger, &[10], budgets);
    second.now = first.now.after(Duration::from_secs(10));
    let start = first.now;
    let at = |seconds| start.after(Duration::from_secs(seconds));
    // The clock starts with the first operation, whatever the head says, and starts again with each new child, but with
    // nothing else; clocks of others that are behind do not set it back.
    second.admit_as_root(&[second.child("a", 1)]).await;
    ledger.open(first.scan, &first.head, first.now).await.unwrap();
    for (seconds, child) in [(4, "a"), (3, "b"), (50, "a")] {
        first.now = at(seconds);
        first.admit_as_root(&[first.child(child, 1)]).await;
    }
    first.settle(first.child("b", 1).id, 1).await;
    let scans = [first.scan, second.scan];
    let late = |case: &Case<'_>, due, frozen| Overdue { scan_id: case.scan, due, frozen };

    assert_eq!(overdue(ledger, at(104), at(500), &scans).await, [], "the horizon counts, not now");
    assert_eq!(overdue(ledger, at(105), at(500), &scans).await, [late(&first, at(104), false)]);
    let both = [late(&first, at(104), false), late(&second, at(110), false)];
    assert_eq!(overdue(ledger, at(200), at(500), &scans).await, both, "those first whose time ended first");
    assert_eq!(ledger.overdue(at(200), at(500), 1).await.unwrap().len(), 1);

    assert_eq!(ledger.freeze(first.scan, LEASE, at(500)).await.unwrap(), Claim::Taken(Completeness::Partial));
    assert_eq!(overdue(ledger, at(200), at(510), &scans).await, [late(&second, at(110), false)], "somebody is at it");
    let taken = overdue(ledger, at(200), at(531), &[first.scan]).await;
    assert_eq!(taken, [late(&first, at(530), true)], "whoever took it did not finish");
    first.now = at(540);
    first.close(KEEP).await;
    assert_eq!(overdue(ledger, at(200), at(600), &[first.scan]).await, []);

    // A scan that finished by itself is its worker's for a while.
    let third = Case::new(ledger, &[10], budgets);
    third.settle_as_root(&outcome(third.root(), 1)).await;
    let soon = third.now.after(FINISH_LEASE - Duration::from_secs(1));
    assert_eq!(overdue(ledger, at(0), soon, &[third.scan]).await, []);
    assert_eq!(ledger.freeze(third.scan, LEASE, soon).await.unwrap(), Claim::Held);
    let over = later(third.now, FINISH_LEASE);
    assert_eq!(overdue(ledger, at(0), over, &[third.scan]).await, [late(&third, third.now.after(FINISH_LEASE), true)]);
    assert_eq!(ledger.freeze(third.scan, LEASE, over).await.unwrap(), Claim::Taken(Completeness::Complete));
}

pub(super) async fn hands_a_frozen_scan_to_one_at_a_time(ledger: &dyn Ledger) {
    let mut case = Case::new(ledger, &[10], Budgets::default());
    assert_eq!(ledger.freeze(case.scan, LEASE, case.now).await.unwrap(), Claim::Gone, "never heard of");
    case.admit_as_root(&[case.child("a", 1)]).await;
    let partial = Claim::Taken(Completeness::Partial);
    assert_eq!(ledger.freeze(case.scan, LEASE, case.now).await.unwrap(), partial);
    assert_eq!(ledger.freeze(case.scan, LEASE, case.now).await.unwrap(), Claim::Held);
    case.now = later(case.now, LEASE);
    assert_eq!(ledger.freeze(case.scan, LEASE, case.now).await.unwrap(), partial, "taken over");
    assert_eq!(ledger.freeze(case.scan, LEASE, case.now).await.unwrap(), Claim::Held);
    case.close(KEEP).await;
    case.now = later(case.now, LEASE);
    assert_eq!(ledger.freeze(case.scan, LEASE, case.now).await.unwrap(), Claim::Gone);
}

pub(super) async fn counts_attempts(ledger: &dyn Ledger) {
    let case = Case::new(ledger, &[10], Budgets::default());
    let (root, other) = (case.root(), case.child("a", 1).id);
    let begin = async |payload: PayloadId| ledger.begin(case.scan, payload, case.now).await.unwrap();
    assert_eq!((begin(root).await, begin(root).await, begin(other).await), (1, 2, 1), "before the scan is known");
    assert_eq!(case.settle(other, 1).await, Settled::Unknown, "counting does not open it");
    case.admit_as_root(&[case.child("b", 1)]).await;
    assert_eq!((begin(root).await, begin(other).await), (3, 2), "opening forgets nothing");
    assert_eq!(begin(case.child("b", 1).id).await, 1);
    // Two of three lived through it; what was never begun cannot be survived.
    for payload in [root, root, case.child("c", 1).id] {
        ledger.survived(case.scan, payload).await.unwrap();
    }
    assert_eq!((begin(root).await, begin(case.child("c", 1).id).await), (2, 1));
    let another = Case::new(ledger, &[10], Budgets::default());
    assert_eq!(ledger.begin(another.scan, another.root(), another.now).await.unwrap(), 1);
}

pub(super) async fn counts_open_scans(ledger: &dyn Ledger) {
    let before = ledger.open_scans().await.unwrap();
    let (open, frozen) = (Case::new(ledger, &[10], Budgets::default()), Case::new(ledger, &[10], Budgets::default()));
    open.admit_as_root(&[open.child("a", 1)]).await;
    frozen.settle_as_root(&outcome(frozen.root(), 1)).await;
    assert_eq!(ledger.open_scans().await.unwrap(), before + 2);
    frozen.close(KEEP).await;
    assert_eq!(ledger.open_scans().await.unwrap(), before + 1);
}

pub(super) async fn tells_whose_a_scan_is(ledger: &dyn Ledger) {
    let mut case = Case::new(ledger, &[10, 20], Budgets::default());
    case.head.tenant = Some("acme".to_owned());
    let head = async |case: &Case<'_>| ledger.head(case.scan).await.unwrap();
    assert_eq!(head(&case).await, None, "never heard of");
    ledger.begin(case.scan, case.root(), case.now).await.unwrap();
    assert_eq!(head(&case).await, None, "counting does not open it");
    ledger.open(case.scan, &case.head, case.now).await.unwrap();
    assert_eq!(head(&case).await, Some(case.head.clone()));
    ledger.freeze(case.scan, LEASE, case.now).await.unwrap();
    assert_eq!(head(&case).await, Some(case.head.clone()), "frozen");
    case.close(KEEP).await;
    assert_eq!(head(&case).await, None, "closed");
}

pub(super) async fn outlives_a_restart(harness: &mut dyn LedgerHarness) {
    let ledger = harness.ledger().await;
    let open = Case::new(&*ledger, &[10], Budgets::default());
    let frozen = Case::new(&*ledger, &[10], Budgets::default());
    let closed = Case::new(&*ledger, &[10], Budgets::default());
    let (a, b) = (open.child("a", 5), open.child("b", 5));
    open.admit_as_root(&[a.clone(), b.clone()]).await;
    open.settle(a.id, 1).await;
    ledger.begin(open.scan, b.id, open.now).await.unwrap();
    frozen.settle_as_root(&outcome(frozen.root(), 7)).await;
    closed.settle_as_root(&outcome(closed.root(), 7)).await;
    closed.close(KEEP).await;
    let (scans, before) = ([open.scan, frozen.scan, closed.scan], frozen.frozen().await);
    let heads = [open.head, frozen.head, closed.head];

    assert!(harness.reopen().await);
    let ledger = harness.ledger().await;
    let now = Timestamp(1_767_400_000_000_000);
    let [open, frozen, closed] =
        [0, 1, 2].map(|n| Case { ledger: &*ledger, scan: scans[n], head: heads[n].clone(), now });
    let again = [Admission::Settled, Admission::Known { own: true }];
    assert_eq!(open.admit_as_root(&[a.clone(), b.clone()]).await, again);
    assert_eq!(ledger.begin(open.scan, b.id, now).await.unwrap(), 2);
    assert_eq!(frozen.frozen().await, before);
    assert_eq!(closed.settle_as_root(&outcome(closed.root(), 8)).await, Settled::Closed);
    open.settle(b.id, 2).await;
    assert_eq!(open.settle_as_root(&outcome(open.root(), 3)).await, Settled::Frozen);
    assert_eq!(open.frozen().await.outcomes.len(), 3);
}
