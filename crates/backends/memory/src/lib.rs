//! Queue, ledger and store in memory, for one process.
