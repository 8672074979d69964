//! What golden samples cannot show: broken rules, limits, the pass that both roles share.

use std::cell::Cell;

use stoq_api::scanner::{Remaining, SourceFile};
use stoq_api::{PayloadMeta, RequestMeta};

use super::engine::MAX_HITS_OF_STRING;
use super::*;
use crate::memory_sink::MemorySink;

thread_local! { static SERIAL: Cell<u64> = const { Cell::new(0) } }

fn file(option: &str, content: impl AsRef<[u8]>) -> SourceFile {
    SourceFile { option: option.into(), name: format!("{option}.yar"), content: content.as_ref().to_vec() }
}

/// Builds the plugin with these worker rules and no dispatch rules.
fn worker(rules: &str) -> Built {
    built(json!({ "dispatch_rules": "" }), vec![file("worker_rules", rules)]).unwrap()
}

fn built(options: Value, files: Vec<SourceFile>) -> Result<Built, BuildError> {
    let Value::Object(options) = options else { panic!("options are an object") };
    build(&Build { options, files })
}

/// Runs `with` on a payload of its own, and what it found out about the scan.
fn with_payload<T>(
    content: &[u8],
    meta: &PayloadMeta,
    deadline: Option<Instant>,
    with: impl FnOnce(&Payload<'_>, &mut Context<'_>) -> T,
) -> (T, Vec<Finding>) {
    let serial = SERIAL.replace(SERIAL.get() + 1);
    let (none, request_meta) = (Map::new(), RequestMeta::default());
    let payload = Payload {
        serial,
        content,
        sha256: None,
        meta,
        request_meta: &request_meta,
        ancestors: &[],
        dispatch_meta: &none,
        results: &none,
    };
    let mut sink = MemorySink::new(Remaining { children: 0, bytes: 0 });
    let mut cx = Context::new(&mut sink, deadline);
    (with(&payload, &mut cx), cx.into_findings())
}

fn matches(built: &Built, content: &[u8]) -> Vec<Value> {
    let meta = PayloadMeta::default();
    let (output, findings) =
        with_payload(content, &meta, None, |payload, cx| built.scanner.as_ref().unwrap().scan(payload, cx).unwrap());
    assert!(output.errors.is_empty() && findings.is_empty());
    let Some(Value::Array(matches)) = output.results.map(|mut r| r["matches"].take()) else { panic!("no matches") };
    matches
}

