//! Servers that are away, busy, silent or killed: what passes by itself is said to, and nothing is left in halves.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::TryStreamExt as _;
use stoq_api::store::{Store, StoreKey};
use stoq_api::{FaultKind, Sha256};
use stoq_testkit::services::Proxy;
use stoq_testkit::wait::{must_end, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::s3::{options, start};
use crate::{key, open, read, with};

/// Every operation says that the store is away for now.
async fn is_away(store: &dyn Store) {
    let bytes = vec![7; 9 << 20];
    let failed = [
        ("put", store.put(&key(b"a"), &b"a".to_vec().into()).await.err()),
        ("put in parts", store.put(&key(&bytes), &bytes.clone().into()).await.err()),
        ("get", read(store, &key(b"a")).await.err()),
        ("keep", store.keep("a", &b"a".to_vec().into()).await.err()),
        ("days", store.days().await.err()),
        ("drop_day", store.drop_day(20260102).await.err()),
        ("check", store.check().await.err()),
    ];
    for (what, fault) in failed {
        let fault = fault.unwrap_or_else(|| panic!("{what} went well"));
        assert_eq!(fault.kind, FaultKind::Unavailable, "{what}: {}", stoq_api::fault::chain(&fault));
    }
}

async fn works(store: &dyn Store) {
    let bytes = b"after all".to_vec();
    store.check().await.unwrap();
    store.put(&key(&bytes), &bytes.clone().into()).await.unwrap();
    assert_eq!(read(store, &key(&bytes)).await.unwrap(), bytes);
    assert_eq!(store.days().await.unwrap(), [20260102]);
}

/// Answers every request with 503, as a busy store does, and counts them.
async fn busy(listener: TcpListener, asked: Arc<AtomicUsize>) {
    const ANSWER: &[u8] = b"HTTP/1.1 503 Slow Down\r\ncontent-length: 37\r\nconnection: close\r\n\r\n\
        <Error><Code>SlowDown</Code>\r\n</Error>";
    let mut open = JoinSet::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        asked.fetch_add(1, Ordering::Relaxed);
        open.spawn(async move {
            let mut buffer = vec![0; 64 << 10];
            let _gone = stream.read(&mut buffer).await;
            let _gone = stream.write_all(ANSWER).await;
            // Closing while more arrives would reset the connection before the answer is read.
            while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_store_passes_by_itself() {
    let mut server = start().await;
    let store = open("s3", options(&server));
    works(&*store).await;
    server.service.kill();
    let listener = TcpListener::bind(("127.0.0.1", server.service.port(0))).await.unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let busy = tokio::spawn(busy(listener, Arc::clone(&asked)));
    let fault = must_end("a put", store.put(&key(b"a"), &b"a".to_vec().into())).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unavailable, "{fault}");
    let tries = asked.load(Ordering::Relaxed);
    assert!((2..=5).contains(&tries), "the client tried {tries} times before it left patience to others");
    must_end("all operations", is_away(&*store)).await;
    busy.abort();
    assert!(busy.await.unwrap_err().is_cancelled());
    server.service.start().await;
    works(&*store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_down_passes_by_itself() {
    let mut server = start().await;
    let store = open("s3", options(&server));
    works(&*store).await;
    server.service.kill();
    must_end("all operations", is_away(&*store)).await;
    server.service.start().await;
    works(&*store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_store_passes_by_itself() {
    let server = start().await;
    let proxy = Proxy::start(server.service.port(0)).await;
    let through = with(options(&server), "endpoint", format!("http://{}", proxy.address()));
    let store = open("s3", with(through, "timeout", 1.0));
    works(&*store).await;
    proxy.stall();
    let fault = must_end("a put", store.put(&key(b"a"), &b"a".to_vec().into())).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unavailable, "{fault}");
    must_end("a check", async { assert_eq!(store.check().await.unwrap_err().kind, FaultKind::Unavailable) }).await;
    proxy.heal();
    works(&*store).await;
    proxy.cut();
    must_end("all operations", is_away(&*store)).await;
    proxy.heal();
    works(&*store).await;
}

/// All files of a bucket under names of objects.
fn objects(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => objects(&path, found),
            false => found.push(path),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_in_the_middle_leaves_whole_objects() {
    let mut server = start().await;
    let store = open("s3", options(&server));
    let mut told: Vec<StoreKey> = Vec::new();
    for round in 0_usize..4 {
        // Small and large ones are on their way when it dies.
        let mut puts = JoinSet::new();
        let done = Arc::new(AtomicUsize::new(0));
        for n in 0_usize..8 {
            let size = [300_000, 9 << 20][n % 2];
            let bytes: Vec<u8> = format!("{round} {n} ").into_bytes().into_iter().cycle().take(size).collect();
            let (store, done) = (Arc::clone(&store), Arc::clone(&done));
            puts.spawn(async move {
                let key = key(&bytes);
                let put = store.put(&key, &bytes.into()).await;
                done.fetch_add(1, Ordering::Relaxed);
                put.map(|()| key).map_err(|fault| assert_eq!(fault.kind, FaultKind::Unavailable, "{fault}"))
            });
        }
        until("some puts are done", || async { done.load(Ordering::Relaxed) > round }).await;
        server.service.kill();
        told.extend(puts.join_all().await.into_iter().flatten());
        server.service.start().await;
        for key in &told {
            let whole = store.get(key).await.unwrap().try_collect::<Vec<_>>().await.unwrap().concat();
            assert_eq!(Sha256::of(&whole), key.sha256, "what was said to be safe is");
        }
        let mut found = Vec::new();
        objects(&server.bucket("payloads").join("20260102"), &mut found);
        for path in found {
            let name = path.file_name().unwrap().to_str().unwrap();
            assert_eq!(Sha256::of(&fs::read(&path).unwrap()).to_string(), name, "nothing is there in part");
        }
    }
    assert!(!told.is_empty());
}
