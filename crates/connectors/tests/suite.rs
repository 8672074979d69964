//! The connector suite over sinks that need no server: files, standard output, memory.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on is to stop")]

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use stoq_api::plugin::{Connector, Item, Verdict};
use stoq_api::{Fault, FaultKind};
use stoq_connectors::Context;
use stoq_connectors::stdout::Lines;
use stoq_testkit::NoQueues;
use stoq_testkit::connector::{ConnectorHarness, Promise, connector_suite, response};

struct Files {
    dir: tempfile::TempDir,
}

#[async_trait]
impl ConnectorHarness for Files {
    fn promise(&self) -> Promise {
        Promise::Once
    }

    async fn connector(&mut self) -> Arc<dyn Connector> {
        let registration = stoq_connectors::registry().into_iter().find(|r| r.info.name == "filedir").unwrap();
        let context = Context { name: "out".to_owned(), queues: Arc::new(NoQueues) };
        let options = serde_json::json!({ "results_dir": self.dir.path() });
        (registration.build)(options.as_object().unwrap(), &context).unwrap()
    }

    async fn documents(&mut self) -> BTreeMap<String, usize> {
        let mut documents = BTreeMap::new();
        for entry in std::fs::read_dir(self.dir.path()).unwrap() {
            *documents.entry(entry.unwrap().file_name().into_string().unwrap()).or_default() += 1;
        }
        documents
    }

    fn refused(&self) -> Option<Item> {
        Some(Item { id: "../../etc/passwd".to_owned(), ..response() })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files() {
    connector_suite(&mut Files { dir: tempfile::tempdir().unwrap() }).await;
}

/// A pipe that can be full.
#[derive(Clone, Default)]
struct Pipe {
    bytes: Arc<Mutex<Vec<u8>>>,
    full: Arc<AtomicBool>,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.full.load(Ordering::SeqCst) {
            return Err(io::Error::other("no space left"));
        }
        self.bytes.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[async_trait]
impl ConnectorHarness for Pipe {
    fn promise(&self) -> Promise {
        Promise::AtLeastOnce
    }

    async fn connector(&mut self) -> Arc<dyn Connector> {
        Arc::new(Lines::new(self.clone(), true))
    }

    async fn documents(&mut self) -> BTreeMap<String, usize> {
        let bytes = self.bytes.lock().clone();
        let mut documents = BTreeMap::new();
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let response: serde_json::Value = serde_json::from_slice(line).unwrap();
            *documents.entry(response["scan_id"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        documents
    }

    fn refused(&self) -> Option<Item> {
        Some(Item { json: b"\xff\xfe".as_slice().into(), ..response() })
    }

    async fn away(&mut self, away: bool) -> bool {
        self.full.store(away, Ordering::SeqCst);
        true
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_output() {
    connector_suite(&mut Pipe::default()).await;
}

/// The plainest sink that keeps the contract.
#[derive(Clone, Default)]
struct Memory {
    documents: Arc<Mutex<BTreeMap<String, bytes::Bytes>>>,
    away: Arc<AtomicBool>,
}

impl Memory {
    fn there(&self) -> Result<(), Fault> {
        if self.away.load(Ordering::SeqCst) { Err(Fault::new(FaultKind::Unavailable, "away")) } else { Ok(()) }
    }
}

#[async_trait]
impl Connector for Memory {
    async fn deliver(&self, batch: &[Item]) -> Result<Vec<Verdict>, Fault> {
        self.there()?;
        let take = |item: &Item| {
            if item.id.is_empty() {
                return Verdict::Rejected("a document needs an id".to_owned());
            }
            self.documents.lock().entry(item.id.clone()).or_insert_with(|| item.json.clone());
            Verdict::Delivered
        };
        Ok(batch.iter().map(take).collect())
    }

    async fn check(&self) -> Result<(), Fault> {
        self.there()
    }
}

#[async_trait]
impl ConnectorHarness for Memory {
    fn promise(&self) -> Promise {
        Promise::Once
    }

    async fn connector(&mut self) -> Arc<dyn Connector> {
        Arc::new(self.clone())
    }

    async fn documents(&mut self) -> BTreeMap<String, usize> {
        self.documents.lock().keys().map(|id| (id.clone(), 1)).collect()
    }

    fn refused(&self) -> Option<Item> {
        Some(Item { id: String::new(), ..response() })
    }

    async fn away(&mut self, away: bool) -> bool {
        self.away.store(away, Ordering::SeqCst);
        true
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory() {
    connector_suite(&mut Memory::default()).await;
}
