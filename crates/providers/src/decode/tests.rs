//! Real messages of each producer, and what is refused.

use serde_json::json;

use super::*;

fn settings(format: Format) -> Settings {
    Settings { format, max_message: 1 << 20, strip_prefix: "/opt/zeek/extract_files/".to_owned() }
}

fn sample(name: &str) -> Message {
    let path = format!("{}/testdata/references/{name}.json", env!("CARGO_MANIFEST_DIR"));
    Message::new("1", std::fs::read(path).unwrap())
}

/// A sample is read alike by its own format and by the one that chooses.
fn meaning(name: &str, format: Format) -> Meaning {
    let message = sample(name);
    let meaning = decode(&message, &settings(format)).unwrap();
    assert_eq!(decode(&message, &settings(Format::Auto)).unwrap(), meaning, "{name}");
    meaning
}

fn decoded(name: &str, format: Format) -> Decoded {
    match meaning(name, format) {
        Meaning::Reference(decoded) => decoded,
        Meaning::Nothing(why) => panic!("{name} names nothing: {why}"),
    }
}

fn one(decoded: &Decoded) -> &Named {
    assert_eq!(decoded.roots.len(), 1);
    &decoded.roots[0]
}

fn object(bucket: &str, key: &str, version: Option<&str>, etag: Option<&str>, size: u64) -> Place {
    let text = |text: Option<&str>| text.map(str::to_owned);
    let (bucket, key, version, etag) = (bucket.to_owned(), key.to_owned(), text(version), text(etag));
    Place::Remote { place: task::Place::Object { bucket, key, version, etag }, size: Some(size) }
}

fn file(path: &str, size: Option<u64>) -> Place {
    Place::File { path: path.to_owned(), size }
}

#[test]
fn suricata_names_a_file_of_its_store_and_the_flow() {
    let read = decoded("suricata-fileinfo", Format::Suricata);
    let digest = "ed01ebfbc9eb5bbea545af4d01bf5f1071661840480439c6e5babe8e080e41aa";
    assert_eq!(one(&read).place, file(&format!("ed/{digest}"), Some(73_802)));
    assert_eq!(one(&read).meta.filename(), Some("setup%20v2.exe"));
    assert_eq!(
        Value::Object(read.request_meta.extra_data),
        json!({ "network": {
            "src_ip": "192.0.2.80", "src_port": 80, "dest_ip": "10.7.0.21", "dest_port": 49_732, "proto": "TCP",
            "app_proto": "http", "community_id": "1:mMZr2m7hjHdDjOHEvmqYvnUOW9A=", "flow_id": "1676750115612680",
            "host": "downloads.example.org", "url": "/tools/setup%20v2.exe", "method": "GET",
            "user_agent": "Mozilla/5.0 (Windows NT 10.0; Win64; x64)", "sensor": "dmz-1",
            "observed": "2026-01-02T02:04:05.678901Z"
        } })
    );
    let mail = decoded("suricata-smtp-ipv6", Format::Suricata);
    assert_eq!(mail.request_meta.extra_data["network"]["src_ip"], "2001:db8::17");
    let extra = &one(&mail).meta.extra_data;
    assert_eq!((&extra["state"], &extra["gaps"]), (&json!("TRUNCATED"), &json!(true)));
}

#[test]
fn zeek_names_an_extracted_file_and_the_connection() {
    let read = decoded("zeek-files", Format::Zeek);
    assert_eq!(one(&read).place, file("HTTP-FBbQxG1GXLXgmWhbk9.exe", Some(73_802)));
    assert_eq!(one(&read).meta.filename(), Some("setup.exe"));
    assert_eq!(one(&read).meta.extra_data["fuid"], "FBbQxG1GXLXgmWhbk9");
    assert_eq!(
        read.request_meta.extra_data["network"],
        json!({
            "src_ip": "10.7.0.21", "src_port": 49_732, "dest_ip": "192.0.2.80", "dest_port": 80,
            "flow_id": "CzoFRWTQ6YIzfFXHk", "observed": "2026-01-02T03:04:05.678901Z"
        })
    );
    let old = decoded("zeek-kafka-old", Format::Zeek);
    let name = "extract-1767323045.678901-SMTP-FX1YbT3aSZbqjcFYPh";
    assert_eq!(one(&old).place, file(name, None), "what was lost is filled up, so the size is not known");
    assert_eq!(one(&old).meta.filename(), Some(name));
    let network = &old.request_meta.extra_data["network"];
    assert_eq!((&network["src_ip"], &network["flow_id"]), (&json!("192.0.2.80"), &json!("CHhAvVGS1DHFjwGM9")));
    assert_eq!(network["observed"], "2026-01-02T03:04:05.678901Z");
}

