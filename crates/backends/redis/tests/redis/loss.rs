//! A Redis that comes back without its last operations, as one that does not write through, or a replica that takes over
//! too soon: scans become late, partial or are made anew, but none is complete that is not.

use std::slice::from_ref;
use std::sync::Arc;
use std::time::Duration;

use stoq_api::ledger::{Claim, Completeness, Ledger, Settled};
use stoq_testkit::services::{Moment, Redis};

use crate::common::{Objects, ledger_over, options};
use crate::scan::{Scan, in_order, insist, open};

/// A server whose past can be brought back.
struct Forgetful {
    server: Redis,
    past: Option<Moment>,
}

impl Forgetful {
    async fn start() -> Self {
        Self { server: Redis::start().await, past: None }
    }

    fn ledger(&self) -> Arc<dyn Ledger> {
        ledger_over(&options(&[self.server.address()]), Arc::<Objects>::default())
    }

    /// What was answered so far is what the server will remember.
    fn remember(&mut self) {
        self.past = Some(self.server.moment());
    }

    /// Crashes, and comes back without anything answered since.
    async fn forget(&mut self) {
        let past = self.past.take().unwrap();
        assert!(!self.server.fall_back(&past).await.is_empty());
    }
}

#[tokio::test]
async fn children_of_a_scan_that_was_forgotten_are_taken_in_again_by_their_root() {
    let mut redis = Forgetful::start().await;
    let (worker, other, scan) = (redis.ledger(), redis.ledger(), Scan::new());
    let (a, b) = (scan.child("a"), scan.child("b"));
    redis.remember();
    scan.admit(&*worker, scan.root(), &[a.clone(), b.clone()]).await;
    redis.forget().await;
    // Their tasks are on their way; whoever is faster, the scan is not over.
    assert_eq!(insist(async || scan.try_settle(&*other, a.id, &[]).await).await, Settled::Unknown);
    assert_eq!(
        in_order(insist(async || scan.try_settle(&*worker, scan.root(), &[a.id, b.id]).await).await),
        open(&[&a, &b])
    );
    assert_eq!(insist(async || scan.try_settle(&*other, a.id, &[]).await).await, open(&[]));
    assert_eq!(insist(async || scan.try_settle(&*other, b.id, &[]).await).await, Settled::Frozen);
    let frozen = insist(async || worker.frozen(scan.id).await).await.unwrap();
    assert_eq!((frozen.completeness, frozen.outcomes.len()), (Completeness::Complete, 3));
}

#[tokio::test]
async fn children_below_are_taken_in_again_by_their_parent() {
    let mut redis = Forgetful::start().await;
    let (worker, other, scan) = (redis.ledger(), redis.ledger(), Scan::new());
    let (x, y) = (scan.child("x"), scan.child("y"));
    let a = scan.begin(&*other).await;
    assert_eq!(scan.settle(&*other, scan.root()).await, open(&[&a]));
    redis.remember();
    scan.admit(&*worker, a.id, &[x.clone(), y.clone()]).await;
    redis.forget().await;
    let both = [x.id, y.id];
    // The last payload that the ledger knows of; it would be complete without what was forgotten.
    assert_eq!(in_order(insist(async || scan.try_settle(&*worker, a.id, &both).await).await), open(&[&x, &y]));
    assert_eq!(
        in_order(insist(async || scan.try_settle(&*worker, a.id, &both).await).await),
        open(&[&x, &y]),
        "asked again"
    );
    assert_eq!(insist(async || scan.try_settle(&*other, y.id, &[]).await).await, open(&[]));
    assert_eq!(insist(async || scan.try_settle(&*other, x.id, &[]).await).await, Settled::Frozen);
}

/// A payload that was delivered twice to one process: what the faster one proved says nothing once it is forgotten.
#[tokio::test]
async fn the_slower_of_two_proves_its_children_too() {
    let mut redis = Forgetful::start().await;
    let (worker, other, scan) = (redis.ledger(), redis.ledger(), Scan::new());
    let x = scan.child("x");
    let a = scan.begin(&*other).await;
    assert_eq!(scan.settle(&*other, scan.root()).await, open(&[&a]));
    redis.remember();
    for _ in ["the faster", "the slower"] {
        scan.admit(&*worker, a.id, from_ref(&x)).await;
    }
    let settle = async || insist(async || scan.try_settle(&*worker, a.id, &[x.id]).await).await;
    assert_eq!(settle().await, open(&[&x]), "the faster");
    redis.forget().await;
    assert_eq!(settle().await, open(&[&x]), "the slower");
    assert_eq!(insist(async || scan.try_settle(&*other, x.id, &[]).await).await, Settled::Frozen);
}

#[tokio::test]
async fn a_child_of_somebody_else_is_published_again_if_both_were_forgotten() {
    let mut redis = Forgetful::start().await;
    let (worker, other, scan) = (redis.ledger(), redis.ledger(), Scan::new());
    let (a, b, shared) = (scan.child("a"), scan.child("b"), scan.child("shared"));
    scan.admit(&*other, scan.root(), &[a.clone(), b.clone()]).await;
    scan.settle(&*other, scan.root()).await;
    redis.remember();
    scan.admit(&*other, b.id, from_ref(&shared)).await;
    scan.admit(&*worker, a.id, from_ref(&shared)).await;
    redis.forget().await;
    // `b`'s worker died before it published the child, so it is now for `a`'s.
    assert_eq!(insist(async || scan.try_settle(&*worker, a.id, &[shared.id]).await).await, open(&[&shared]));
}

#[tokio::test]
async fn an_outcome_that_was_forgotten_leaves_its_payload_missing() {
    let mut redis = Forgetful::start().await;
    let (ledger, scan) = (redis.ledger(), Scan::new());
    let a = scan.begin(&*ledger).await;
    redis.remember();
    assert_eq!(scan.settle(&*ledger, a.id).await, open(&[]));
    redis.forget().await;
    assert_eq!(insist(async || scan.try_settle(&*ledger, scan.root(), &[a.id]).await).await, open(&[&a]));
    let lease = Duration::from_secs(60);
    let claim = insist(async || ledger.freeze(scan.id, lease, scan.now).await).await;
    assert_eq!(claim, Claim::Taken(Completeness::Partial));
    assert_eq!(insist(async || ledger.frozen(scan.id).await).await.unwrap().missing, [a.id]);
}
