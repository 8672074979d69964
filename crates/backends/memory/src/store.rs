//! A store for small amounts: everything in one map.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use parking_lot::Mutex;
use stoq_api::store::{ByteStream, Store, StoreKey};
use stoq_api::{Content, Fault, FaultKind};

/// Keeps objects in memory.
#[derive(Default)]
pub struct MemoryStore {
    objects: Mutex<BTreeMap<StoreKey, Bytes>>,
    kept: Mutex<HashMap<String, Bytes>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// What was kept under that free name.
    pub fn kept(&self, name: &str) -> Option<Bytes> {
        self.kept.lock().get(name).cloned()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn put(&self, key: &StoreKey, content: &Content) -> Result<(), Fault> {
        if self.objects.lock().contains_key(key) {
            return Ok(());
        }
        let bytes = load(content).await?;
        self.objects.lock().entry(*key).or_insert(bytes);
        Ok(())
    }

    async fn get(&self, key: &StoreKey) -> Result<ByteStream, Fault> {
        let bytes = self.objects.lock().get(key).cloned();
        let bytes = bytes.ok_or_else(|| Fault::new(FaultKind::NotFound, format!("{} is not in memory", key.path())))?;
        Ok(stream::iter([Ok(bytes)]).boxed())
    }

    async fn keep(&self, name: &str, content: &Content) -> Result<(), Fault> {
        let bytes = load(content).await?;
        self.kept.lock().insert(name.to_owned(), bytes);
        Ok(())
    }

    async fn days(&self) -> Result<Vec<u32>, Fault> {
        let mut days: Vec<u32> = self.objects.lock().keys().map(|key| key.day).collect();
        days.dedup();
        Ok(days)
    }

    async fn drop_day(&self, day: u32) -> Result<(), Fault> {
        self.objects.lock().retain(|key, _| key.day != day);
        Ok(())
    }

    async fn check(&self) -> Result<(), Fault> {
        Ok(())
    }
}

/// The content's bytes; a file is read beside the runtime.
async fn load(content: &Content) -> Result<Bytes, Fault> {
    if let Content::Bytes(bytes) = content {
        return Ok(bytes.clone());
    }
    let content = content.clone();
    let read = tokio::task::spawn_blocking(move || content.to_bytes())
        .await
        .map_err(|e| Fault::because(FaultKind::Unavailable, "cannot read content to store it", e))?;
    read.map_err(|e| Fault::because(FaultKind::Unavailable, "cannot read content to store it", e))
}