fn names(built: &Built, content: &[u8]) -> Vec<String> {
    matches(built, content).iter().map(|m| m["rule"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn one_broken_rule_among_a_hundred() {
    let mut rules: Vec<String> =
        (0..100).map(|n| format!("rule r{n} {{ strings: $a = \"word{n}.\" condition: $a }}\n")).collect();
    rules[41] = "rule r41 { strings: $a = \"open\n condition: $a }\n".into();
    rules[57] = "rule r57 { condition: nowhere }\n".into();
    rules[58] = "rule r58 { condition: r57 }\n".into();
    rules[60] = "rule r60 { condition: r59 }\n".into();
    let built = worker(&rules.concat());
    let content: String = (0..100).map(|n| format!("word{n}. ")).collect();
    let found = names(&built, content.as_bytes());
    assert_eq!(found.len(), 97);
    assert!(!found.iter().any(|n| ["r41", "r57", "r58"].contains(&n.as_str())), "{found:?}");
    // Rule 41 takes two lines, and its error is on the first of them.
    let starts = ["worker_rules.yar:42: rule r41 ", "worker_rules.yar:59: rule r57 ", "worker_rules.yar:60: rule r58 "];
    assert_eq!(built.warnings.len(), starts.len(), "{:?}", built.warnings);
    for (warning, start) in built.warnings.iter().zip(starts) {
        assert!(warning.starts_with(start), "{warning}");
    }
}

#[test]
fn includes_and_unknown_modules_are_refused_and_said() {
    let built =
        worker("include \"/etc/passwd\"\nimport \"nothing\"\nrule a { condition: true }\nrule a { condition: true }");
    assert_eq!(names(&built, b"x"), ["a"]);
    let said = built.warnings.join("\n");
    assert!(said.contains("worker_rules.yar:1: include is not allowed"), "{said}");
    assert!(said.contains("worker_rules.yar:2: ") && said.contains("worker_rules.yar:4: rule a "), "{said}");
}

#[test]
fn configuration_errors_name_what_is_wrong() {
    let error = |options, files| built(options, files).err().unwrap().to_string();
    let bad = vec![file("worker_rules", "rule a { condition: x }")];
    assert!(error(json!({}), bad).contains("no rule of worker_rules can be used: worker_rules.yar:1: rule a"));
    assert!(error(json!({ "worker_rules": "rules/nothing" }), vec![]).contains("worker_rules names no file"));
    assert!(error(json!({ "engine": "libyara" }), vec![]).contains("libyara"));
    assert!(error(json!({ "timeout": 0 }), vec![]).contains("timeout"));
    assert!(error(json!({ "strings": 1 }), vec![]).contains("strings"));
}

#[test]
fn an_empty_option_switches_a_role_off_and_a_missing_one_takes_built_in_rules() {
    let both = built(json!({}), vec![]).unwrap();
    assert!(both.scanner.is_some() && both.dispatcher.is_some());
    assert_eq!(both.warnings, Vec::<String>::new());
    let none = built(json!({ "worker_rules": [], "dispatch_rules": "" }), vec![]).unwrap();
    assert!(none.scanner.is_none() && none.dispatcher.is_none());
    assert_ne!(both.ruleset, none.ruleset);
    assert_eq!(both.ruleset, built(json!({}), vec![]).unwrap().ruleset);
}

#[test]
fn strings_are_found_even_where_the_condition_does_not_need_them() {
    let built = worker("rule a { strings: $a = \"abc\" $b = \"x\" private condition: true or $a or $b }");
    assert_eq!(matches(&built, b"..abc.x")[0]["strings"], json!([[2, "$a", "abc"]]));
    let built = worker("rule a { condition: uint8(0) == 0x78 } rule b { strings: $ = \"abc\" condition: any of them }");
    assert_eq!(names(&built, b"x"), ["a"]);
    assert_eq!(matches(&built, b"xabc")[1]["strings"], json!([[1, "$", "abc"]]));
}

#[test]
fn globals_are_those_of_the_payload() {
    let rules = r#"rule a { condition: filename == "x.tar.gz" and extension == ".gz" and filepath == "/in/x.tar.gz" }"#;
    let built = worker(rules);
    let run = |meta: &PayloadMeta| {
        with_payload(b"x", meta, None, |payload, cx| built.scanner.as_ref().unwrap().scan(payload, cx).unwrap().results)
            .0
    };
    let mut meta = PayloadMeta::with("filename", "x.tar.gz");
    meta.extra_data.insert("source_dir".into(), "/in".into());
    assert_eq!(run(&meta).unwrap()["matches"][0]["rule"], "a");
    assert_eq!(run(&PayloadMeta::default()).unwrap()["matches"], json!([]));
}

#[test]
fn limits_are_kept_and_said_once() {
    let rules = vec![
        file("worker_rules", "rule w { strings: $a = \"ab\" condition: $a }"),
        file("dispatch_rules", "rule d { meta: plugin = \"x\" strings: $a = \"ab\" condition: $a }"),
    ];
    let built = built(json!({ "strings_limit": 3 }), rules).unwrap();
    let content = b"ab".repeat(MAX_HITS_OF_STRING as usize + 10);
    let ((), findings) = with_payload(&content, &PayloadMeta::default(), None, |payload, cx| {
        let dispatch = built.dispatcher.as_ref().unwrap().dispatch(payload, cx).unwrap();
        assert_eq!(dispatch.plugins, [("x".to_owned(), "rule d".to_owned())]);
        let output = built.scanner.as_ref().unwrap().scan(payload, cx).unwrap();
        assert_eq!(output.results.unwrap()["matches"][0]["strings"].as_array().unwrap().len(), 3);
    });
    let kinds: Vec<_> = findings.into_iter().map(|f| f.kind).collect();
    assert_eq!(kinds, [FindingKind::PluginLimit]);
}

#[test]
fn both_roles_and_all_rounds_share_one_pass() {
    struct Counting(std::sync::atomic::AtomicUsize);
    impl Engine for Arc<Counting> {
        fn scan(&self, _: &[u8], _: &dyn Fn() -> Globals, _: Duration) -> Scan {
            self.0.fetch_add(1, Ordering::Relaxed);
            Scan::default()
        }
    }
    let engine = Arc::new(Counting(0.into()));
    let yara = Yara {
        engine: Box::new(Arc::clone(&engine)),
        timeout: Duration::from_secs(1),
        strings_limit: 1,
        xor_first_match: true,
        kept: Mutex::default(),
    };
    for payloads in 1..=2 * MAX_KEPT {
        with_payload(b"x", &PayloadMeta::default(), None, |payload, cx| {
            yara.dispatch(payload, cx).unwrap();
            yara.scan(payload, cx).unwrap();
            yara.dispatch(payload, cx).unwrap();
        });
        assert_eq!(engine.0.load(Ordering::Relaxed), payloads);
    }
    assert_eq!(yara.kept.lock().unwrap().len(), MAX_KEPT);
}

#[test]
fn a_deadline_that_has_passed_is_said() {
    let built = worker("rule a { condition: true }");
    let (output, findings) = with_payload(b"x", &PayloadMeta::default(), Some(Instant::now()), |payload, cx| {
        built.scanner.as_ref().unwrap().scan(payload, cx).unwrap()
    });
    assert_eq!(output.errors, ["out of time before all rules were evaluated"]);
    assert_eq!(findings.len(), 1);
}
