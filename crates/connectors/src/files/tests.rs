//! `files` over real directories.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, setrlimit};
use serde_json::json;
use stoq_testkit::wait::until;

use super::*;
use crate::testing::context;

fn connector(directory: &Path, more: Value) -> Arc<dyn Connector> {
    let mut options = more.as_object().unwrap().clone();
    options.insert("directory".to_owned(), json!(directory));
    build(&options, &context()).unwrap()
}

fn item(n: usize, source: &str, padding: usize) -> Item {
    let text = json!({
        "results": [], "request_meta": { "archive_payloads": true, "source": source, "extra_data": {} }, "errors": [],
        "time": "2026-11-04T05:06:07.000001", "decorators": { "padding": "x".repeat(padding) },
        "scan_id": uuid::Uuid::from_u128(n as u128), "complete": true, "findings": [],
        "engine": { "version": "0", "rulesets": {} }, "tenant": "acme"
    });
    Item { id: n.to_string(), json: text.to_string().into() }
}

/// All files below a directory, finished ones first.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

fn is_finished(path: &Path) -> bool {
    !path.to_string_lossy().contains(".unfinished")
}

/// The scans in a file, each on a line that is whole.
#[expect(clippy::disallowed_types, reason = "what is decompressed was made by this test")]
fn scans(path: &Path) -> Vec<usize> {
    let mut text = String::new();
    let file = fs::File::open(path).unwrap();
    match path.extension().and_then(|e| e.to_str()) {
        Some("gz") => flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text),
        Some("zst") => zstd::Decoder::new(file).unwrap().read_to_string(&mut text),
        _ => fs::File::read_to_string(&mut { file }, &mut text),
    }
    .unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is whole");
    let id = |line: &str| {
        let id: uuid::Uuid =
            serde_json::from_value(serde_json::from_str::<Value>(line).unwrap()["scan_id"].clone()).unwrap();
        usize::try_from(id.as_u128()).unwrap()
    };
    text.lines().map(id).collect()
}

