//! `dirmon` over real directories and real notices. Tests wait for references, never for time.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use stoq_api::plugin::RootBytes;
use tokio::time::timeout;

use super::*;
use crate::testing::{context, fifo, name_of, reference, skipped};

/// How long a reference may take that must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A watched directory, and one for what is remembered.
struct Rig {
    source: tempfile::TempDir,
    data: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        Self { source: tempfile::tempdir().unwrap(), data: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.source.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), bytes).unwrap();
    }

    /// What becomes complete at once where nothing is said of it, and waits for a writer for ever.
    fn config(&self) -> Config {
        Config {
            source_dir: self.source.path().to_owned(),
            settle: 0.2,
            open_wait: 3_600.0,
            rescan_interval: 0.05,
            ..Config::default()
        }
    }

    fn start(&self, config: Config) -> DirMon {
        DirMon::new(config, &context(self.data.path()).0).unwrap()
    }
}

async fn next(dirmon: &mut DirMon) -> Reference {
    reference(timeout(PATIENCE, dirmon.next()).await.expect("a reference should come").unwrap().unwrap())
}

/// Takes the next `count` files; returns their names, sorted.
async fn take(dirmon: &mut DirMon, count: usize) -> Vec<String> {
    let mut names = Vec::new();
    for _ in 0..count {
        let reference = next(dirmon).await;
        names.push(name_of(&reference));
        reference.taken.taken().await.unwrap();
    }
    names.sort();
    names
}

fn content(reference: &Reference) -> Vec<u8> {
    let RootBytes::Content(content) = &reference.roots[0].bytes else { panic!("no content") };
    content.to_bytes().unwrap().to_vec()
}

#[tokio::test]
async fn files_are_taken_once_over_restarts() {
    let rig = Rig::new();
    rig.write("old", "1");
    rig.write("sub/old", "2");
    rig.write(".hidden", "3");
    let mut dirmon = rig.start(rig.config());
    assert_eq!(take(&mut dirmon, 2).await, ["old", "old"]);
    rig.write("sub/new/deep", "4");
    assert_eq!(take(&mut dirmon, 1).await, ["deep"]);
    drop(dirmon);
    rig.write("while_down", "5");
    let mut dirmon = rig.start(rig.config());
    assert_eq!(take(&mut dirmon, 1).await, ["while_down"]);
    // Whatever was taken before would come before this one.
    rig.write("zz_last", "6");
    assert_eq!(take(&mut dirmon, 1).await, ["zz_last"]);
}

#[tokio::test]
async fn existing_files_are_left_alone_if_so_configured_but_not_their_next_version() {
    let rig = Rig::new();
    rig.write("old", "1");
    let config = Config { existing: false, ..rig.config() };
    let mut dirmon = rig.start(config.clone());
    rig.write("new", "2");
    assert_eq!(take(&mut dirmon, 1).await, ["new"]);
    drop(dirmon);
    rig.write("while_down", "3");
    let mut dirmon = rig.start(config);
    assert_eq!(take(&mut dirmon, 1).await, ["while_down"]);
    rig.write("old", "other");
    let reference = next(&mut dirmon).await;
    assert_eq!((name_of(&reference).as_str(), content(&reference).as_slice()), ("old", &b"other"[..]));
}

#[tokio::test]
async fn a_slow_writer_is_waited_for() {
    let rig = Rig::new();
    let mut dirmon = rig.start(rig.config());
    // Only when this has come is the directory watched for sure.
    rig.write("first", "x");
    take(&mut dirmon, 1).await;
    let mut slow = std::fs::File::create(rig.path("slow")).unwrap();
    slow.write_all(b"half").unwrap();
    slow.flush().unwrap();
    rig.write("quick", "x");
    assert_eq!(take(&mut dirmon, 1).await, ["quick"]);
    rig.write("quicker", "x");
    assert_eq!(take(&mut dirmon, 1).await, ["quicker"], "listings pass over a file that is being written");
    slow.write_all(b" and half").unwrap();
    drop(slow);
    let reference = next(&mut dirmon).await;
    assert_eq!(content(&reference), b"half and half");
}

#[tokio::test]
async fn a_file_that_replaces_another_is_taken_too() {
    let rig = Rig::new();
    let mut dirmon = rig.start(rig.config());
    rig.write("f", "one");
    let first = next(&mut dirmon).await;
    assert_eq!(content(&first), b"one");
    let identity = first.identity.clone();
    first.taken.taken().await.unwrap();
    let outside = rig.data.path().join("outside");
    std::fs::write(&outside, "two").unwrap();
    std::fs::rename(&outside, rig.path("f")).unwrap();
    let second = next(&mut dirmon).await;
    assert_eq!(content(&second), b"two");
    assert_ne!(second.identity, identity);
}

