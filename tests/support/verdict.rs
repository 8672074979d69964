//! What is left of a run under chaos, and what may be left: every root has one document in each sink, no other letter is
//! on the dead lane than those of poison, and every process that lived has dealt with all that it was given.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use stoq_api::{PayloadId, ScanId, Sha256};

use crate::fleet::{Fleet, ROUTES};
use crate::support::{files, name_of, normal, run, stoq, text, until};
use crate::watching::sum;
use crate::{Nature, Roots};

/// A run that has come to rest.
pub(crate) struct Run<'a> {
    pub(crate) roots: &'a Roots,
    /// Scans of which the ledger forgot something.
    pub(crate) forgotten: &'a BTreeSet<String>,
    /// When each reference was published.
    pub(crate) published: &'a [SystemTime],
    /// How long the broker keeps what nobody takes, if it is a stand-in that keeps it less long than a run may take.
    pub(crate) keeps: Option<Duration>,
}

/// Scans that are named in what a ledger forgot: keys end with the scan.
pub(crate) fn scans_in(log: &[u8]) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(log);
    let keys = text.split("{stoq:").skip(1).filter_map(|rest| rest.split_once("}:")?.1.get(2..38));
    keys.filter(|key| key.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')).map(str::to_owned).collect()
}

/// A process at rest was given nothing that it did not deal with.
pub(crate) fn balanced(role: &str, told: impl Fn() -> String) {
    let label = format!("role=\"{role}\"");
    let mut last = String::new();
    until("a process has nothing in hand", || {
        last = told();
        sum(&last, "stoq_in_flight", &[]) == 0.0
    });
    let [given, done, failed] =
        ["stoq_in_total", "stoq_out_total", "stoq_errors_total"].map(|f| sum(&last, f, &[&label]));
    match role {
        // One that is given back has failed.
        "worker" => assert_eq!(given, done + failed, "{last}"),
        // One that fails is tried again until it is delivered.
        "connector" => assert_eq!(given, done, "{last}"),
        _ => assert!(done <= given && given <= done + failed, "{last}"),
    }
}

/// Looks at everything.
pub(crate) fn check(fleet: &Fleet, run: &Run<'_>) {
    let expected = expected(fleet, run.roots);
    let mut poison = BTreeMap::new();
    let mut scans = Vec::new();
    for connector in ["out", "copy"] {
        let sink = Sink::read(&fleet.path(connector), run, &expected, &mut poison);
        println!("{connector}: {sink}");
        scans.push(sink.scans);
    }
    assert!(scans[0] == scans[1], "the sinks have documents of different scans");
    dead(fleet, run, &poison);
}

/// Files that one machine scans at a time: the limit that holds for every command has to do for them.
const AT_A_TIME: usize = 1_000;

/// What one machine says of the same files, as text: as values they would fill the memory.
fn expected(fleet: &Fleet, roots: &Roots) -> BTreeMap<String, String> {
    let alone = fleet.path("alone.toml");
    std::fs::write(&alone, format!("{ROUTES}\n[archive]\npayloads = false\n")).unwrap();
    let harmless: Vec<usize> = (0..roots.count).filter(|n| roots.nature(*n) == Nature::Harmless).collect();
    let mut expected = BTreeMap::new();
    for part in harmless.chunks(AT_A_TIME) {
        let source = tempfile::tempdir().unwrap();
        for n in part {
            files::write(source.path(), &Roots::name(*n), &roots.content(*n));
        }
        let scanned = run(stoq(&["scan", "--config-file", text(&alone), text(source.path())])).expect(0);
        for mut response in scanned.responses() {
            // A reference has no directory.
            response["results"][0]["payload_meta"]["extra_data"].as_object_mut().unwrap().remove("source_dir");
            expected.insert(name_of(&response), normal(response).to_string());
        }
    }
    expected
}

/// The documents of one connector.
struct Sink {
    /// Which scan each root had.
    scans: BTreeMap<String, String>,
    partial: usize,
    times: Vec<Duration>,
}

impl Sink {
    fn read(
        dir: &Path,
        run: &Run<'_>,
        expected: &BTreeMap<String, String>,
        poison: &mut BTreeMap<PayloadId, Poison>,
    ) -> Self {
        let mut sink = Self { scans: BTreeMap::new(), partial: 0, times: Vec::new() };
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            // A connector that was killed leaves what it was writing under another name.
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            let response: Value = serde_json::from_slice(&std::fs::read(entry.path()).unwrap()).unwrap();
            let name = name_of(&response);
            let n: usize = name.strip_suffix(".zip").unwrap().parse().unwrap();
            let scan = response["scan_id"].as_str().unwrap().to_owned();
            assert!(entry.file_name().to_str().unwrap().contains(&scan), "{:?} is of {scan}", entry.file_name());
            let complete = response["complete"] == true;
            sink.partial += usize::from(!complete);
            assert!(complete || run.forgotten.contains(&scan), "nothing was forgotten of {scan}: {response:#}");
            let written = entry.metadata().unwrap().modified().unwrap();
            sink.times.push(written.duration_since(run.published[n]).unwrap_or_default());
            match run.roots.nature(n) {
                Nature::Harmless if complete => {
                    let expected: Value = serde_json::from_str(&expected[&name]).unwrap();
                    assert_eq!(expected, normal(response), "{name}");
                }
                Nature::Harmless => is_part_of(&response, &serde_json::from_str(&expected[&name]).unwrap()),
                nature => {
                    let found = Poison::find(n, nature, &response);
                    poison.insert(found.id, found);
                }
            }
            assert!(sink.scans.insert(name.clone(), scan).is_none(), "{name} has two documents");
        }
        assert_eq!(sink.scans.len(), run.roots.count);
        sink.times.sort_unstable();
        sink
    }
}

