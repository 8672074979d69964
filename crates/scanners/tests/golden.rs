//! Runs every golden sample of every plugin; see the crate's documentation for how to add one.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use stoq_api::scanner::{Build, Built, Context, Payload, Registration, Remaining, ScanError, SourceFile};
use stoq_api::{Ancestor, Finding, PayloadMeta, RequestMeta, Sha256};
use stoq_scanners::memory_sink::{MemoryChild, MemorySink};

/// Bytes of a child that are shown, beside its size and digest.
const HEAD: usize = 64;

/// What surrounds a sample's payload.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Surroundings {
    options: Map<String, Value>,
    files: BTreeMap<String, Vec<String>>,
    payload_meta: PayloadMeta,
    request_meta: RequestMeta,
    dispatch_meta: Map<String, Value>,
    results: Map<String, Value>,
    ancestors: Vec<Ancestor>,
    remaining: Remaining,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self {
            options: Map::new(),
            files: BTreeMap::new(),
            payload_meta: PayloadMeta::default(),
            request_meta: RequestMeta::default(),
            dispatch_meta: Map::new(),
            results: Map::new(),
            ancestors: Vec::new(),
            remaining: Remaining { children: 1_000, bytes: 16 << 20 },
        }
    }
}

#[test]
fn every_sample_gives_what_is_on_file() {
    let bless = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut problems = Vec::new();
    for registration in stoq_scanners::registry() {
        let name = registration.info.name;
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(name).join("testdata");
        let cases = cases(&folder);
        if !cases.iter().any(|c| c.starts_with("empty") && payload(&folder, c).is_empty()) {
            problems.push(format!("{name}: no sample empty.in without a byte in {}", folder.display()));
        }
        if !cases.iter().any(|c| c.starts_with("malformed") || c.starts_with("hostile")) {
            problems.push(format!("{name}: no sample called malformed….in or hostile….in in {}", folder.display()));
        }
        problems.extend(orphans(&folder, &cases).into_iter().map(|o| format!("{name}: {o} belongs to no sample")));
        for case in cases {
            if let Err(problem) = check(&registration, &folder, &case, bless) {
                problems.push(format!("{name}/{case}: {problem}"));
            }
        }
    }
    assert!(problems.is_empty(), "{}\n(UPDATE_EXPECT=1 accepts what came out)", problems.join("\n"));
}

#[test]
fn names_are_sorted_and_distinct() {
    let names: Vec<_> = stoq_scanners::registry().iter().map(|r| r.info.name).collect();
    assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
}

/// Names of the samples in a folder, sorted.
fn cases(folder: &Path) -> BTreeSet<String> {
    entries(folder)
        .iter()
        .filter_map(|f| f.strip_suffix(".in").or_else(|| f.strip_suffix(".in.b64")))
        .map(str::to_owned)
        .collect()
}

/// Answers on file whose sample is gone.
fn orphans(folder: &Path, cases: &BTreeSet<String>) -> Vec<String> {
    let known = |f: &String| f.strip_suffix(".out.json").is_some_and(|case| !cases.contains(case));
    entries(folder).into_iter().filter(known).collect()
}