#[test]
fn buckets_name_objects_by_version_and_tag() {
    let put = decoded("s3-put", Format::S3);
    let key = "2026/01/02/caf\u{e9} menu+1.pdf";
    let version = "096fKKXTRTtl3on89fVO.nfljtsv6qko";
    let place = object("carved-files", key, Some(version), Some("d41d8cd98f00b204e9800998ecf8427e"), 1024);
    assert_eq!(one(&put).place, place);
    assert_eq!(one(&put).meta.filename(), Some("caf\u{e9} menu+1.pdf"));
    assert_eq!(one(&put).meta.extra_data["event_time"], "2026-01-02T03:04:05.678Z");

    let minio = decoded("minio-put", Format::S3);
    let place = object("carved", "dmz-1/extract me.bin", None, Some("e4d7f1b4ed2e42d15898f4b27b019da4"), 27);
    assert_eq!(one(&minio).place, place);

    let mixed = decoded("s3-mixed", Format::S3);
    let tag = Some("9b2cf535f27731c974343645a3985328-512");
    let other = Some("900150983cd24fb0d6963f7d28e17f72");
    let places: Vec<_> = mixed.roots.into_iter().map(|root| root.place).collect();
    assert_eq!(
        places,
        [
            object("carved-files", "one.bin", None, tag, 5_368_709_120),
            object("carved-files", "two.bin", None, other, 2)
        ]
    );
}

#[test]
fn google_says_it_in_attributes_and_body() {
    let place = object("carved-files", "2026/01/a b.exe", Some("1767323045678901"), None, 73_802);
    let body = decoded("gcs-finalize", Format::Gcs);
    assert_eq!(one(&body).place, place);
    let mut message = sample("gcs-finalize");
    let headers = [
        ("notificationConfig", "projects/_/buckets/carved-files/notificationConfigs/3"),
        ("eventType", "OBJECT_FINALIZE"),
        ("payloadFormat", "JSON_API_V1"),
        ("bucketId", "carved-files"),
        ("objectId", "2026/01/a b.exe"),
        ("objectGeneration", "1767323045678901"),
        ("eventTime", "2026-01-02T03:04:05.678901Z"),
    ];
    message.headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    for format in [Format::Gcs, Format::Auto] {
        let Ok(Meaning::Reference(read)) = decode(&message, &settings(format)) else { panic!("{format:?}") };
        assert_eq!(one(&read).place, place);
        assert_eq!(one(&read).meta.extra_data["event_time"], "2026-01-02T03:04:05.678901Z");
    }
    let without_body = Message { body: Bytes::new(), ..message.clone() };
    let Ok(Meaning::Reference(read)) = decode(&without_body, &settings(Format::Gcs)) else { panic!("no body") };
    assert!(matches!(&one(&read).place, Place::Remote { size: None, .. }));

    message.headers[4].1 = "another".to_owned();
    let error = decode(&message, &settings(Format::Gcs)).unwrap_err().0;
    assert_eq!(error, "bucket notification: attributes and body name different objects");
    message.headers[1].1 = "OBJECT_DELETE".to_owned();
    let deleted = decode(&message, &settings(Format::Gcs)).unwrap();
    assert_eq!(deleted, Meaning::Nothing("the event OBJECT_DELETE".to_owned()));
}

