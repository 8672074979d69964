//! The documentation does what it says: every block of commands in it is run, as somebody who copies it would.
//!
//! Each page has a directory of its own with samples, rules and the shipped configurations. How blocks are marked:
//! `xtask/src/blocks.rs`.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on is to stop")]

#[path = "../xtask/src/blocks.rs"]
mod blocks;
#[path = "support/servers.rs"]
mod servers;
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde_json::json;
use stoq_api::Sha256;
use stoq_api::queue::{Message, Queue};
use stoq_testkit::services::Process;

use crate::blocks::{Block, CARGO_RUN, Note, blocks};
use crate::servers::{Servers, replaced};
use crate::support::{PATIENCE, command, text, until};

/// Roles, which go on until they are told to end.
const ROLES: [&str; 4] = ["run", "provider", "worker", "connector"];
/// What a remark says of a command that does not end with 0.
const CODE: &str = "exit code ";
/// How the broker calls the queue of other people.
const OTHERS: &str = "others";
const OTHERS_QUEUE: &str = "others.intake.main";

#[tokio::test(flavor = "multi_thread")]
async fn every_block_of_commands_does_what_it_says() {
    let mut servers = None;
    let mut run = 0;
    for page in pages() {
        let text = fs::read_to_string(tree().join(&page)).unwrap();
        let (found, problems) = blocks(&text);
        assert!(problems.is_empty(), "{page}: {problems:?}");
        if !found.iter().any(Block::is_run) {
            continue;
        }
        if servers.is_none() && found.iter().any(|block| block.is_run() && block.text.contains("stoq setup")) {
            let started = Servers::start().await;
            let intake = started.intake("sensors", OTHERS).await;
            servers = Some((started, intake));
        }
        let desk = Desk::set_up(servers.as_ref());
        let mut said = String::new();
        for block in &found {
            match block.note {
                Some(Note::File(name)) => fs::write(desk.dir.path().join(name), &block.text).unwrap(),
                Some(Note::Output) => assert_eq!(comparable(&said), comparable(&block.text), "{page}:{}", block.line),
                _ if block.is_run() => {
                    said = desk.follow(&format!("{page}:{}", block.line), &block.text).await;
                    run += 1;
                }
                _ => {}
            }
        }
    }
    assert!(run > 0, "no block was run");
}

/// The root of the source tree.
fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Every page.
fn pages() -> Vec<String> {
    let listed = Command::new("git").args(["ls-files", "-z", "*.md"]).current_dir(tree()).output().unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    let pages: Vec<String> = text.split('\0').filter(|page| !page.is_empty()).map(str::to_owned).collect();
    assert!(pages.iter().any(|page| page == "README.md"), "git does not know this tree");
    pages
}

/// Lines that do not depend on who was faster, without times.
fn comparable(output: &str) -> Vec<String> {
    let mut lines: Vec<String> = output
        .lines()
        .map(|line| match line.rsplit_once(" in ") {
            Some((before, time)) if time.ends_with(" s") => before.to_owned(),
            _ => line.to_owned(),
        })
        .collect();
    lines.sort();
    lines
}

/// Where a page's commands are run.
struct Desk {
    dir: tempfile::TempDir,
    intake: Option<Arc<dyn Queue>>,
}

impl Desk {
    /// A directory with what pages speak of.
    fn set_up(servers: Option<&(Servers, Arc<dyn Queue>)>) -> Self {
        let dir = tempfile::Builder::new().prefix("stoq-docs-").tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        let tree = tree();
        for folder in ["samples", "tests/fixtures"] {
            copy(&tree.join("tests/fixtures"), &place(folder));
        }
        copy(&tree.join("config"), &place("config"));
        for (name, fixture) in
            [("suspicious.eml", "mail.eml"), ("sample.bin", "hello.exe"), ("upload.bin", "hello.exe")]
        {
            fs::copy(tree.join("tests/fixtures").join(fixture), place(name)).unwrap();
        }
        fs::create_dir(place("rules")).unwrap();
        fs::write(place("rules/own.yar"), "rule any { condition: filesize > 0 }\n").unwrap();
        fs::write(place("stoq.toml"), "[budgets]\nmax_depth = 5\n").unwrap();
        fs::create_dir(place("bin")).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_stoq"), place("bin/stoq")).unwrap();
        let Some((servers, intake)) = servers else { return Self { dir, intake: None } };
        // A fleet on these servers, as somebody would have edited the shipped configuration.
        servers.secrets(&place("secrets"));
        fs::create_dir(place("filestore")).unwrap();
        let shipped = fs::read_to_string(place("config/rabbitmq.toml")).unwrap();
        let mut fleet = servers.adapt(&shipped);
        for (old, new) in [
            ("/run/secrets", text(&place("secrets"))),
            ("/var/lib/suricata/filestore", text(&place("filestore"))),
            ("/var/lib/stoq/results", text(&place("results"))),
            ("\"fileinfo\"", &format!("\"{OTHERS_QUEUE}\"")),
            ("0.0.0.0:9090", "127.0.0.1:0"),
        ] {
            fleet = replaced(&fleet, old, new);
        }
        fs::write(place("config/rabbitmq.toml"), &fleet).unwrap();
        fs::write(place("fleet.toml"), &fleet).unwrap();
        Self { dir, intake: Some(Arc::clone(intake)) }
    }

