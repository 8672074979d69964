//! What an index knows of documents: a fixed list of fields, whatever plugins and senders name.
//!
//! `dynamic: false` keeps unknown members in the document and out of the index. Results are one field of the server's own
//! type for any object, in which each value can be searched for by its path; it counts as one field however many members
//! it has. What is not searched for at all is not indexed.

use serde_json::{Map, Value, json};

use super::server::Flavour;
use crate::model::Model;

/// The mapping for documents of a model.
pub(super) fn of(model: Model, flavour: Flavour) -> Value {
    let mut properties = match model {
        Model::Payload => payload(flavour),
        Model::Ecs => ecs(flavour),
        Model::Response | Model::Plugin => response(flavour),
    };
    properties.insert("@timestamp".to_owned(), json!({ "type": "date" }));
    json!({ "dynamic": false, "date_detection": false, "numeric_detection": false, "properties": properties })
}

/// Text that is searched for as a whole. A longer one is kept and not indexed; no term may have more than 32766 bytes.
fn keyword() -> Value {
    json!({ "type": "keyword", "ignore_above": 1024 })
}

fn long() -> Value {
    json!({ "type": "long" })
}

fn boolean() -> Value {
    json!({ "type": "boolean" })
}

/// Kept and not indexed.
fn kept() -> Value {
    json!({ "type": "object", "enabled": false })
}

/// From the wire, so maybe nonsense; then it is kept and not indexed.
fn lenient(kind: &str) -> Value {
    json!({ "type": kind, "ignore_malformed": true })
}

fn keywords(names: &[&str]) -> Map<String, Value> {
    names.iter().map(|name| ((*name).to_owned(), keyword())).collect()
}

fn object(fields: Value) -> Value {
    json!({ "properties": fields })
}

/// Fields under which a payload's members stand, in every model.
fn members(flavour: Flavour) -> Map<String, Value> {
    let names = [
        "payload_id",
        "scan_id",
        "replay_of",
        "tenant",
        "source",
        "sha256",
        "name",
        "names",
        "extracted_from",
        "extracted_by",
    ];
    let mut fields = keywords(&names);
    let place = keywords(&["payload_id", "sha256", "name", "plugin"]);
    let mut root = place.clone();
    root.insert("extra_data".to_owned(), kept());
    let more = json!({
        "size": long(),
        "depth": { "type": "integer" },
        "complete": boolean(),
        "root": object(root.into()),
        "ancestors": object(place.into()),
        "payload_meta": object(json!({
            "should_archive": boolean(), "should_scan": boolean(), "dispatch_to": keyword(), "extra_data": flavour.flat(),
        })),
        "plugins_run": object(json!({ "workers": keyword(), "archivers": keyword() })),
        "workers": flavour.flat(),
        "archivers": kept(),
        "runs": object(json!({
            "plugin": keyword(), "round": { "type": "integer" }, "why": keyword(), "status": keyword(), "micros": long(),
        })),
        "not_run": object(json!({ "plugin": keyword(), "reason": keyword() })),
        "findings": object(json!({ "kind": keyword(), "plugin": keyword(), "detail": { "type": "text" } })),
        "errors": errors(),
        "engine": engine(),
        "network": object(network()),
        "scan": object(json!({
            "payloads": { "type": "integer" }, "cut": boolean(), "request": kept(), "decorators": kept(), "findings": kept(),
        })),
        "unindexed": unindexed(),
    });
    extend(&mut fields, more);
    fields
}

fn extend(fields: &mut Map<String, Value>, more: Value) {
    if let Value::Object(more) = more {
        fields.extend(more);
    }
}

fn errors() -> Value {
    object(json!({ "error": { "type": "text" }, "plugin_name": keyword(), "payload_id": keyword() }))
}

/// What an index did not take: kept, and found by the reason.
fn unindexed() -> Value {
    object(json!({
        "reason": keyword(), "workers": kept(), "payload_meta": kept(), "results": kept(), "request_meta": kept(),
    }))
}

fn engine() -> Value {
    object(json!({ "version": keyword(), "rulesets": kept() }))
}

fn network() -> Value {
    let mut fields =
        keywords(&["proto", "app_proto", "community_id", "flow_id", "host", "url", "method", "user_agent", "sensor"]);
    for end in ["src", "dest"] {
        fields.insert(format!("{end}_ip"), lenient("ip"));
        fields.insert(format!("{end}_port"), lenient("integer"));
    }
    fields.insert("observed".to_owned(), lenient("date"));
    fields.into()
}

fn payload(flavour: Flavour) -> Map<String, Value> {
    members(flavour)
}

fn response(flavour: Flavour) -> Map<String, Value> {
    let mut fields = keywords(&["scan_id", "replay_of", "tenant"]);
    let more = json!({
        "time": { "type": "date" },
        "complete": boolean(),
        "request_meta": object(json!({
            "archive_payloads": boolean(), "source": keyword(), "extra_data": flavour.flat(),
        })),
        "results": flavour.flat(),
        "errors": errors(),
        "findings": object(json!({ "kind": keyword(), "plugin": keyword(), "detail": { "type": "text" } })),
        "decorators": kept(),
        "engine": engine(),
        "unindexed": unindexed(),
    });
    extend(&mut fields, more);
    fields
}

/// Types as Elastic Common Schema has them; the names are those that `model::ecs` writes.
fn ecs(flavour: Flavour) -> Map<String, Value> {
    let end = || object(json!({ "ip": lenient("ip"), "address": keyword(), "port": lenient("long") }));
    let hash = keywords(&["md5", "sha1", "sha256", "sha384", "sha512", "ssdeep", "tlsh"]);
    let rule = keywords(&["name", "ruleset", "category", "description", "author", "reference", "license"]);
    let technique = object(json!({ "id": keyword(), "subtechnique": object(json!({ "id": keyword() })) }));
    let fields = json!({
        "ecs": object(json!({ "version": keyword() })),
        "event": object(json!({
            "kind": keyword(), "category": keyword(), "type": keyword(), "module": keyword(), "dataset": keyword(),
            "id": keyword(), "created": { "type": "date" }, "start": lenient("date"),
        })),
        "file": object(json!({
            "type": keyword(), "size": long(), "name": keyword(), "path": keyword(), "extension": keyword(),
            "mime_type": keyword(), "hash": object(hash.into()),
        })),
        "observer": object(keywords(&["vendor", "product", "type", "version", "name"]).into()),
        "source": end(),
        "destination": end(),
        "network": object(keywords(&["transport", "protocol", "community_id"]).into()),
        "url": object(keywords(&["original", "domain"]).into()),
        "user_agent": object(json!({ "original": keyword() })),
        "http": object(json!({ "request": object(json!({ "method": keyword() })) })),
        "rule": object(rule.into()),
        "threat": object(json!({ "framework": keyword(), "technique": technique })),
        "error": object(json!({ "message": { "type": "text" } })),
        "related": object(json!({ "hash": keyword(), "ip": lenient("ip"), "hosts": keyword() })),
        "stoq": object(members(flavour).into()),
    });
    let mut all = Map::new();
    extend(&mut all, fields);
    all
}
