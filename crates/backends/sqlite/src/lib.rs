//! Queue and ledger in one SQLite file, with group commit.
//!
//! One process owns the data directory; a lock file keeps a second one out. All statements run on one writer thread,
//! which takes whatever is ready into one transaction and answers when that is on the disk: concurrent callers share
//! the cost of a sync, a lone one pays for it alone. Who holds which message is kept in memory, since it ends with the
//! process; what is kept on disk is what must outlive it. `design.md` beside this crate says what is promised, how, and
//! what it costs.
#![forbid(unsafe_code)]

mod fault;
mod lane;
mod ledger;
mod lock;
mod queue;
mod schema;
mod writer;

use std::path::Path;
use std::sync::Arc;

use stoq_api::Fault;

use crate::lane::Lanes;
use crate::lock::LockFile;
use crate::writer::Writer;

pub use ledger::SqliteLedger;
pub use queue::SqliteQueue;

/// How the file is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SqliteOptions {
    /// Most operations in one transaction.
    pub group: usize,
    /// Bytes that the database file may grow to, the write-ahead log not counted; `None` leaves it to the disk. At the
    /// limit whatever needs room is refused as unavailable, until acknowledgements have made some.
    pub max_bytes: Option<u64>,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self { group: 256, max_bytes: None }
    }
}

/// The database of one data directory.
#[derive(Clone)]
pub struct Sqlite {
    writer: Arc<Writer>,
    lanes: Arc<Lanes>,
}

/// The database's name in the data directory.
const DATABASE: &str = "stoq.db";

impl Sqlite {
    /// Opens the database in `directory`; makes both if they are not there. Blocks while it does.
    ///
    /// # Errors
    /// [`stoq_api::FaultKind::Misconfigured`] if another process uses the directory, it cannot be written, or the file
    /// in it is not one that this version can use; the text says what to do.
    pub fn open(directory: &Path, options: SqliteOptions) -> Result<Self, Fault> {
        let lock = LockFile::take(directory)?;
        let path = directory.join(DATABASE);
        let connection = schema::open(&path, options)?;
        let lanes = Arc::new(Lanes::load(&connection).map_err(|e| schema::cannot_open(&path, e))?);
        let writer = Arc::new(Writer::start(connection, lock, options.group.max(1), Arc::clone(&lanes))?);
        Ok(Self { writer, lanes })
    }

    /// The queue of that name, without a bound.
    pub fn queue(&self, name: &str) -> SqliteQueue {
        SqliteQueue::new(Arc::clone(&self.writer), Arc::clone(&self.lanes), name, None)
    }

    /// The queue of that name. Publishing is refused as unavailable while a subscription has `bound` messages or more;
    /// one call's messages go in together.
    pub fn bounded_queue(&self, name: &str, bound: u64) -> SqliteQueue {
        SqliteQueue::new(Arc::clone(&self.writer), Arc::clone(&self.lanes), name, Some(bound))
    }

    /// The ledger.
    pub fn ledger(&self) -> SqliteLedger {
        SqliteLedger::new(Arc::clone(&self.writer))
    }

    /// Finishes what was asked for so far, closes the file and gives the directory free. Whatever is asked later,
    /// through any handle, is refused as unavailable; subscribers get the end of their queue.
    pub async fn close(&self) {
        self.writer.stop().await;
    }
}
