//! The words of stoq as types, and the traits that every part implements.
//!
//! This crate holds no implementation: a queue, a ledger, a store, a scanner or a sink lives in a crate of its own and
//! depends on this one only. What crosses a process boundary (tasks, outcomes, responses) is defined here together with
//! its wire form, so that every role of a fleet reads the same bytes the same way.
#![forbid(unsafe_code)]

pub mod backend;
pub mod bounded;
pub mod budget;
pub mod content;
pub mod digest;
pub mod envelope;
pub mod fault;
pub mod fetch;
pub mod finding;
#[doc(hidden)]
pub mod fuzzing;
pub mod id;
pub mod json;
pub mod ledger;
pub mod outcome;
pub mod payload;
pub mod plugin;
pub mod queue;
pub mod response;
pub mod results;
pub mod scanner;
pub mod stamp;
pub mod store;
pub mod task;

pub use bounded::{BoundedReader, OverLimit};
pub use budget::{Budgets, SpentKind};
pub use content::Content;
pub use digest::Sha256;
pub use envelope::{Envelope, EnvelopeError};
pub use fault::{Fault, FaultKind};
pub use finding::{Finding, FindingKind};
pub use id::{PayloadId, ScanId};
pub use json::{Json, Named};
pub use outcome::{Edge, ErrorEntry, NotRun, Outcome, Run, RunStatus};
pub use payload::{Ancestor, PackedMeta, PayloadMeta, RequestMeta};
pub use response::Response;
pub use stamp::Timestamp;
pub use task::{Location, RootRef, Task};
