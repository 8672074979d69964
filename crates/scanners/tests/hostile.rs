//! `decompress` over every hostile archive there is, under small limits: it answers, and stays within them.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use stoq_api::scanner::{Build, Context, Output, Payload, Remaining, ScanError, Scanner};
use stoq_api::{Finding, PayloadMeta, RequestMeta};
use stoq_scanners::memory_sink::{MemoryChild, MemorySink};
use stoq_testkit::hostile;

/// Bytes of a member.
const MAXIMUM_SIZE: u64 = 1 << 20;
const MAX_MEMBERS: u64 = 400;
/// What the scan has left for each archive.
const LEFT: Remaining = Remaining { children: 60, bytes: 3 << 20 };

struct Answer {
    output: Result<Output, ScanError>,
    findings: Vec<Finding>,
    children: Vec<MemoryChild>,
}

/// Built once for all tests.
static SAMPLES: LazyLock<Vec<(&str, String, Vec<u8>)>> = LazyLock::new(|| hostile::all().collect());

fn decompress() -> Arc<dyn Scanner> {
    let options = json!({ "maximum_size": MAXIMUM_SIZE, "max_members": MAX_MEMBERS, "passwords": ["infected"] });
    let build = Build { options: options.as_object().unwrap().clone(), files: Vec::new() };
    let registration = stoq_scanners::registry().into_iter().find(|r| r.info.name == "decompress").unwrap();
    (registration.build)(&build).unwrap().scanner.unwrap()
}

fn scan(scanner: &dyn Scanner, content: &[u8], mimetype: &str, deadline: Instant) -> Answer {
    let (meta, request_meta, nothing) = (PayloadMeta::default(), RequestMeta::default(), Map::new());
    let results = json!({ "mimetype": { "mimetype": mimetype } }).as_object().unwrap().clone();
    let payload = Payload {
        serial: 1,
        content,
        sha256: None,
        meta: &meta,
        request_meta: &request_meta,
        ancestors: &[],
        dispatch_meta: &nothing,
        results: &results,
    };
    let mut sink = MemorySink::new(LEFT);
    let mut cx = Context::new(&mut sink, Some(deadline));
    let output = scanner.scan(&payload, &mut cx);
    let findings = cx.into_findings();
    Answer { output, findings, children: sink.take() }
}

/// What has to hold for any answer.
fn check(answer: &Answer, what: &str) {
    let bytes: usize = answer.children.iter().map(|c| c.content.len()).sum();
    assert!(answer.children.len() as u64 <= LEFT.children && bytes as u64 <= LEFT.bytes, "{what}");
    assert!(answer.children.iter().all(|c| c.content.len() as u64 <= MAXIMUM_SIZE), "{what}");
    assert!(answer.findings.len() <= 40, "{what}: {} findings", answer.findings.len());
    for child in &answer.children {
        let name = child.meta.filename().unwrap();
        assert!(!name.is_empty() && name.chars().count() <= 255 && !name.contains('/'), "{what}: {name:?}");
        assert!(child.meta.extra_data["path"].as_str().unwrap().chars().count() <= 1024, "{what}");
    }
    match &answer.output {
        Ok(output) => check_results(output.results.as_ref().unwrap(), answer, what),
        Err(ScanError::Failed(text)) => assert!(!text.is_empty() && answer.children.is_empty(), "{what}: {text}"),
        Err(ScanError::Spent(_)) => {}
        Err(other) => panic!("{what}: {other}"),
    }
}

fn check_results(results: &Value, answer: &Answer, what: &str) {
    let files = results["files"].as_array().unwrap();
    assert!(files.len() <= 1000 && results["members"].as_u64().unwrap() <= MAX_MEMBERS, "{what}");
    assert_eq!(results["extracted"], json!(answer.children.len()), "{what}");
    // What is not extracted says why, and so does a finding: nobody may take it for nothing found.
    let unread = files.iter().filter(|f| f["extracted"] == json!(false) && f.get("kind").is_none());
    let mut any = false;
    for file in unread {
        any = true;
        assert!(file["error"].as_str().is_some_and(|e| !e.is_empty()), "{what}: {file}");
    }
    assert!(!any || !answer.findings.is_empty(), "{what}");
    assert!(results.to_string().len() < 5 << 18, "{what}");
}

#[test]
fn every_hostile_archive_is_answered_within_limits() {
    let scanner = decompress();
    let mut opened = BTreeMap::<&str, usize>::new();
    for (format, name, bytes) in &*SAMPLES {
        let deadline = Instant::now() + Duration::from_secs(60);
        let answer = scan(&*scanner, bytes, "application/octet-stream", deadline);
        let what = format!("{format}: {name}");
        check(&answer, &what);
        assert!(!answer.findings.iter().any(|f| f.detail.contains("out of time")), "{what} takes a minute");
        *opened.entry(format).or_default() += usize::from(!answer.children.is_empty());
    }
    for format in hostile::FORMATS {
        assert!(opened[format] >= 5, "{format}: children from {} samples only", opened[format]);
    }
}

#[test]
fn an_expired_deadline_ends_every_reading_at_once() {
    let scanner = decompress();
    for (format, name, bytes) in &*SAMPLES {
        let answer = scan(&*scanner, bytes, "application/octet-stream", Instant::now());
        check(&answer, &format!("{format}: {name}"));
        assert!(answer.children.is_empty(), "{format}: {name}");
    }
}

#[test]
fn samples_of_one_format_do_no_harm_to_the_reader_of_another() {
    let scanner = decompress();
    let archivers = ["zip", "7z", "rar", "cab", "lha", "tar", "gzip", "bzip2", "xz", "lzma", "zstd"];
    for (i, (format, name, bytes)) in SAMPLES.iter().enumerate() {
        // Each sample meets one wrong reader; over all samples every pair comes up.
        let archiver = archivers[i % archivers.len()];
        let meta = PayloadMeta::with("archiver", archiver);
        let (request_meta, nothing) = (RequestMeta::default(), Map::new());
        let payload = Payload {
            serial: 1,
            content: bytes,
            sha256: None,
            meta: &meta,
            request_meta: &request_meta,
            ancestors: &[],
            dispatch_meta: &nothing,
            results: &nothing,
        };
        let mut sink = MemorySink::new(LEFT);
        let mut cx = Context::new(&mut sink, Some(Instant::now() + Duration::from_secs(60)));
        let answer = scanner.scan(&payload, &mut cx);
        assert!(!matches!(answer, Err(ScanError::Io(_) | ScanError::Expired)), "{format}: {name} as {archiver}");
    }
}
