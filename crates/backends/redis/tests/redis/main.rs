//! The ledger on real servers.
#![expect(clippy::unwrap_used, reason = "helpers are test code, though they are not marked as such")]

mod common;
mod suites;