#[test]
fn stoq_v3_is_understood() {
    let task = decoded("stoq-task", Format::StoqTask);
    let Place::Remote { place: task::Place::Archive { archiver, task: asked }, size: None } = &one(&task).place else {
        panic!("another place")
    };
    assert_eq!(archiver, "filedir");
    assert_eq!(asked["path"], "/archive/a/9/4/a/8/a94a8fe5ccb19ba61c4c0873d391e987982fbbd3");
    assert_eq!(one(&task).meta.filename(), Some("test.txt"));
    assert_eq!(task.request_meta.source.as_deref(), Some("mail"));
    assert!(!asked.contains_key("request_meta"));

    let payload = decoded("stoq-payload", Format::StoqPayload);
    assert_eq!(one(&payload).place, Place::Content(Bytes::from_static(b"PK\x03\x04\x0a\0\0\0\0\0")));
    assert_eq!(one(&payload).meta, PayloadMeta::with("filename", "a.zip"));
    assert!(!payload.request_meta.archive_payloads);
}

#[test]
fn native_references_hold_everything() {
    let read = decoded("native", Format::Native);
    let names: Vec<_> = read.roots.iter().map(|root| root.meta.filename().unwrap()).collect();
    assert_eq!(names, ["b.exe", "c.bin", "d.doc", "e.txt"]);
    assert_eq!(read.roots[0].place, file("in/b.exe", Some(73_802)));
    assert_eq!(read.roots[0].meta.dispatch_to, ["yara"]);
    let url = "https://files.example.org:8443/d/c.bin?token=x#top".to_owned();
    assert_eq!(read.roots[1].place, Place::Remote { place: task::Place::Url(url), size: None });
    let etag = Some("900150983cd24fb0d6963f7d28e17f72");
    assert_eq!(read.roots[2].place, object("carved", "x/d.doc", Some("v1"), etag, 3));
    assert_eq!(read.roots[3].place, Place::Content(Bytes::from_static(b"hello")));
    assert!(!read.roots[3].meta.should_archive);
    let network = &read.request_meta.extra_data["network"];
    assert_eq!(network["src_ip"], "192.0.2.7");
    assert_eq!(network["observed"], "2026-01-02T03:04:05.5Z");
    assert_eq!(read.request_meta.extra_data["ticket"], "INC-1");
}

#[test]
fn raw_content_is_content_whatever_it_looks_like() {
    let mut message = sample("native");
    message.headers.push(("filename".into(), "../../etc/passwd".into()));
    let Ok(Meaning::Reference(read)) = decode(&message, &settings(Format::Raw)) else { panic!("refused") };
    assert_eq!(one(&read).place, Place::Content(message.body.clone()));
    assert_eq!(one(&read).meta.filename(), Some("passwd"));
    let content = Message::new("1", &b"MZ\x90\0"[..]);
    assert!(decode(&content, &settings(Format::Auto)).is_err(), "auto never takes a message as content");
}

#[test]
fn events_that_name_nothing_are_no_errors() {
    for (name, format, why) in [
        ("suricata-alert", Format::Suricata, "an event of type \"alert\""),
        ("suricata-not-stored", Format::Suricata, "a file that was not stored"),
        ("zeek-not-extracted", Format::Zeek, "a file that was not extracted"),
        ("s3-removed", Format::S3, "the event ObjectRemoved:Delete"),
    ] {
        assert_eq!(meaning(name, format), Meaning::Nothing(why.to_owned()), "{name}");
    }
    let test = decode(&sample("s3-test"), &settings(Format::S3)).unwrap();
    assert_eq!(test, Meaning::Nothing("the event s3:TestEvent".to_owned()));
}

