//! S3, on a server that checks signatures.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use futures::TryStreamExt as _;
use serde_json::{Value, json};
use stoq_api::FaultKind;
use stoq_api::fetch::{FetchedBytes, ObjectName};
use stoq_api::store::Store;
use stoq_testkit::services::VersityGw;
use stoq_testkit::{StoreHarness, store_suite};

use crate::{is_misconfigured, key, open, race, read, try_open, with};

pub(crate) fn options(server: &VersityGw) -> Value {
    json!({
        "bucket": "payloads",
        "endpoint": server.endpoint(),
        "access_key_id": VersityGw::ACCESS_KEY,
        "secret_access_key": VersityGw::SECRET_KEY,
        "allow_http": true,
    })
}

/// A server with the bucket of [`options`].
pub(crate) async fn start() -> VersityGw {
    let server = VersityGw::start().await;
    server.make_bucket("payloads");
    server
}

struct S3 {
    server: VersityGw,
    options: Value,
    below: &'static str,
}

#[async_trait]
impl StoreHarness for S3 {
    async fn store(&mut self) -> Arc<dyn Store> {
        open("s3", self.options.clone())
    }

    async fn kept(&mut self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.server.bucket("payloads").join(self.below).join("quarantine").join(name)).ok()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_its_promises() {
    let server = start().await;
    let options = options(&server);
    store_suite(&mut S3 { server, options, below: "" }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_its_promises_below_a_prefix_and_without_conditions() {
    let server = start().await;
    let elsewhere = server.bucket("payloads").join("20010101/other");
    fs::create_dir_all(elsewhere.parent().unwrap()).unwrap();
    fs::write(&elsewhere, "not ours").unwrap();
    let options = with(with(options(&server), "prefix", "a/stoq/"), "conditional_put", false);
    let mut harness = S3 { server, options, below: "a/stoq" };
    store_suite(&mut harness).await;
    assert_eq!(fs::read(elsewhere).unwrap(), b"not ours", "nothing outside of the prefix is touched");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_may_put_the_same_object_at_once() {
    let server = start().await;
    race(open("s3", options(&server)), open("s3", options(&server))).await;
}

#[tokio::test]
async fn a_wrong_key_is_for_a_person_to_mend() {
    let server = start().await;
    let store = open("s3", with(options(&server), "secret_access_key", "another"));
    is_misconfigured(&*store, "check the credentials").await;
    let store = open("s3", with(options(&server), "access_key_id", "nobody"));
    is_misconfigured(&*store, "check the credentials").await;
}

#[tokio::test]
async fn a_missing_bucket_is_for_a_person_to_mend() {
    let server = start().await;
    let store = open("s3", with(options(&server), "bucket", "elsewhere"));
    is_misconfigured(&*store, "is not there").await;
    server.make_bucket("elsewhere");
    store.put(&key(b"x"), &b"x".to_vec().into()).await.unwrap();
    assert_eq!(read(&*store, &key(b"x")).await.unwrap(), b"x", "and works once it is there");
}

#[tokio::test]
async fn an_endpoint_without_tls_is_for_a_person_to_mend() {
    let server = start().await;
    let store = open("s3", with(options(&server), "endpoint", server.endpoint().replace("http:", "https:")));
    is_misconfigured(&*store, "no TLS with it").await;
}

#[tokio::test]
async fn objects_are_files_of_their_day() {
    let server = start().await;
    let store = open("s3", options(&server));
    store.put(&key(b"abc"), &b"abc".to_vec().into()).await.unwrap();
    let path = server.bucket("payloads").join(key(b"abc").path());
    assert!(path.starts_with(server.bucket("payloads").join(Path::new("20260102/ba"))), "{path:?}");
    assert_eq!(fs::read(path).unwrap(), b"abc");
}

#[test]
fn options_that_cannot_work_are_refused() {
    let good = json!({ "bucket": "b", "access_key_id": "a", "secret_access_key": "s" });
    try_open("s3", good.clone()).ok().unwrap();
    let secret = tempfile::NamedTempFile::new().unwrap();
    let path = secret.path().to_str().unwrap();
    for (name, value, said) in [
        ("bucket", "", "`bucket` is missing"),
        ("access_key_id", "", "`access_key_id` is missing"),
        ("secret_access_key", "", "`secret_access_key` is missing"),
        ("endpoint", "http://minio:9000", "set allow_http = true"),
        ("endpoint", "minio:9000", "must begin with https://"),
        ("endpoint", "https://user:pw@minio:9000", "no place for credentials"),
        ("secret_access_key_file", path, "both set"),
        ("session_token_file", path, "is empty"),
        ("session_token_file", "/not/there", "/not/there"),
    ] {
        let error = try_open("s3", with(good.clone(), name, value)).err().unwrap_or_else(|| panic!("{name}")).0;
        assert!(error.contains(said), "{name}: {error:?} does not say {said:?}");
        assert!(!error.contains("user:pw"), "{error}");
    }
    fs::write(path, "from a file\n").unwrap();
    let options = json!({ "bucket": "b", "access_key_id": "a", "secret_access_key_file": path });
    try_open("s3", options).ok().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_other_buckets_are_read_by_name_and_compared_with_what_is_said_of_them() {
    let server = start().await;
    server.make_bucket("carved");
    let options = options(&server);
    open("s3", with(options.clone(), "bucket", "carved")).keep("sample", &b"carved".to_vec().into()).await.unwrap();
    let buckets = stoq_stores::buckets("s3", options.as_object().unwrap()).unwrap();
    // MD5 of the content, as S3 makes entity tags of what is put at once.
    let right = "6170f5f402a3e0e7a00a1deea51a2405";
    let name = |key, etag| ObjectName { bucket: "carved", key, version: None, etag };
    for (etag, differs) in [(None, false), (Some(right), false), (Some("0123"), true)] {
        let fetching = buckets.get(name("quarantine/sample", etag)).await.unwrap();
        assert_eq!((fetching.size, fetching.mismatch.is_some()), (Some(6), differs), "{:?}", fetching.mismatch);
        let FetchedBytes::Stream(stream) = fetching.bytes else { panic!("not a stream") };
        assert_eq!(stream.try_collect::<Vec<_>>().await.unwrap().concat(), b"carved");
    }
    for (key, kind) in [("gone", FaultKind::NotFound), ("a/../b", FaultKind::Refused), ("a//b", FaultKind::Refused)] {
        assert_eq!(buckets.get(name(key, None)).await.err().unwrap().kind, kind, "{key}");
    }
    let wrong = stoq_stores::buckets("file", options.as_object().unwrap()).err().unwrap().to_string();
    assert!(wrong.contains("holds no buckets"), "{wrong}");
}
