//! The two examples with which stoQ has always been introduced, and a mail that hides something three layers deep.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on is to stop")]

mod support;

use serde_json::{Value, json};

use crate::support::{fixture, keys, run, stoq, text};

/// What the examples ask for: facts and hashes of everything, executables carved out of what comes in.
const EXAMPLE: [&str; 7] = ["-a", "hash", "exif", "-s", "pecarve", "--set", "routes.dispatchers="];

/// The response to a scan of a sample, in the shape of stoQ `schema`.
fn scan(name: &str, schema: &str, more: &[&str]) -> Value {
    let file = fixture(name);
    let args = [&["scan", text(&file), "--format", "json", "--schema", schema], more].concat();
    run(stoq(&args)).expect(0).response()
}

fn digests(of: &Value) -> Value {
    json!([of["sha256"], of["md5"], of["sha1"]])
}

/// Fails unless these are the facts about `hello.exe`, whichever reader found them.
fn assert_facts_of_hello(exif: &Value) {
    for (tag, value) in [
        ("FileType", json!("Win32 EXE")),
        ("FileTypeExtension", json!("EXE")),
        ("MIMEType", json!("application/octet-stream")),
        ("MachineType", json!(332)),
        ("ImageFileCharacteristics", json!(258)),
        ("PEType", json!(267)),
        ("LinkerVersion", json!(14.0)),
        ("CodeSize", json!(512)),
        ("InitializedDataSize", json!(2048)),
        ("UninitializedDataSize", json!(0)),
        ("EntryPoint", json!(4096)),
        ("OSVersion", json!(10.0)),
        ("Subsystem", json!(3)),
        ("FileVersionNumber", json!("1.2.3.4")),
        ("CompanyName", json!("Example Company")),
        ("FileDescription", json!("Says hello")),
        ("OriginalFileName", json!("HELLO.EXE")),
    ] {
        let found = &exif[tag];
        let same = match (found.as_f64(), value.as_f64()) {
            (Some(found), Some(value)) => (found - value).abs() < 1e-9,
            _ => *found == value,
        };
        assert!(same, "{tag}: {found} in {exif}");
    }
    let time = exif["TimeStamp"].as_str().unwrap();
    assert!(time.starts_with("2016:07:1") && time.contains(":44:45"), "{time}: in some zone");
}

#[test]
fn hashes_and_facts_of_an_executable() {
    let response = scan("hello.exe", "v3", &EXAMPLE);
    let v3 = ["results", "request_meta", "errors", "time", "decorators", "scan_id", "complete", "findings", "engine"];
    assert_eq!(keys(&response), v3);
    assert_eq!(response["complete"], true);
    assert_eq!(response["errors"], json!([]));
    assert_eq!(response["decorators"], json!({}));
    assert_eq!(response["request_meta"], json!({"archive_payloads": true, "source": null, "extra_data": {}}));
    assert_eq!(response["results"].as_array().unwrap().len(), 1);
    let result = &response["results"][0];
    let old =
        ["size", "payload_id", "payload_meta", "plugins_run", "extracted_from", "extracted_by", "workers", "archivers"];
    assert_eq!(keys(result)[..8], old, "what is new comes after what is not");
    assert_eq!(result["size"], 3584);
    assert_eq!(result["plugins_run"], json!({"workers": ["exif", "hash", "pecarve"], "archivers": []}));
    assert_eq!(keys(&result["payload_meta"]), ["should_archive", "should_scan", "extra_data", "dispatch_to"]);
    assert_eq!(result["payload_meta"]["extra_data"]["filename"], "hello.exe");
    assert_eq!((&result["extracted_from"], &result["extracted_by"]), (&json!([]), &json!([])));
    assert_eq!(
        digests(&result["workers"]["hash"]),
        json!([
            "949f5debccd06c244d1562a67d838e7286429dfc6b0507a6d6f1375ca98e2038",
            "00d4f5b43f6de9ce74a36a18ef8b8093",
            "ec107e6933dcd8eba38f885fcf78f9afbf91b506"
        ])
    );
    assert_eq!(keys(&result["workers"]["hash"]), ["sha256", "md5", "sha1"]);
    assert_facts_of_hello(&result["workers"]["exif"]);
}

#[test]
fn the_first_example_in_the_shape_of_stoq_2() {
    let response = scan("hello.exe", "v2", &["-a", "hash", "exif", "--set", "routes.dispatchers="]);
    let mut facts = response.clone();
    let exif = facts["results"][0]["workers"][0]["exif"].take();
    assert_facts_of_hello(&exif);
    let expected = json!({
        "time": response["time"],
        "results": [{
            "payload_id": response["results"][0]["payload_id"],
            "size": 3584,
            "payload_meta": {"should_archive": true, "extra_data": {"filename": "hello.exe"}, "dispatch_to": []},
            "workers": [{
                "exif": null,
                "hash": {
                    "sha256": "949f5debccd06c244d1562a67d838e7286429dfc6b0507a6d6f1375ca98e2038",
                    "md5": "00d4f5b43f6de9ce74a36a18ef8b8093",
                    "sha1": "ec107e6933dcd8eba38f885fcf78f9afbf91b506"
                }
            }],
            "archivers": {},
            "plugins_run": {"workers": [["exif", "hash"]], "archivers": []},
            "extracted_from": null,
            "extracted_by": null
        }],
        "request_meta": {"archive_payloads": true, "source": null, "extra_data": {}},
        "errors": {},
        "decorators": {},
        "scan_id": response["scan_id"],
    });
    assert_eq!(facts.to_string(), expected.to_string(), "the order of keys counts");
    let time = response["time"].as_str().unwrap();
    assert!(time.len() == 26 && !time.ends_with('Z'), "{time}: microseconds, no zone");
}

