//! `kill -9` through `dirmon` while files are written slowly, moved in and replaced: every version that stays is answered
//! once.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on is to stop")]

mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::files::Random;
use crate::support::{Running, name_of, responses_in, start, stoq, text, until};

/// Rounds of changes, with a kill in each.
const ROUNDS: u64 = 12;

fn command(source: &Path, home: &Path) -> Command {
    let option = |name: &str, value: &str| format!("providers.in.dirmon.{name}={value}");
    let connector = format!("connectors.out.filedir.results_dir={}", text(&home.join("out")));
    let source = option("source_dir", text(source));
    let (settle, again) = (option("settle", "300ms"), option("rescan_interval", "500ms"));
    let open = option("open_wait", "1s");
    let data = home.join("data");
    // See the test of kills.
    let patient = "fleet.max_attempts=1000";
    let args = ["run", "-a", "hash", "--data-dir", text(&data), "--log-level", "warning", "--set", patient];
    let set = ["--set", &source, "--set", &settle, "--set", &again, "--set", &open, "--set", &connector];
    stoq(&[&args[..], &set].concat())
}

#[test]
fn every_final_version_is_answered_once() {
    let dir = tempfile::tempdir().unwrap();
    let (source, aside) = (dir.path().join("in"), dir.path().join("aside"));
    std::fs::create_dir(&source).unwrap();
    std::fs::create_dir(&aside).unwrap();
    let seed = std::process::id().into();
    println!("seed {seed}");
    let mut random = Random(seed);
    let mut expected = BTreeMap::new();
    let mut running: Running = start(command(&source, dir.path()));
    for round in 0..ROUNDS {
        let life = Duration::from_millis(random.below(900));
        change(&source, &aside, round, &mut expected);
        assert!(!running.ends_within(life), "dirmon never ends by itself");
        running.signal("KILL");
        running.end();
        running = start(command(&source, dir.path()));
    }
    // What only the last start can answer: once it has, that process also knows how to end.
    note(&mut expected, "last".to_owned(), b"after all kills");
    std::fs::write(source.join("last"), b"after all kills").unwrap();
    let out = dir.path().join("out");
    until("every final version is answered", || {
        let found = versions(&out);
        expected.iter().all(|version| found.contains_key(&(version.0.clone(), version.1.clone())))
    });
    running.signal("TERM");
    running.end().expect(0);
    for (version, count) in versions(&out) {
        assert!(count == 1 || expected.get(&version.0) != Some(&version.1), "{version:?} has {count} responses");
    }
}

/// Responses by name and content.
fn versions(out: &Path) -> BTreeMap<(String, String), usize> {
    let mut all = BTreeMap::new();
    for response in responses_in(out) {
        let digest: &Value = &response["results"][0]["sha256"];
        *all.entry((name_of(&response), digest.as_str().unwrap_or_default().to_owned())).or_default() += 1;
    }
    all
}

fn note(expected: &mut BTreeMap<String, String>, name: String, bytes: &[u8]) {
    expected.insert(name, stoq_api::Sha256::of(bytes).to_string());
}

fn change(source: &Path, aside: &Path, round: u64, expected: &mut BTreeMap<String, String>) {
    // Written in pieces.
    let name = format!("slow-{round}");
    let mut slow = std::fs::File::create(source.join(&name)).unwrap();
    let mut whole = Vec::new();
    for piece in 0..20 {
        let bytes = format!("piece {piece} of {round}\n").into_bytes();
        slow.write_all(&bytes).unwrap();
        whole.extend(bytes);
        std::thread::sleep(Duration::from_millis(5));
    }
    note(expected, name, &whole);
    // Moved in, and another put in its place.
    for version in 0..2 {
        let bytes = format!("moved {version} in {round}").into_bytes();
        std::fs::write(aside.join("x"), &bytes).unwrap();
        std::fs::rename(aside.join("x"), source.join(format!("moved-{round}"))).unwrap();
        note(expected, format!("moved-{round}"), &bytes);
    }
    // One file that is written anew in every round.
    let bytes = format!("always {round}").into_bytes();
    std::fs::write(source.join("always"), &bytes).unwrap();
    note(expected, "always".to_owned(), &bytes);
}