#[tokio::test]
async fn a_directory_that_is_moved_in_is_taken_whole() {
    let rig = Rig::new();
    let mut dirmon = rig.start(Config { rescan_interval: 3_600.0, ..rig.config() });
    rig.write("first", "x");
    take(&mut dirmon, 1).await;
    let outside = rig.data.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("a"), "x").unwrap();
    std::fs::write(outside.join("b"), "x").unwrap();
    std::fs::rename(&outside, rig.path("inside")).unwrap();
    assert_eq!(take(&mut dirmon, 2).await, ["a", "b"]);
}

#[tokio::test]
async fn what_was_not_taken_is_offered_again_with_the_same_identity() {
    let rig = Rig::new();
    rig.write("f", "x");
    let mut dirmon = rig.start(rig.config());
    let first = next(&mut dirmon).await;
    let identity = first.identity.clone();
    drop(first);
    assert_eq!(next(&mut dirmon).await.identity, identity);
    drop(dirmon);
    let mut dirmon = rig.start(rig.config());
    assert_eq!(next(&mut dirmon).await.identity, identity, "and after a restart");
}

#[tokio::test]
async fn links_and_pipes_are_said_once_and_do_not_stop_it() {
    let rig = Rig::new();
    std::os::unix::fs::symlink("/etc/passwd", rig.path("link")).unwrap();
    fifo(&rig.path("pipe"));
    let (context, skips) = context(rig.data.path());
    let mut dirmon = DirMon::new(rig.config(), &context).unwrap();
    for name in ["a", "b", "c"] {
        rig.write(name, "x");
        assert_eq!(take(&mut dirmon, 1).await, [name]);
    }
    assert_eq!(skipped(&skips), ["link", "pipe"].map(std::path::PathBuf::from));
}

#[tokio::test]
async fn taken_files_go_where_they_should() {
    for (after, left) in [(AfterTaken::Delete, vec![]), (AfterTaken::Move, vec!["f", "f.1"])] {
        let rig = Rig::new();
        let done = rig.data.path().join("done");
        let mut config = Config { after, ..rig.config() };
        if after == AfterTaken::Move {
            config.move_to = done.clone();
        }
        let mut dirmon = rig.start(config);
        for bytes in [vec![1; 5], vec![2; 5_000]] {
            rig.write("sub/f", &bytes);
            let reference = next(&mut dirmon).await;
            assert_eq!(content(&reference), bytes, "large files are copied: theirs will not stay");
            assert!(rig.path("sub/f").exists(), "not before it was taken");
            reference.taken.taken().await.unwrap();
            assert!(!rig.path("sub/f").exists());
        }
        let names = |dir: &Path| {
            let mut names: Vec<_> =
                std::fs::read_dir(dir).into_iter().flatten().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&done.join("sub")), left);
    }
}

#[tokio::test]
async fn a_newer_version_is_not_put_away_with_the_one_that_was_taken() {
    let rig = Rig::new();
    rig.write("f", "one");
    let mut dirmon = rig.start(Config { after: AfterTaken::Delete, ..rig.config() });
    let first = next(&mut dirmon).await;
    rig.write("f", "another");
    first.taken.taken().await.unwrap();
    let second = next(&mut dirmon).await;
    assert_eq!(content(&second), b"another");
}

#[tokio::test]
async fn a_large_file_that_stays_is_left_in_place() {
    let rig = Rig::new();
    rig.write("sub/f", [7; 100]);
    let mut dirmon = rig.start(rig.config());
    let reference = next(&mut dirmon).await;
    let RootBytes::File(file) = &reference.roots[0].bytes else { panic!("was read") };
    assert_eq!((file.root.as_str(), file.size), ("src", 100));
    assert_eq!(file.path, stoq_api::task::RawPath::Text("sub/f".into()));
}

#[test]
fn wrong_options_stop_the_start() {
    let rig = Rig::new();
    let inside = rig.path("done");
    for (config, text) in [
        (Config::default(), "source_dir is not set"),
        (Config { source_dir: "/nowhere".into(), ..rig.config() }, "source_dir \"/nowhere\" cannot be watched"),
        (Config { settle: -1.0, ..rig.config() }, "settle = -1"),
        (Config { open_wait: f64::NAN, ..rig.config() }, "open_wait = NaN"),
        (Config { rescan_interval: 1e12, ..rig.config() }, "rescan_interval = 1000000000000"),
        (Config { after: AfterTaken::Move, ..rig.config() }, "after = \"move\" and move_to go together"),
        (Config { move_to: inside.clone(), ..rig.config() }, "after = \"move\" and move_to go together"),
        (Config { after: AfterTaken::Move, move_to: inside.clone(), ..rig.config() }, "move_to "),
        (Config { after: AfterTaken::Move, move_to: "/proc/x".into(), ..rig.config() }, "move_to \"/proc/x\""),
    ] {
        let error = DirMon::new(config, &context(rig.data.path()).0).err().unwrap().to_string();
        assert!(error.starts_with(text), "{error}");
    }
}
