//! Options, bodies and answers. The real servers are in `tests/elasticsearch`.

mod policies;

use bytes::Bytes;
use serde_json::{Value, json};
use stoq_api::Timestamp;

use super::bulk::{Chunk, Encoder, Fate, fates};
use super::config::{OpType, Validated};
use super::{build, mapping};
use crate::model::{Document, Model};
use crate::testing::context;

fn config(options: Value) -> Validated {
    Validated::read(options.as_object().unwrap()).unwrap()
}

fn document(id: &str, json: Value) -> Document {
    let time = Timestamp(1_767_323_045_678_901);
    Document { id: id.to_owned(), time, source: None, tenant: None, json: json.to_string().into() }
}

fn lines(chunk: &Chunk) -> Vec<Value> {
    let text = std::str::from_utf8(&chunk.body).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn options_that_do_not_fit_together_stop_the_start() {
    for (options, word) in [
        (json!({ "password": "hunter2" }), "go together"),
        (json!({ "user": "u" }), "go together"),
        (json!({ "user": "u", "password": "hunter2", "api_key": "k" }), "not both"),
        (json!({ "api_key": "hunter2", "api_key_file": "/k" }), "not both"),
        (json!({ "nodes": ["http://u:hunter2@h"] }), "use the options"),
        (json!({ "data_stream": "logs", "op_type": "index" }), "op_type"),
        (json!({ "data_stream": "logs-%Y" }), "roll over"),
        (json!({ "index": "Stoq" }), "lower-case"),
        (json!({ "model": "whole" }), "unknown variant"),
        (json!({ "pipeline": "a&b" }), "pipeline"),
        (json!({ "max_request": 1 }), "max_request"),
        (json!({ "retention": 3600.0 }), "whole days"),
        (json!({ "es_options": { "http_auth": ["u", "hunter2"] } }), "use user"),
        (json!({ "es_host": "a", "nodes": ["http://b"] }), "not both"),
        (json!({ "es_index": "a", "index": "b" }), "not both"),
    ] {
        let error = build(options.as_object().unwrap(), &context()).err().unwrap().to_string();
        assert!(error.contains(word) && !error.contains("hunter2"), "{options}: {error}");
    }
}

#[test]
fn names_of_stoq_become_ours() {
    for (host, node) in [
        ("es.example.org", "http://es.example.org:9200"),
        ("es.example.org:9201", "http://es.example.org:9201"),
        ("[::1]", "http://[::1]:9200"),
        ("https://es.example.org", "https://es.example.org"),
    ] {
        let config = config(json!({ "es_host": host, "es_index": "mail", "es_timeout": 5.0 }));
        assert_eq!((config.http.nodes[0].as_str(), config.http.timeout.as_secs()), (node, 5));
        assert_eq!(config.names.of(&document("i", json!({}))), "mail-2026-01");
    }
    let config = config(json!({ "es_index": "mail", "index_by_month": false, "es_retry": true, "es_max_retries": 10 }));
    assert_eq!(config.names.of(&document("i", json!({}))), "mail");
}

#[test]
fn bodies_are_two_lines_a_document_and_no_larger_than_they_may_be() {
    let config = config(json!({ "model": "response", "max_request": 65_536 }));
    let mut encoder = Encoder::new(&config);
    let text = "x".repeat(30_000);
    let mut chunks = Vec::new();
    for number in 0..5 {
        chunks.extend(encoder.add(number, document(&format!("id{number}"), json!({ "a": text }))));
    }
    chunks.extend(encoder.take());
    assert!(encoder.take().is_none());
    assert_eq!(chunks.iter().map(|chunk| chunk.entries.len()).collect::<Vec<_>>(), [2, 2, 1]);
    let lines = lines(&chunks[0]);
    assert_eq!(lines[0], json!({ "create": { "_index": "stoq-2026.01", "_id": "id0" } }));
    assert_eq!(lines[1], json!({ "@timestamp": "2026-01-02T03:04:05.678901Z", "a": text }));
    let entry = &chunks[0].entries[1];
    let own: Value = serde_json::from_slice(&chunks[0].body[entry.source..entry.end]).unwrap();
    assert_eq!(own, lines[3]);
}

#[test]
fn what_an_index_does_not_take_is_kept_beside_it() {
    for (model, sent, kept) in [
        (
            "payload",
            json!({ "id": 1, "workers": { "a": "b" }, "payload_meta": {} }),
            json!({ "id": 1, "unindexed": { "workers": { "a": "b" }, "payload_meta": {}, "reason": "too \"long\"" } }),
        ),
        (
            "ecs",
            json!({ "event": { "id": 1 }, "stoq": { "workers": {} } }),
            json!({ "event": { "id": 1 }, "stoq": { "unindexed": { "workers": {}, "reason": "too \"long\"" } } }),
        ),
    ] {
        let config = config(json!({ "model": model }));
        let mut encoder = Encoder::new(&config);
        encoder.add(0, document("a", sent));
        encoder.add(1, document("b", json!({ "size": "what?" })));
        let chunk = encoder.take().unwrap();
        assert!(encoder.add_reduced(&chunk.entries[0], &chunk.body, "too \"long\""));
        assert!(!encoder.add_reduced(&chunk.entries[1], &chunk.body, "no number"));
        let again = encoder.take().unwrap();
        assert_eq!(lines(&again), [lines(&chunk)[0].clone(), kept]);
    }
}

#[test]
fn each_document_has_its_own_fate() {
    let error = |status: u16, kind: &str, reason: &str| json!({ "create": { "status": status, "error": { "type": kind, "reason": reason } } });
    let items = [
        (json!({ "create": { "status": 201 } }), "done"),
        (error(409, "version_conflict_engine_exception", "exists"), "done"),
        (error(429, "circuit_breaking_exception", "full"), "later"),
        (error(503, "unavailable_shards_exception", "away"), "later"),
        (error(403, "cluster_block_exception", "read-only"), "later"),
        (error(400, "validation_exception", "too many shards"), "later"),
        (error(403, "security_exception", "not authorized"), "stuck"),
        (error(404, "index_not_found_exception", "no such index"), "stuck"),
        (error(400, "illegal_argument_exception", "pipeline with id [x] does not exist"), "stuck"),
        (error(400, "document_parsing_exception", "no \u{1b}[2Jnumber"), "refused"),
        (json!({}), "later"),
    ];
    let reply = json!({ "errors": true, "items": items.iter().map(|(item, _)| item).collect::<Vec<_>>() });
    let fates = fates(reply.to_string().as_bytes(), items.len(), OpType::Create).unwrap();
    for (fate, (item, expected)) in fates.iter().zip(&items) {
        let found = match fate {
            Fate::Done => "done",
            Fate::Later(_) => "later",
            Fate::Refused(why) => {
                assert!(why.contains("number") && !why.contains('\u{1b}'), "{why:?}");
                "refused"
            }
            Fate::Stuck(_) => "stuck",
        };
        assert_eq!(found, *expected, "{item}");
    }
    assert!(super::bulk::fates(b"{\"items\":[]}", 1, OpType::Create).is_err());
    assert!(super::bulk::fates(b"<html>", 1, OpType::Create).is_err());
}

/// A document of a model whose members no mapping names would be lost to searches, unseen.
#[test]
fn mappings_know_every_member_of_their_model() {
    let response = Bytes::from_static(include_bytes!("../model/testdata/response.json"));
    for flavour in [super::server::Flavour::Elasticsearch, super::server::Flavour::OpenSearch] {
        for model in [Model::Payload, Model::Ecs, Model::Plugin, Model::Response] {
            let mapping = mapping::of(model, flavour);
            let item = stoq_api::plugin::Item { id: "x".to_owned(), json: response.clone() };
            for document in model.documents(&item).unwrap() {
                let document: Value = serde_json::from_slice(&document.unwrap().json).unwrap();
                known(&mapping, &document, model.name());
            }
        }
    }
}

fn known(mapping: &Value, value: &Value, path: &str) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| known(mapping, value, path)),
        // Objects that hold any members are one field, or none.
        Value::Object(members) if mapping["type"].is_null() => {
            for (name, value) in members {
                let field = &mapping["properties"][name];
                assert!(field.is_object(), "{path}.{name} is in no mapping");
                known(field, value, &format!("{path}.{name}"));
            }
        }
        _ => {}
    }
}
