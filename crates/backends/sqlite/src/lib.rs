//! Queue and ledger in one SQLite file, with group commit.
