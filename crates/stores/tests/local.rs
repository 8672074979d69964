//! The store suite, on a directory.
#![expect(clippy::unwrap_used, reason = "harness functions are test code, though they are not marked as such")]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use stoq_api::store::Store;
use stoq_stores::{FileStore, FileStoreOptions};
use stoq_testkit::{StoreHarness, store_suite};
use tempfile::TempDir;

struct Directory {
    _parent: TempDir,
    root: PathBuf,
    options: FileStoreOptions,
}

impl Directory {
    fn new(fsync: bool) -> Self {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("made/on/opening");
        Self { _parent: parent, root, options: FileStoreOptions { fsync } }
    }
}

#[async_trait]
impl StoreHarness for Directory {
    async fn store(&mut self) -> Arc<dyn Store> {
        Arc::new(FileStore::open(&self.root, self.options).unwrap())
    }

    async fn kept(&mut self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.root.join("quarantine").join(name)).ok()
    }
}

#[tokio::test]
async fn with_fsync() {
    store_suite(&mut Directory::new(true)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_fsync() {
    store_suite(&mut Directory::new(false)).await;
}
