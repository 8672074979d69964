//! Checks of a scan's tree while it is open.

use std::collections::BTreeSet;
use std::slice::from_ref;
use std::sync::Arc;

use stoq_api::ledger::{Admission, Admitted, Completeness, Ledger, MAX_ADMIT, Settled};
use stoq_api::{Budgets, FaultKind, PayloadId, SpentKind};
use tokio::task::JoinSet;

use super::{Case, open, unsettled};
use crate::samples::{child, fresh_scan, head, outcome};

const NEW: Admission = Admission::New;
const OWN: Admission = Admission::Known { own: true };
const OTHERS: Admission = Admission::Known { own: false };

pub(super) async fn finishes_a_root_without_children(ledger: &dyn Ledger) {
    let case = Case::new(ledger, &[10], Budgets::default());
    assert!(ledger.frozen(case.scan).await.unwrap().is_none());
    assert_eq!(case.settle_as_root(&outcome(case.root(), 1)).await, Settled::Frozen);
    let frozen = case.frozen().await;
    assert_eq!((frozen.scan_id, frozen.completeness), (case.scan, Completeness::Complete));
    assert_eq!(*frozen.head, case.head);
    assert_eq!(frozen.outcomes, [outcome(case.root(), 1)]);
    assert_eq!(frozen.missing, []);
}

pub(super) async fn finishes_when_the_last_outcome_arrives(ledger: &dyn Ledger) {
    let case = Case::new(ledger, &[10], Budgets::default());
    let (a, b) = (case.child("a", 1), case.child("b", 2));
    assert_eq!(case.admit_as_root(from_ref(&a)).await, [NEW]);
    assert_eq!(case.settle(a.id, 1).await, open(&[]));
    assert_eq!(case.admit_as_root(from_ref(&b)).await, [NEW], "children come in chunks");
    assert_eq!(case.settle_as_root(&outcome(case.root(), 2)).await, open(&[b.id]));
    assert!(ledger.frozen(case.scan).await.unwrap().is_none(), "one is outstanding");
    assert_eq!(case.settle(b.id, 3).await, Settled::Frozen);
    let frozen = case.frozen().await;
    assert_eq!((frozen.completeness, frozen.outcomes.len()), (Completeness::Complete, 3));
}

pub(super) async fn does_not_know_scans_that_a_child_names(ledger: &dyn Ledger) {
    let case = Case::new(ledger, &[10], Budgets::default());
    let a = case.child("a", 1);
    assert_eq!(case.admit(a.id, &[case.child("b", 1)]).await, Admitted::Unknown);
    assert_eq!(case.settle(a.id, 1).await, Settled::Unknown);
    assert_eq!(ledger.spent(case.scan).await.unwrap(), None, "asking does not open it");
    // The root's task was published again and opens the scan anew.
    assert_eq!(case.admit_as_root(from_ref(&a)).await, [NEW]);
    assert_eq!(case.settle(a.id, 1).await, open(&[]));
    assert_eq!(case.settle_as_root(&outcome(case.root(), 2)).await, Settled::Frozen);
}

pub(super) async fn waits_for_every_root(ledger: &dyn Ledger) {
    let case = Case::new(ledger, &[10, 20, 30], Budgets::default());
    ledger.open(case.scan, &case.head, case.now).await.unwrap();
    for ordinal in [1, 2] {
        assert_eq!(case.settle_as_root(&outcome(PayloadId::root(case.scan, ordinal), 1)).await, open(&[]));
    }
    ledger.open(case.scan, &case.head, case.now).await.unwrap();
    assert!(ledger.frozen(case.scan).await.unwrap().is_none(), "opening again changes nothing");
    assert_eq!(case.settle_as_root(&outcome(case.root(), 1)).await, Settled::Frozen);
    assert_eq!(case.frozen().await.outcomes.len(), 3);
}

pub(super) async fn says_who_admitted_a_child(ledger: &dyn Ledger) {
    let case = Case::new(ledger, &[10], Budgets::default());
    let (a, b, shared) = (case.child("a", 1), case.child("b", 1), case.child("shared", 5));
    assert_eq!(case.admit_as_root(&[a.clone(), b.clone(), a.clone()]).await, [NEW, NEW, OWN], "twice in one call");
    assert_eq!(case.admit(a.id, from_ref(&shared)).await, Admitted::Open(vec![NEW]));
    assert_eq!(case.admit(b.id, &[shared.clone(), b.clone()]).await, Admitted::Open(vec![OTHERS, OTHERS]));
    assert_eq!(case.admit(a.id, from_ref(&shared)).await, Admitted::Open(vec![OWN]), "a crashed worker asks again");
    assert_eq!(case.admit_as_root(&[a.clone(), b.clone()]).await, [OWN, OWN]);
    assert_eq!(unsettled(case.settle(b.id, 1).await), BTreeSet::new(), "the other parent answers for it");
    assert_eq!(case.settle(shared.id, 2).await, open(&[]));
    let again = case.admit(b.id, &[shared.clone(), b.clone()]).await;
    assert_eq!(again, Admitted::Open(vec![Admission::Settled, Admission::Settled]));
    assert_eq!(case.admit(a.id, &[]).await, Admitted::Open(Vec::new()));
}

