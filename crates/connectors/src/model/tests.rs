//! The models on one response with all that a response can have, and on generated ones.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};
use stoq_api::plugin::Item;
use stoq_api::response::{Response, split};

use super::*;

const RESPONSE: &str = include_str!("testdata/response.json");

fn item(response: &Value) -> Item {
    Item { id: response["scan_id"].as_str().unwrap_or("x").to_owned(), json: response.to_string().into() }
}

fn fixture() -> Item {
    item(&serde_json::from_str(RESPONSE).unwrap())
}

fn documents(model: Model, item: &Item) -> Vec<Document> {
    model.documents(item).unwrap().collect::<Result<_, _>>().unwrap()
}

/// Compares with the file, or writes it where `UPDATE_EXPECT` is set.
fn golden(model: Model) {
    let path = format!("{}/src/model/testdata/{}.json", env!("CARGO_MANIFEST_DIR"), model.name());
    let made: Vec<Value> = documents(model, &fixture())
        .iter()
        .map(|d| json!({ "id": d.id, "document": serde_json::from_slice::<Value>(&d.json).unwrap() }))
        .collect();
    let made = serde_json::to_string_pretty(&made).unwrap() + "\n";
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert!(made == expected, "{path} differs from:\n{made}");
}

#[test]
fn payload_documents_are_as_written_down() {
    golden(Model::Payload);
}

#[test]
fn ecs_documents_are_as_written_down() {
    golden(Model::Ecs);
}

#[test]
fn plugin_documents_are_as_written_down() {
    golden(Model::Plugin);
}

#[test]
fn a_response_stays_as_it_is() {
    let item = fixture();
    let [whole] = &documents(Model::Response, &item)[..] else { panic!("one document") };
    assert_eq!((&whole.id, &whole.json), (&item.id, &item.json));
    assert_eq!(whole.time.iso(), "2026-01-02T03:04:05.678901");
    assert_eq!((whole.source.as_deref(), whole.tenant.as_deref()), (Some("mail-gateway"), Some("acme")));
}

#[test]
fn plugin_documents_are_those_of_split_but_for_others_errors() {
    let item = fixture();
    let response: Response = serde_json::from_slice(&item.json).unwrap();
    let ours = documents(Model::Plugin, &item);
    let theirs = split::split(&response);
    assert_eq!(ours.len(), theirs.len());
    for (ours, mut theirs) in ours.iter().zip(theirs) {
        let ours: Value = serde_json::from_slice(&ours.json).unwrap();
        theirs["errors"] = ours["errors"].clone();
        assert_eq!(ours, theirs);
    }
}

#[test]
fn what_is_no_response_is_refused() {
    for json in ["", "{}", "[]", "null", "{\"results\":[{}]}", &RESPONSE[..RESPONSE.len() / 2]] {
        for model in [Model::Response, Model::Payload, Model::Plugin, Model::Ecs] {
            let item = Item { id: "x".to_owned(), json: json.to_owned().into() };
            assert!(model.documents(&item).is_err(), "{json}");
        }
    }
}

#[test]
fn what_is_about_the_whole_scan_is_not_multiplied() {
    let mut response: Value = serde_json::from_str(RESPONSE).unwrap();
    response["decorators"] = json!({ "notes": "n".repeat(MAX_SHARED) });
    response["request_meta"]["extra_data"]["network"]["url"] = "u".repeat(MAX_SHARED).into();
    for model in [Model::Payload, Model::Plugin, Model::Ecs] {
        let item = item(&response);
        let documents = documents(model, &item);
        assert!(documents[0].json.len() > 2 * MAX_SHARED, "{model:?}");
        assert!(documents.last().unwrap().json.len() < MAX_SHARED, "{model:?}");
    }
}

#[test]
fn a_document_that_no_sink_takes_is_named() {
    let mut response: Value = serde_json::from_str(RESPONSE).unwrap();
    response["results"][1]["workers"]["huge"] = "x".repeat(MAX_DOCUMENT).into();
    let item = item(&response);
    let made: Vec<_> = Model::Payload.documents(&item).unwrap().collect();
    let id = response["results"][1]["payload_id"].as_str().unwrap();
    assert!(made[1].as_ref().is_err_and(|reason| reason.contains(id)), "{:?}", made[1].as_ref().err());
    assert!(made[0].is_ok() && made[2].is_ok());
}

/// A chain of payloads, each in the one before.
fn chain(length: u32) -> Value {
    let mut response: Value = serde_json::from_str(RESPONSE).unwrap();
    let payload = response["results"][0].clone();
    let id = |n: u32| format!("00000000-0000-5000-8000-{n:012}");
    let results: Vec<Value> = (0..length)
        .map(|n| {
            let mut payload = payload.clone();
            payload["payload_id"] = id(n).into();
            payload["payload_meta"]["extra_data"]["filename"] = format!("{n}").into();
            if n > 0 {
                payload["extracted_from"] = json!([id(n - 1)]);
                payload["extracted_by"] = json!([format!("p{}", n - 1)]);
            }
            payload
        })
        .collect();
    response["results"] = results.into();
    response
}

#[test]
fn ancestors_are_the_root_and_the_nearest() {
    let item = item(&chain(40));
    let last = documents(Model::Payload, &item).pop().unwrap();
    let last: Value = serde_json::from_slice(&last.json).unwrap();
    let above: Vec<&str> =
        last["ancestors"].as_array().unwrap().iter().map(|above| above["name"].as_str().unwrap()).collect();
    let expected: Vec<String> = std::iter::once(0).chain(24..39).map(|n| n.to_string()).collect();
    assert_eq!(above, expected);
    assert_eq!(last["ancestors"][15]["plugin"], "p38");
    assert_eq!(last["root"]["name"], "0");
}

proptest! {
    /// Whatever results are: documents are JSON on one line, with distinct ids that do not change, and each result is in
    /// them as it was.
    #[test]
    fn results_survive_in_every_model(texts in prop::collection::vec(("[a-z]{1,8}", ".{0,40}"), 0..6), number: f64) {
        let mut response: Value = serde_json::from_str(RESPONSE).unwrap();
        let workers: serde_json::Map<String, Value> =
            texts.into_iter().map(|(name, text)| (name, json!({ "": text, "\0\n": [number, text] }))).collect();
        response["results"][1]["workers"] = workers.clone().into();
        let item = item(&response);
        for model in [Model::Payload, Model::Plugin, Model::Ecs] {
            let made = documents(model, &item);
            prop_assert_eq!(&made, &documents(model, &item));
            let ids: BTreeSet<&str> = made.iter().map(|d| d.id.as_str()).collect();
            prop_assert_eq!(ids.len(), made.len());
            let mut found = serde_json::Map::new();
            for document in &made {
                prop_assert!(!document.json.contains(&b'\n'));
                let value: Value = serde_json::from_slice(&document.json).unwrap();
                let place = match model {
                    Model::Plugin => &value["results"][0],
                    Model::Ecs => &value["stoq"],
                    _ => &value,
                };
                if place["payload_id"] == response["results"][1]["payload_id"] {
                    found.extend(place["workers"].as_object().unwrap().clone());
                }
            }
            prop_assert_eq!(&found, &workers);
        }
    }
}
