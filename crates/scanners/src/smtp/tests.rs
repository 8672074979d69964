//! Messages as they come, and as they are made to fool scanners.

use serde_json::{Value, json};
use stoq_api::scanner::{Build, Context, Remaining};
use stoq_api::{Finding, FindingKind, PayloadMeta, RequestMeta};

use super::*;
use crate::memory_sink::MemorySink;

struct Answer {
    results: Value,
    children: Vec<(PayloadMeta, Vec<u8>)>,
    findings: Vec<Finding>,
}

fn run_with(options: Value, allowed: u64, message: &[u8]) -> Result<Answer, ScanError> {
    let options = options.as_object().unwrap().clone();
    let scanner = build(&Build { options, files: vec![] }).unwrap().scanner.unwrap();
    let mut sink = MemorySink::new(Remaining { children: allowed, bytes: u64::MAX });
    let mut cx = Context::new(&mut sink, None);
    let payload = Payload {
        serial: 1,
        content: message,
        sha256: None,
        meta: &PayloadMeta::default(),
        request_meta: &RequestMeta::default(),
        ancestors: &[],
        dispatch_meta: &serde_json::Map::new(),
        results: &serde_json::Map::new(),
    };
    let output = scanner.scan(&payload, &mut cx)?;
    let findings = cx.into_findings();
    Ok(Answer {
        results: output.results.unwrap(),
        children: sink.take().into_iter().map(|c| (c.meta, c.content)).collect(),
        findings,
    })
}

fn run(message: &[u8]) -> Answer {
    run_with(json!({}), 10_000, message).unwrap()
}

fn crlf(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").into_bytes()
}

#[test]
fn header_fields_are_flat_and_decoded() {
    let answer = run(&crlf(
        "Received: from a\n\tby b\nReceived: from c\nSubject: =?utf-8?q?caf=C3?= =?utf-8?q?=A9_f=C3=BCr?= alle =?iso-8859-1?B?5PY=?=\n\
         From: \"Jos\u{e9}\" <jose@example.org>\nDate: Tue, 3 Mar 2026 04:05:06 +0100\n\nHi 100%25\n",
    ));
    assert_eq!(answer.results["received"], "from a\tby b\nfrom c");
    assert_eq!(answer.results["subject"], "café für alle äö");
    assert_eq!(answer.results["body"], "Hi 100%25\r\n");
    assert_eq!(answer.results["body_html"], "");
    assert_eq!(answer.results["stoq"]["date"], "2026-03-03T04:05:06+01:00");
    assert_eq!(answer.results["stoq"]["addresses"]["from"], json!(["jose@example.org"]));
    assert_eq!(answer.results["stoq"]["defects"], json!([]));
    assert!(answer.children.is_empty() && answer.findings.is_empty());
}

const MIXED: &str = "From: a@b.c\nDate: x\nContent-Type: multipart/mixed; boundary=\"=_o\"\n\npreface\n--=_o\n\
Content-Type: multipart/alternative; boundary=i\n\n--i\nContent-Type: text/plain; charset=iso-8859-1\n\
Content-Transfer-Encoding: quoted-printable\n\nPasswort: gr=FCn =\nja\n--i\nContent-Type: multipart/related; boundary=r\n\n\
--r\nContent-Type: text/html\n\n<b>hi</b>\n--r\nContent-Type: image/png\nContent-ID: <1>\nContent-Transfer-Encoding: base64\n\n\
iVBORw0K\n--r--\n--i--\n\n--=_o\nContent-Type: message/rfc822\nContent-Disposition: attachment; filename=\"in ner.eml\"\n\n\
Subject: inner\n\ninner body\n--=_o\nContent-Type: text/plain; charset=utf-16; name*=utf-8''%C3%A4.txt\n\n\
b\u{f6}se\n--=_o--\nepilogue\n";

#[test]
fn every_part_but_the_bodies_is_a_child() {
    let answer =
        run_with(json!({"always_dispatch": ["hash"], "archive_attachments": false}), 10, &crlf(MIXED)).unwrap();
    assert_eq!(answer.results["body"], "Passwort: grün ja");
    assert_eq!(answer.results["body_html"], "<b>hi</b>");
    let [image, inner, text] = answer.children.as_slice() else { panic!("{:?}", answer.children) };
    assert_eq!(image.1, [0x89, b'P', b'N', b'G', b'\r', b'\n']);
    assert_eq!(image.0.dispatch_to, ["hash"]);
    assert_eq!(
        Value::from(image.0.extra_data.clone()),
        json!({"charset": null, "content-description": null, "disposition": null, "filename": null, "type": "image/png",
               "passwords": ["grün"]})
    );
    assert_eq!(inner.1, b"Subject: inner\r\n\r\ninner body");
    assert_eq!(inner.0.dispatch_to, ["smtp"]);
    assert_eq!(inner.0.filename(), Some("in ner.eml"));
    assert!(!inner.0.should_archive);
    assert_eq!(text.1, "b\u{f6}se".as_bytes(), "bytes stay as they are, whatever the charset claims");
    assert_eq!(text.0.filename(), Some("ä.txt"));
    assert_eq!(answer.results["stoq"]["defects"], json!([]));
    assert_eq!(answer.results["stoq"]["attachments"][2]["size"], 5);
}

