//! What benchmarks of sinks share: responses, a connector by its options, what memory and time the sender takes.
#![allow(dead_code, reason = "each benchmark is a program of its own and uses a part of this")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use stoq_api::plugin::{Connector, Item};
use stoq_testkit::NoQueues;
use uuid::Uuid;

/// Payloads in one response.
pub(crate) const PAYLOADS: usize = 25;
/// Responses in one batch.
pub(crate) const BATCH: usize = 100;
/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(5);

fn uuid(kind: &str, number: usize) -> String {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{kind}{number}").as_bytes()).to_string()
}

/// A response like those of scans of archives, with nested results; about 1 KiB a payload.
fn response(number: usize) -> Item {
    let payload = |payload: usize| {
        let place = number * PAYLOADS + payload;
        let hash = format!("{place:064x}");
        json!({
            "size": 1000 + payload, "payload_id": uuid("payload", place),
            "payload_meta": {
                "should_archive": true, "should_scan": true, "dispatch_to": [],
                "extra_data": { "filename": format!("file-{payload}.exe") },
            },
            "plugins_run": { "workers": ["hash", "pe", "yara"], "archivers": [] }, "extracted_from": [], "extracted_by": [],
            "workers": {
                "hash": { "sha256": hash, "md5": &hash[..32] },
                "pe": { "sections": [{ "name": ".text", "entropy": 6.5 }, { "name": format!(".{payload}"), "entropy": 1.5 }] },
                "yara": { "matches": [{ "rule": "Loader", "tags": ["apt"], "meta": {}, "strings": [[0, "$a", "MZ"]] }] },
            },
            "archivers": {}, "sha256": hash, "depth": 0, "runs": [], "not_run": [], "findings": [],
        })
    };
    let scan_id = uuid("scan", number);
    let whole = json!({
        "results": (0..PAYLOADS).map(payload).collect::<Vec<_>>(),
        "request_meta": { "archive_payloads": true, "source": "mail", "extra_data": {} }, "errors": [],
        "time": "2026-01-02T03:04:05.678901", "decorators": {}, "scan_id": scan_id, "complete": true, "findings": [],
        "engine": { "version": "0.1.0", "rulesets": {} },
    });
    Item { id: scan_id, json: whole.to_string().into() }
}

/// So many batches.
pub(crate) fn batches(count: usize) -> Vec<Vec<Item>> {
    (0..count).map(|batch| (batch * BATCH..(batch + 1) * BATCH).map(response).collect()).collect()
}

/// The connector of that name.
pub(crate) fn connector(name: &str, options: &Value) -> Arc<dyn Connector> {
    let registry = stoq_connectors::registry();
    let registration = registry.iter().find(|one| one.info.name == name).unwrap();
    let context = stoq_connectors::Context { name: "out".to_owned(), queues: Arc::new(NoQueues) };
    (registration.build)(options.as_object().unwrap(), &context).unwrap()
}

/// Resident memory of this process, in KiB.
pub(crate) fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Processor time that this process has taken.
pub(crate) fn cpu() -> Duration {
    rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime).try_into().unwrap()
}

/// The most memory that was resident while `work` went on, in KiB.
pub(crate) async fn watched<T>(work: impl Future<Output = T>) -> (T, u64) {
    let (over, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let looking = {
        let (over, most) = (Arc::clone(&over), Arc::clone(&most));
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                most.fetch_max(resident(), Ordering::Relaxed);
                std::thread::sleep(LOOK);
            }
        })
    };
    let done = work.await;
    over.store(true, Ordering::Relaxed);
    looking.join().unwrap();
    (done, most.load(Ordering::Relaxed))
}

/// The value in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
