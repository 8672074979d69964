//! What the plugins that run on every payload cost, on payloads of the sizes that a wire brings.
//!
//! `cargo bench -p stoq-scanners --bench scan`; the figure to look at is the median.
#![expect(clippy::unwrap_used, reason = "a measurement stops at the first surprise")]

use std::sync::atomic::{AtomicU64, Ordering};

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use serde_json::{Map, Value, json};
use stoq_api::scanner::{Build, Built, Context, Payload, Remaining, SourceFile};
use stoq_api::{PayloadMeta, RequestMeta};
use stoq_scanners::memory_sink::MemorySink;

const SIZES: [usize; 4] = [512, 4 << 10, 64 << 10, 1 << 20];

fn main() {
    divan::main();
}

fn plugin(name: &str, build: &Build) -> Built {
    let registration = stoq_scanners::registry().into_iter().find(|r| r.info.name == name).unwrap();
    let built = (registration.build)(build).unwrap();
    assert_eq!(built.warnings, Vec::<String>::new());
    built
}

fn plain(name: &str) -> Built {
    plugin(name, &Build::default())
}

/// The built-in dispatch rules with the seventy rules beside this file.
fn yara() -> Built {
    let content = include_bytes!("rules70.yar").to_vec();
    let files = vec![SourceFile { option: "worker_rules".into(), name: "rules70.yar".into(), content }];
    plugin("yara", &Build { options: Map::new(), files })
}

/// Text of made-up words with some structure, the same every time.
fn text(size: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut out = Vec::with_capacity(size + 64);
    while out.len() < size {
        for _ in 0..2 + next(8) {
            out.push(b"etaoinshrdlucmfwypvbgkjqxz"[next(26) as usize]);
        }
        out.extend_from_slice([&b" "[..], b" ", b" ", b", ", b".\n", b"(", b") = "][next(7) as usize]);
    }
    out.truncate(size);
    out
}

/// Bytes as they are in compressed content, behind the mark of an executable.
fn binary(size: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let random = (0..size).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    });
    let mut out: Vec<u8> = random.collect();
    out[..2].copy_from_slice(b"MZ");
    out
}

/// Runs the roles of all plugins once on `content`, as a round does.
fn run(plugins: &[Built], content: &[u8]) -> usize {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let (meta, request_meta, none) = (PayloadMeta::default(), RequestMeta::default(), Map::new());
    let payload = Payload {
        serial: SERIAL.fetch_add(1, Ordering::Relaxed),
        content,
        sha256: None,
        meta: &meta,
        request_meta: &request_meta,
        ancestors: &[],
        dispatch_meta: &none,
        results: &none,
    };
    let mut sink = MemorySink::new(Remaining { children: 0, bytes: 0 });
    let mut results = Vec::new();
    for plugin in plugins {
        let mut cx = Context::new(&mut sink, None);
        if let Some(dispatcher) = &plugin.dispatcher {
            results.push(json!(dispatcher.dispatch(&payload, &mut cx).unwrap().plugins));
        }
        if let Some(scanner) = &plugin.scanner {
            results.push(scanner.scan(&payload, &mut cx).unwrap().results.unwrap_or(Value::Null));
        }
    }
    results.len()
}

fn measure(bencher: Bencher<'_, '_>, plugins: &[Built], content: &[u8]) {
    bencher.counter(BytesCount::of_slice(content)).bench(|| run(plugins, black_box(content)));
}

#[divan::bench(args = SIZES)]
fn hash(bencher: Bencher<'_, '_>, size: usize) {
    measure(bencher, &[plain("hash")], &binary(size));
}

#[divan::bench(args = SIZES)]
fn entropy(bencher: Bencher<'_, '_>, size: usize) {
    measure(bencher, &[plain("entropy")], &binary(size));
}

#[divan::bench(args = SIZES)]
fn mimetype_of_text(bencher: Bencher<'_, '_>, size: usize) {
    measure(bencher, &[plain("mimetype")], &text(size));
}

#[divan::bench(args = SIZES)]
fn mimetype_of_unknown_bytes(bencher: Bencher<'_, '_>, size: usize) {
    measure(bencher, &[plain("mimetype")], &binary(size)[2..]);
}

#[divan::bench(args = SIZES)]
fn yara_on_text(bencher: Bencher<'_, '_>, size: usize) {
    measure(bencher, &[yara()], &text(size));
}

#[divan::bench(args = SIZES)]
fn yara_on_an_executable(bencher: Bencher<'_, '_>, size: usize) {
    measure(bencher, &[yara()], &binary(size));
}

#[divan::bench(args = SIZES)]
fn hash_mimetype_yara(bencher: Bencher<'_, '_>, size: usize) {
    measure(bencher, &[plain("hash"), plain("mimetype"), yara()], &text(size));
}

#[divan::bench]
fn compile_seventy_rules() -> Built {
    yara()
}
