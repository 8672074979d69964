//! stoQ v2's shape of a response, as its documentation shows it.
//!
//! `workers` and `plugins_run.workers` are lists with one entry per round, `errors` is an object, `extracted_from` and
//! `extracted_by` are null or one string (with several parents: the first). Nothing is added.

use serde_json::{Map, Value, json};

use super::{PayloadResults, Response};

/// The response in v2's shape.
pub fn to_v2(response: &Response) -> Value {
    let results: Vec<Value> = response.results.iter().map(payload).collect();
    let mut errors = Map::new();
    for error in &response.errors {
        // v2 kept errors by plugin; those of no plugin stand under the framework's own name.
        let plugin = error.plugin_name.clone().unwrap_or_else(|| "stoq".to_owned());
        if let Some(list) = errors.entry(plugin).or_insert_with(|| json!([])).as_array_mut() {
            list.push(json!(error.error));
        }
    }
    json!({
        "time": response.time,
        "results": results,
        "request_meta": response.request_meta,
        "errors": errors,
        "decorators": response.decorators,
        "scan_id": response.scan_id,
    })
}

fn payload(result: &PayloadResults) -> Value {
    let rounds = result.runs.iter().map(|r| r.round).max().unwrap_or(0);
    let mut workers = Vec::new();
    let mut names = Vec::new();
    for round in 1..=rounds {
        let ran: Vec<&str> = result
            .runs
            .iter()
            .filter(|r| r.round == round && result.plugins_run.workers.contains(&r.plugin))
            .map(|r| r.plugin.as_str())
            .collect();
        if ran.is_empty() {
            continue;
        }
        let mut found = Map::new();
        for name in &ran {
            if let Some(json) = result.workers.get(name) {
                found.insert((*name).to_owned(), json.value());
            }
        }
        workers.push(Value::Object(found));
        names.push(json!(ran));
    }
    json!({
        "payload_id": result.payload_id,
        "size": result.size,
        "payload_meta": {
            "should_archive": result.payload_meta.should_archive,
            "extra_data": result.payload_meta.extra_data,
            "dispatch_to": result.payload_meta.dispatch_to,
        },
        "workers": workers,
        "archivers": result.archivers,
        "plugins_run": { "workers": names, "archivers": result.plugins_run.archivers },
        "extracted_from": result.extracted_from.first(),
        "extracted_by": result.extracted_by.first(),
    })
}
