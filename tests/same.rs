//! Whatever the files and however they are scanned, each gives one response, and always the same.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on is to stop")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::support::files::{self, Random};
use crate::support::{assert_same, by_name, fixture, responses_in, run, stoq, text};

/// Files that are scanned.
const FILES: usize = 4_000;

#[test]
fn every_way_to_scan_gives_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("in");
    std::fs::create_dir(&source).unwrap();
    make(&source);
    let scan = |more: &[&str]| {
        let args = [&["scan", text(&source)], more].concat();
        run(stoq(&args)).expect(0)
    };
    let expected = by_name(scan(&["--jail", "require"]).responses());
    assert_eq!(expected.len(), FILES);
    look_at(&expected);
    for more in [&["--jail", "off"][..], &["--slots", "1"], &["--slots", "2"]] {
        assert_same(&expected, &by_name(scan(more).responses()), &more.join(" "));
    }

    let provider = format!("providers.in.filedir.source_dir={}", text(&source));
    let results = dir.path().join("out");
    let connector = format!("connectors.out.filedir.results_dir={}", text(&results));
    let data = dir.path().join("data");
    let args = ["run", "--data-dir", text(&data), "--set", &provider, "--set", &connector];
    run(stoq(&args)).expect(0);
    assert_same(&expected, &by_name(responses_in(&results)), "run");
}

/// The comparison would mean nothing if nothing was found.
fn look_at(expected: &BTreeMap<String, Value>) {
    let all = || expected.values().flat_map(|r| r["results"].as_array().unwrap());
    assert!(expected.values().all(|r| r["complete"] == true && r["errors"] == Value::Array(Vec::new())));
    assert!(all().count() > FILES + FILES / 2, "payloads were extracted");
    for worker in ["hash", "mimetype", "entropy", "yara", "decompress", "smtp", "pecarve", "exif"] {
        let ran = all().filter(|r| !r["workers"][worker].is_null()).count();
        assert!(ran > 100, "{worker} answered {ran} times");
    }
}

/// Files of many kinds, the same every time.
fn make(dir: &Path) {
    let mut random = Random(4_000);
    let sample = |name: &str| std::fs::read(fixture(name)).unwrap();
    let (exe, bare, image, document) =
        (sample("hello.exe"), sample("bare.exe"), sample("image.jpg"), sample("sample_doc_with_pe.doc"));
    // An overlay makes each of them different.
    let marked = |bytes: &[u8], n: usize| [bytes, format!("mark {n}").as_bytes()].concat();
    for n in 0..FILES {
        let (kind, bytes) = match n % 12 {
            0 | 1 => ("txt", format!("text {n}, see http://example.org/{n}\n").repeat(n % 50 + 1).into_bytes()),
            2 => ("exe", marked(&exe, n)),
            3 => ("zip", files::nested_zip(n)),
            4 => ("gz", files::gz(format!("compressed text {n}").as_bytes())),
            5 => ("eml", files::mail(n, "program.exe", &marked(&bare, n))),
            6 => ("jpg", marked(&image, n)),
            7 => {
                let count = usize::try_from(random.below(20_000)).unwrap();
                ("bin", random.bytes(count))
            }
            8 => ("empty", Vec::new()),
            9 => ("eml", files::mail(n, "nested.zip", &files::nested_zip(n))),
            10 => ("tgz", files::gz(&files::zip(&[("a/program.exe".to_owned(), marked(&exe, n))]))),
            _ if n % 120 == 11 => ("doc", marked(&document, n)),
            _ => ("html", format!("<html><body>number {n}</body></html>").into_bytes()),
        };
        files::write(dir, &format!("{n:04}.{kind}"), &bytes);
    }
}