impl std::fmt::Display for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let time = |part: usize| self.times[(self.times.len() - 1) * part / 100];
        let (median, most, longest) = (time(50), time(95), time(100));
        let (count, partial) = (self.scans.len(), self.partial);
        write!(
            f,
            "{count} documents, {partial} partial, after {median:?} in the middle, {most:?} for 95 %, {longest:?} at most"
        )
    }
}

/// A partial response says what is missing, and of the rest what a complete one says.
fn is_part_of(response: &Value, whole: &Value) {
    assert_eq!(response["findings"][0]["kind"], "time_limit", "{response:#}");
    let results = |of: &Value| of["results"].as_array().unwrap().clone();
    let whole: BTreeMap<String, Value> =
        results(whole).into_iter().map(|payload| (payload["sha256"].to_string(), payload["workers"].clone())).collect();
    for payload in results(response) {
        if payload["findings"][0]["kind"] != "missing" {
            assert_eq!(payload["workers"], whole[&payload["sha256"].to_string()], "{response:#}");
        }
    }
    assert!(!response["errors"].as_array().unwrap().is_empty(), "nothing is named as missing: {response:#}");
}

/// A payload that kills its workers, and what became of it.
struct Poison {
    n: usize,
    id: PayloadId,
    scan: ScanId,
    content: Vec<u8>,
    given_up: bool,
    complete: bool,
}

impl Poison {
    fn find(n: usize, nature: Nature, response: &Value) -> Self {
        let scan: ScanId = serde_json::from_value(response["scan_id"].clone()).unwrap();
        let content = Roots::poison(n);
        let id = match nature {
            Nature::Poison => PayloadId::root(scan, 0),
            _ => PayloadId::child(scan, &Sha256::of(&content), true, &[]),
        };
        let complete = response["complete"] == true;
        let payloads = response["results"].as_array().unwrap();
        let is_it = |payload: &&Value| payload["payload_id"] == json!(id);
        let given_up = payloads.iter().find(is_it).is_some_and(|it| it["findings"][0]["kind"] == "quarantined");
        assert!(given_up || !complete, "poison was not given up: {response:#}");
        if complete {
            // The archive of ten, what it lies in, and what holds the poison.
            let others: Vec<_> = payloads.iter().filter(|payload| !is_it(payload)).collect();
            assert_eq!(others.len(), if nature == Nature::Poison { 0 } else { 12 }, "{response:#}");
            for other in others {
                let whole = other["findings"] == json!([]) && other["not_run"] == json!([]);
                assert!(whole && other["workers"]["hash"]["sha256"] == other["sha256"], "{response:#}");
            }
        }
        Self { n, id, scan, content, given_up, complete }
    }
}

/// The dead lane and the quarantine hold the poison and nothing else.
fn dead(fleet: &Fleet, run: &Run<'_>, poison: &BTreeMap<PayloadId, Poison>) {
    let is_poison = |n: &usize| run.roots.nature(*n) != Nature::Harmless;
    assert_eq!(poison.len(), (0..run.roots.count).filter(is_poison).count(), "each has one id in both sinks");
    let outlived = |n: usize| run.keeps.is_some_and(|keeps| run.published[n].elapsed().is_ok_and(|age| age > keeps));
    let id_of = |letter: &Value| -> PayloadId { serde_json::from_value(letter["id"].clone()).unwrap() };
    // A broker may take longer to hand the first letter over than the command waits for it.
    let mut letters = Vec::new();
    until("the dead lane tells of what was given up", || {
        letters = fleet.command(&["dead", "list", "--json"]).expect(0).responses();
        let told: BTreeSet<_> = letters.iter().map(id_of).collect();
        poison.values().all(|it| told.contains(&it.id) || !it.given_up || outlived(it.n))
    });
    for letter in &letters {
        let id = id_of(letter);
        assert!(letter["kind"] == "task" && letter["reason"].as_str().unwrap().contains("given up"), "{letter}");
        assert!(poison.contains_key(&id), "harmless, and given up: {letter}\n{}", fleet.trail(&id.to_string()));
    }
    let quarantine = fleet.bucket.as_ref().unwrap().objects().join("quarantine");
    for it in poison.values() {
        let kept = std::fs::read(quarantine.join(format!("{}-{}", it.scan, it.id)));
        assert!(!it.given_up || kept.is_ok_and(|kept| kept == it.content), "{} is not kept", it.id);
    }
    let complete = poison.values().filter(|it| it.complete).count();
    let given_up = poison.values().filter(|it| it.given_up).count();
    println!("{given_up} poisonous payloads given up, {complete} in complete scans, {} letters", letters.len());
}
