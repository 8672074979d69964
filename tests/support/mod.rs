//! What the whole-system tests share: the program as a process, and responses in a form that can be compared.
#![allow(dead_code, reason = "each test is a program of its own and uses a part of this")]

pub(crate) mod files;

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

/// How long anything may take before the test fails. Far above what a loaded machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

/// The program, deaf to the configuration and the terminal of whoever runs the tests.
pub(crate) fn stoq(args: &[&str]) -> Command {
    command(env!("CARGO_BIN_EXE_stoq"), args)
}

/// Another program, in the same surroundings.
pub(crate) fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("STOQ_")) {
        command.env_remove(name);
    }
    command.args(args).env("HOME", "/nonexistent").env_remove("NO_COLOR").stdin(Stdio::null());
    command
}

/// A file or directory of `tests/fixtures`.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").canonicalize().unwrap().join(name)
}

/// The text of a path.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A process that is running, with everything it says.
pub(crate) struct Running {
    pub(crate) child: Child,
    out: JoinHandle<Vec<u8>>,
    err: JoinHandle<Vec<u8>>,
}

/// What a process left.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Starts a command whose output is kept.
pub(crate) fn start(mut command: Command) -> Running {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    Running { child, out: std::thread::spawn(|| all_of(out)), err: std::thread::spawn(|| all_of(err)) }
}

/// Runs a command to its end.
pub(crate) fn run(command: Command) -> Ended {
    start(command).end()
}

fn all_of(mut from: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).unwrap();
    bytes
}

impl Running {
    /// Waits for the end. A process that does not end is killed, and the test fails.
    pub(crate) fn end(mut self) -> Ended {
        let limit = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > limit {
                self.child.kill().ok();
                let err = String::from_utf8_lossy(&self.err.join().unwrap()).into_owned();
                panic!("stoq did not end; it said: {err}");
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let said = |thread: JoinHandle<Vec<u8>>| String::from_utf8(thread.join().unwrap()).expect("output is UTF-8");
        Ended { status, out: said(self.out), err: said(self.err) }
    }

    /// Whether it has ended within `time`.
    pub(crate) fn ends_within(&mut self, time: Duration) -> bool {
        let limit = Instant::now() + time;
        loop {
            if self.child.try_wait().unwrap().is_some() {
                return true;
            }
            if Instant::now() >= limit {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Sends a signal, such as `INT`.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }
}

impl Ended {
    /// The exit code; the test fails if there is none, or the process panicked anywhere.
    pub(crate) fn code(&self) -> i32 {
        assert!(!self.err.contains("panicked"), "{}", self.err);
        self.status.code().unwrap_or_else(|| panic!("ended by signal {:?}: {}", self.status.signal(), self.err))
    }

    /// The same, where a certain code is expected.
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "standard error: {}\nstandard output: {:.2000}", self.err, self.out);
        self
    }

    /// The responses on standard output, one line each.
    pub(crate) fn responses(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The one response on standard output.
    pub(crate) fn response(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}", self.out))
    }

    /// Fails unless standard error holds each of `parts`.
    pub(crate) fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.err.contains(part), "{part:?} is not in: {}", self.err);
        }
        self
    }
}

/// Waits until `done`.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let limit = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < limit, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A process of this machine.
pub(crate) struct Process {
    pub(crate) id: u32,
    pub(crate) parent: u32,
    pub(crate) group: u32,
    /// It has ended, and nobody has asked how.
    pub(crate) dead: bool,
}

/// All processes of this machine.
pub(crate) fn processes() -> Vec<Process> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name in parentheses may hold anything; what follows does not.
            let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
            let dead = fields.next()? == "Z";
            Some(Process { id, parent: fields.next()?.parse().ok()?, group: fields.next()?.parse().ok()?, dead })
        })
        .collect()
}

/// Responses in files, as the connector `filedir` writes them.
pub(crate) fn responses_in(dir: &Path) -> Vec<Value> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
    paths.sort();
    // A file that is being written has another name until it is whole.
    paths.retain(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.'));
    paths
        .iter()
        .map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}: {text:.200}", path.display()))
        })
        .collect()
}

/// The name of the file that a response is about.
pub(crate) fn name_of(response: &Value) -> String {
    response["results"][0]["payload_meta"]["extra_data"]["filename"].as_str().unwrap_or_default().to_owned()
}

/// Responses by the name of their file, with what depends on the run or the clock taken out. Each file has one.
pub(crate) fn by_name(responses: Vec<Value>) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for response in responses {
        let name = name_of(&response);
        assert!(all.insert(name.clone(), normal(response)).is_none(), "{name} has two responses");
    }
    all
}

/// Fails with the first difference, not with megabytes.
pub(crate) fn assert_same(expected: &BTreeMap<String, Value>, found: &BTreeMap<String, Value>, what: &str) {
    let missing: Vec<_> = expected.keys().filter(|name| !found.contains_key(*name)).collect();
    assert!(missing.is_empty(), "{what}: no response for {} files: {:.1000?}", missing.len(), missing);
    assert_eq!(expected.len(), found.len(), "{what}");
    for (name, response) in expected {
        assert_eq!(response, &found[name], "{what}: {name}");
    }
}

/// A response without what depends on the run or the clock: ids become their order of appearance, times go.
pub(crate) fn normal(mut response: Value) -> Value {
    let mut ids = BTreeMap::new();
    if let Some(scan) = response["scan_id"].as_str() {
        ids.insert(scan.to_owned(), "scan".to_owned());
    }
    for (n, result) in response["results"].as_array().unwrap().iter().enumerate() {
        ids.insert(result["payload_id"].as_str().unwrap().to_owned(), format!("payload {n}"));
    }
    clean(&mut response, &ids);
    // Errors are in the order of ids, which are not the same in another run.
    let errors = response["errors"].as_array_mut().unwrap();
    errors.sort_by_key(ToString::to_string);
    response
}

/// What no two runs have in common. Those of exif come from exiftool's own copy of the payload.
const PASSING: [&str; 8] = [
    "time",
    "micros",
    "SourceFile",
    "FileName",
    "Directory",
    "FileModifyDate",
    "FileAccessDate",
    "FileInodeChangeDate",
];

fn clean(value: &mut Value, ids: &BTreeMap<String, String>) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !PASSING.contains(&key.as_str()));
            map.values_mut().for_each(|value| clean(value, ids));
        }
        Value::Array(all) => all.iter_mut().for_each(|value| clean(value, ids)),
        Value::String(text) => {
            if let Some(id) = ids.get(text) {
                id.clone_into(text);
            }
        }
        _ => {}
    }
}

/// The keys of an object, in their order.
pub(crate) fn keys(value: &Value) -> Vec<&str> {
    value.as_object().map(Map::keys).into_iter().flatten().map(String::as_str).collect()
}
