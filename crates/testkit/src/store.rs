//! The store suite: what every [`Store`] promises.

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;

use async_trait::async_trait;
use futures::TryStreamExt as _;
use stoq_api::store::{Store, StoreKey};
use stoq_api::{Content, Fault, FaultKind, Sha256};
use tokio::task::JoinSet;

/// Makes the store that the suite looks at.
#[async_trait]
pub trait StoreHarness: Send {
    /// A client's view of the one store.
    async fn store(&mut self) -> Arc<dyn Store>;

    /// What `keep` kept under that name, as a person finds it.
    async fn kept(&mut self, name: &str) -> Option<Vec<u8>>;
}

/// Runs every check against the store of `harness`, which holds nothing of the years 2001 and 2002.
///
/// # Panics
/// A promise is broken.
pub async fn store_suite(harness: &mut dyn StoreHarness) {
    let store = harness.store().await;
    checks! {
        gives_back_what_was_put(&*store);
        keeps_what_is_there(&*store);
        takes_large_files(&*store);
        leaves_nothing_of_a_put_that_failed(&*store);
        takes_the_same_object_from_many(store);
    }
    let store = harness.store().await;
    checks! {
        lists_and_drops_days(&*store);
        keeps_things_outside_any_day(harness);
    }
    let store = harness.store().await;
    checks! {
        shelves_until_it_is_taken_off(&*store);
    }
}

fn key(day: u32, content: &[u8]) -> StoreKey {
    StoreKey { day, sha256: Sha256::of(content) }
}

async fn read(store: &dyn Store, key: &StoreKey) -> Result<Vec<u8>, Fault> {
    let pieces: Vec<_> = store.get(key).await?.try_collect().await?;
    Ok(pieces.concat())
}

async fn is_missing(store: &dyn Store, key: &StoreKey) -> bool {
    read(store, key).await.is_err_and(|e| e.kind == FaultKind::NotFound)
}

/// An open file without a name that holds `bytes` behind `offset` others.
fn file_content(bytes: &[u8], offset: usize) -> Content {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&vec![b'#'; offset]).unwrap();
    file.write_all(bytes).unwrap();
    part_of(file, offset, bytes.len())
}

fn part_of(file: File, offset: usize, len: usize) -> Content {
    Content::File { file: Arc::new(file), offset: offset as u64, len: len as u64 }
}

async fn gives_back_what_was_put(store: &dyn Store) {
    let (small, empty) = (b"a payload".as_slice(), b"".as_slice());
    assert!(is_missing(store, &key(20010101, small)).await);
    store.put(&key(20010101, small), &small.to_vec().into()).await.unwrap();
    store.put(&key(20010101, empty), &empty.to_vec().into()).await.unwrap();
    assert_eq!(read(store, &key(20010101, small)).await.unwrap(), small);
    assert_eq!(read(store, &key(20010101, empty)).await.unwrap(), empty);
    assert!(is_missing(store, &key(20010102, small)).await, "another day is another object");
    let part = b"part of a file".as_slice();
    store.put(&key(20010101, part), &file_content(part, 7)).await.unwrap();
    assert_eq!(read(store, &key(20010101, part)).await.unwrap(), part);
}

async fn keeps_what_is_there(store: &dyn Store) {
    let key = key(20010103, b"first");
    store.put(&key, &b"first".to_vec().into()).await.unwrap();
    store.put(&key, &b"second".to_vec().into()).await.unwrap();
    assert_eq!(read(store, &key).await.unwrap(), b"first", "an object that is there stays");
    store.put(&key, &file_content(&vec![1; 20 << 20], 0)).await.unwrap();
    assert_eq!(read(store, &key).await.unwrap(), b"first", "whatever the size of the other");
}

async fn takes_large_files(store: &dyn Store) {
    let large: Vec<u8> =
        (0_u32..(20 << 20) / 4 + 3).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let key = key(20010104, &large);
    store.put(&key, &file_content(&large, 4_321)).await.unwrap();
    assert!(read(store, &key).await.unwrap() == large, "a large object comes back as it was");
}

async fn leaves_nothing_of_a_put_that_failed(store: &dyn Store) {
    for size in [1_000, 20 << 20] {
        let bytes = vec![9; size];
        let key = key(20010105, &bytes);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes[1..]).unwrap();
        let short = store.put(&key, &part_of(file, 0, size)).await;
        assert!(short.is_err(), "the file of {size} bytes ended early");
        assert!(is_missing(store, &key).await, "no part of {size} bytes is an object");
        store.put(&key, &bytes.clone().into()).await.unwrap();
        assert!(read(store, &key).await.unwrap() == bytes);
    }
}

