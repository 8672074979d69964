//! Responses in buckets, on real servers.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on is to stop")]

use std::io::Read as _;
use std::io::Write as _;
use std::sync::Arc;

use serde_json::{Value, json};
use stoq_api::FaultKind;
use stoq_api::plugin::{Connector, Item, Verdict};
use stoq_api::queue::PartState;
use stoq_api::scanner::BuildError;
use stoq_connectors::Context;
use stoq_testkit::NoQueues;
use stoq_testkit::services::{Azurite, GcsServer, VersityGw};
use uuid::Uuid;

fn build(kind: &str, options: &Value) -> Result<Arc<dyn Connector>, BuildError> {
    let registered = stoq_connectors::registry().into_iter().find(|r| r.info.name == kind).unwrap();
    let options = options.as_object().unwrap();
    let known: Vec<&str> = registered.info.options.iter().map(|o| o.name).collect();
    assert!(options.keys().all(|option| known.contains(&option.as_str())), "{options:?}: {known:?}");
    (registered.build)(options, &Context { name: "out".to_owned(), queues: Arc::new(NoQueues) })
}

fn with(options: &Value, more: Value) -> Value {
    let mut all = options.as_object().unwrap().clone();
    all.extend(more.as_object().unwrap().clone());
    Value::Object(all)
}

fn id(n: u128) -> String {
    Uuid::from_u128(n).to_string()
}

fn item(n: u128, day: u32, padding: usize) -> Item {
    let payload = json!({
        "size": 3, "payload_id": Uuid::from_u128(n + 1000), "payload_meta": { "extra_data": {} },
        "plugins_run": { "workers": [], "archivers": [] }, "extracted_from": [], "extracted_by": [], "workers": {},
        "archivers": {}, "sha256": null, "depth": 0, "runs": [], "not_run": [], "findings": []
    });
    let text = json!({
        "results": [payload.clone()], "request_meta": { "archive_payloads": true, "source": "../web", "extra_data": {} },
        "errors": [], "time": format!("2026-11-{day:02}T05:06:07.000001"),
        "decorators": { "padding": "x".repeat(padding) }, "scan_id": Uuid::from_u128(n), "complete": true,
        "findings": [], "engine": { "version": "0", "rulesets": {} }, "tenant": "acme"
    });
    Item { id: id(n), json: text.to_string().into() }
}

fn line(item: &Item) -> Vec<u8> {
    [&item.json[..], b"\n"].concat()
}

#[expect(clippy::disallowed_types, reason = "what is decompressed was made by this test")]
fn unpacked(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).unwrap();
    out
}

/// What a connector in a bucket does, whichever it is. `object` reads one of the bucket.
async fn delivers(kind: &str, options: Value, missing: Value, object: impl AsyncFn(&str) -> Option<Vec<u8>>) {
    let one = build(kind, &with(&options, json!({ "prefix": "kept" }))).unwrap();
    one.check().await.unwrap();
    let batch = [item(1, 4, 0), item(2, 5, 9 << 20), item(1, 4, 0), Item { id: id(3), json: "{}".into() }];
    for _ in 0..2 {
        let verdicts = one.deliver(&batch).await.unwrap();
        assert!(
            matches!(&verdicts[..], [Verdict::Delivered, Verdict::Delivered, Verdict::Delivered, Verdict::Rejected(_)]),
            "{verdicts:?}"
        );
        assert_eq!(object(&format!("kept/dt=2026-11-04/{}.json", id(1))).await.unwrap(), line(&batch[0]));
        assert!(object(&format!("kept/dt=2026-11-05/{}.json", id(2))).await.unwrap() == line(&batch[1]));
    }
    // The first document of a name stays.
    let other = Item { json: item(1, 4, 7).json, ..item(1, 4, 0) };
    assert_eq!(one.deliver(&[other]).await.unwrap(), [Verdict::Delivered]);
    assert_eq!(object(&format!("kept/dt=2026-11-04/{}.json", id(1))).await.unwrap(), line(&batch[0]));

    let batches = json!({ "per": "batch", "partition": "{tenant}/{source}/{date}/{hour}/", "gzip": true });
    let several = build(kind, &with(&options, batches)).unwrap();
    let (a, b) = (item(4, 4, 0), item(5, 4, 0));
    let namespace = Uuid::from_u128(0x7a54_7c6f_2a5e_4a77_9d0c_1f6e_52b8_31c4);
    let name = Uuid::new_v5(&namespace, format!("{}\n{}", id(4), id(5)).as_bytes());
    for batch in [[a.clone(), b.clone()], [b.clone(), a.clone()]] {
        assert_eq!(several.deliver(&batch).await.unwrap(), [Verdict::Delivered, Verdict::Delivered]);
        let kept = object(&format!("acme/_.._web/2026-11-04/05/{name}.jsonl.gz")).await.unwrap();
        assert_eq!(unpacked(&kept), [line(&a), line(&b)].concat(), "in whichever order they come");
    }

    let payloads = build(kind, &with(&options, json!({ "model": "payload", "partition": "" }))).unwrap();
    assert_eq!(payloads.deliver(&[item(6, 4, 0)]).await.unwrap(), [Verdict::Delivered]);
    let kept = object(&format!("{}.jsonl", id(6))).await.unwrap();
    assert!(kept.ends_with(b"\n") && serde_json::from_slice::<Value>(&kept).is_ok());

    let gone = build(kind, &with(&options, missing)).unwrap();
    assert_eq!(gone.check().await.unwrap_err().kind, FaultKind::Misconfigured);
    // Buckets are somebody else's: setup says what is there, and makes none.
    for make in [false, true] {
        assert_eq!(one.setup(make).await.unwrap()[0].state, PartState::Present);
        let parts = gone.setup(make).await.unwrap();
        assert!(matches!(&parts[0].state, PartState::Different(why) if why.contains("owner")), "{parts:?}");
    }
    assert_eq!(gone.deliver(&[item(7, 4, 0)]).await.unwrap_err().kind, FaultKind::Misconfigured);
}

