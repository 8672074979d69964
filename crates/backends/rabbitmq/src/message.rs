//! Messages as the protocol carries them, and back.

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use serde_json::{Map, Value, json};
use stoq_api::queue::Message;
use stoq_api::stamp::Timestamp;
use stoq_api::{Fault, FaultKind};

use crate::config::NAME_LIMIT;

/// The delivery mode that makes a message outlive the broker's restart.
const PERSISTENT: u8 = 2;
/// Headers that quorum queues add to what they deliver again.
const BROKERS_OWN: [&str; 2] = ["x-delivery-count", "x-acquired-count"];
/// How deeply nested a header of somebody else's may be before the rest is left out.
const DEPTH: usize = 8;

/// Whether the message can be published at all.
pub(crate) fn check(message: &Message, largest: usize) -> Result<(), Fault> {
    let refused = |text: String| Err(Fault::new(FaultKind::Refused, text));
    if message.body.len() > largest {
        return refused(format!(
            "a message of {} bytes is larger than the {largest} that rabbitmq is to take; see max_message",
            message.body.len()
        ));
    }
    if message.id.len() > NAME_LIMIT {
        return refused(format!(
            "a message id of {} bytes is longer than the {NAME_LIMIT} that rabbitmq takes",
            message.id.len()
        ));
    }
    match message.headers.iter().find(|(name, _)| name.len() > NAME_LIMIT) {
        Some((name, _)) => refused(format!(
            "a header's name of {} bytes is longer than the {NAME_LIMIT} that rabbitmq takes",
            name.len()
        )),
        None => Ok(()),
    }
}

/// The properties of a message that passed [`check`].
pub(crate) fn properties(message: &Message, now: Timestamp) -> BasicProperties {
    let mut properties = BasicProperties::default().with_delivery_mode(PERSISTENT).with_timestamp(now.0 / MICROSECONDS);
    if let (false, Ok(id)) = (message.id.is_empty(), ShortString::try_new(message.id.as_str())) {
        properties = properties.with_message_id(id);
    }
    if !message.headers.is_empty() {
        let mut table = FieldTable::default();
        for (name, value) in &message.headers {
            if let Ok(name) = ShortString::try_new(name.as_str()) {
                table.insert(name, AMQPValue::LongString(value.as_str().into()));
            }
        }
        properties = properties.with_headers(table);
    }
    properties
}

/// The protocol counts seconds.
const MICROSECONDS: u64 = 1_000_000;

/// A message that was delivered, and when it was published, where that is known.
pub(crate) fn received(properties: &BasicProperties, body: Vec<u8>) -> (Message, Option<Timestamp>) {
    let id = properties.message_id().as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default();
    let table = properties.headers().as_ref().map(FieldTable::inner);
    let headers = table.into_iter().flatten().filter(|(name, _)| !BROKERS_OWN.contains(&name.as_str()));
    let headers = headers.map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
    let published = properties.timestamp().map(|seconds| Timestamp(seconds.saturating_mul(MICROSECONDS)));
    (Message { id, body: Bytes::from(body), headers }, published)
}

/// A header's value as text: itself if it is text, else as JSON.
fn text(value: &AMQPValue) -> String {
    match json(value, DEPTH) {
        Value::String(text) => text,
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn json(value: &AMQPValue, depth: usize) -> Value {
    let bytes = |bytes: &[u8]| Value::String(String::from_utf8_lossy(bytes).into_owned());
    match value {
        AMQPValue::Boolean(v) => json!(v),
        AMQPValue::ShortShortInt(v) => json!(v),
        AMQPValue::ShortShortUInt(v) => json!(v),
        AMQPValue::ShortInt(v) => json!(v),
        AMQPValue::ShortUInt(v) => json!(v),
        AMQPValue::LongInt(v) => json!(v),
        AMQPValue::LongUInt(v) => json!(v),
        AMQPValue::LongLongInt(v) => json!(v),
        AMQPValue::Float(v) => json!(v),
        AMQPValue::Double(v) => json!(v),
        AMQPValue::DecimalValue(v) => json!({"scale": v.scale, "value": v.value}),
        AMQPValue::ShortString(v) => json!(v.as_str()),
        AMQPValue::LongString(v) => bytes(LongString::as_bytes(v)),
        AMQPValue::ByteArray(v) => bytes(v.as_slice()),
        AMQPValue::Timestamp(v) => json!(v),
        AMQPValue::FieldArray(_) | AMQPValue::FieldTable(_) if depth == 0 => Value::Null,
        AMQPValue::FieldArray(v) => v.as_slice().iter().map(|v| json(v, depth - 1)).collect(),
        AMQPValue::FieldTable(v) => {
            let entries = v.inner().iter().map(|(name, v)| (name.as_str().to_owned(), json(v, depth - 1)));
            Value::Object(entries.collect::<Map<_, _>>())
        }
        AMQPValue::Void => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn comes_back_as_it_was(
            id in ".{0,63}",
            body in prop::collection::vec(any::<u8>(), 0..64),
            headers in prop::collection::btree_map("[a-zA-Z][^\0]{0,20}", ".{0,40}", 0..5),
        ) {
            let message = Message { headers: headers.into_iter().collect(), ..Message::new(id, body.clone()) };
            prop_assert!(check(&message, 64).is_ok());
            let now = Timestamp(1_767_323_045_678_901);
            let (back, published) = received(&properties(&message, now), body);
            prop_assert_eq!(back, message);
            prop_assert_eq!(published, Some(Timestamp(1_767_323_045_000_000)));
        }
    }

    #[test]
    fn other_peoples_headers_are_text() {
        let mut inner = FieldTable::default();
        inner.insert("count".into(), AMQPValue::LongLongInt(2));
        inner.insert("reason".into(), AMQPValue::LongString("expired".into()));
        let mut table = FieldTable::default();
        table.insert("n".into(), AMQPValue::LongInt(-7));
        table.insert("raw".into(), AMQPValue::ByteArray(vec![b'a', 0xff].into()));
        table.insert("x-death".into(), AMQPValue::FieldArray(vec![AMQPValue::FieldTable(inner)].into()));
        table.insert("x-delivery-count".into(), AMQPValue::LongLongInt(1));
        let (message, published) = received(&BasicProperties::default().with_headers(table), Vec::new());
        assert_eq!((message.id.as_str(), published), ("", None));
        let expected = [("n", "-7"), ("raw", "a\u{fffd}"), ("x-death", r#"[{"count":2,"reason":"expired"}]"#)];
        assert_eq!(message.headers, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    #[test]
    fn what_the_protocol_cannot_carry_is_refused() {
        for message in [
            Message::new("", vec![0; 11]),
            Message::new("i".repeat(256), ""),
            Message { headers: vec![("n".repeat(256), String::new())], ..Message::new("", "") },
        ] {
            assert_eq!(check(&message, 10).unwrap_err().kind, FaultKind::Refused);
        }
    }
}