#[test]
fn executables_are_carved_out_of_a_word_document() {
    for schema in ["v3", "v2"] {
        let response = scan("sample_doc_with_pe.doc", schema, &EXAMPLE);
        let results = response["results"].as_array().unwrap();
        let carved: Vec<_> = results.iter().map(|r| (&r["size"], &r["payload_meta"]["extra_data"]["offset"])).collect();
        assert_eq!(json!(carved), json!([[62976, null], [3584, 11367], [2560, 50688]]), "{schema}");
        for child in &results[1..] {
            let parent = &results[0]["payload_id"];
            let (from, by, run) = if schema == "v2" {
                (parent.clone(), json!("pecarve"), json!([["exif", "hash"]]))
            } else {
                (json!([parent]), json!(["pecarve"]), json!(["exif", "hash"]))
            };
            assert_eq!((&child["extracted_from"], &child["extracted_by"]), (&from, &by));
            assert_eq!(child["plugins_run"]["workers"], run);
            assert_eq!(keys(&child["payload_meta"]["extra_data"]), ["offset"]);
        }
        let workers = |n: usize| if schema == "v2" { &results[n]["workers"][0] } else { &results[n]["workers"] };
        assert_eq!(keys(workers(1)), ["exif", "hash"]);
        assert_facts_of_hello(&workers(1)["exif"]);
        assert_eq!(workers(1)["hash"]["md5"], "00d4f5b43f6de9ce74a36a18ef8b8093");
        assert_eq!(workers(2)["exif"]["MachineType"], 332);
        assert!(workers(2)["exif"]["CompanyName"].is_null(), "the second has no version resource");
        assert_eq!(workers(0)["exif"]["FileType"], "DOC");
        assert_eq!(workers(0)["exif"]["CompObjUserType"], "Microsoft Word 97-2003 Document");
        assert_eq!(workers(0)["exif"]["Author"], "Ann Author");
    }
}

#[test]
fn what_a_mail_hides_is_found() {
    let mail = fixture("mail.eml");
    let ended = run(stoq(&["scan", text(&mail), "--fail-on", "match"])).expect(1);
    let response = ended.response();
    let results = response["results"].as_array().unwrap();
    let shown: Vec<_> = results
        .iter()
        .map(|r| {
            let names = &r["payload_meta"]["extra_data"]["filename"];
            let rules = r["workers"]["yara"]["matches"].as_array().into_iter().flatten().map(|m| &m["rule"]);
            json!([r["depth"], names.as_str().map(|n| n.rsplit('/').next()), rules.collect::<Vec<_>>()])
        })
        .collect();
    let expected = json!([
        [0, "mail.eml", []],
        [1, "invoice.zip", []],
        [2, "documents.tar.gz", []],
        [2, "eicar.txt", ["eicar_test_file"]],
        [3, "documents.tar", []],
        [4, "invoice.doc", ["pe_in_document"]],
        [5, null, ["pe_executable"]],
        [5, null, ["pe_executable"]]
    ]);
    assert_eq!(json!(shown), expected);
    assert_eq!(response["complete"], true);
}

/// What one scan archived is brought back by the next one, by its own words; what cannot be is answered with the reason.
#[test]
fn what_an_archiver_kept_is_scanned_again() {
    let dir = tempfile::tempdir().unwrap();
    let archive = format!("archivers.kept.filedir.archive_dir={}", text(dir.path()));
    let common = ["--set", archive.as_str(), "--set", "routes.dispatchers=", "-a", "hash"];
    let file = fixture("hello.exe");
    let first = run(stoq(&[&["scan", text(&file), "-A", "kept"][..], &common].concat())).expect(0).response();
    let kept = &first["results"][0]["archivers"]["kept"];
    assert!(kept["path"].is_string(), "{first}");

    let task = json!({ "kept": kept }).to_string();
    let missing = json!({ "kept": { "path": "no/such/file" } }).to_string();
    let scan = |inputs: &[&str]| run(stoq(&[&["scan"][..], inputs, &["-S", "kept"], &common].concat()));
    let again = scan(&[&task]).expect(0).response();
    assert_eq!(again["results"][0]["workers"]["hash"], first["results"][0]["workers"]["hash"]);
    assert_eq!(again["results"][0]["payload_meta"]["extra_data"], *kept);

    let both = scan(&[&missing, &task]).expect(3).responses();
    let failed = both.iter().find(|r| !r["errors"].as_array().unwrap().is_empty()).unwrap();
    assert!(failed["errors"][0]["error"].as_str().unwrap().contains("archiver kept"), "{failed}");
    assert_eq!(both.len(), 2);

    scan(&["{\"other\": {}}"]).expect(2).says(&["the archiver \"other\" is not named by -S"]);
    scan(&[text(&file)]).expect(2).says(&["with -S, inputs are tasks", "not a JSON object"]);
    run(stoq(&["scan", &task, "-S", "nobody"])).expect(2).says(&["nobody"]);
}
