//! Behaviour of `decompress` that golden samples do not show: limits, and archives that are too large to keep on file.

use std::io::Write;
use std::time::Instant;

use serde_json::{Map, Value, json};
use stoq_api::finding::FindingKind;
use stoq_api::scanner::{Build, Context, Output, Payload, Remaining, ScanError};
use stoq_api::{Finding, PayloadMeta, RequestMeta};

use crate::memory_sink::{MemoryChild, MemorySink};

struct Answer {
    output: Result<Output, ScanError>,
    findings: Vec<Finding>,
    children: Vec<MemoryChild>,
}

impl Answer {
    fn results(&self) -> &Value {
        self.output.as_ref().unwrap().results.as_ref().unwrap()
    }

    fn contents(&self) -> Vec<&[u8]> {
        self.children.iter().map(|c| c.content.as_slice()).collect()
    }
}

fn run(content: &[u8], options: &Value, remaining: Remaining, deadline: Option<Instant>) -> Answer {
    let build = Build { options: options.as_object().unwrap().clone(), files: Vec::new() };
    let built = (super::registration().build)(&build).unwrap();
    let (meta, request_meta, nothing) = (PayloadMeta::default(), RequestMeta::default(), Map::new());
    let payload = Payload {
        serial: 1,
        content,
        sha256: None,
        meta: &meta,
        request_meta: &request_meta,
        ancestors: &[],
        dispatch_meta: &nothing,
        results: &nothing,
    };
    let mut sink = MemorySink::new(remaining);
    let mut cx = Context::new(&mut sink, deadline);
    let output = built.scanner.unwrap().scan(&payload, &mut cx);
    let findings = cx.into_findings();
    Answer { output, findings, children: sink.take() }
}

fn unpack(content: &[u8]) -> Answer {
    run(content, &json!({}), Remaining { children: u64::MAX, bytes: u64::MAX }, None)
}

/// A local header and data; the directory entry that goes with it is in `.1`.
fn stored(name: &str, data: &[u8], offset: usize) -> (Vec<u8>, Vec<u8>) {
    let mut fields = vec![20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0];
    fields.extend(crc32fast::hash(data).to_le_bytes());
    fields.extend((data.len() as u32).to_le_bytes());
    fields.extend((data.len() as u32).to_le_bytes());
    fields.extend((name.len() as u16).to_le_bytes());
    fields.extend([0, 0]);
    let local = [b"PK\x03\x04", &fields[..], name.as_bytes(), data].concat();
    let offset = (offset as u32).to_le_bytes();
    let central = [b"PK\x01\x02\x14\0", &fields[..], &[0; 10], &offset[..], name.as_bytes()].concat();
    (local, central)
}

fn zip(bodies: &[u8], directory: &[u8], count: usize) -> Vec<u8> {
    let count = (count as u16).to_le_bytes();
    let (size, offset) = ((directory.len() as u32).to_le_bytes(), (bodies.len() as u32).to_le_bytes());
    [bodies, directory, b"PK\x05\x06\0\0\0\0", &count, &count, &size, &offset, &[0, 0]].concat()
}

#[test]
fn ten_thousand_members_are_counted_and_listed_up_to_a_bound() {
    let (mut bodies, mut directory) = (Vec::new(), Vec::new());
    for i in 0..10_000 {
        let (local, central) = stored(&format!("{i}"), b"x", bodies.len());
        bodies.extend(local);
        directory.extend(central);
    }
    let answer = unpack(&zip(&bodies, &directory, 10_000));
    assert_eq!((&answer.results()["members"], &answer.results()["extracted"]), (&json!(10_000), &json!(10_000)));
    assert_eq!(answer.results()["files"].as_array().unwrap().len(), 1_000);
    assert_eq!((answer.children.len(), &answer.results()["truncated"]), (10_000, &json!(true)));
}

#[test]
fn overlapping_members_are_read_once_or_twice_and_then_refused() {
    // Each member starts where its predecessor's data do, so that all quote the same kernel.
    let kernel = vec![b'k'; 4_000];
    let (mut bodies, mut directory) = (kernel, Vec::new());
    for i in 0..50 {
        let (local, _) = stored(&format!("{i}"), &bodies, 0);
        bodies = local;
    }
    let mut at = 0;
    for i in (0..50).rev() {
        let name = format!("{i}");
        let data = &bodies[at + 30 + name.len()..];
        directory.extend(stored(&name, data, at).1);
        at += 30 + name.len();
    }
    let answer = unpack(&zip(&bodies, &directory, 50));
    let bytes: usize = answer.contents().iter().map(|c| c.len()).sum();
    assert!(bytes < 3 * bodies.len(), "{bytes} of {}", bodies.len());
    assert_eq!(answer.results()["anomalies"], json!(["data of members overlap"]));
    assert!(answer.findings.iter().any(|f| f.kind == FindingKind::MemberUnreadable && f.detail.contains("overlap")));
}

