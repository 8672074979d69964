//! Bodies of the fuzz targets of this crate under `fuzz/`, so that ordinary tests replay what fuzzing found.
//!
//! To add a target: a function here and its line in [`TARGETS`], a file of four lines in `fuzz/fuzz_targets/` with its
//! entry in `fuzz/Cargo.toml`, and seeds in `fuzz/corpus/<target>/`. A plugin needs no more than a line that calls `plugin`.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use serde_json::Map;
use stoq_api::scanner::{Build, Built, Context, Payload, Remaining};
use stoq_api::{PayloadMeta, RequestMeta};

use crate::memory_sink::{MemoryChild, MemorySink};
use crate::{exif, mimetype, text, yara};

/// What a fuzzed plugin may emit: enough to get anywhere, too little to spend time on.
const REMAINING: Remaining = Remaining { children: 64, bytes: 1 << 20 };

/// A target: takes whatever the fuzzer made.
type Body = fn(&[u8]);

/// Every target by the name of its file.
pub const TARGETS: [(&str, Body); 15] = [
    ("decompress", |data| drop(plugin("decompress", data))),
    ("decompress_7z", |data| decompress(data, "7z")),
    ("decompress_cab", |data| decompress(data, "cab")),
    ("decompress_lha", |data| decompress(data, "lha")),
    ("decompress_rar", |data| decompress(data, "rar")),
    ("decompress_stream", decompress_stream),
    ("decompress_tar", |data| decompress(data, "tar")),
    ("decompress_zip", |data| decompress(data, "zip")),
    ("exif", |data| drop(plugin("exif", data))),
    ("mimetype", mimetype),
    ("parse_exiftool", parse_exiftool),
    ("pecarve", pecarve),
    ("smtp", |data| drop(plugin("smtp", data))),
    ("text", text),
    ("yara_split", yara_split),
];

/// Runs the target of that name.
///
/// # Panics
/// There is none, or a promise of the code under it does not hold.
pub fn target(name: &str, data: &[u8]) {
    let Some((_, body)) = TARGETS.iter().find(|(n, _)| *n == name) else { panic!("no target {name}") };
    body(data);
}

/// Runs a worker with its default options, holds it to the budget, and gives its children.
fn plugin(name: &str, data: &[u8]) -> Vec<MemoryChild> {
    plugin_with(name, data, &PayloadMeta::default())
}

fn plugin_with(name: &str, data: &[u8], meta: &PayloadMeta) -> Vec<MemoryChild> {
    static BUILT: LazyLock<Mutex<HashMap<String, Built>>> = LazyLock::new(Mutex::default);
    let scanner = {
        let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
        let built = built.entry(name.to_owned()).or_insert_with(|| {
            let registration = crate::registry().into_iter().find(|r| r.info.name == name);
            let built = registration.map(|r| (r.build)(&Build::default()));
            let Some(Ok(built)) = built else { panic!("{name} cannot be built without options") };
            built
        });
        built.scanner.clone()
    };
    let request_meta = RequestMeta::default();
    let mut results = Map::new();
    results.insert("mimetype".into(), serde_json::json!({ "mimetype": mimetype::identify(data) }));
    let none = Map::new();
    let payload = Payload {
        serial: 0,
        content: data,
        sha256: None,
        meta,
        request_meta: &request_meta,
        ancestors: &[],
        dispatch_meta: &none,
        results: &results,
    };
    let mut sink = MemorySink::new(REMAINING);
    // An error is as good an answer as any; not coming back is not.
    if let Some(scanner) = scanner {
        scanner.scan(&payload, &mut Context::new(&mut sink, None)).ok();
    }
    let bytes: u64 = sink.children().iter().map(|c| c.content.len() as u64).sum();
    assert!(sink.children().len() as u64 <= REMAINING.children && bytes <= REMAINING.bytes);
    sink.take()
}

/// The reader of one format, whatever the data look like. Names are bounded and hold no path.
fn decompress(data: &[u8], archiver: &str) {
    for child in plugin_with("decompress", data, &PayloadMeta::with("archiver", archiver)) {
        let Some(name) = child.meta.filename() else { panic!("a member without a name") };
        assert!(!name.is_empty() && name.chars().count() <= 255 && !name.contains('/'), "{name:?}");
    }
}

/// The first byte chooses the kind of stream.
fn decompress_stream(data: &[u8]) {
    let kinds = ["gzip", "bzip2", "xz", "lzma", "zstd", "ar"];
    if let Some((first, rest)) = data.split_first() {
        decompress(rest, kinds[usize::from(*first) % kinds.len()]);
    }
}

/// Images are pieces of the payload, where they say, one behind the other.
fn pecarve(data: &[u8]) {
    let mut end = 0;
    for child in plugin("pecarve", data) {
        let offset = child.meta.extra_data["offset"].as_u64().and_then(|o| usize::try_from(o).ok());
        let Some(offset) = offset else { panic!("an image without an offset") };
        assert!(offset >= end && data[offset..].starts_with(&child.content));
        end = offset + child.content.len();
    }
}

/// Whatever a tool printed, what is taken from it names no place on the host.
fn parse_exiftool(data: &[u8]) {
    if let Ok(facts) = exif::parse_exiftool(data) {
        assert!(facts.is_object() && facts.get("Directory").is_none());
        assert!(facts.get("SourceFile").is_none_or(|source| source == "-"));
    }
}

/// A media type comes out of anything, and the same one every time.
fn mimetype(data: &[u8]) {
    let found = mimetype::identify(data);
    assert!(found.is_ascii() && found.split('/').count() == 2, "{found}");
    assert_eq!(found, mimetype::identify(data));
}

/// Text is bounded by its bytes, and UTF-8 stays what it is.
fn text(data: &[u8]) {
    for decoded in [text::decode(data), text::decode_fragment(data)] {
        assert!(decoded.len() <= 3 * data.len());
    }
    let marked = [&b"\xef\xbb\xbf"[..], b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff"].iter().any(|m| data.starts_with(m));
    if let (Ok(utf8), false) = (std::str::from_utf8(data), marked) {
        assert_eq!(text::decode_fragment(data), utf8);
    }
}

/// Rules are split into pieces that keep [`yara::split::check`].
fn yara_split(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        yara::split::check(text);
    }
}
