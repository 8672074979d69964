//! The connector suite: what every [`Connector`] promises.
//!
//! The suite plays the frame's part: it offers what has no verdict again until each item is delivered or rejected, and
//! starts connectors anew in the middle. What is in the sink is then counted behind the connector's back.

mod calm;
mod drive;
mod faults;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use stoq_api::plugin::{Connector, Item};

pub use self::drive::{Driven, drive, offer};
pub use self::faults::Troubled;

/// How often a document is in the sink that was delivered more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Once: the sink knows documents by their ids.
    Once,
    /// Perhaps several times: the sink takes whatever it is given.
    AtLeastOnce,
}

/// Makes connectors to one sink, and looks into it.
#[async_trait]
pub trait ConnectorHarness: Send {
    /// What becomes of a response that is delivered twice.
    fn promise(&self) -> Promise;

    /// A connector as a process that just started builds it. Its waits for answers are short, a second or two, so that a
    /// sink that never answers does not hold up the suite.
    async fn connector(&mut self) -> Arc<dyn Connector>;

    /// How many copies of each response are in the sink, by scan id. Waits until the sink shows what it has taken.
    async fn documents(&mut self) -> BTreeMap<String, usize>;

    /// A response that this sink refuses for good, where there is one.
    fn refused(&self) -> Option<Item> {
        None
    }

    /// Takes the sink away, or brings it back, in some way that the sink really knows; `false` if it cannot be away.
    async fn away(&mut self, away: bool) -> bool {
        let _ = away;
        false
    }

    /// A connector with credentials that the sink does not take, where it wants some.
    async fn unknown(&mut self) -> Option<Arc<dyn Connector>> {
        None
    }

    /// The front that every connector of this harness goes through, for sinks that speak HTTP. Only requests that deliver
    /// count there; see [`HttpFront::count_only`](crate::front::HttpFront::count_only).
    #[cfg(feature = "front")]
    fn front(&self) -> Option<&crate::front::HttpFront> {
        None
    }

    /// Answers in the sink's own language, to be sent once, each for one delivery of [`PARTLY`] responses: after those
    /// acts and one that passes all must be there. For what fails in parts, or fails in ways that only this sink has.
    #[cfg(feature = "front")]
    fn own_faults(&self) -> Vec<crate::front::Act> {
        Vec::new()
    }

    /// A connector that reaches the sink by TLS and does not trust its certificate, where it can be reached so.
    async fn untrusting(&mut self) -> Option<Arc<dyn Connector>> {
        None
    }
}

/// Responses in a batch against which [`ConnectorHarness::own_faults`] are tried.
pub const PARTLY: usize = 4;

/// Runs every check against the sink of `harness`.
///
/// # Panics
/// A promise is broken.
pub async fn connector_suite(harness: &mut dyn ConnectorHarness) {
    calm::run(harness).await;
    faults::run(harness).await;
}

/// A small response of a scan that nobody has used before, as the engine writes it: a root and what came out of it.
pub fn response() -> Item {
    response_with("a plain text")
}

/// The same with `text` as the root's file name and in a result.
pub fn response_with(text: &str) -> Item {
    let scan = crate::samples::fresh_scan();
    let json = crate::samples::response(scan, text);
    Item { id: scan.to_string(), json: json.into() }
}

/// So many of them.
pub fn responses(count: usize) -> Vec<Item> {
    (0..count).map(|_| response()).collect()
}