#[test]
fn a_message_that_is_an_attachment() {
    let answer = run(b"Subject: x\nContent-Type: application/pdf; name=\"=?utf-8?B?w6QucGRm?=\"\n\
        Content-Transfer-Encoding: BASE64\n\nJVBE*Ri0=\nMS4=\n");
    assert_eq!(answer.children[0].1, b"%PDF-1.");
    assert_eq!(answer.children[0].0.filename(), Some("ä.pdf"));
    assert_eq!(answer.results["body"], "");
    assert!(answer.results["stoq"]["defects"][0].as_str().unwrap().contains("broken transfer encoding"));
}

#[test]
fn names_in_every_way_of_writing_them() {
    for (parameter, name) in [
        ("filename=plain.exe", "plain.exe"),
        ("filename=\"with \\\"blanks\\\" and; such.exe\"", "with \"blanks\" and; such.exe"),
        ("filename=\"=?utf-8?q?=C3=A4=3D=3F?= =?utf-8?b?LmV4ZQ==?=\"", "ä=?.exe"),
        ("filename==?utf-8?b?w6QuZXhl?=", "ä.exe"),
        ("filename*=iso-8859-1'de'%E4.exe", "ä.exe"),
        ("filename*0=\"part\"; filename*1=\".exe\"", "part.exe"),
        ("filename=\"=?.exe\"", "=?.exe"),
    ] {
        let message = format!("A: b\nContent-Disposition: attachment;\n {parameter}\n\nx");
        assert_eq!(run(message.as_bytes()).children[0].0.filename(), Some(name), "{parameter}");
    }
}

#[test]
fn binary_parts_keep_every_byte() {
    let mut message = b"A: b\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\
        Content-Type: application/octet-stream\r\n\r\n"
        .to_vec();
    let all: Vec<u8> = (0..=255).collect();
    message.extend_from_slice(&all);
    message.extend_from_slice(b"\r\n--x--\r\n");
    assert_eq!(run(&message).children[0].1, all);
}

#[test]
fn indicators_are_handed_on() {
    let answer = run_with(
        json!({"extract_iocs": true, "omit_body": true, "ioc_keys": ["x-orig-ip", "body"]}),
        10,
        b"X-Orig-IP: 10.1.2.3\n\nhttp://example.org/\n",
    )
    .unwrap();
    assert!(answer.results.get("body").is_none());
    let (meta, content) = &answer.children[0];
    assert_eq!(content, b"\n10.1.2.3\nhttp://example.org/\n");
    assert!(!meta.should_archive && meta.extra_data.is_empty());
    assert_eq!(meta.dispatch_to, ["iocextract"]);
}

#[test]
fn what_is_not_a_message() {
    for not in [&b""[..], b"\n\n", b"MZ\x90\0\x03", b"no colon here\n\nbody", b"\xff\xfe\xfd"] {
        assert!(run_with(json!({}), 1, not).is_err(), "{not:?}");
    }
}

#[test]
fn tricks_of_structure_lose_nothing() {
    // A line that is no field before the MIME fields, boundaries with blanks, no closing one, parts after it.
    let answer = run(b"A: b\nthis is no field\nContent-Type: multipart/mixed; boundary=\"q \"\n\n--q  \n\
        Content-Type: application/x\n\none\n--q--\n--q\nContent-Type: application/y\n\ntwo\n");
    let bytes: Vec<_> = answer.children.iter().map(|c| c.1.as_slice()).collect();
    assert_eq!(bytes, [&b"one"[..], b"two\n"]);
    assert_eq!(answer.results["stoq"]["defects"].as_array().unwrap().len(), 2);
    // The boundary never appears, or is missing: the body is a child as it stands.
    for head in ["boundary=zz", "x=y"] {
        let answer = run(format!("A: b\nContent-Type: multipart/mixed; {head}\n\nall of it").as_bytes());
        assert_eq!(answer.children[0].1, b"all of it");
    }
    // Much text where nobody looks.
    let message = format!("A: b\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nx\n--b--\n{}", "y".repeat(1_000));
    assert_eq!(
        run(message.as_bytes()).results["stoq"]["defects"],
        json!(["1000 bytes before the first or after the last boundary"])
    );
    // A header without a blank line after it keeps its body.
    assert_eq!(run(b"Subject: s\nsome words\nmore: words\n").results["body"], "some words\nmore: words\n");
    // A text that is the body and has a file name is both.
    let answer = run(b"Content-Type: text/plain; name=run.js\n\nalert(1)");
    assert_eq!(answer.results["body"], "alert(1)");
    assert_eq!(answer.children[0].1, b"alert(1)");
    // Results keep their own names.
    assert_eq!(run(b"Body: x\nA: b\n\ny").results["body"], "y");
}

