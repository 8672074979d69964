//! Queue, ledger and store in memory, for one process.
//!
//! They keep every promise of their traits but durability: what is in them ends with the process. `stoq scan` runs on
//! them, and so do tests of everything above.
#![forbid(unsafe_code)]

mod ledger;
mod queue;
mod store;

pub use ledger::MemoryLedger;
pub use queue::MemoryQueue;
pub use store::MemoryStore;
