//! Payload stores in buckets, on real servers.
#![expect(clippy::unwrap_used, reason = "helper functions are test code, though they are not marked as such")]

#[path = "remote/archivers.rs"]
mod archivers;
#[path = "remote/azure.rs"]
mod azure;
#[path = "remote/faults.rs"]
mod faults;
#[path = "remote/gcs.rs"]
mod gcs;
#[path = "remote/s3.rs"]
mod s3;

use std::sync::Arc;

use futures::TryStreamExt as _;
use serde_json::{Map, Value};
use stoq_api::scanner::BuildError;
use stoq_api::store::{Store, StoreKey};
use stoq_api::{Fault, FaultKind, Sha256};

/// Opens a store of a kind as the binary does, with `options` over the kind's defaults.
fn try_open(kind: &str, options: Value) -> Result<Arc<dyn Store>, BuildError> {
    let registration = stoq_stores::registry().into_iter().find(|r| r.info.name == kind).unwrap();
    let Value::Object(options) = options else { panic!("options are a table") };
    let known: Vec<&str> = registration.info.options.iter().map(|o| o.name).collect();
    assert!(options.keys().all(|name| known.contains(&name.as_str())), "{options:?}");
    (registration.open)(&options)
}

fn open(kind: &str, options: Value) -> Arc<dyn Store> {
    try_open(kind, options).unwrap()
}

/// Some options with one changed.
fn with(mut options: Value, name: &str, value: impl Into<Value>) -> Value {
    let table: &mut Map<String, Value> = options.as_object_mut().unwrap();
    table.insert(name.to_owned(), value.into());
    options
}

fn key(content: &[u8]) -> StoreKey {
    StoreKey { day: 20260102, sha256: Sha256::of(content) }
}

async fn read(store: &dyn Store, key: &StoreKey) -> Result<Vec<u8>, Fault> {
    Ok(store.get(key).await?.try_collect::<Vec<_>>().await?.concat())
}

/// Every operation of a store says that a person has to mend something, and `text` says what.
async fn is_misconfigured(store: &dyn Store, text: &str) {
    let (small, large) = (b"small".to_vec(), vec![7; 9 << 20]);
    let failed = [
        ("put", store.put(&key(&small), &small.clone().into()).await.err()),
        ("put in parts", store.put(&key(&large), &large.clone().into()).await.err()),
        ("get", store.get(&key(&small)).await.err()),
        ("keep", store.keep("a", &small.into()).await.err()),
        ("days", store.days().await.err()),
        ("drop_day", store.drop_day(20260102).await.err()),
        ("check", store.check().await.err()),
    ];
    for (what, fault) in failed {
        let fault = fault.unwrap_or_else(|| panic!("{what} went well"));
        let said = stoq_api::fault::chain(&fault);
        assert_eq!(fault.kind, FaultKind::Misconfigured, "{what}: {said}");
        assert!(said.contains(text), "{what}: {said:?} does not say {text:?}");
    }
}

/// Clients that put the same object at once: each can read it whole when its own put is done.
async fn race(one: Arc<dyn Store>, other: Arc<dyn Store>) {
    for (round, size) in [100, 3 << 20, 9 << 20].into_iter().enumerate() {
        let bytes: Vec<u8> = std::iter::repeat_n(u8::try_from(round).unwrap(), size).collect();
        let key = key(&bytes);
        let put = async |store: &Arc<dyn Store>| {
            store.put(&key, &bytes.clone().into()).await.unwrap();
            assert!(read(&**store, &key).await.unwrap() == bytes);
        };
        futures::join!(put(&one), put(&other), put(&one), put(&other));
    }
}
