//! The conformance suites, on a file.
#![expect(clippy::unwrap_used, reason = "harness functions are test code, though they are not marked as such")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use stoq_api::ledger::Ledger;
use stoq_api::queue::Queue;
use stoq_sqlite::{Sqlite, SqliteOptions};
use stoq_testkit::{LedgerHarness, QueueHarness, ledger_suite, queue_suite};
use tempfile::TempDir;

struct Opened {
    directory: TempDir,
    sqlite: Sqlite,
}

impl Opened {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let sqlite = Sqlite::open(directory.path(), SqliteOptions::default()).unwrap();
        Self { directory, sqlite }
    }

    async fn again(&mut self) {
        self.sqlite.close().await;
        self.sqlite = Sqlite::open(self.directory.path(), SqliteOptions::default()).unwrap();
    }
}

#[async_trait]
impl QueueHarness for Opened {
    async fn queue(&mut self, name: &str) -> Arc<dyn Queue> {
        Arc::new(self.sqlite.queue(name))
    }

    async fn reopen(&mut self) -> bool {
        self.again().await;
        true
    }

    fn quiet(&self) -> Duration {
        Duration::from_millis(100)
    }
}

#[async_trait]
impl LedgerHarness for Opened {
    async fn ledger(&mut self) -> Arc<dyn Ledger> {
        Arc::new(self.sqlite.ledger())
    }

    async fn reopen(&mut self) -> bool {
        self.again().await;
        true
    }
}

#[tokio::test]
async fn queue() {
    queue_suite(&mut Opened::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn queue_on_many_threads() {
    queue_suite(&mut Opened::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ledger() {
    ledger_suite(&mut Opened::new()).await;
}
