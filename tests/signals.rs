//! Ctrl-C: once ends in order, twice at once; and what was taken is not lost.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on is to stop")]

mod support;

use std::path::Path;
use std::process::Command;

use crate::support::files;
use crate::support::{by_name, responses_in, run, start, stoq, text, until};

/// Enough to be in the middle of it when the signal comes.
const ROOTS: usize = 500;
/// The same where the provider must not have ended: more than the lanes hold.
const MANY_ROOTS: usize = 1_500;

fn source(dir: &Path, count: usize) -> std::path::PathBuf {
    let source = dir.join("in");
    std::fs::create_dir(&source).unwrap();
    for n in 0..count {
        files::write(&source, &format!("{n}.zip"), &files::nested_zip(n));
    }
    source
}

fn run_of(source: &Path, dir: &Path) -> Command {
    let provider = format!("providers.in.filedir.source_dir={}", text(source));
    let connector = format!("connectors.out.filedir.results_dir={}", text(&dir.join("out")));
    stoq(&[
        "run",
        "-a",
        "hash",
        "mimetype",
        "-R",
        "rules",
        "--data-dir",
        text(&dir.join("data")),
        "--set",
        &provider,
        "--set",
        &connector,
    ])
}

#[test]
fn a_run_that_was_interrupted_keeps_its_work() {
    for signals in [1, 2] {
        let dir = tempfile::tempdir().unwrap();
        let source = source(dir.path(), ROOTS);
        let out = dir.path().join("out");
        let running = start(run_of(&source, dir.path()));
        until("the first response", || out.read_dir().is_ok_and(|entries| entries.count() > 0));
        for _ in 0..signals {
            running.signal("INT");
        }
        running.end().expect(0).says(&["a second signal stops at once"]);
        let before = responses_in(&out).len();
        assert!(before < ROOTS, "it was interrupted in the middle");
        run(run_of(&source, dir.path())).expect(0);
        let all = responses_in(&out);
        assert!(all.iter().all(|response| response["complete"] == true));
        assert_eq!(by_name(all).len(), ROOTS, "after {signals} signals and {before} responses");
    }
}

#[test]
fn an_interrupted_scan_answers_what_it_took() {
    let dir = tempfile::tempdir().unwrap();
    let source = source(dir.path(), MANY_ROOTS);
    let marker = dir.path().join("out.jsonl");
    let mut command = stoq(&["scan", text(&source)]);
    command.stdout(std::fs::File::create(&marker).unwrap()).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    until("the first response", || marker.metadata().unwrap().len() > 0);
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-s", "INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "not all was scanned: {err}");
    assert!(err.contains("ending: work in hand is finished first"), "{err}");
    let text = std::fs::read_to_string(&marker).unwrap();
    assert!(text.ends_with('\n'), "the last line is whole");
    let responses = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let answered = by_name(responses).len();
    assert!((1..MANY_ROOTS).contains(&answered), "{answered}");
}
