//! What an operation of the ledger costs, against an empty script with as many keys on the same kind of connection.
//!
//! `cargo bench -p stoq-redis -- [everysec|always]`: how the server writes its file, by default `always`.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark ends at the first error, and prints")]

use std::slice::from_ref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use redis::aio::MultiplexedConnection;
use serde_json::json;
use stoq_api::backend::Options;
use stoq_api::ledger::Ledger;
use stoq_api::store::{ByteStream, Store, StoreKey};
use stoq_api::{Budgets, Content, ErrorEntry, Fault, FaultKind, Outcome, PayloadId, ScanId, Timestamp};
use stoq_testkit::samples::{child, fresh_scan, head, outcome};
use stoq_testkit::services::{Redis, RedisOptions};

/// Operations of each kind.
const COUNT: usize = 4_000;
const AT_ONCE: [usize; 2] = [1, 64];
/// What an outcome with a few results takes.
const OUTCOME: usize = 1_000;
/// What a large one takes that is still kept inline.
const LARGE: usize = 12_000;

/// Nothing here is large enough for a store.
struct NoStore;

#[async_trait::async_trait]
impl Store for NoStore {
    async fn put(&self, _: &StoreKey, _: &Content) -> Result<(), Fault> {
        Err(Fault::new(FaultKind::Refused, "no store"))
    }
    async fn get(&self, _: &StoreKey) -> Result<ByteStream, Fault> {
        Err(Fault::new(FaultKind::NotFound, "no store"))
    }
    async fn keep(&self, _: &str, _: &Content) -> Result<(), Fault> {
        Err(Fault::new(FaultKind::Refused, "no store"))
    }
    async fn days(&self) -> Result<Vec<u32>, Fault> {
        Ok(Vec::new())
    }
    async fn drop_day(&self, _: u32) -> Result<(), Fault> {
        Ok(())
    }
    async fn check(&self) -> Result<(), Fault> {
        Ok(())
    }
}

/// Wall time of one of `COUNT` operations, in microseconds.
async fn each<F: Future<Output = ()>>(at_once: usize, operation: impl Fn(usize) -> F) -> f64 {
    let count = if at_once == 1 { COUNT / 8 } else { COUNT };
    let start = Instant::now();
    futures::stream::iter(0..count).map(operation).buffer_unordered(at_once).collect::<Vec<()>>().await;
    start.elapsed().as_secs_f64() * 1e6 / count as f64
}

async fn empty_script(connection: &MultiplexedConnection, digest: &str, size: usize) {
    let mut connection = connection.clone();
    let mut command = redis::cmd("EVALSHA");
    command.arg(digest).arg(8);
    for key in 0..8 {
        command.arg(format!("{{stoq:17}}:{key}:0f0e0d0c-0b0a-4908-8706-050403020100"));
    }
    command.arg("x".repeat(size));
    let _nothing: redis::Value = command.query_async(&mut connection).await.unwrap();
}

fn sized(payload: PayloadId, size: usize) -> Outcome {
    let error = ErrorEntry { error: "x".repeat(size), plugin_name: None, payload_id: None };
    Outcome { errors: vec![error], ..outcome(payload, 1) }
}

/// One row: every operation in the life of a scan with one child.
async fn life(ledger: &dyn Ledger, at_once: usize) -> String {
    let now = Timestamp(1_767_400_000_000_000);
    let scans: &Vec<ScanId> = &(0..COUNT).map(|_| fresh_scan()).collect();
    let heads: &Vec<_> = &scans.iter().map(|scan| head(*scan, &[10], Budgets::default())).collect();
    let root = |n: usize| PayloadId::root(scans[n], 0);
    let admit = each(at_once, |n| async move {
        let child = child(scans[n], "a", 10);
        ledger.admit(scans[n], Some(&heads[n]), root(n), from_ref(&child), now).await.unwrap();
    });
    let admit = admit.await;
    let settle = each(at_once, |n| async move {
        let outcome = sized(child(scans[n], "a", 10).id, OUTCOME);
        ledger.settle(scans[n], None, &outcome, &[], now).await.unwrap();
    });
    let settle = settle.await;
    let last = each(at_once, |n| async move {
        ledger.settle(scans[n], Some(&heads[n]), &sized(root(n), LARGE), &[], now).await.unwrap();
    });
    let last = last.await;
    let frozen = each(at_once, |n| async move { drop(ledger.frozen(scans[n]).await.unwrap().unwrap()) }).await;
    let close = each(at_once, |n| async move {
        ledger.close(scans[n], Duration::from_secs(86_400), now).await.unwrap();
    });
    let close = close.await;
    format!(
        "open and admit {admit:5.0}, settle {settle:5.0}, the last with 12 KB {last:5.0}, frozen {frozen:5.0}, \
         close {close:5.0}"
    )
}

#[tokio::main]
async fn main() {
    let always = !std::env::args().any(|a| a == "everysec");
    let lines = if always { Vec::new() } else { vec!["appendfsync everysec".to_owned()] };
    let server = Redis::start_with(RedisOptions { lines, ..RedisOptions::default() }).await;
    let client = redis::Client::open(server.address()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let digest: String = redis::cmd("SCRIPT").arg("LOAD").arg("return 1").query_async(&mut connection).await.unwrap();
    println!("appendfsync {}; µs an operation, in flight", if always { "always" } else { "everysec" });
    for connections in [1, 4, 16] {
        let options = json!({ "urls": [server.address()], "connections": connections });
        let options: Options = serde_json::from_value(options).unwrap();
        let ledger: Arc<dyn Ledger> = (stoq_redis::registration().open)(&options, Arc::new(NoStore)).unwrap();
        for at_once in AT_ONCE {
            let bare = each(at_once, |_| empty_script(&connection, &digest, 100)).await;
            let large = each(at_once, |_| empty_script(&connection, &digest, LARGE)).await;
            let life = life(&*ledger, at_once).await;
            println!("{connections:2} connections, {at_once:2}: empty {bare:4.0} (with 12 KB {large:4.0}); {life}");
        }
    }
}
