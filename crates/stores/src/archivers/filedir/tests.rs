//! The archiver as a whole.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use stoq_api::ScanId;
use stoq_api::response::PayloadResults;
use stoq_testkit::NoQueues;

use super::*;

fn archiver(directory: &Path, more: Value) -> Arc<dyn Archiver> {
    let mut options = more.as_object().unwrap().clone();
    options.insert("archive_dir".to_owned(), json!(directory));
    build(&options, &NoQueues).unwrap()
}

fn results(n: u32) -> PayloadResults {
    let id = stoq_api::PayloadId::root(ScanId(uuid::Uuid::nil()), n);
    let text = json!({
        "size": 0, "payload_id": id, "payload_meta": {}, "plugins_run": {"workers": [], "archivers": []},
        "extracted_from": [], "extracted_by": [], "workers": {}, "archivers": {}, "sha256": null, "depth": 0,
        "runs": [], "not_run": [], "findings": []
    });
    serde_json::from_value(text).unwrap()
}

async fn keep(archiver: &dyn Archiver, content: &[u8], n: u32) -> String {
    let kept = archiver.archive(&content.to_vec().into(), &results(n), &RequestMeta::default()).await.unwrap();
    kept.unwrap().value()["path"].as_str().unwrap().to_owned()
}

fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path.display().to_string()) }
    }
    found
}

#[tokio::test]
async fn content_is_kept_once_and_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let top = directory.path().canonicalize().unwrap().join("archive");
    let archiver = archiver(&top, json!({}));
    let path = keep(&*archiver, b"abc", 0).await;
    assert_eq!(path, format!("{}/a/9/9/9/3/a9993e364706816aba3e25717850c26c9cd0d89d", top.display()));
    assert_eq!(keep(&*archiver, b"abc", 1).await, path);
    assert_eq!(files(&top), std::slice::from_ref(&path), "one file, and nothing unfinished beside it");

    let task = json!({ "path": path, "more": [1] });
    let (content, meta) = archiver.get(&task).await.unwrap();
    assert_eq!(content.to_bytes().unwrap(), "abc");
    assert_eq!(Value::Object(meta.extra_data), task);
    let relative = json!({ "path": "a/9/9/9/3/a9993e364706816aba3e25717850c26c9cd0d89d" });
    assert_eq!(archiver.get(&relative).await.unwrap().0.to_bytes().unwrap(), "abc");

    let large = vec![7; 300_000];
    let path = keep(&*archiver, &large, 2).await;
    let (content, _) = archiver.get(&json!({ "path": path })).await.unwrap();
    assert!(content.to_bytes().unwrap() == large);
}

#[tokio::test]
async fn files_are_named_by_payload_and_date() {
    let directory = tempfile::tempdir().unwrap();
    let top = directory.path().canonicalize().unwrap();
    let id = results(3).payload_id;
    let plain = archiver(&top.join("plain"), json!({ "use_sha": false }));
    assert_eq!(keep(&*plain, b"first", 3).await, format!("{}/plain/{id}", top.display()));
    let path = keep(&*plain, b"second", 3).await;
    assert_eq!(fs::read(path).unwrap(), b"first", "the first one stays");

    let dated = json!({ "use_sha": false, "date_mode": true, "date_format": "y%Y/%j" });
    let path = keep(&*archiver(&top.join("dated"), dated), b"x", 3).await;
    let below = path.strip_prefix(&format!("{}/dated/y", top.display())).unwrap();
    let parts: Vec<_> = below.split('/').collect();
    assert_eq!((parts.len(), parts[0].len(), parts[1].len(), parts[2]), (3, 4, 3, id.to_string().as_str()), "{path}");

    for format in ["../%Y", "/%Y", "%Y/../../x", "%Q"] {
        let options = json!({ "use_sha": false, "date_mode": true, "date_format": format, "archive_dir": top });
        assert!(build(options.as_object().unwrap(), &NoQueues).is_err(), "{format}");
    }
}

#[tokio::test]
async fn nothing_is_brought_back_from_elsewhere() {
    let directory = tempfile::tempdir().unwrap();
    let outer = directory.path().canonicalize().unwrap();
    let top = outer.join("archive");
    let archiver = archiver(&top, json!({ "max_size": 10 }));
    fs::write(outer.join("secret"), "secret").unwrap();
    fs::write(top.join("large"), "more than ten").unwrap();
    fs::create_dir(top.join("folder")).unwrap();
    symlink(outer.join("secret"), top.join("link")).unwrap();
    symlink(&outer, top.join("folder/up")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, top.join("pipe"), rustix::fs::Mode::RUSR).unwrap();
    let outside = outer.join("secret").display().to_string();
    let through = format!("{}/../secret", top.display());
    for path in [
        "../secret",
        &outside,
        &through,
        "link",
        "folder/up/secret",
        "folder",
        "pipe",
        "large",
        ".",
        "/etc/passwd",
        "a\0b",
    ] {
        let refused = archiver.get(&json!({ "path": path })).await.expect_err(path);
        assert_eq!(refused.kind, FaultKind::Refused, "{path:?}: {refused}");
    }
    for path in ["none", "folder/none", ""] {
        assert_eq!(archiver.get(&json!({ "path": path })).await.unwrap_err().kind, FaultKind::NotFound, "{path:?}");
    }
    for task in [json!({}), json!({ "path": 1 }), json!("link"), json!(null)] {
        assert_eq!(archiver.get(&task).await.unwrap_err().kind, FaultKind::Refused, "{task}");
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_for_later() {
    let directory = tempfile::tempdir().unwrap();
    let top = directory.path().canonicalize().unwrap().join("archive");
    let archiver = archiver(&top, json!({}));
    fs::write(top.join("a"), "a file where a directory is to be").unwrap();
    let content = b"abc".to_vec().into();
    let fault = archiver.archive(&content, &results(0), &RequestMeta::default()).await.unwrap_err();
    assert!(fault.is_transient(), "{fault}");
    fs::remove_file(top.join("a")).unwrap();
    archiver.archive(&content, &results(0), &RequestMeta::default()).await.unwrap();
}