fn finished_scans(directory: &Path) -> Vec<usize> {
    let mut all: Vec<usize> = files(directory).iter().filter(|p| is_finished(p)).flat_map(|p| scans(p)).collect();
    all.sort_unstable();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn files_end_by_size_and_with_the_process_and_are_compressed_then() {
    for (compress, ending) in [("none", "jsonl"), ("gzip", "gz"), ("zstd", "zst")] {
        let dir = tempfile::tempdir().unwrap();
        let options =
            json!({ "name": "{date}/{tenant}/{source}-{seq}.jsonl", "max_size": 4_000, "compress": compress });
        let connector = connector(dir.path(), options);
        for n in 0..10 {
            let pretty = Item { json: json!(item(100 + n, "b", 0).json.len()).to_string().into(), ..item(n, "a", 400) };
            assert!(matches!(connector.deliver(&[pretty]).await.unwrap()[..], [Verdict::Rejected(_)]));
            let verdicts = connector.deliver(&[item(n, "a", 400), item(100 + n, "../b", 0)]).await.unwrap();
            assert_eq!(verdicts, [Verdict::Delivered, Verdict::Delivered]);
        }
        let open = files(dir.path()).iter().filter(|p| !is_finished(p) && p.extension().unwrap() == "jsonl").count();
        assert!(open >= 2, "what is delivered can be read before it is finished: {open}");
        drop(connector);
        until("all files are finished", || async { files(dir.path()).iter().all(|p| is_finished(p)) }).await;
        assert_eq!(finished_scans(dir.path()), (0..10).chain(100..110).collect::<Vec<_>>());
        let names: Vec<String> =
            files(dir.path()).iter().map(|p| p.strip_prefix(dir.path()).unwrap().display().to_string()).collect();
        assert!(names.iter().all(|name| name.ends_with(ending)), "{names:?}");
        assert!(names.iter().any(|n| n.starts_with("2026-11-04/acme/a-0001.jsonl")), "{names:?}");
        assert!(names.iter().any(|n| n.starts_with("2026-11-04/acme/_.._b-0001.jsonl")), "{names:?}");
        assert_eq!(names.len(), 3, "two of a by size, one of b: {names:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_ends_by_age_though_nothing_more_comes() {
    let dir = tempfile::tempdir().unwrap();
    let connector = connector(dir.path(), json!({ "max_age": 1.0 }));
    connector.deliver(&[item(1, "a", 0)]).await.unwrap();
    until("the file is finished", || async { finished_scans(dir.path()) == [1] }).await;
    connector.check().await.unwrap();
}

/// What a process leaves that dies at any moment of a file's life.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_leaves_is_finished_once_and_whole() {
    let dir = tempfile::tempdir().unwrap();
    let left = dir.path().join(".unfinished");
    fs::create_dir(&left).unwrap();
    let line = |n: usize| format!("{}\n", String::from_utf8_lossy(&item(n, "a", 10).json));
    let gz = |n: usize| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, line(n).as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    // In the middle of a line; a long one, so that its begin is far back.
    let torn = item(999, "a", 600_000);
    fs::write(left.join("d%torn.jsonl"), format!("{}{}", line(1), String::from_utf8_lossy(&torn.json))).unwrap();
    fs::write(left.join("nothing.jsonl"), &torn.json[..100]).unwrap();
    // In the middle of compressing, after it, and after the plain one was removed.
    fs::write(left.join("d%part.jsonl"), line(2)).unwrap();
    fs::write(left.join("d%part.jsonl.gz.part"), &gz(2)[..9]).unwrap();
    fs::write(left.join("d%both.jsonl"), line(3)).unwrap();
    fs::write(left.join("d%both.jsonl.gz"), gz(3)).unwrap();
    fs::write(left.join("d%whole.jsonl.gz"), gz(4)).unwrap();
    // Its name was taken by somebody else meanwhile.
    fs::create_dir(dir.path().join("d")).unwrap();
    fs::write(dir.path().join("d/taken.jsonl"), line(5)).unwrap();
    fs::write(left.join("d%taken.jsonl"), line(6)).unwrap();
    // Long without a byte; and without one a moment ago, by somebody who is about to lock it.
    let empty = |name: &str, age: u64| {
        let file = fs::File::create(left.join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(age)).unwrap();
    };
    empty("old.jsonl", 3_600);
    empty("begun.jsonl", 0);
    // Another process has this one.
    let held = fs::File::create(left.join("held.jsonl")).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();

    let connector = connector(dir.path(), json!({ "compress": "gzip" }));
    connector.deliver(&[item(7, "a", 0)]).await.unwrap();
    until("all is finished", || async { finished_scans(dir.path()) == [1, 2, 3, 4, 5, 6] }).await;
    assert!(files(&left).contains(&left.join("held.jsonl")), "it belongs to somebody who lives");
    until("what never held a byte is gone", || async { !left.join("old.jsonl").exists() }).await;
    drop(connector);
    until("the last one is finished", || async { finished_scans(dir.path()) == [1, 2, 3, 4, 5, 6, 7] }).await;
    assert_eq!(files(&left), [left.join("begun.jsonl"), left.join("held.jsonl")]);
}

/// The compressed form of a file keeps its name taken until it has gone out: a new file beside it would be thrown away by
/// whoever cleans up after a crash, as what the compressed one was made of.
#[tokio::test(flavor = "multi_thread")]
async fn no_file_begins_beside_one_of_its_name_that_goes_out() {
    let dir = tempfile::tempdir().unwrap();
    let left = dir.path().join(".unfinished");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("0001.jsonl.gz"), b"").unwrap();
    // Somebody who lives is at it.
    let held = fs::File::open(left.join("0001.jsonl.gz")).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let connector = connector(dir.path(), json!({ "name": "{seq}.jsonl", "compress": "gzip" }));
    connector.deliver(&[item(1, "a", 0)]).await.unwrap();
    assert!(!left.join("0001.jsonl").exists() && left.join("0002.jsonl").exists(), "{:?}", files(&left));
    drop(connector);
    until("the file is finished", || async { finished_scans(dir.path()) == [1] }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_share_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let options = json!({ "name": "{seq}.jsonl" });
    let all: Vec<_> = (0..3).map(|_| connector(dir.path(), options.clone())).collect();
    for n in 0..30 {
        all[n % 3].deliver(&[item(n, "a", 0)]).await.unwrap();
    }
    drop(all);
    until("all are finished", || async { finished_scans(dir.path()) == (0..30).collect::<Vec<_>>() }).await;
    assert_eq!(files(dir.path()).len(), 3);
}

/// Run by [`a_full_disk_makes_wait_and_loses_nothing`] in a process that may write small files only.
#[test]
fn in_a_process_with_small_files() {
    let Some(directory) = std::env::var_os("STOQ_TEST_SMALL_FILES").map(PathBuf::from) else { return };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let connector = connector(&directory, json!({ "name": "{seq}.jsonl" }));
        let mut delivered = 0;
        let fault = loop {
            let batch: Vec<Item> = (delivered..delivered + 3).map(|n| item(n, "a", 900)).collect();
            match connector.deliver(&batch).await {
                Ok(verdicts) => assert_eq!(verdicts, vec![Verdict::Delivered; 3]),
                Err(fault) => break fault,
            }
            delivered += 3;
        };
        assert_eq!(fault.kind, FaultKind::Unavailable, "{fault}");
        assert!(delivered > 0);
        let open = files(&directory).remove(0);
        assert_eq!(scans(&open), (0..delivered).collect::<Vec<_>>(), "nothing of the failed batch is left");
        setrlimit(Resource::Fsize, Rlimit { current: None, maximum: None }).unwrap();
        let batch: Vec<Item> = (delivered..delivered + 3).map(|n| item(n, "a", 900)).collect();
        assert_eq!(connector.deliver(&batch).await.unwrap(), vec![Verdict::Delivered; 3]);
        drop(connector);
        until("all is finished", || async { finished_scans(&directory).len() == delivered + 3 }).await;
        assert_eq!(finished_scans(&directory), (0..delivered + 3).collect::<Vec<_>>());
    });
}

#[test]
fn a_full_disk_makes_wait_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // The limit in the shell's units of 1024 bytes; the signal is ignored, so that writing fails as on a full disk.
    let ended = std::process::Command::new("bash")
        .args(["-c", "trap '' XFSZ; ulimit -S -f 16; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "files::tests::in_a_process_with_small_files", "--test-threads", "1"])
        .env("STOQ_TEST_SMALL_FILES", dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success() && said.contains("1 passed"), "{said}");
    assert!(!finished_scans(dir.path()).is_empty(), "it did something");
}

#[test]
fn options_that_cannot_work_are_refused() {
    for (options, said) in [
        (json!({}), "`directory` is missing"),
        (json!({ "directory": "d", "name": "x" }), "{seq}"),
        (json!({ "directory": "d", "max_age": 0.5 }), "max_age"),
        (json!({ "directory": "d", "max_size": 0 }), "max_size"),
        (json!({ "directory": "d", "compress": "xz" }), "gzip"),
        (json!({ "directory": "d", "results_dir": "x" }), "results_dir"),
    ] {
        let error = build(options.as_object().unwrap(), &context()).err().unwrap().0;
        assert!(error.contains(said), "{options}: {error}");
    }
}
