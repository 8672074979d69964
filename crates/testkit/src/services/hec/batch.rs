//! The events of one request.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::Token;
use super::codes::Reply;
use super::indexer::Event;

/// An object of the request. Other keys than these are no part of the format.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(borrow)]
    time: Option<&'a RawValue>,
    index: Option<String>,
    host: Option<String>,
    source: Option<String>,
    sourcetype: Option<String>,
    // Twice an option: a key that is absent and one that is null are different mistakes.
    #[serde(default, deserialize_with = "there")]
    event: Option<Value>,
    fields: Option<Value>,
}

fn there<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(value).map(Some)
}

/// Reads objects that stand one after the other, with or without white space between them. With the refusal come the
/// events before the one that is refused.
pub(super) fn read(
    body: &[u8],
    token: &Token,
    defaults: &HashMap<String, String>,
) -> Result<Vec<Event>, (Reply, Vec<Event>)> {
    let mut events = Vec::new();
    for object in serde_json::Deserializer::from_slice(body).into_iter::<Envelope<'_>>() {
        let number = events.len();
        let read = object.map_err(|_| 6).and_then(|envelope| event(envelope, token, defaults));
        match read {
            Ok(event) => events.push(event),
            Err(code) => return Err((Reply::event(code, number), events)),
        }
    }
    if events.is_empty() { Err((Reply::code(5), events)) } else { Ok(events) }
}

/// Checks one object; the code that refuses it.
fn event(envelope: Envelope<'_>, token: &Token, defaults: &HashMap<String, String>) -> Result<Event, u16> {
    let event = match envelope.event.ok_or(12_u16)? {
        Value::Null => return Err(13),
        Value::String(text) if text.is_empty() => return Err(13),
        event => event,
    };
    let time = envelope.time.map(|time| time.get().trim_matches('"').to_owned());
    if time.as_deref().is_some_and(|time| !is_time(time)) {
        return Err(15);
    }
    let fields = match envelope.fields {
        None => Map::new(),
        Some(Value::Object(fields)) if fields.values().all(is_flat) => fields,
        Some(_) => return Err(15),
    };
    let or_default = |value: Option<String>, key| value.or_else(|| defaults.get(key).cloned());
    let index = or_default(envelope.index, "index").unwrap_or_else(|| token.default_index.clone());
    if !token.indexes.is_empty() && !token.indexes.contains(&index) {
        return Err(7);
    }
    Ok(Event {
        time,
        index,
        host: or_default(envelope.host, "host"),
        source: or_default(envelope.source, "source"),
        sourcetype: or_default(envelope.sourcetype, "sourcetype"),
        event,
        fields,
    })
}

/// `<sec>.<ms>`: digits with at most one point between them. An exponent is refused.
fn is_time(text: &str) -> bool {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    [whole, fraction].iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

/// Text, a number, or a list of texts: "a flat list of explicit custom fields".
fn is_flat(value: &Value) -> bool {
    match value {
        Value::Array(values) => values.iter().all(Value::is_string),
        other => other.is_string() || other.is_number(),
    }
}
