//! A large payload goes to a store and back without ever being in memory. Alone in its process, whose memory it measures.
#![expect(clippy::unwrap_used, reason = "helper functions are test code, though they are not marked as such")]

use std::fs;
use std::io::Write as _;
use std::sync::Arc;

use futures::TryStreamExt as _;
use serde_json::json;
use stoq_api::Content;
use stoq_api::digest::Sha256Builder;
use stoq_api::store::StoreKey;
use stoq_testkit::services::VersityGw;

const SIZE: u64 = 256 << 20;
/// How much memory it may take on top of what the process has before, in KiB.
const ALLOWED: u64 = 64 << 10;

/// A figure of this process in KiB.
fn memory(figure: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(figure)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn is_streamed() {
    let server = VersityGw::start().await;
    server.make_bucket("payloads");
    let options = json!({
        "bucket": "payloads",
        "endpoint": server.endpoint(),
        "access_key_id": VersityGw::ACCESS_KEY,
        "secret_access_key": VersityGw::SECRET_KEY,
        "allow_http": true,
    });
    let registration = stoq_stores::registry().into_iter().find(|r| r.info.name == "s3").unwrap();
    let store = (registration.open)(options.as_object().unwrap()).unwrap();

    let mut file = tempfile::tempfile().unwrap();
    let mut digest = Sha256Builder::default();
    let mut block = vec![0_u8; 1 << 20];
    for n in 0..SIZE >> 20 {
        block[..8].copy_from_slice(&n.to_le_bytes());
        digest.update(&block);
        file.write_all(&block).unwrap();
    }
    let key = StoreKey { day: 20260102, sha256: digest.finish() };
    let content = Content::File { file: Arc::new(file), offset: 0, len: SIZE };

    let before = memory("VmRSS");
    store.put(&key, &content).await.unwrap();
    let mut stream = store.get(&key).await.unwrap();
    let mut digest = Sha256Builder::default();
    while let Some(chunk) = stream.try_next().await.unwrap() {
        digest.update(&chunk);
    }
    assert_eq!(digest.finish(), key.sha256);
    let most = memory("VmHWM");
    assert!(most < before + ALLOWED, "{most} KiB at most, {before} KiB before");
    let there = server.bucket("payloads").join(key.path());
    assert_eq!(fs::metadata(&there).unwrap().len(), SIZE);
}
