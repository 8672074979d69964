//! What a running process tells: metrics that add up, and probes.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on is to stop")]

mod support;
#[path = "support/watching.rs"]
mod watching;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::Value;

use crate::support::{PATIENCE, files, responses_in, run, start, stoq, text, until};
use crate::watching::{Collector, address, get, sum};

/// Files to scan, each with payloads inside.
const ROOTS: usize = 12;

/// The address that the log file names.
fn address_in(log: &Path) -> Option<SocketAddr> {
    address(&std::fs::read_to_string(log).ok()?)
}

#[test]
fn a_run_counts_what_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out, log) = (dir.path().join("in"), dir.path().join("out"), dir.path().join("log"));
    std::fs::create_dir(&source).unwrap();
    let set = [
        format!("providers.watched.dirmon.source_dir={}", text(&source)),
        "providers.watched.dirmon.settle=100ms".to_owned(),
        format!("connectors.kept.filedir.results_dir={}", text(&out)),
        format!("archivers.all.filedir.archive_dir={}", text(&dir.path().join("archive"))),
        "http.listen=127.0.0.1:0".to_owned(),
        "core.log.format=json".to_owned(),
        format!("core.log.file={}", text(&log)),
    ];
    let data = dir.path().join("data");
    let mut args = vec!["run", "-a", "hash", "mimetype", "-R", "rules", "-A", "all", "--data-dir", text(&data)];
    set.iter().for_each(|set| args.extend(["--set", set]));
    let running = start(stoq(&args));
    until("the log names the address", || address_in(&log).is_some());
    let address = address_in(&log).unwrap();
    until("it is ready", || get(address, "GET", "/readyz").0 == 200);
    let (status, alive) = get(address, "GET", "/livez");
    assert_eq!(status, 200);
    for part in ["worker", "sweeper", "provider watched", "connector kept"] {
        assert!(alive.contains(&format!("{part}: ok\n")), "{part} is missing although the process is ready: {alive:?}");
    }

    for n in 0..ROOTS {
        files::write(&source, &format!("{n}.zip"), &files::nested_zip(n));
    }
    let metrics = || get(address, "GET", "/metrics").1;
    let delivered = |text: &str| sum(text, "stoq_out_total", &["role=\"connector\"", "name=\"kept\""]);
    // Whoever has something in hand has not counted all of it.
    let mut text = String::new();
    until("every response is delivered and nothing is in flight", || {
        text = metrics();
        delivered(&text) >= ROOTS as f64 && sum(&text, "stoq_in_flight", &[]) == 0.0
    });
    let of_source = |family: &str| sum(&text, family, &["source=\"watched\""]);
    assert_eq!(of_source("stoq_references_taken_total"), ROOTS as f64);
    assert_eq!(sum(&text, "stoq_responses_total", &["source=\"watched\"", "kind=\"complete\""]), ROOTS as f64);
    assert_eq!(of_source("stoq_dead_total"), 0.0);
    // From the responses themselves: what ran, how often, and what was archived.
    let responses = responses_in(&out);
    let payloads: Vec<&Value> = responses.iter().flat_map(|r| r["results"].as_array().unwrap()).collect();
    let ran = |plugin: &str| payloads.iter().filter(|p| p["workers"].get(plugin).is_some()).count() as f64;
    for plugin in ["hash", "mimetype", "decompress"] {
        let labels = ["role=\"plugin\"", &format!("name=\"{plugin}\"")];
        assert!(ran(plugin) >= ROOTS as f64);
        assert_eq!(sum(&text, "stoq_in_total", &labels), ran(plugin), "{plugin}");
        assert_eq!(sum(&text, "stoq_duration_seconds_count", &labels), ran(plugin), "{plugin}");
    }
    let archived = sum(&text, "stoq_out_total", &["role=\"archiver\"", "name=\"all\""]);
    assert_eq!(archived, payloads.len() as f64);
    assert_eq!(sum(&text, "stoq_out_total", &["role=\"provider\"", "name=\"watched\""]), ROOTS as f64);

    assert_eq!(get(address, "POST", "/metrics").0, 405);
    assert_eq!(get(address, "GET", "/").0, 404);
    // Clients that never finish their request hold nobody up.
    let slow: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert_eq!(get(address, "GET", "/livez").0, 200);
    drop(slow);
    running.signal("TERM");
    running.end().expect(0);
}

