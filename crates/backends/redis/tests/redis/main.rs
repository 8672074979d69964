//! The ledger on real servers.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers are test code, though they are not marked as such"
)]

mod access;
mod common;
mod loss;
mod memory;
mod outage;
mod rollback;
mod scan;
mod suites;
