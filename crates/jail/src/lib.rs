//! Jailed processes that run scanners over hostile bytes.
//!
//! The jail knows nothing of scanning: it hands *items* (an opaque header and content) to a [`work::Workload`] inside a
//! slot and brings back an opaque report and the children that were emitted. What a slot says is hostile and is bounded,
//! checked and hashed here before anyone else sees it.

pub mod job;
pub mod work;

pub use job::{Answer, Child, JobItem, Runner, StopReason, Stopped};
pub use work::{Hello, Item, Wire, Workload};
