//! Google Cloud Storage, on a server that follows the documentation of its XML interface.

use std::io::Write as _;
use std::sync::Arc;

use async_trait::async_trait;
use futures::TryStreamExt as _;
use serde_json::{Value, json};
use stoq_api::FaultKind;
use stoq_api::fetch::{FetchedBytes, ObjectName};
use stoq_api::store::Store;
use stoq_testkit::services::GcsServer;
use stoq_testkit::{StoreHarness, store_suite};
use tempfile::NamedTempFile;

use crate::{is_misconfigured, key, open, race, try_open, with};

/// A service account whose requests bear an empty token, as local servers want it.
pub(crate) fn credentials() -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    let account = json!({ "client_email": "", "private_key": "", "private_key_id": "", "disable_oauth": true });
    file.write_all(account.to_string().as_bytes()).unwrap();
    file
}

fn options(server: &GcsServer, credentials: &NamedTempFile) -> Value {
    json!({
        "bucket": "payloads",
        "endpoint": server.endpoint(),
        "credentials_file": credentials.path().to_str().unwrap(),
        "allow_http": true,
    })
}

struct Gcs {
    server: GcsServer,
    options: Value,
    below: &'static str,
}

#[async_trait]
impl StoreHarness for Gcs {
    async fn store(&mut self) -> Arc<dyn Store> {
        open("gcs", self.options.clone())
    }

    async fn kept(&mut self, name: &str) -> Option<Vec<u8>> {
        self.server.object("payloads", &format!("{}quarantine/{name}", self.below))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_its_promises() {
    let (server, credentials) = (GcsServer::start("payloads", None).await, credentials());
    let options = options(&server, &credentials);
    let mut harness = Gcs { server, options, below: "" };
    store_suite(&mut harness).await;
    assert_eq!(harness.server.unfinished(), 0, "uploads that failed were taken back");
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_its_promises_below_a_prefix() {
    let (server, credentials) = (GcsServer::start("payloads", None).await, credentials());
    let options = with(options(&server, &credentials), "prefix", "stoq");
    store_suite(&mut Gcs { server, options, below: "stoq/" }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_may_put_the_same_object_at_once() {
    let (server, credentials) = (GcsServer::start("payloads", None).await, credentials());
    race(open("gcs", options(&server, &credentials)), open("gcs", options(&server, &credentials))).await;
}

#[tokio::test]
async fn an_object_is_put_once() {
    let (server, credentials) = (GcsServer::start("payloads", None).await, credentials());
    let store = open("gcs", options(&server, &credentials));
    let name = key(b"x").path();
    store.put(&key(b"x"), &b"x".to_vec().into()).await.unwrap();
    let first = server.generation("payloads", &name).unwrap();
    store.put(&key(b"x"), &b"x".to_vec().into()).await.unwrap();
    assert_eq!(server.generation("payloads", &name), Some(first));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_was_replaced_is_read_as_it_is_now_and_said_to_differ() {
    let (server, credentials) = (GcsServer::start("payloads", None).await, credentials());
    let options = options(&server, &credentials);
    let store = open("gcs", options.clone());
    store.keep("x", &b"first".to_vec().into()).await.unwrap();
    let first = server.generation("payloads", "quarantine/x").unwrap().to_string();
    let buckets = stoq_stores::buckets("gcs", options.as_object().unwrap()).unwrap();
    let name = ObjectName { bucket: "payloads", key: "quarantine/x", version: Some(&first), etag: None };
    assert_eq!(buckets.get(name).await.unwrap().mismatch, None);
    store.keep("x", &b"second".to_vec().into()).await.unwrap();
    let fetching = buckets.get(name).await.unwrap();
    assert!(fetching.mismatch.is_some_and(|text| text.contains("not there any more")));
    let FetchedBytes::Stream(stream) = fetching.bytes else { panic!("not a stream") };
    assert_eq!(stream.try_collect::<Vec<_>>().await.unwrap().concat(), b"second");
    for (bucket, key, kind) in
        [("payloads", "quarantine/y", FaultKind::NotFound), ("elsewhere", "quarantine/x", FaultKind::Misconfigured)]
    {
        let fault = buckets.get(ObjectName { bucket, key, ..name }).await.err().unwrap();
        assert_eq!(fault.kind, kind, "{fault}");
    }
}

#[tokio::test]
async fn a_token_that_is_not_taken_is_for_a_person_to_mend() {
    let (server, credentials) = (GcsServer::start("payloads", Some("another")).await, credentials());
    is_misconfigured(&*open("gcs", options(&server, &credentials)), "check the credentials").await;
}

#[tokio::test]
async fn a_missing_bucket_is_for_a_person_to_mend() {
    let (server, credentials) = (GcsServer::start("payloads", None).await, credentials());
    let store = open("gcs", with(options(&server, &credentials), "bucket", "elsewhere"));
    is_misconfigured(&*store, "is not there").await;
}

#[tokio::test]
async fn a_key_file_that_cannot_be_used_is_refused() {
    let (server, credentials) = (GcsServer::start("payloads", None).await, credentials());
    let options = options(&server, &credentials);
    let gone = try_open("gcs", with(options.clone(), "credentials_file", "/not/there")).err().unwrap().0;
    assert!(gone.contains("`credentials_file` /not/there"), "{gone}");
    let other = NamedTempFile::new().unwrap();
    assert!(try_open("gcs", with(options, "credentials_file", other.path().to_str().unwrap())).is_err());
}