#[test]
fn a_port_that_is_taken_ends_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let start_on = |listen: &str| {
        let set = [
            format!("providers.in.filedir.source_dir={}", text(dir.path())),
            format!("connectors.out.filedir.results_dir={}", text(&dir.path().join("out"))),
            format!("http.listen={listen}"),
        ];
        let data = dir.path().join("data");
        let mut args = vec!["run", "-a", "hash", "--data-dir", text(&data)];
        set.iter().for_each(|set| args.extend(["--set", set]));
        let ended = run(stoq(&args));
        (ended.code(), ended.err)
    };
    let (code, said) = start_on(&taken.local_addr().unwrap().to_string());
    assert_ne!(code, 0);
    assert!(said.contains("http.listen") && said.contains("Address already in use"), "{said}");
    let (code, said) = start_on("localhost");
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("http.listen: \"localhost\" is not an address with a port"), "{said}");
}

#[test]
fn a_client_that_says_nothing_is_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let (source, log) = (dir.path().join("in"), dir.path().join("log"));
    std::fs::create_dir(&source).unwrap();
    let set = [
        format!("providers.in.dirmon.source_dir={}", text(&source)),
        format!("connectors.out.filedir.results_dir={}", text(&dir.path().join("out"))),
        "http.listen=127.0.0.1:0".to_owned(),
        "core.log.format=json".to_owned(),
        format!("core.log.file={}", text(&log)),
    ];
    let data = dir.path().join("data");
    let mut args = vec!["run", "-a", "hash", "--data-dir", text(&data)];
    set.iter().for_each(|set| args.extend(["--set", set]));
    let running = start(stoq(&args));
    until("the log names the address", || address_in(&log).is_some());
    let address = address_in(&log).unwrap();
    let mut silent = TcpStream::connect(address).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(silent, "GET /livez HTTP/1.1\r\nX-").unwrap();
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).ok();
    assert!(!rest.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&rest));
    let mut long = TcpStream::connect(address).unwrap();
    long.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
    long.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET /livez HTTP/1.1\r\nX-Long: {}\r\n\r\n", "x".repeat(1 << 20));
    long.write_all(request.as_bytes()).ok();
    let mut rest = Vec::new();
    long.read_to_end(&mut rest).ok();
    assert!(!rest.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&rest));
    running.signal("TERM");
    running.end().expect(0);
}

#[test]
fn a_scan_is_one_trace() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (dir.path().join("in"), dir.path().join("out"));
    std::fs::create_dir(&source).unwrap();
    files::write(&source, "nested.zip", &files::nested_zip(1));
    files::write(&source, "leaf.txt", b"nothing inside");
    let collector = Collector::start();
    let endpoint = format!("trace.endpoint={}", collector.endpoint);
    let run_with = |ratio: &str, data: &str| {
        let set = [
            format!("providers.in.filedir.source_dir={}", text(&source)),
            format!("connectors.out.filedir.results_dir={}", text(&out)),
            endpoint.clone(),
            format!("trace.ratio={ratio}"),
        ];
        let data = dir.path().join(data);
        let mut args = vec!["run", "-a", "hash", "mimetype", "-R", "rules", "--data-dir", text(&data)];
        set.iter().for_each(|set| args.extend(["--set", set]));
        run(stoq(&args)).expect(0)
    };
    run_with("0", "data-0");
    assert!(collector.spans().is_empty(), "none is chosen");
    std::fs::remove_dir_all(&out).unwrap();
    run_with("1", "data-1");
    let spans: Vec<Span> = collector.spans().into_iter().map(|(_, span)| span).collect();
    let responses = responses_in(&out);
    assert_eq!(responses.len(), 2);
    for response in responses {
        let scan = response["scan_id"].as_str().unwrap().replace('-', "");
        let of_scan: Vec<&Span> = spans.iter().filter(|span| hex::encode(&span.trace_id) == scan).collect();
        let named = |name: &str| of_scan.iter().filter(|span| span.name == name).copied().collect::<Vec<_>>();
        let [root] = named("take reference")[..] else { panic!("{of_scan:?}") };
        assert!(root.parent_span_id.is_empty());
        assert_eq!(named("scan payload").len(), response["results"].as_array().unwrap().len());
        assert_eq!(named("deliver response").len(), 1);
        assert!(of_scan.iter().all(|span| span.span_id == root.span_id || span.parent_span_id == root.span_id));
        assert!(of_scan.iter().all(|span| span.start_time_unix_nano <= span.end_time_unix_nano));
    }
    assert!(spans.iter().all(|span| span.trace_id.len() == 16));
}
