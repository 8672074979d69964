//! Tests on real servers.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests, though they are not marked as such")]

mod common;
mod loss;
mod setup;
mod suite;