pub(super) async fn names_own_children_that_are_outstanding(ledger: &dyn Ledger) {
    let case = Case::new(ledger, &[10], Budgets::default());
    let children: Vec<_> = (0..5).map(|n| case.child(&format!("c{n}"), 1)).collect();
    case.admit_as_root(&children).await;
    assert_eq!(case.settle(children[1].id, 1).await, open(&[]));
    let left: BTreeSet<_> = [0, 2, 3, 4].map(|n: usize| children[n].id).into();
    let root = outcome(case.root(), 9);
    assert_eq!(unsettled(case.settle_as_root(&root).await), left);
    assert_eq!(unsettled(case.settle_as_root(&root).await), left, "asked again after a lost answer");
    case.settle(children[0].id, 1).await;
    case.settle(children[2].id, 1).await;
    let left: BTreeSet<_> = [3, 4].map(|n: usize| children[n].id).into();
    assert_eq!(unsettled(case.settle_as_root(&root).await), left);
}

pub(super) async fn takes_in_payloads_it_does_not_know(ledger: &dyn Ledger) {
    let budgets = Budgets { max_payloads: 2, ..Budgets::default() };
    let case = Case::new(ledger, &[10], budgets);
    ledger.open(case.scan, &case.head, case.now).await.unwrap();
    let (stray, parent, below) = (case.child("stray", 7), case.child("parent", 7), case.child("below", 1));
    assert_eq!(case.settle(stray.id, 1).await, open(&[]));
    assert_eq!(case.admit(parent.id, from_ref(&below)).await, Admitted::Open(vec![NEW]));
    assert_eq!(ledger.spent(case.scan).await.unwrap().map(|s| s.0), Some(1), "only the admitted child is charged");
    assert_eq!(case.admit_as_root(&[stray.clone(), parent.clone()]).await, [Admission::Settled, OTHERS]);
    assert_eq!(case.settle_as_root(&outcome(case.root(), 1)).await, open(&[]));
    assert_eq!(case.settle(below.id, 1).await, open(&[]), "somebody still works on its parent");
    assert_eq!(case.settle(parent.id, 1).await, Settled::Frozen);
    assert_eq!(case.frozen().await.outcomes.len(), 4);
}

pub(super) async fn takes_in_children_that_it_lost(ledger: &dyn Ledger) {
    let budgets = Budgets { max_payloads: 2, ..Budgets::default() };
    let case = Case::new(ledger, &[10], budgets);
    let (kept, lost, below) = (case.child("kept", 7), case.child("lost", 7), case.child("below", 7));
    case.admit_as_root(from_ref(&kept)).await;
    let settle = async |payload: PayloadId, children: &[PayloadId]| {
        let outcome = outcome(payload, 1);
        unsettled(ledger.settle(case.scan, Some(&case.head), &outcome, children, case.now).await.unwrap())
    };
    assert_eq!(settle(case.root(), &[kept.id, lost.id]).await, [kept.id, lost.id].into(), "not known, so outstanding");
    assert_eq!(ledger.spent(case.scan).await.unwrap(), Some((1, 7)), "it was charged before it was lost");
    assert_eq!(settle(case.root(), &[kept.id, lost.id]).await, [kept.id, lost.id].into(), "once");
    assert_eq!(settle(kept.id, &[]).await, BTreeSet::new());
    // Also by whoever comes second, whose outcome does not count any more.
    assert_eq!(settle(kept.id, from_ref(&below.id)).await, [below.id].into());
    assert_eq!(settle(lost.id, from_ref(&kept.id)).await, BTreeSet::new(), "what is settled stays so");
    assert_eq!(case.settle(below.id, 1).await, Settled::Frozen);
    assert_eq!(case.frozen().await.outcomes.len(), 4);
}

pub(super) async fn keeps_the_first_outcome(ledger: &dyn Ledger) {
    let case = Case::new(ledger, &[10], Budgets::default());
    let a = case.child("a", 1);
    case.admit_as_root(from_ref(&a)).await;
    assert_eq!(case.settle(a.id, 1).await, open(&[]));
    assert_eq!(case.settle(a.id, 2).await, open(&[]), "a second scan of it found something else");
    assert_eq!(case.settle_as_root(&outcome(case.root(), 3)).await, Settled::Frozen);
    let mut expected = vec![outcome(a.id, 1), outcome(case.root(), 3)];
    expected.sort_by_key(|o| o.payload_id);
    assert_eq!(case.frozen().await.outcomes, expected);
}

