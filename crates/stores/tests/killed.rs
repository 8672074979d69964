//! A process that is killed at random moments leaves whole objects only, and all of those that it was told are safe.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helper functions are test code, though they are not marked as such"
)]

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use stoq_api::store::{Store as _, StoreKey};
use stoq_api::{Content, Sha256};
use stoq_stores::{FileStore, FileStoreOptions};

/// Tells this test, run again as a child, where to work.
const CHILD: &str = "STOQ_TEST_KILLED_CHILD";
const KILLS: usize = 12;

fn content(life: &str, n: usize) -> Vec<u8> {
    // Small and large in turn: large ones are put in parts.
    let size = if n.is_multiple_of(2) { 5_000 } else { 9 << 20 };
    format!("{life} {n} ").into_bytes().into_iter().cycle().take(size).collect()
}

async fn work(directory: &Path, life: &str) {
    let store = FileStore::open(directory, FileStoreOptions { fsync: true }).unwrap();
    for n in 0_usize.. {
        let bytes = content(life, n);
        let key = StoreKey { day: 20260102, sha256: Sha256::of(&bytes) };
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file.rewind().unwrap();
        let content = Content::File { file: Arc::new(file), offset: 0, len: bytes.len() as u64 };
        println!("@begin");
        store.put(&key, &content).await.unwrap();
        println!("@put {}", key.path());
    }
}

fn objects(folder: &Path, found: &mut Vec<PathBuf>) {
    // It is not there if nothing was stored.
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { objects(&path, found) } else { found.push(path) }
    }
}

#[tokio::test]
async fn kills_leave_whole_objects() {
    if let Some(arguments) = env::var_os(CHILD) {
        let arguments = arguments.into_string().unwrap();
        let (life, directory) = arguments.split_once(' ').unwrap();
        return work(Path::new(directory), life).await;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut told = Vec::new();
    for life in 0..KILLS {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "kills_leave_whole_objects", "--nocapture"])
            .env(CHILD, format!("l{life} {}", directory.path().display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut ours = || said.by_ref().find_map(|line| line.ok()?.split_once('@').map(|(_, line)| line.to_owned()));
        let mut hear = |line: String| told.extend(line.strip_prefix("put ").map(str::to_owned));
        // Killed while it puts: now a small object, now a large one.
        for _ in 0..life + 1 {
            hear(ours().expect("a child works until it is killed"));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        while let Some(line) = ours() {
            hear(line);
        }
        for path in &told {
            assert!(directory.path().join(path).exists(), "{path} was stored");
        }
        let mut found = Vec::new();
        objects(&directory.path().join("20260102"), &mut found);
        for path in found {
            let name = path.file_name().unwrap().to_str().unwrap();
            let leftover = name.contains('#');
            assert!(leftover || Sha256::of(&fs::read(&path).unwrap()).to_string() == name, "{path:?} is not whole");
        }
    }
    assert!(told.len() > KILLS, "the children stored something");
}
