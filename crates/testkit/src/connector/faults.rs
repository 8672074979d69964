//! Checks against a sink that fails.

use stoq_api::plugin::{Connector, Item, Verdict};
use stoq_api::{Fault, FaultKind};

use super::calm::expect;
use super::{ConnectorHarness, drive, offer, response, responses};

/// How a try failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Troubled {
    /// In a way that passes.
    Transient,
    /// In a way that a person has to mend.
    Misconfigured,
}

pub(super) async fn run(harness: &mut dyn ConnectorHarness) {
    waits_for_a_sink_that_is_away(harness).await;
    says_that_credentials_are_wrong(harness).await;
    trusts_no_stranger(harness).await;
    #[cfg(feature = "front")]
    front::run(harness).await;
}

/// What a try says, of which nothing was delivered and nothing refused.
async fn failed(connector: &dyn Connector, items: &[Item]) -> (Troubled, String) {
    match offer(connector, items).await {
        Ok(verdicts) => {
            let waits = verdicts.iter().find_map(|verdict| match verdict {
                Verdict::Retry(reason) => Some(reason.clone()),
                Verdict::Delivered | Verdict::Rejected(_) => None,
            });
            let all = verdicts.iter().all(|verdict| matches!(verdict, Verdict::Retry(_)));
            assert!(all, "nothing can be delivered or refused by a sink that fails: {verdicts:?}");
            (Troubled::Transient, waits.unwrap_or_default())
        }
        Err(e) => (kind(&e), stoq_api::fault::chain(&e)),
    }
}

fn kind(fault: &Fault) -> Troubled {
    match fault.kind {
        FaultKind::Unavailable => Troubled::Transient,
        FaultKind::Misconfigured => Troubled::Misconfigured,
        other => panic!("a sink that fails is unavailable or misconfigured, not {other:?}: {fault}"),
    }
}

async fn waits_for_a_sink_that_is_away(harness: &mut dyn ConnectorHarness) {
    let connector = harness.connector().await;
    let items = responses(3);
    if !harness.away(true).await {
        return;
    }
    let (troubled, reason) = failed(&*connector, &items).await;
    assert_eq!(troubled, Troubled::Transient, "{reason}");
    assert!(!reason.is_empty());
    let late = harness.connector().await;
    assert_eq!(failed(&*late, &items).await.0, Troubled::Transient, "a connector that starts meanwhile");
    harness.away(false).await;
    for connector in [&connector, &late] {
        drive(&**connector, &items).await;
        connector.check().await.unwrap();
    }
    expect(harness, &items, "after an outage").await;
}

async fn says_that_credentials_are_wrong(harness: &mut dyn ConnectorHarness) {
    let Some(unknown) = harness.unknown().await else { return };
    let item = response();
    let (troubled, reason) = failed(&*unknown, std::slice::from_ref(&item)).await;
    assert_eq!(troubled, Troubled::Misconfigured, "{reason}");
    assert_eq!(unknown.check().await.unwrap_err().kind, FaultKind::Misconfigured);
    assert_eq!(harness.documents().await.get(&item.id), None);
}

async fn trusts_no_stranger(harness: &mut dyn ConnectorHarness) {
    let Some(untrusting) = harness.untrusting().await else { return };
    let item = response();
    failed(&*untrusting, std::slice::from_ref(&item)).await;
    assert!(untrusting.check().await.is_err());
    assert_eq!(harness.documents().await.get(&item.id), None);
}

#[cfg(feature = "front")]
mod front {
    use super::super::PARTLY;
    use super::*;
    use crate::front::{Act, HttpFront};

    pub(super) async fn run(harness: &mut dyn ConnectorHarness) {
        if harness.front().is_none() {
            return;
        }
        let hang = Act::Hang;
        let passing = [429, 500, 502, 503, 504].map(Act::status);
        let broken = [Act::Reset, Act::Lose, Act::CutShort, hang];
        let odd = [
            Act::answer(200, "text/html", "<html>Please log in to the guest network</html>"),
            Act::answer(200, "application/json", "{"),
            Act::answer(200, "application/json", "{}"),
            Act::answer(503, "text/html", vec![b'x'; 1 << 20]),
        ];
        let own = harness.own_faults();
        for act in passing.into_iter().chain(broken).chain(odd).chain(own) {
            delivers_after(harness, act).await;
        }
        stays_within_the_sink(harness).await;
        says_whom_to_ask(harness).await;
        waits_while_it_is_shut(harness).await;
    }

    fn of(harness: &dyn ConnectorHarness) -> &HttpFront {
        harness.front().expect("it was there before")
    }

    /// One fault, then none: all is delivered, nothing refused.
    async fn delivers_after(harness: &mut dyn ConnectorHarness, act: Act) {
        let what = format!("{act:?}");
        let connector = harness.connector().await;
        let items = responses(PARTLY);
        of(harness).plan([act]);
        let driven = drive(&*connector, &items).await;
        assert_eq!(of(harness).planned(), 0, "{what} was never asked for");
        assert!(driven.rejected.is_empty(), "{what}: {driven:?}");
        expect(harness, &items, &what).await;
    }

    /// Nobody else is told anything, whatever the sink says.
    async fn stays_within_the_sink(harness: &mut dyn ConnectorHarness) {
        let stranger = HttpFront::start(None).await;
        let connector = harness.connector().await;
        let items = responses(2);
        for status in [301, 302, 303, 307, 308] {
            let Act::Answer { headers, body, .. } = Act::redirect(&format!("{}/login", stranger.url())) else {
                continue;
            };
            of(harness).always(Act::Answer { status, headers, body });
            failed(&*connector, &items).await;
        }
        assert_eq!(stranger.seen(), [], "responses and credentials go nowhere but to the sink");
        of(harness).calm();
        drive(&*connector, &items).await;
        expect(harness, &items, "after redirects").await;
    }

    /// Refused credentials are somebody's to mend, and nothing is given up for them.
    async fn says_whom_to_ask(harness: &mut dyn ConnectorHarness) {
        let connector = harness.connector().await;
        let items = responses(2);
        for status in [401, 403] {
            of(harness).always(Act::status(status));
            let (troubled, reason) = failed(&*connector, &items).await;
            assert_eq!(troubled, Troubled::Misconfigured, "{status}: {reason}");
        }
        of(harness).calm();
        drive(&*connector, &items).await;
        expect(harness, &items, "after refused credentials").await;
    }

    async fn waits_while_it_is_shut(harness: &mut dyn ConnectorHarness) {
        let connector = harness.connector().await;
        let items = responses(3);
        of(harness).shut(true);
        for _ in 0..3 {
            assert_eq!(failed(&*connector, &items).await.0, Troubled::Transient);
        }
        let asked = connector.check().await.map_err(|e| e.kind);
        assert_eq!(asked, Err(FaultKind::Unavailable), "a check asks the sink");
        of(harness).shut(false);
        drive(&*connector, &items).await;
        expect(harness, &items, "after it was shut").await;
    }
}
