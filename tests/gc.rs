//! `stoq gc` drops old days of the payload store and nothing else.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on is to stop")]

mod support;

use std::path::Path;

use crate::support::{files, run, stoq, text};

/// A payload of a day, as a store keeps it.
fn payload(store: &Path, day: &str) {
    let folder = store.join(day).join("ab");
    std::fs::create_dir_all(&folder).unwrap();
    files::write(&folder, "abcd", b"x");
}

fn days(store: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(store).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn drops_old_days_only() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("shared");
    for day in ["20200101", "20200102", "29990101", "quarantine"] {
        payload(&store, day);
    }
    let config = dir.path().join("stoq.toml");
    let body = format!("[stores.shared.local]\npath = {:?}\n[fleet]\nstore = \"shared\"\n", text(&store));
    std::fs::write(&config, body).unwrap();
    let data = dir.path().join("data");
    let arguments = ["gc", "--data-dir", text(&data), "--config-file", text(&config)];

    let dry = run(stoq(&[&arguments[..], &["--dry-run"]].concat())).expect(0);
    assert!(dry.out.contains("would drop 20200101\nwould drop 20200102\n2 days to drop"), "{}", dry.out);
    assert_eq!(days(&store).len(), 4, "a dry run drops nothing");

    let done = run(stoq(&arguments)).expect(0);
    assert!(done.out.contains("dropped 20200101\ndropped 20200102\n2 days dropped"), "{}", done.out);
    assert_eq!(days(&store), ["29990101", "quarantine"]);

    let again = run(stoq(&arguments)).expect(0);
    assert!(again.out.starts_with("0 days dropped"), "{}", again.out);
}
