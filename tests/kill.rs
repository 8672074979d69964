//! `kill -9` at any moment: nothing is lost, nothing is doubled, and the end is what it would have been.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on is to stop")]

mod support;

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::files::{self, Random};
use crate::support::{Running, assert_same, by_name, processes, responses_in, run, start, stoq, text, until};

/// Archives that are scanned, with ten payloads each.
const ROOTS: usize = 500;
/// How often the process is killed in all.
const KILLS: usize = 50;
/// What is run: enough to take archives apart, without rules whose compilation is most of a start.
const ROUTES: [&str; 5] = ["-a", "hash", "mimetype", "-R", "rules"];
/// The longest that it lives before it is, from its start.
const LONGEST_LIFE_MS: u64 = 1_200;

#[test]
fn no_kill_changes_what_comes_out() {
    let seed = std::env::var("KILL_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        u64::from(now.subsec_nanos())
    });
    // Shown if the test fails.
    println!("KILL_SEED={seed}");
    let mut random = Random(seed);

    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("in");
    std::fs::create_dir(&source).unwrap();
    for n in 0..ROOTS {
        files::write(&source, &format!("{n}.zip"), &files::nested_zip(n));
    }
    let scanned = run(stoq(&[&["scan", text(&source)], &ROUTES[..]].concat())).expect(0);
    let expected = by_name(scanned.responses());
    assert_eq!(expected.len(), ROOTS);
    assert!(expected.values().all(|response| response["results"].as_array().unwrap().len() == 10));

    let mut kills = 0;
    let mut runs = 0;
    // A run that was quick enough to end before a kill is looked at, and another begun.
    while kills < KILLS {
        runs += 1;
        let home = dir.path().join(format!("run-{runs}"));
        kills += run_with_kills(&source, &home, &mut random, KILLS - kills);
        check(&expected, &home);
    }
    println!("{kills} kills in {runs} runs");
}

/// Runs to the end, with up to `most` kills on the way; how many it were.
fn run_with_kills(source: &Path, home: &Path, random: &mut Random, most: usize) -> usize {
    let mut kills = 0;
    while kills < most {
        let mut running = start(command(source, home));
        let life = Duration::from_millis(random.below(LONGEST_LIFE_MS));
        if running.ends_within(life) {
            running.end().expect(0);
            return kills;
        }
        running.signal("KILL");
        all_gone(running);
        kills += 1;
        // A run that had ended, and whose process had not yet, would begin another under new ids.
        if has_ended(home) {
            return kills;
        }
    }
    start(command(source, home)).end().expect(0);
    kills
}

/// Whether the run has ended, however its process did: its id is there from its start until everything is delivered.
fn has_ended(home: &Path) -> bool {
    !home.join("data/run-id").exists() && responses_in(&home.join("out")).len() == ROOTS
}

fn command(source: &Path, home: &Path) -> Command {
    let provider = format!("providers.in.filedir.source_dir={}", text(source));
    let connector = format!("connectors.out.filedir.results_dir={}", text(&home.join("out")));
    let data = home.join("data");
    // No host kills so fast: on a busy machine one payload could be in hand at every kill, and be given up for it.
    let patient = "fleet.max_attempts=1000";
    let args = [
        "run",
        "--data-dir",
        text(&data),
        "--set",
        &provider,
        "--set",
        &connector,
        "--set",
        patient,
        "--log-level",
        "warning",
    ];
    let mut command = stoq(&[&args[..], &ROUTES].concat());
    // A group of its own, to see whether slots outlive the process.
    command.process_group(0);
    command
}

/// Waits until the process and all that it started have ended.
fn all_gone(running: Running) {
    let group = running.child.id();
    running.end();
    until("slots end with the process that started them", || !processes().iter().any(|p| p.group == group && !p.dead));
}

fn check(expected: &BTreeMap<String, Value>, home: &Path) {
    let responses = responses_in(&home.join("out"));
    assert!(responses.iter().all(|response| response["complete"] == true));
    assert_same(expected, &by_name(responses), "after kills");
    assert!(!home.join("data/run-id").exists(), "the run has ended");
}