#[tokio::test(flavor = "multi_thread")]
async fn s3() {
    let mut server = VersityGw::start().await;
    server.make_bucket("results");
    let options = json!({
        "connector_bucket": "results", "endpoint": server.endpoint(), "allow_http": true,
        "access_key": VersityGw::ACCESS_KEY, "secret_key": VersityGw::SECRET_KEY,
    });
    let object = async |name: &str| std::fs::read(server.bucket("results").join(name)).ok();
    delivers("s3", options.clone(), json!({ "connector_bucket": "gone" }), object).await;
    let wrong = build("s3", &with(&options, json!({ "secret_key": "another" }))).unwrap();
    assert_eq!(wrong.deliver(&[item(8, 4, 0)]).await.unwrap_err().kind, FaultKind::Misconfigured);

    let out = build("s3", &options).unwrap();
    server.service.kill();
    let verdicts = out.deliver(&[item(9, 4, 0)]).await.unwrap();
    assert!(matches!(&verdicts[..], [Verdict::Retry(_)]), "{verdicts:?}");
    server.service.start().await;
    assert_eq!(out.deliver(&[item(9, 4, 0)]).await.unwrap(), [Verdict::Delivered]);
}

#[tokio::test(flavor = "multi_thread")]
async fn gcs() {
    let server = GcsServer::start("results", None).await;
    let mut credentials = tempfile::NamedTempFile::new().unwrap();
    let account = json!({ "client_email": "", "private_key": "", "private_key_id": "", "disable_oauth": true });
    credentials.write_all(account.to_string().as_bytes()).unwrap();
    let options = json!({
        "connector_bucket": "results", "endpoint": server.endpoint(), "allow_http": true,
        "credentials_file": credentials.path().to_str().unwrap(),
    });
    let object = async |name: &str| server.object("results", name);
    delivers("gcs", options, json!({ "connector_bucket": "gone" }), object).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_blob() {
    let server = Azurite::start().await;
    server.make_container("stoq-results").await;
    let text = format!(
        "DefaultEndpointsProtocol=http;AccountName={};AccountKey={};BlobEndpoint={};",
        Azurite::ACCOUNT,
        Azurite::KEY,
        server.endpoint()
    );
    let options = json!({ "conn_str": text, "allow_http": true });
    let object = async |name: &str| server.blob("stoq-results", name).await;
    delivers("azure_blob", options.clone(), json!({ "results_container": "gone" }), object).await;
    let error = build("azure_blob", &with(&options, json!({ "account": "other" }))).err().unwrap().0;
    assert!(error.contains("`conn_str` says"), "{error}");
}

#[test]
fn options_that_cannot_work_are_refused() {
    let good = json!({ "connector_bucket": "b", "access_key": "a", "secret_key": "s" });
    build("s3", &good).unwrap();
    for (more, said) in [
        (json!({ "connector_bucket": "" }), "`connector_bucket` is missing"),
        (json!({ "secret_key": "" }), "is missing for"),
        (json!({ "partition": "../{date}/" }), "`partition`"),
        (json!({ "partition": "{seq}/" }), "no meaning"),
        (json!({ "per": "day" }), "day"),
        (json!({ "model": "xml" }), "xml"),
    ] {
        let error = build("s3", &with(&good, more)).err().unwrap().0;
        assert!(error.contains(said), "{error}");
    }
}
