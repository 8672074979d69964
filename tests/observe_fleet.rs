//! What the roles of a fleet tell together: counts that add up, one trace for each scan, and who is not ready.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on is to stop")]

#[path = "support/fleet.rs"]
mod fleet;
mod support;
#[path = "support/watching.rs"]
mod watching;

use std::collections::BTreeSet;

use crate::fleet::{Fleet, Kind, ends_well, stops_well};
use crate::support::{files, text, until};
use crate::watching::{Collector, address, get, sum};

/// Files that are scanned, each with payloads inside.
const FILES: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn roles_tell_together() {
    let collector = Collector::start();
    let more = format!(
        "[http]\nlisten = \"127.0.0.1:0\"\n[core.log]\nformat = \"json\"\n[trace]\nendpoint = \"{}\"\nratio = 1\n",
        collector.endpoint
    );
    let mut fleet = Fleet::start(Kind::RabbitMq, |_| more).await;
    let source = fleet.path("in");
    std::fs::create_dir(&source).unwrap();
    for n in 0..FILES {
        files::write(&source, &format!("{n}.zip"), &files::nested_zip(n));
    }
    let (worker, connector) = (fleet.role("worker", &["--slots", "1"]), fleet.role("connector", &[]));
    let mut addresses = Vec::new();
    for role in [&worker, &connector] {
        until("the log names the address", || address(&role.log()).is_some());
        addresses.push(address(&role.log()).unwrap());
    }
    let ready = |ok: bool| {
        until("readiness", || addresses.iter().all(|role| (get(*role, "GET", "/readyz").0 == 200) == ok));
    };
    ready(true);

    let provider = format!("providers.in.filedir.source_dir={}", text(&source));
    ends_well("the provider", fleet.role("provider", &["--set", &provider])).await;
    until("all responses", || fleet.response_count() >= FILES);
    until("nothing is left", || fleet.is_idle());
    let metrics = |role: usize| get(addresses[role], "GET", "/metrics").1;
    // Whoever has something in hand has not counted all of it.
    until("nothing is in flight", || (0..2).all(|role| sum(&metrics(role), "stoq_in_flight", &[]) == 0.0));
    let answered = sum(&metrics(0), "stoq_responses_total", &["source=\"in\"", "kind=\"complete\""]);
    assert_eq!(answered, FILES as f64, "no process died, so each was counted once");
    assert_eq!(sum(&metrics(1), "stoq_out_total", &["role=\"connector\"", "name=\"out\""]), FILES as f64);

    fleet.broker.kill();
    ready(false);
    let (status, said) = get(addresses[0], "GET", "/readyz");
    assert!(status == 503 && said.contains("broker main: ") && said.contains("ledger: ok"), "{said}");
    assert_eq!(get(addresses[0], "GET", "/livez").0, 200, "waiting for a broker is no fault of the worker");
    fleet.broker.restart().await;
    ready(true);

    stops_well("the worker", worker).await;
    stops_well("the connector", connector).await;
    let spans = collector.spans();
    for response in fleet.responses() {
        let trace = response["scan_id"].as_str().unwrap().replace('-', "");
        let of_scan: Vec<_> = spans.iter().filter(|(_, span)| hex::encode(&span.trace_id) == trace).collect();
        let processes: BTreeSet<i64> = of_scan.iter().map(|(pid, _)| *pid).collect();
        let names: BTreeSet<&str> = of_scan.iter().map(|(_, span)| span.name.as_str()).collect();
        assert_eq!(processes.len(), 3, "{of_scan:?}");
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["deliver response", "scan payload", "take reference"]);
    }
}
