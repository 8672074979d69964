//! stoQ's `publish_archive`: for each payload and each archiver that kept it, the task that makes a source archiver bring it
//! back, `{"ARCHIVER": {…}}`. A `queue` provider with `format = "stoq_task"` scans what it names.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use stoq_api::plugin::Item;
use stoq_api::queue::Message;
use stoq_api::{Json, Named};

use super::headers;

#[derive(Deserialize)]
struct Read<'a> {
    results: Vec<Kept>,
    request_meta: Value,
    #[serde(borrow, default)]
    tenant: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Kept {
    payload_id: String,
    payload_meta: Meta,
    archivers: Named<Json>,
}

#[derive(Deserialize)]
struct Meta {
    extra_data: Map<String, Value>,
}

/// The tasks of a response; none if nothing of it was archived. What an archiver said goes before the payload's
/// `extra_data`, and that before the request's metadata, as in stoQ.
pub(super) fn messages(item: &Item) -> Result<Vec<Message>, String> {
    let read: Read = serde_json::from_slice(&item.json).map_err(|e| format!("not a response: {e}"))?;
    let mut messages = Vec::new();
    for payload in read.results {
        for (archiver, said) in payload.archivers.iter() {
            let Value::Object(said) = said.value() else { continue };
            let mut task = Map::from_iter([("request_meta".to_owned(), read.request_meta.clone())]);
            task.extend(payload.payload_meta.extra_data.clone());
            task.extend(said);
            let body = json!({ archiver: task }).to_string();
            let mut message = Message::new(format!("{}.{archiver}", payload.payload_id), body);
            message.headers = headers(&message.id, &item.id, read.tenant.as_deref().map(str::to_owned), "archive");
            messages.push(message);
        }
    }
    Ok(messages)
}
