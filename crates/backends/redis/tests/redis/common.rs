//! Options, and a payload store to look into.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};
use stoq_api::backend::Options;
use stoq_api::ledger::Ledger;
use stoq_api::store::{ByteStream, Store, StoreKey};
use stoq_api::{Content, Fault, FaultKind};

/// Options of one server, or of a cluster's nodes.
pub(crate) fn options(urls: &[String]) -> Options {
    with(json!({ "urls": urls }))
}

/// These options.
pub(crate) fn with(options: Value) -> Options {
    let Value::Object(options) = options else { panic!("options are an object") };
    options
}

/// A ledger over `store`.
pub(crate) fn ledger_over(options: &Options, store: Arc<dyn Store>) -> Arc<dyn Ledger> {
    (stoq_redis::registration().open)(options, store).unwrap()
}

/// Objects in memory.
#[derive(Default)]
pub(crate) struct Objects(pub(crate) Mutex<BTreeMap<StoreKey, bytes::Bytes>>);

#[async_trait]
impl Store for Objects {
    async fn put(&self, key: &StoreKey, content: &Content) -> Result<(), Fault> {
        self.0.lock().entry(*key).or_insert(content.to_bytes().unwrap());
        Ok(())
    }

    async fn get(&self, key: &StoreKey) -> Result<ByteStream, Fault> {
        let object = self.0.lock().get(key).cloned();
        let object = object.ok_or_else(|| Fault::new(FaultKind::NotFound, "no such object"))?;
        Ok(Box::pin(futures::stream::iter([Ok(object)])))
    }

    async fn keep(&self, _name: &str, _content: &Content) -> Result<(), Fault> {
        Err(Fault::new(FaultKind::Refused, "a ledger keeps nothing for people"))
    }

    async fn days(&self) -> Result<Vec<u32>, Fault> {
        Ok(self.0.lock().keys().map(|key| key.day).collect())
    }

    async fn drop_day(&self, day: u32) -> Result<(), Fault> {
        self.0.lock().retain(|key, _| key.day != day);
        Ok(())
    }

    async fn check(&self) -> Result<(), Fault> {
        Ok(())
    }
}
