//! What the pictures of the documentation are made of: what the program writes to a terminal, and what a Prometheus that
//! scrapes a small fleet answers to every expression of the dashboards. `cargo xtask pictures` runs this, and draws it.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on is to stop")]

#[path = "../support/fleet.rs"]
mod fleet;
mod load;
mod prometheus;
#[path = "../support/mod.rs"]
mod support;
mod terminal;
#[path = "../../xtask/src/pictures/views.rs"]
mod views;
#[path = "../support/watching.rs"]
mod watching;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::load::Rig;
use crate::prometheus::Prometheus;
use crate::terminal::Desk;

/// How long the fleet is watched, unless `PICTURES_SECONDS` says otherwise.
const SECONDS: u64 = 240;
/// Points of a curve.
const POINTS: u64 = 120;
/// Dashboards, and the rules that they need.
const BOARDS: &str = "deploy/grafana";
const RULES: &str = "deploy/prometheus/stoq.rules.yml";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes five minutes, and what it leaves is drawn by `cargo xtask pictures`, which runs it"]
async fn what_pictures_show() {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let into = PathBuf::from(std::env::var_os("PICTURES_INTO").expect("PICTURES_INTO is a folder"));
    let seconds = std::env::var("PICTURES_SECONDS").map_or(SECONDS, |text| text.parse().expect("seconds"));
    let desk = Desk::set_up(&tree);
    for name in ["scan", "progress", "list", "check"] {
        desk.show(name, None, &into);
    }

    let rig = Rig::start(&tree).await;
    let prometheus = Prometheus::start(&tree.join(RULES), &rig.addresses()).await;
    let start = now();
    let folder = rig.fleet.configuration().parent().unwrap().to_owned();
    rig.work(Duration::from_secs(seconds), || desk.show("status", Some(&folder), &into)).await;
    let span = (start, now());
    for entry in std::fs::read_dir(tree.join(BOARDS)).unwrap() {
        let path = entry.unwrap().path();
        let board: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let answers = prometheus.answers(&board, span, (seconds / POINTS).max(1)).await;
        std::fs::write(into.join(path.file_name().unwrap()), answers.to_string()).unwrap();
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
