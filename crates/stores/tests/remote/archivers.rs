//! Archivers in buckets, on the same servers.

use std::io::Write as _;
use std::sync::Arc;

use serde_json::{Value, json};
use stoq_api::plugin::Archiver;
use stoq_api::response::PayloadResults;
use stoq_api::{Content, FaultKind, PayloadId, RequestMeta, ScanId};
use stoq_testkit::NoQueues;
use stoq_testkit::services::{Azurite, GcsServer, VersityGw};

use crate::{gcs, s3, with};

fn build(name: &str, options: &Value) -> Arc<dyn Archiver> {
    let registered = stoq_stores::archivers::registry().into_iter().find(|r| r.info.name == name).unwrap();
    let options = options.as_object().unwrap();
    let known: Vec<&str> = registered.info.options.iter().map(|o| o.name).collect();
    assert!(options.keys().all(|option| known.contains(&option.as_str())), "{options:?}");
    (registered.build)(options, &NoQueues).unwrap()
}

fn results(n: u32) -> PayloadResults {
    let id = PayloadId::root(ScanId(uuid::Uuid::nil()), n);
    let text = json!({
        "size": 0, "payload_id": id, "payload_meta": {}, "plugins_run": {"workers": [], "archivers": []},
        "extracted_from": [], "extracted_by": [], "workers": {}, "archivers": {}, "sha256": null, "depth": 0,
        "runs": [], "not_run": [], "findings": []
    });
    serde_json::from_value(text).unwrap()
}

async fn keep(archiver: &dyn Archiver, content: &Content, n: u32) -> Value {
    archiver.archive(content, &results(n), &RequestMeta::default()).await.unwrap().unwrap().value()
}

/// What every archiver in a bucket does. `bucket` and `object` are its names for these, `configured` is the bucket.
async fn keeps_and_brings_back(name: &str, options: Value, bucket: &str, object: &str, configured: &str) {
    let archiver = build(name, &with(options.clone(), "prefix", "kept/here"));
    let small: Content = b"abc".to_vec().into();
    let said = keep(&*archiver, &small, 0).await;
    assert_eq!(said[bucket], configured);
    assert_eq!(said[object], "kept/here/a/9/9/9/3/a9993e364706816aba3e25717850c26c9cd0d89d");
    assert_eq!(keep(&*archiver, &small, 1).await, said, "the same content has the same name, and may be there");
    let (content, meta) = archiver.get(&said).await.unwrap();
    assert_eq!(content.to_bytes().unwrap(), "abc");
    assert_eq!(Value::Object(meta.extra_data), said);

    let mut file = tempfile::tempfile().unwrap();
    let large: Vec<u8> = (0_u32..3 << 20).flat_map(u32::to_le_bytes).collect();
    file.write_all(&large).unwrap();
    let large_content = Content::File { file: Arc::new(file), offset: 0, len: large.len() as u64 };
    let task = keep(&*archiver, &large_content, 2).await;
    assert!(archiver.get(&task).await.unwrap().0.to_bytes().unwrap() == large);

    let by_payload = build(name, &with(options.clone(), "use_sha", false));
    let task = keep(&*by_payload, &small, 3).await;
    assert_eq!(task[object], results(3).payload_id.to_string());
    keep(&*by_payload, &b"other".to_vec().into(), 3).await;
    let first = by_payload.get(&task).await.unwrap().0;
    assert_eq!(first.to_bytes().unwrap(), "abc", "the first of two that claim a name stays");

    let tight = build(name, &with(with(options, "prefix", "kept/here"), "max_size", 2));
    for (archiver, task, kind) in [
        (&tight, said.clone(), FaultKind::Refused),
        (&archiver, with(said.clone(), bucket, "another"), FaultKind::Refused),
        (&archiver, with(said.clone(), object, results(3).payload_id.to_string()), FaultKind::Refused),
        (&archiver, with(said.clone(), object, "kept/here/../../x"), FaultKind::Refused),
        (&archiver, with(said.clone(), object, "kept/hereafter"), FaultKind::Refused),
        (&archiver, with(said.clone(), object, ""), FaultKind::Refused),
        (&archiver, with(said.clone(), object, 7), FaultKind::Refused),
        (&archiver, json!("kept/here"), FaultKind::Refused),
        (&archiver, with(said.clone(), object, "kept/here/gone"), FaultKind::NotFound),
    ] {
        let fault = archiver.get(&task).await.err().unwrap_or_else(|| panic!("{task}"));
        assert_eq!(fault.kind, kind, "{task}: {fault}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s3() {
    let server = s3::start().await;
    let options = json!({
        "archive_bucket": "payloads", "endpoint": server.endpoint(), "allow_http": true,
        "access_key": VersityGw::ACCESS_KEY, "secret_key": VersityGw::SECRET_KEY,
    });
    let elsewhere = build("s3", &with(options.clone(), "archive_bucket", "gone"));
    let fault = elsewhere.get(&json!({ "bucket": "gone", "path": "x" })).await.err().unwrap();
    assert_eq!(fault.kind, FaultKind::Misconfigured, "no object is missing while the bucket is: {fault}");
    keeps_and_brings_back("s3", options, "bucket", "path", "payloads").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gcs() {
    let (server, credentials) = (GcsServer::start("payloads", None).await, gcs::credentials());
    let options = json!({
        "project_id": "blue", "archive_bucket": "payloads", "endpoint": server.endpoint(), "allow_http": true,
        "credentials_file": credentials.path().to_str().unwrap(),
    });
    let said = keep(&*build("gcs", &options), &b"abc".to_vec().into(), 0).await;
    assert_eq!(said["projectId"], "blue");
    let dated = build("gcs", &with(with(options.clone(), "use_sha", false), "use_datetime", true));
    let name = keep(&*dated, &b"abc".to_vec().into(), 9).await["objectId"].as_str().unwrap().to_owned();
    assert!(name.split('/').count() == 4 && name.ends_with(&results(9).payload_id.to_string()), "{name}");
    keeps_and_brings_back("gcs", options, "bucketId", "objectId", "payloads").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_blob() {
    let server = Azurite::start().await;
    server.make_container("stoq-archive").await;
    let text = format!(
        "DefaultEndpointsProtocol=http;AccountName={};AccountKey={};BlobEndpoint={};",
        Azurite::ACCOUNT,
        Azurite::KEY,
        server.endpoint()
    );
    let options = json!({ "conn_str": text, "allow_http": true });
    keeps_and_brings_back("azure_blob", options, "container_name", "blob_name", "stoq-archive").await;
}
