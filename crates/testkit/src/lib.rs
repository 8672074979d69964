//! Conformance suites, fault injection and hostile samples for tests.
//!
//! A suite is a public function that takes a harness: a small trait which makes the implementation under test, and says
//! what it can do. Every implementation of a trait of the api crate passes the same suite.
#![forbid(unsafe_code)]
// This crate is a dependency of tests only, and a test that cannot go on is to stop.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "suites are tests, though they are not marked as such")]

/// Runs checks of a suite in turn. What a failed test has printed ends with the name of the check that failed.
macro_rules! checks {
    ($($($path:ident)::+($($argument:expr),*);)+) => {
        $(
            println!("check: {}", stringify!($($path)::+));
            $($path)::+($($argument),*).await;
        )+
    };
}

pub mod connector;
pub mod corpus;
pub mod fault;
#[cfg(feature = "front")]
pub mod front;
#[cfg(feature = "hostile")]
pub mod hostile;
pub mod ledger;
pub mod queue;
pub mod samples;
#[cfg(feature = "services")]
pub mod services;
pub mod store;
pub mod wait;

pub use connector::{ConnectorHarness, connector_suite};
pub use ledger::{LedgerHarness, ledger_suite};
pub use queue::{QueueHarness, queue_suite};
pub use store::{StoreHarness, store_suite};

/// A configuration without brokers.
pub struct NoQueues;

impl stoq_api::backend::OpenQueue for NoQueues {
    fn queue(
        &self,
        broker: &str,
        _name: &str,
    ) -> Result<std::sync::Arc<dyn stoq_api::queue::Queue>, stoq_api::scanner::BuildError> {
        Err(stoq_api::scanner::BuildError(format!("no broker is called {broker:?}")))
    }
}