#[test]
fn each_refusal_has_its_reason() {
    let payloads = |count: usize| json!({ "payloads": vec![json!({ "base64": "" }); count] }).to_string();
    let long = |what: &str| format!(r#"{{"payload":{{"{what}":"{}"}}}}"#, "x".repeat(9_000));
    let metadata = json!({ "payload": { "base64": "", "meta": { "extra_data": { "a": "x".repeat(MAX_METADATA) } } } });
    let dispatch = json!({ "payload": { "base64": "", "meta": { "dispatch_to": vec!["a"; 65] } } });
    let cases: Vec<(Format, String, &str)> = vec![
        (Format::Native, "{}".into(), "neither payload nor payloads"),
        (Format::Native, r#"{"payload":{},"payloads":[]}"#.into(), "both there"),
        (Format::Native, r#"{"payload":{}}"#.into(), "exactly one of"),
        (Format::Native, r#"{"payload":{"path":"a","url":"http://x/"}}"#.into(), "exactly one of"),
        (Format::Native, r#"{"payload":{"bucket":"b"}}"#.into(), "key is missing"),
        (Format::Native, r#"{"payload":{"paht":"b","path":"a"}}"#.into(), "\"paht\" means nothing here"),
        (Format::Native, r#"{"payload":{"path":7}}"#.into(), "path is not a text"),
        (Format::Native, r#"{"payload":{"base64":"a b"}}"#.into(), "not base64"),
        (Format::Native, r#"{"payload":{"base64":"aGVsbG8","size":6}}"#.into(), "base64 has 5 bytes, size says 6"),
        (Format::Native, r#"{"payload":{"path":"a","size":-1}}"#.into(), "size is not a size in bytes"),
        (Format::Native, r#"{"payload":{"path":"a","size":1e30}}"#.into(), "size is not a size in bytes"),
        (Format::Native, r#"{"payload":{"path":"a"},"network":{"src_ip":"1.2.3"}}"#.into(), "src_ip is not an address"),
        (Format::Native, r#"{"payload":{"path":"a"},"network":{"src_port":70000}}"#.into(), "src_port is not a port"),
        (
            Format::Native,
            r#"{"payload":{"path":"a"},"network":{"observed":"yesterday"}}"#.into(),
            "the time is neither",
        ),
        (Format::Native, r#"{"payload":{"path":"a"},"network":{"x":1}}"#.into(), "\"x\" means nothing here"),
        (Format::Native, r#"{"payloads":[]}"#.into(), "names no payload"),
        (Format::Native, payloads(65), "65 payloads, at most 64"),
        (Format::Native, long("path"), "path is longer than 4096 bytes"),
        (Format::Native, long("url"), "url is longer than 8192 bytes"),
        (Format::Native, metadata.to_string(), "metadata is longer than 65536 bytes"),
        (Format::Native, dispatch.to_string(), "dispatch_to has more than 64 names"),
        (Format::StoqTask, "{}".into(), "names no payload"),
        (Format::StoqTask, r#"{"filedir":"/etc/passwd"}"#.into(), "is not an object"),
        (Format::StoqPayload, r#"{"_content":""}"#.into(), "_is_payload is not true"),
        (Format::StoqPayload, r#"{"_is_payload":true}"#.into(), "_content is missing"),
        (Format::StoqPayload, r#"{"_is_payload":true,"_content":"AA==","_payload_meta":[]}"#.into(), "not an object"),
        (Format::S3, r#"{"Records":[]}"#.into(), "0 records"),
        (Format::S3, r#"{"Records":[{"eventName":"ObjectCreated:Put"}]}"#.into(), "s3 is missing"),
        (Format::Suricata, r#"{"event_type":"fileinfo"}"#.into(), "fileinfo is missing"),
        (
            Format::Suricata,
            r#"{"event_type":"fileinfo","fileinfo":{"stored":true,"sha256":"../../../etc/passwd"}}"#.into(),
            "sha256 is not 64 hexadecimal digits",
        ),
        (Format::Zeek, r#"{"extracted":"a"}"#.into(), "fuid is missing"),
        (Format::Gcs, r#"{"bucket":"b"}"#.into(), "the object's name is missing"),
        (Format::Auto, r#"{"a":1}"#.into(), "none of the JSON formats"),
        (Format::Auto, r#"{"event_type":"fileinfo","Records":[]}"#.into(), "could be any of"),
        (Format::Auto, "not JSON".into(), "not JSON that can be read"),
        (Format::Auto, "x".repeat((1 << 20) + 1), "the message has 1048577 bytes, max_message allows 1048576"),
    ];
    for (format, text, says) in cases {
        let error = decode(&Message::new("1", text.clone()), &settings(format)).map(|_| ()).unwrap_err().0;
        assert!(error.contains(says), "{format:?} {}: {error}", &text[..text.len().min(100)]);
    }
}