#[test]
fn a_member_that_two_headers_describe_differently_is_read_both_ways() {
    let (local, central) = stored("a", b"what the local header shows", 0);
    let mut lying = central;
    lying[10..12].copy_from_slice(&8_u16.to_le_bytes());
    let answer = unpack(&zip(&local, &lying, 1));
    assert_eq!(answer.contents(), [b"what the local header shows"]);
    assert_eq!(answer.results()["files"][1]["hidden"], json!(true));
}

#[test]
fn gzip_of_many_streams_ends() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(b"").unwrap();
    let one = encoder.finish().unwrap();
    let answer = unpack(&one.repeat(70_000));
    assert!(answer.findings[0].detail.contains("65536 streams"), "{:?}", answer.findings);
}

#[test]
fn budget_deadline_and_ratio_end_the_reading() {
    let bomb = {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
        encoder.write_all(&vec![0; 3 << 20]).unwrap();
        encoder.finish().unwrap()
    };
    let answer = run(&bomb, &json!({}), Remaining { children: 1, bytes: 1 << 20 }, None);
    assert!(matches!(answer.output, Err(ScanError::Spent(stoq_api::SpentKind::Bytes))) && answer.children.is_empty());
    let answer = run(&bomb, &json!({}), Remaining { children: 0, bytes: 1 << 30 }, None);
    assert!(matches!(answer.output, Err(ScanError::Spent(stoq_api::SpentKind::Payloads))));
    let answer = run(&bomb, &json!({}), Remaining { children: 9, bytes: 1 << 30 }, Some(Instant::now()));
    assert_eq!(answer.findings[0].kind, FindingKind::TimeLimit);
    assert_eq!(answer.results()["truncated"], json!(true));

    let (mut bodies, mut directory) = (Vec::new(), Vec::new());
    for i in 0..40 {
        let (mut local, mut central) = stored(&format!("{i}"), &bomb, bodies.len());
        local[8] = 12;
        central[10] = 12;
        for header in [&mut local[14..26], &mut central[16..28]] {
            header[..4].copy_from_slice(&crc32fast::hash(&vec![0; 3 << 20]).to_le_bytes());
            header[8..].copy_from_slice(&(3_u32 << 20).to_le_bytes());
        }
        bodies.extend(local);
        directory.extend(central);
    }
    let answer = unpack(&zip(&bodies, &directory, 40));
    assert_eq!(answer.children.len(), (64 << 20) / (3 << 20));
    assert!(answer.findings[0].detail.contains("max_ratio"), "{:?}", answer.findings);
}

#[test]
fn options_are_checked() {
    for (options, wrong) in [(json!({"max_members": 0}), "max_members"), (json!({"password": "x"}), "password")] {
        let build = Build { options: options.as_object().unwrap().clone(), files: Vec::new() };
        let error = (super::registration().build)(&build).err().unwrap();
        assert!(error.to_string().contains(wrong), "{error}");
    }
}

#[test]
fn sparse_tar_members_are_as_long_as_their_holes() {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_path("sparse").unwrap();
    header.set_size(4);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.realsize[..11].copy_from_slice(b"00000002004");
    gnu.sparse[0].offset[..11].copy_from_slice(b"00000002000");
    gnu.sparse[0].numbytes[..11].copy_from_slice(b"00000000004");
    header.set_cksum();
    let archive = [header.as_bytes().as_slice(), b"data", &[0; 508 + 1024]].concat();
    let answer = unpack(&archive);
    assert_eq!(answer.contents(), [[&[0; 1024][..], b"data"].concat()]);
}

#[test]
fn refusals_say_which_limit_was_reached_and_by_how_much() {
    let cases = [
        ("7z", "AES with 2^24 rounds", "2^24 rounds"),
        ("7z", "encrypted header with 2^24 rounds", "2^24 rounds"),
        ("7z", "lzma dictionary of 1 GiB", "dictionary of 107"),
        ("7z", "ppmd memory of 1 GiB", "dictionary of 1073741824"),
        ("7z", "packed header that is a bomb", "at most 2048 are spent"),
        ("zip", "lzma dictionary of 4 GiB", "dictionary of 4294967295"),
        ("zip", "ppmd memory of 256 MiB", "dictionary of 268435456"),
        ("zip", "zstd window of 2 TiB", "dictionary of 2199023255552"),
        ("xz", "dictionary of 4 GiB", "dictionary of more than 134217728"),
        ("lzma", "dictionary of 2 GiB", "dictionary of 2147483648"),
        ("zstd", "window of 256 MiB", "dictionary of 268435456"),
    ];
    for (format, name, expected) in cases {
        let samples = stoq_testkit::hostile::of(format);
        let (_, bytes) = samples.iter().find(|(n, _)| n == name).unwrap();
        let answer = unpack(bytes);
        let limits = answer.findings.iter().filter(|f| f.kind == FindingKind::PluginLimit);
        let details: Vec<_> = limits.map(|f| f.detail.as_str()).collect();
        assert!(details.iter().any(|d| d.contains(expected)), "{format}, {name}: {details:?}");
        assert!(answer.children.is_empty(), "{format}, {name}");
    }
}