#[test]
fn limits_are_told() {
    let deep: String = (0..200).map(|n| format!("Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n")).collect();
    let answer = run(deep.as_bytes());
    assert_eq!(answer.children.len(), 1, "the rest is one child as it stands");
    assert_eq!(answer.findings[0].kind, FindingKind::PluginLimit);

    let wide = format!("A: b\nContent-Type: multipart/mixed; boundary=b\n\n{}", "--b\n\n\n".repeat(5_000));
    let answer = run(wide.as_bytes());
    assert!(answer.children.len() <= structure::MAX_PARTS);
    assert!(answer.findings.iter().any(|f| f.detail.contains("more than 2000")), "{:?}", answer.findings);

    let answer = run("A: b\n".repeat(50_000).as_bytes());
    assert!(answer.findings[0].detail.contains("left out"));
    let answer = run(format!("A: {}\n\n", "=?".repeat(100_000)).as_bytes());
    assert!(answer.results["a"].as_str().unwrap().len() <= field::MAX_VALUE);
    // Control characters grow sixfold in JSON: results and metadata stay below what the jail and the engine take.
    let bad = "\u{1}".repeat(4_000);
    let part = format!("--b\nContent-Type: a/{bad}; name=\"{bad}\"\nContent-Description: {bad}\n\nx\n");
    let head = format!("X: {}\n", "\u{1}".repeat(20_000)).repeat(50);
    let text = format!("--b\n\n{0}\n--b\nContent-Type: text/html\n\n{0}\n", "\u{1}".repeat(1 << 20));
    let message = format!("{head}Content-Type: multipart/mixed; boundary=b\n\n{text}{}", part.repeat(200));
    let answer = run(message.as_bytes());
    assert!(answer.results.to_string().len() < 4 << 20);
    assert_eq!(answer.children.len(), 202);
    assert!(answer.children.iter().all(|c| serde_json::to_string(&c.0).unwrap().len() < 32 << 10));
    assert!(answer.findings.iter().any(|f| f.detail.contains("attachments are listed")));

    let answer = run(format!("Content-Type: a/b; {}\n\n", "x=\" =?".repeat(10_000)).as_bytes());
    assert!(answer.findings.iter().any(|f| f.detail.contains("bytes of content-type")), "{:?}", answer.findings);

    let long = run(format!("A: b\n\n{}", "x".repeat(2 << 20)).as_bytes());
    assert_eq!(long.results["body"].as_str().unwrap().len(), 1 << 20);
    assert_eq!(long.children[0].1.len(), 2 << 20);

    let answer = run_with(json!({}), 1, &crlf(MIXED)).unwrap();
    assert_eq!(answer.children.len(), 1);
    assert_eq!(answer.findings[0].kind, FindingKind::PayloadLimit);
    assert_eq!(answer.results["body"], "Passwort: grün ja", "a spent budget costs no results");
}

#[test]
fn uuencoded_files() {
    let file = "begin 644 a b.bin\n#0V%T\n`\nend\n";
    let part =
        run(format!("A: b\nContent-Type: image/x; name=c.png\nContent-Transfer-Encoding: x-uuencode\n\n{file}")
            .as_bytes());
    assert_eq!(part.children[0].1, b"Cat");
    assert_eq!(part.children[0].0.filename(), Some("c.png"));
    // Between the lines of a body, twice, and once broken off; words are no files.
    let body = run(format!("A: b\n\nbegin here\n{file}and\n{file}begin 600 x\n#0V%T\n\u{e4}\n").as_bytes());
    let names: Vec<_> = body.children.iter().map(|c| (c.0.filename().unwrap(), c.1.as_slice())).collect();
    assert_eq!(names, [("a b.bin", &b"Cat"[..]), ("a b.bin", b"Cat"), ("x", b"Cat")]);
    assert_eq!(body.results["stoq"]["defects"], json!(["part 0: uuencoded file breaks off"]));
    let many = run(format!("A: b\n\n{}", file.repeat(150)).as_bytes());
    assert_eq!(many.children.len(), 100);
    assert_eq!(many.findings[0].kind, FindingKind::PluginLimit);
}

#[test]
fn a_mail_that_tells_the_password_of_its_archive() {
    let answer = run(include_bytes!("../../../../tests/fixtures/mail.eml"));
    assert_eq!(answer.results["subject"], "Invoice 2026/03 – please check");
    assert!(answer.results["body"].as_str().unwrap().contains("http://files.example.com/invoice?id=4711"));
    let [(meta, content)] = answer.children.as_slice() else { panic!("{}", answer.children.len()) };
    assert!(content.starts_with(b"PK\x03\x04"));
    assert_eq!(meta.filename(), Some("invoice.zip"));
    assert_eq!(meta.extra_data["passwords"], json!(["infected"]));
    assert_eq!(answer.results["stoq"]["defects"], json!([]));
}
