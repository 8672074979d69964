//! The configurations that come with stoq can be used as they are, but for addresses and secrets.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on is to stop")]

mod support;

use crate::support::{fixture, run, stoq, text};

#[test]
fn each_shipped_configuration_is_usable() {
    let root = fixture("").join("../..").canonicalize().unwrap();
    let mut folders = vec![root.join("config"), root.join("docker")];
    let examples = std::fs::read_dir(root.join("helm/stoq/examples")).unwrap();
    folders.extend(examples.map(|entry| entry.unwrap().path()));
    let files = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap()).map(|entry| entry.unwrap().path());
    let files: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    assert!(files.len() >= 9, "{files:?}");
    for file in files {
        let checked = run(stoq(&["check", "--config-file", text(&file)])).expect(0);
        assert!(
            checked.out.contains("configuration is usable") && checked.out.contains(" 0 warnings"),
            "{}",
            checked.out
        );
    }
}

#[test]
fn a_scan_makes_its_own_lanes_where_a_fleet_must_not() {
    let sample = fixture("hello.sh");
    run(stoq(&["scan", "--set", "fleet.declare=false", text(&sample)])).expect(0);
}
