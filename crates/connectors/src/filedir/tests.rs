//! `filedir` over real directories.

use std::path::Path;

use serde_json::json;

use super::*;
use crate::testing::context;

fn connector(options: Value) -> Arc<dyn Connector> {
    build(options.as_object().unwrap(), &context()).unwrap()
}

fn item(id: &str, json: &str) -> Item {
    Item { id: id.into(), json: json.as_bytes().to_vec().into() }
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn each_response_is_a_file_and_stays_the_first_one() {
    let dir = tempfile::tempdir().unwrap();
    let results = dir.path().join("made/for/it");
    let connector = connector(json!({ "results_dir": results }));
    let batch = [item("id-1", "{\"a\":\"\u{e9}\"}"), item("id-2", "[]")];
    for _ in 0..2 {
        let verdicts = connector.deliver(&batch).await.unwrap();
        assert_eq!(verdicts, [Verdict::Delivered, Verdict::Delivered]);
        assert_eq!(files(&results), ["id-1", "id-2"]);
        assert_eq!(std::fs::read_to_string(results.join("id-1")).unwrap(), "{\"a\":\"\u{e9}\"}\n");
    }
    let verdicts = connector.deliver(&[item("id-2", "[\"another\"]")]).await.unwrap();
    assert_eq!(verdicts, [Verdict::Delivered]);
    assert_eq!(std::fs::read_to_string(results.join("id-2")).unwrap(), "[]\n");
}

#[tokio::test]
async fn the_date_is_the_responses_own() {
    let dir = tempfile::tempdir().unwrap();
    let connector = connector(json!({ "results_dir": dir.path(), "date_mode": true, "compactly": false }));
    let batch = [
        item("a", r#"{"results":[],"time":"2026-01-02T03:04:05.678901"}"#),
        item("b", r#"{"results":[]}"#),
        item("c", r#"{"time":"yesterday"}"#),
    ];
    let verdicts = connector.deliver(&batch).await.unwrap();
    assert!(matches!(verdicts[..], [Verdict::Delivered, Verdict::Rejected(_), Verdict::Rejected(_)]), "{verdicts:?}");
    let text = std::fs::read_to_string(dir.path().join("2026/01/02/a")).unwrap();
    assert_eq!(text, "{\n    \"results\": [],\n    \"time\": \"2026-01-02T03:04:05.678901\"\n}\n");
}

#[tokio::test]
async fn no_id_leads_out_of_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let connector = connector(json!({ "results_dir": dir.path().join("results") }));
    let long = "a".repeat(200);
    let batch = ["../x", "/etc/x", "", ".", "a/b", "a\0b", &long].map(|id| item(id, "{}"));
    for verdict in connector.deliver(&batch).await.unwrap() {
        assert!(matches!(verdict, Verdict::Rejected(_)), "{verdict:?}");
    }
    assert_eq!(files(dir.path()), ["results"]);
    assert!(files(&dir.path().join("results")).is_empty());
}

#[tokio::test]
async fn what_cannot_be_written_now_is_kept_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let results = dir.path().join("results");
    let connector = connector(json!({ "results_dir": results, "date_mode": true }));
    // A file where the directory of the year should be.
    std::fs::write(results.join("2026"), "").unwrap();
    let batch =
        [item("a", r#"{"time":"2026-01-02T03:04:05.678901"}"#), item("b", r#"{"time":"2025-01-02T03:04:05.678901"}"#)];
    let verdicts = connector.deliver(&batch).await.unwrap();
    assert!(matches!(&verdicts[..], [Verdict::Retry(reason), Verdict::Delivered] if reason.contains("cannot write")));
    std::fs::remove_file(results.join("2026")).unwrap();
    assert_eq!(connector.deliver(&batch).await.unwrap(), [Verdict::Delivered, Verdict::Delivered]);
    assert_eq!(files(&results.join("2026/01/02")), ["a"]);
}

#[test]
fn a_wrong_option_stops_the_start() {
    for options in [json!({ "result_dir": "x" }), json!({ "date_mode": true, "date_format": "../%Y" })] {
        assert!(build(options.as_object().unwrap(), &context()).is_err(), "{options}");
    }
}

#[tokio::test]
async fn a_file_in_place_of_the_directory_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let results = dir.path().join("results");
    let connector = connector(json!({ "results_dir": results }));
    std::fs::remove_dir(&results).unwrap();
    std::fs::write(&results, "in the way").unwrap();
    let verdicts = connector.deliver(&[item("a", "{}")]).await.unwrap();
    assert!(matches!(verdicts[..], [Verdict::Retry(_)]), "{verdicts:?}");
    std::fs::remove_file(&results).unwrap();
    assert_eq!(connector.deliver(&[item("a", "{}")]).await.unwrap(), [Verdict::Delivered]);
    assert_eq!(files(&results), ["a"]);
}

#[tokio::test]
async fn a_check_says_whether_results_can_be_written_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let results = dir.path().join("results");
    let connector = connector(json!({ "results_dir": results }));
    connector.check().await.unwrap();
    assert_eq!(files(&results), [""; 0]);
    std::fs::remove_dir(&results).unwrap();
    std::fs::write(&results, "in its place").unwrap();
    let fault = connector.check().await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unavailable);
    assert!(fault.context.contains("results_dir"), "{fault}");
    std::fs::remove_file(&results).unwrap();
    connector.check().await.unwrap();
}
