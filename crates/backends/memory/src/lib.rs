//! Queue, ledger and store in memory, for one process.
//!
//! They keep every promise of their traits but durability: what is in them ends with the process. `stoq scan` runs on
//! them, and so do tests of everything above. Given a folder, queue and ledger put into files there, without names, what is
//! more than they are to hold in memory.
#![forbid(unsafe_code)]

mod ledger;
mod queue;
mod spool;
mod store;

pub use ledger::MemoryLedger;
pub use queue::MemoryQueue;
pub use store::MemoryStore;