pub(super) async fn charges_each_budget_once_and_in_order(ledger: &dyn Ledger) {
    use Admission::Refused;
    let none = Budgets { max_payloads: 100, max_bytes: 1000, max_expansion: 100, ..Budgets::default() };

    let case = Case::new(ledger, &[10], Budgets { max_payloads: 2, ..none });
    let [a, b, c] = ["a", "b", "c"].map(|tag| case.child(tag, 1));
    let both = [a.clone(), a.clone(), b.clone(), c.clone()];
    assert_eq!(case.admit_as_root(&both).await, [NEW, OWN, NEW, Refused(SpentKind::Payloads)]);
    assert_eq!(case.admit_as_root(&both).await, [OWN, OWN, OWN, Refused(SpentKind::Payloads)]);
    assert_eq!(
        case.admit(a.id, &[c.clone(), b.clone()]).await,
        Admitted::Open(vec![Refused(SpentKind::Payloads), OTHERS])
    );

    let case = Case::new(ledger, &[10, 20], Budgets { expansion_floor: 5000, ..none });
    let sizes = [("a", 600), ("b", 401), ("c", 400), ("d", 1), ("e", 0)].map(|(tag, size)| case.child(tag, size));
    let bytes = Refused(SpentKind::Bytes);
    assert_eq!(case.admit_as_root(&sizes).await, [NEW, bytes, NEW, bytes, NEW], "a smaller one may still fit");
    assert_eq!(ledger.spent(case.scan).await.unwrap(), Some((3, 1000)));

    let case = Case::new(ledger, &[2, 3], Budgets { max_expansion: 10, expansion_floor: 20, ..none });
    let sizes = [("a", 30), ("b", 21), ("c", 20)].map(|(tag, size)| case.child(tag, size));
    assert_eq!(case.admit_as_root(&sizes).await, [NEW, Refused(SpentKind::Expansion), NEW]);
    assert_eq!(ledger.spent(case.scan).await.unwrap(), Some((2, 50)));

    let case = Case::new(ledger, &[0], Budgets { max_expansion: 10, expansion_floor: 20, ..none });
    ledger.open(case.scan, &case.head, case.now).await.unwrap();
    assert_eq!(ledger.spent(case.scan).await.unwrap(), Some((0, 0)), "roots cost nothing");
    let sizes = [case.child("huge", u64::MAX >> 1), case.child("fits", 20)];
    assert_eq!(case.admit_as_root(&sizes).await, [Refused(SpentKind::Bytes), NEW], "nothing overflows");
}

pub(super) async fn refuses_too_many_children_at_once(ledger: &dyn Ledger) {
    let case = Case::new(ledger, &[10], Budgets::default());
    let children: Vec<_> = (0..=MAX_ADMIT).map(|n| case.child(&n.to_string(), 1)).collect();
    let refused = ledger.admit(case.scan, Some(&case.head), case.root(), &children, case.now).await;
    assert_eq!(refused.expect_err("more than fit").kind, FaultKind::Refused);
    let admissions = case.admit_as_root(&children[..MAX_ADMIT]).await;
    assert!(admissions.len() == MAX_ADMIT && admissions.iter().all(|a| *a == NEW));
}

/// Many workers settle the children of one scan at the same time; exactly one call is the one that freezes it.
pub(super) async fn finishes_once_among_many(ledger: Arc<dyn Ledger>) {
    const CHILDREN: usize = 64;
    let scan = fresh_scan();
    let head = head(scan, &[10], Budgets::default());
    let now = stoq_api::Timestamp(1_767_400_000_000_000);
    let children: Vec<_> = (0..CHILDREN).map(|n| child(scan, &n.to_string(), 1)).collect();
    ledger.admit(scan, Some(&head), PayloadId::root(scan, 0), &children, now).await.unwrap();
    let mut settling = JoinSet::new();
    let ids: Vec<_> = children.iter().map(|c| c.id).chain([PayloadId::root(scan, 0)]).collect();
    for id in ids {
        let ledger = Arc::clone(&ledger);
        settling.spawn(async move { ledger.settle(scan, None, &outcome(id, 1), &[], now).await.unwrap() });
    }
    let answers = settling.join_all().await;
    assert_eq!(answers.iter().filter(|a| **a == Settled::Frozen).count(), 1);
    assert_eq!(ledger.frozen(scan).await.unwrap().unwrap().outcomes.len(), CHILDREN + 1);
}