    /// Runs one block, line by line, and gives what its last command said.
    async fn follow(&self, place: &str, text: &str) -> String {
        let mut said = String::new();
        let mut roles: Vec<(String, Process)> = Vec::new();
        let mut worked = false;
        for line in text.replace("\\\n", " ").lines().filter(|line| !line.trim().is_empty()) {
            let words = line.split('#').next().unwrap_or_default().trim().trim_end_matches('&').trim();
            if is_role(words) {
                let log = self.dir.path().join(format!("role-{}.log", roles.len()));
                roles.push((words.to_owned(), Process::spawn(self.shell(&format!("exec {words}")), &log)));
                continue;
            }
            // Only then everything is there that an operator would look at.
            if !roles.is_empty() && !worked {
                self.work(place, &mut roles).await;
                worked = true;
            }
            let done = self.shell(line).stdin(Stdio::null()).output().unwrap();
            said = String::from_utf8_lossy(&done.stdout).into_owned();
            let expected = line.split_once(CODE).map_or(0, |(_, code)| code[..1].parse().expect("a digit"));
            let told = String::from_utf8_lossy(&done.stderr);
            assert_eq!(done.status.code(), Some(expected), "{place}: {line}\n{said}{told}");
        }
        if !roles.is_empty() && !worked {
            self.work(place, &mut roles).await;
        }
        for (line, mut role) in roles {
            role.stop(PATIENCE).await;
            assert!(role.exited().is_some_and(|status| status.success()), "{place}: {line}\n{}", role.log());
        }
        said
    }

    /// A shell in the directory, with the program on its path.
    fn shell(&self, line: &str) -> Command {
        // As on the terminal of whoever has not built it yet.
        let line = free_ports(&line.replace(&format!("{CARGO_RUN} scan"), "stoq scan --format tree"));
        let mut shell = command("sh", &["-c", &line]);
        let path = std::env::var("PATH").unwrap();
        shell.current_dir(&self.dir).env("HOME", self.dir.path());
        shell.env("PATH", format!("{}:{path}", text(&self.dir.path().join("bin"))));
        shell
    }

    /// Gives roles something to do, and waits until it is done.
    async fn work(&self, place: &str, roles: &mut [(String, Process)]) {
        let results = self.dir.path().join("results");
        let before = count(&results);
        let sample = fs::read(tree().join("tests/fixtures/hello.exe")).unwrap();
        if roles.iter().any(|(line, _)| line.starts_with("stoq run")) {
            fs::write(self.dir.path().join("inbox/hello.exe"), &sample).unwrap();
        } else {
            let digest = Sha256::of(&sample).to_string();
            let folder = self.dir.path().join("filestore").join(&digest[..2]);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(&digest), &sample).unwrap();
            let event = json!({ "event_type": "fileinfo", "fileinfo": { "stored": true, "sha256": digest } });
            let intake = self.intake.as_ref().expect("a page with roles of a fleet sets it up");
            intake.publish(vec![Message::new(place, event.to_string())]).await.unwrap();
        }
        until(place, || {
            for (line, role) in roles.iter_mut() {
                assert!(role.exited().is_none(), "{place}: {line} ended:\n{}", role.log());
            }
            count(&results) > before
        });
    }
}

/// The ports that a page picks may be taken on this machine.
fn free_ports(line: &str) -> String {
    const LOCAL: &str = "127.0.0.1:";
    let mut parts = line.split(LOCAL);
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str(LOCAL);
        text.push('0');
        text.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    text
}

fn is_role(line: &str) -> bool {
    let mut words = line.split_whitespace();
    words.next() == Some("stoq") && words.next().is_some_and(|word| ROLES.contains(&word))
}

fn count(dir: &Path) -> usize {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries.flatten().filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')).count()
}

/// A folder with everything in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let into = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &into);
        } else {
            fs::copy(entry.path(), into).unwrap();
        }
    }
}