fn entries(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

fn payload(folder: &Path, case: &str) -> Vec<u8> {
    fs::read(folder.join(format!("{case}.in"))).unwrap_or_else(|_| {
        let mut text = fs::read(folder.join(format!("{case}.in.b64"))).unwrap();
        text.retain(|b| !b.is_ascii_whitespace());
        base64::engine::general_purpose::STANDARD.decode(text).unwrap()
    })
}

/// Runs one sample twice, because answers have to be the same every time, and compares with the file.
fn check(registration: &Registration, folder: &Path, case: &str, bless: bool) -> Result<(), String> {
    let around = match fs::read(folder.join(format!("{case}.json"))) {
        Ok(text) => serde_json::from_slice(&text).map_err(|e| format!("{case}.json: {e}"))?,
        Err(_) => Surroundings::default(),
    };
    let files = around.files.iter().flat_map(|(option, names)| names.iter().map(move |n| (option, n)));
    let files = files.map(|(option, name)| SourceFile {
        option: option.clone(),
        name: name.clone(),
        content: fs::read(folder.join(name)).unwrap(),
    });
    let build = Build { options: around.options.clone(), files: files.collect() };
    let built = (registration.build)(&build).map_err(|e| format!("cannot be built: {e}"))?;
    let content = payload(folder, case);
    let answer = run(&built, &content, &around, 1);
    if answer != run(&built, &content, &around, 2) {
        return Err("two runs gave two answers".into());
    }
    let path = folder.join(format!("{case}.out.json"));
    let text = serde_json::to_string_pretty(&answer).unwrap() + "\n";
    if bless { fs::write(path, text).map_err(|e| e.to_string()) } else { compare(&path, &text) }
}

fn run(built: &Built, content: &[u8], around: &Surroundings, serial: u64) -> Value {
    let payload = Payload {
        serial,
        content,
        // Given once and once not: that must not show in any answer.
        sha256: (serial == 2).then(|| Sha256::of(content)),
        meta: &around.payload_meta,
        request_meta: &around.request_meta,
        ancestors: &around.ancestors,
        dispatch_meta: &around.dispatch_meta,
        results: &around.results,
    };
    let mut answer = Map::new();
    let mut sink = MemorySink::new(around.remaining);
    if let Some(dispatcher) = &built.dispatcher {
        let mut cx = Context::new(&mut sink, None);
        let dispatched = dispatcher.dispatch(&payload, &mut cx).map(|d| {
            let plugins: Vec<_> = d.plugins.iter().map(|(plugin, why)| json!([plugin, why])).collect();
            json!({ "plugins": plugins, "meta": d.meta, "should_archive": d.should_archive, "errors": d.errors })
        });
        let findings = cx.into_findings();
        answer.insert("dispatcher".into(), role(dispatched, &findings, &[]));
    }
    if let Some(scanner) = &built.scanner {
        let mut cx = Context::new(&mut sink, None);
        let scanned = scanner
            .scan(&payload, &mut cx)
            .map(|o| json!({ "results": o.results, "errors": o.errors, "dispatch_to": o.dispatch_to }));
        let findings = cx.into_findings();
        answer.insert("worker".into(), role(scanned, &findings, &sink.take()));
    }
    if !built.warnings.is_empty() {
        answer.insert("warnings".into(), json!(built.warnings));
    }
    answer.into()
}

/// One role's answer without what is empty.
fn role(answer: Result<Value, ScanError>, findings: &[Finding], children: &[MemoryChild]) -> Value {
    let mut answer = answer.unwrap_or_else(|e| json!({ "failed": e.to_string() }));
    let children: Vec<_> = children
        .iter()
        .map(|c| {
            let head = c.content[..c.content.len().min(HEAD)].escape_ascii().to_string();
            json!({ "size": c.content.len(), "sha256": Sha256::of(&c.content), "meta": c.meta, "head": head })
        })
        .collect();
    answer["findings"] = json!(findings);
    answer["children"] = children.into();
    let members = answer.as_object_mut().unwrap();
    let dull = |v: &Value| v.is_null() || v.as_array().is_some_and(Vec::is_empty);
    members.retain(|_, v| !dull(v));
    answer
}

/// The first line that differs says more than both texts.
fn compare(path: &PathBuf, text: &str) -> Result<(), String> {
    let expected = fs::read_to_string(path).map_err(|_| format!("{} is missing", path.display()))?;
    if expected == text {
        return Ok(());
    }
    let at = expected.lines().zip(text.lines()).take_while(|(a, b)| a == b).count();
    let line = |text: &str| text.lines().nth(at).unwrap_or("(end)").trim().to_owned();
    Err(format!("line {}: expected {}, got {}", at + 1, line(&expected), line(text)))
}
