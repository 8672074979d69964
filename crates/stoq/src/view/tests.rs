//! The tree against files in `testdata`; `UPDATE_EXPECT=1` writes them anew. Escape characters are shown there as `␛`.

use serde_json::{Value, json};
use stoq_api::Response;

use super::summary::Totals;
use super::*;

/// The id of the `n`-th payload.
fn id(n: usize) -> String {
    format!("00000000-0000-4000-8000-{n:012}")
}

/// One payload's results; `extra` replaces members.
fn payload(n: usize, parents: &[usize], name: Value, extra: Value) -> Value {
    let mut value = json!({
        "size": 1000 * n + 7,
        "payload_id": id(n),
        "payload_meta": { "extra_data": { "filename": name } },
        "plugins_run": { "workers": [], "archivers": [] },
        "extracted_from": parents.iter().map(|p| id(*p)).collect::<Vec<_>>(),
        "extracted_by": parents.iter().map(|_| "decompress").collect::<Vec<_>>(),
        "workers": {},
        "archivers": {},
        "sha256": format!("{n:064x}"),
        "depth": usize::from(!parents.is_empty()),
        "runs": [],
        "not_run": [],
        "findings": []
    });
    for (key, member) in extra.as_object().unwrap() {
        value[key] = member.clone();
    }
    value
}

fn response(results: Vec<Value>, extra: Value) -> Response {
    let mut value = json!({
        "results": results,
        "request_meta": {},
        "errors": [],
        "time": "2026-01-02T03:04:05.678901",
        "decorators": {},
        "scan_id": id(0),
        "complete": true,
        "findings": [],
        "engine": { "version": "4.0.0", "rulesets": {} }
    });
    for (key, member) in extra.as_object().unwrap() {
        value[key] = member.clone();
    }
    serde_json::from_value(value).unwrap()
}

pub(super) fn mail() -> Response {
    let rules = json!([{ "rule": "exe_in_zip" }, { "rule": "upx\u{1b}[31m" }, { "rule": "c" }, { "rule": "d" }, { "rule": "e" }]);
    response(
        vec![
            payload(1, &[], json!("mail.eml"), json!({ "workers": { "mimetype": { "mimetype": "message/rfc822" } } })),
            payload(
                2,
                &[1],
                json!("invoice.zip"),
                json!({
                    "workers": { "mimetype": { "mimetype": "application/zip" } },
                    "findings": [{ "kind": "member_unreadable", "plugin": "decompress", "detail": "member 2 is encrypted\nforged line" }],
                }),
            ),
            payload(
                3,
                &[1],
                Value::Null,
                json!({
                    "workers": { "mraptor": { "matches": ["AutoOpen", "Shell"] } },
                    "runs": [
                        { "plugin": "ole", "round": 1, "why": [], "status": "killed", "micros": 1 },
                        { "plugin": "hash", "round": 1, "why": [], "status": "ok", "micros": 1 },
                    ],
                    "not_run": [{ "plugin": "exif", "reason": "unknown worker" }],
                }),
            ),
            payload(
                4,
                &[2, 1],
                json!("\u{1b}]0;owned\u{7}gnp.\u{202e}exe"),
                json!({
                    "workers": { "yara": { "matches": rules }, "trid": {} },
                    "size": 3_u64 << 30,
                }),
            ),
            payload(5, &[2], json!(format!("{}.docx", "very_long_name_".repeat(20))), json!({})),
        ],
        json!({
            "errors": [
                { "error": "cannot parse", "plugin_name": "lief", "payload_id": id(4) },
                { "error": "the decorator failed", "plugin_name": "jinja", "payload_id": null },
            ],
            "findings": [{ "kind": "time_limit", "detail": "1 payload is missing" }],
            "complete": false,
        }),
    )
}

fn check(name: &str, text: &str) {
    let path = format!("{}/src/view/testdata/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = text.replace('\u{1b}', "␛");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap_or_default(), "{path}");
}

#[test]
fn tree_of_a_mail() {
    check("mail.txt", &tree(&mail(), Look::wide(false, Some(80))));
    check("mail.color.txt", &tree(&mail(), Look::wide(true, Some(80))));
}

#[test]
fn nothing_hostile_reaches_the_terminal() {
    let text = tree(&mail(), Look::wide(false, None));
    assert!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{text:?}");
    assert!(text.lines().all(|line| !line.starts_with("forged")));
}

#[test]
fn long_lists_are_counted_and_hits_are_never_left_out_for_others() {
    let mut results = vec![payload(1, &[], json!("big.zip"), json!({}))];
    for n in 2..102 {
        let hit =
            if n == 77 { json!({ "workers": { "yara": { "matches": [{ "rule": "needle" }] } } }) } else { json!({}) };
        results.push(payload(n, &[1], json!(format!("member{n}")), hit));
    }
    let text = tree(&response(results, json!({})), Look::wide(false, None));
    assert_eq!(text.lines().count(), 22);
    assert!(text.contains("member77  75.20 KiB  decompress  ● needle"), "{text}");
    assert!(text.ends_with("└─ … 80 more payloads\n"), "{text}");
}

#[test]
fn deep_nests_and_wide_ones_end() {
    let chain = (1..200).map(|n| {
        let parent = n - 1;
        payload(n, if n == 1 { &[] } else { std::slice::from_ref(&parent) }, json!("x"), json!({}))
    });
    let text = tree(&response(chain.collect(), json!({})), Look::wide(false, None));
    assert_eq!(text.lines().count(), 13);
    assert!(text.ends_with("└─ … 187 more payloads\n"), "{text}");
}

#[test]
fn a_response_that_names_itself_as_its_parent_still_ends() {
    let text = tree(
        &response(vec![payload(1, &[1], json!("a"), json!({})), payload(2, &[9], json!("b"), json!({}))], json!({})),
        Look::wide(false, None),
    );
    assert_eq!(text.lines().count(), 2, "{text}");
}

pub(super) fn sums(response: &Response) -> Totals {
    let mut sums = Totals::default();
    sums.scan(response);
    sums.errors += response.errors.len() as u64;
    response.results.iter().for_each(|payload| sums.payload(payload));
    sums
}

#[test]
fn what_the_tree_does_not_show_is_not_missed() {
    let mut response = mail();
    let whole = tree(&response, Look::wide(false, None));
    response.results = response.results.into_iter().map(slim).collect();
    assert_eq!(tree(&response, Look::wide(false, None)), whole);
}

#[test]
fn sums_of_many_scans() {
    let look = Look::wide(false, None);
    let mut totals = Totals::default();
    totals.add(sums(&response(vec![payload(1, &[], json!("a"), json!({}))], json!({}))));
    assert_eq!(totals.line(None, look), "1007 B, 1 payload, no hits");
    totals.add(sums(&mail()));
    totals.add(sums(&mail()));
    assert_eq!(
        totals.line(Some(std::time::Duration::from_millis(1_250)), look),
        "3 files, 2.95 KiB, 11 payloads, 4 with hits (c 2, d 2, e 2, exe_in_zip 2, mraptor (2) 2, 1 more), \
         4 errors, 4 findings, 2 partial scans in 1.2 s"
    );
}
