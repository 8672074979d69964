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
    shelf: Mutex<BTreeMap<String, Bytes>>,
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

    async fn shelve(&self, name: &str, content: &Content) -> Result<(), Fault> {
        let area = name.split('/').next().unwrap_or_default();
        let is_day = area.len() == 8 && area.bytes().all(|b| b.is_ascii_digit());
        if is_day || area == "quarantine" || name.split('/').any(|part| part.is_empty() || part.starts_with('.')) {
            return Err(Fault::new(FaultKind::Refused, format!("cannot put {name:?} on the shelf")));
        }
        let bytes = load(content).await?;
        self.shelf.lock().insert(name.to_owned(), bytes);
        Ok(())
    }

    async fn shelved(&self, name: &str) -> Result<ByteStream, Fault> {
        let bytes = self.shelf.lock().get(name).cloned();
        let bytes = bytes.ok_or_else(|| Fault::new(FaultKind::NotFound, format!("{name} is not on the shelf")))?;
        Ok(stream::iter([Ok(bytes)]).boxed())
    }

    async fn shelf(&self, area: &str, most: usize) -> Result<Vec<String>, Fault> {
        let below = format!("{area}/");
        let shelf = self.shelf.lock();
        let names = shelf.range(below.clone()..).map(|(name, _)| name).take_while(|name| name.starts_with(&below));
        Ok(names.take(most).cloned().collect())
    }

    async fn unshelve(&self, name: &str) -> Result<(), Fault> {
        self.shelf.lock().remove(name);
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