async fn takes_the_same_object_from_many(store: Arc<dyn Store>) {
    for size in [3_000, 17 << 20] {
        let bytes = vec![5; size];
        let key = key(20010106, &bytes);
        let content = file_content(&bytes, 0);
        let mut puts = JoinSet::new();
        for n in 0..8 {
            let (store, bytes, content) = (Arc::clone(&store), bytes.clone(), content.clone());
            puts.spawn(async move {
                let content = if n % 2 == 0 { content } else { bytes.clone().into() };
                store.put(&key, &content).await.unwrap();
                assert!(read(&*store, &key).await.unwrap() == bytes, "whoever has put it can read it");
            });
        }
        puts.join_all().await;
    }
}

async fn lists_and_drops_days(store: &dyn Store) {
    let (a, b) = (b"a".as_slice(), b"b".as_slice());
    for (day, content) in [(20020103, a), (20020101, a), (20020101, b), (20020102, a)] {
        store.put(&key(day, content), &content.to_vec().into()).await.unwrap();
    }
    let ours = async || {
        let days = store.days().await.unwrap();
        days.into_iter().filter(|day| day / 10_000 == 2002).collect::<Vec<_>>()
    };
    assert_eq!(ours().await, [20020101, 20020102, 20020103], "oldest first");
    store.drop_day(20020101).await.unwrap();
    store.drop_day(20020101).await.unwrap();
    store.drop_day(20020909).await.unwrap();
    assert_eq!(ours().await, [20020102, 20020103]);
    assert!(is_missing(store, &key(20020101, a)).await && is_missing(store, &key(20020101, b)).await);
    assert_eq!(read(store, &key(20020102, a)).await.unwrap(), a);
    store.put(&key(20020101, b), &b.to_vec().into()).await.unwrap();
    assert_eq!(read(store, &key(20020101, b)).await.unwrap(), b, "a dropped day can come again");
    for day in [20020101, 20020102, 20020103] {
        store.drop_day(day).await.unwrap();
    }
    assert_eq!(ours().await, [0; 0]);
}

async fn keeps_things_outside_any_day(harness: &mut dyn StoreHarness) {
    let store = harness.store().await;
    let before = store.days().await.unwrap();
    store.keep("suspect-1", &b"evil".to_vec().into()).await.unwrap();
    store.keep("suspect-1", &b"evil".to_vec().into()).await.unwrap();
    store.keep("suspect-2", &file_content(b"worse", 1)).await.unwrap();
    assert_eq!(store.days().await.unwrap(), before, "no day");
    for day in before {
        store.drop_day(day).await.unwrap();
    }
    assert_eq!(harness.kept("suspect-1").await.unwrap(), b"evil");
    assert_eq!(harness.kept("suspect-2").await.unwrap(), b"worse");
    assert_eq!(harness.kept("suspect-3").await, None);
}

async fn shelves_until_it_is_taken_off(store: &dyn Store) {
    let read = async |name: &str| match store.shelved(name).await {
        Ok(stream) => stream.try_collect::<Vec<_>>().await.map(|pieces| pieces.concat()),
        Err(e) => Err(e),
    };
    let days = store.days().await.unwrap();
    assert_eq!(store.shelf("suite/none", 10).await.unwrap(), [""; 0], "nothing was ever put there");
    let large = vec![3; 9 << 20];
    for (name, bytes) in [("suite/a/2", &b"two"[..]), ("suite/a/1", b"one"), ("suite/ab/3", b""), ("suite/a/4", &large)]
    {
        store.shelve(name, &bytes.to_vec().into()).await.unwrap();
    }
    assert_eq!(store.shelf("suite/a", 10).await.unwrap(), ["suite/a/1", "suite/a/2", "suite/a/4"], "whole parts");
    assert_eq!(store.shelf("suite/a", 2).await.unwrap(), ["suite/a/1", "suite/a/2"]);
    assert_eq!(store.shelf("suite", 10).await.unwrap().len(), 4);
    store.shelve("suite/a/1", &b"another".to_vec().into()).await.unwrap();
    assert_eq!(read("suite/a/1").await.unwrap(), b"another", "replaced");
    assert!(read("suite/a/4").await.unwrap() == large);
    assert_eq!(store.days().await.unwrap(), days, "no day");
    for name in ["suite/a/1", "suite/a/2", "suite/a/2", "suite/ab/3", "suite/a/4"] {
        store.unshelve(name).await.unwrap();
    }
    assert_eq!(read("suite/a/1").await.unwrap_err().kind, FaultKind::NotFound);
    assert_eq!(store.shelf("suite", 10).await.unwrap(), [""; 0]);
    for bad in ["20020101/x", "quarantine/x", "../x", "suite//x"] {
        assert_eq!(store.shelve(bad, &b"x".to_vec().into()).await.unwrap_err().kind, FaultKind::Refused, "{bad}");
    }
}
