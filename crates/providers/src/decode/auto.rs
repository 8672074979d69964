//! Format `auto`: which of the JSON formats a message is, by members that only that one has.

use serde_json::{Map, Value};
use stoq_api::queue::Message;

use super::{Format, Refusal, gcs};

/// Members that give a format away, in the order in which they are looked for. A message that has those of two is refused:
/// which one it is must not depend on who reads it.
const SIGNS: [(&str, Format); 7] = [
    ("payload", Format::Native),
    ("payloads", Format::Native),
    ("_is_payload", Format::StoqPayload),
    ("Records", Format::S3),
    ("event_type", Format::Suricata),
    ("fuid", Format::Zeek),
    ("files", Format::Zeek),
];

pub(super) fn choose(message: &Message, members: &Map<String, Value>) -> Result<Format, Refusal> {
    let mut found: Vec<Format> = Vec::new();
    let by_name = SIGNS.iter().filter(|(name, _)| members.contains_key(*name)).map(|(_, format)| *format);
    let google = gcs::is_notification(message, members).then_some(Format::Gcs);
    for format in by_name.chain(google) {
        if !found.contains(&format) {
            found.push(format);
        }
    }
    match found.as_slice() {
        [one] => Ok(*one),
        // Nothing else has objects only; which archivers may be named is checked later.
        [] if !members.is_empty() && members.values().all(Value::is_object) => Ok(Format::StoqTask),
        [] => Err(Refusal("it is none of the JSON formats of references: name the intake's format".to_owned())),
        several => Err(Refusal(format!("it could be any of {several:?}: name the intake's format"))),
    }
}
