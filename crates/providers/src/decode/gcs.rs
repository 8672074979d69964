//! Format `gcs`: notifications of Google Cloud Storage by Pub/Sub.
//!
//! Attributes of the message say what happened to which object (`eventType`, `bucketId`, `objectId`, `objectGeneration`); the
//! body is the object's resource, or empty if the notification is configured so. Where both name the object they must
//! name the same.

use serde_json::{Map, Value};
use stoq_api::queue::Message;
use stoq_api::{PayloadMeta, RequestMeta, task};

use super::members::Members;
use super::{Decoded, MAX_KEY, MAX_NAME, Meaning, Named, Place, Refusal, base_name};

/// The event that makes something to scan.
const CREATED: &str = "OBJECT_FINALIZE";
/// What a body's `kind` says.
const KIND: &str = "storage#object";

/// Whether a message is one; both ways in which Google marks it count.
pub(super) fn is_notification(message: &Message, members: &Map<String, Value>) -> bool {
    message.header("bucketId").is_some() || members.get("kind").is_some_and(|kind| kind == KIND)
}

pub(super) fn decode(message: &Message, members: Map<String, Value>) -> Result<Meaning, Refusal> {
    if let Some(event) = message.header("eventType").filter(|event| *event != CREATED) {
        return Ok(Meaning::Nothing(format!("the event {event}")));
    }
    let mut body = Members::new("bucket notification", members);
    if body.take("timeDeleted").is_some() {
        return Ok(Meaning::Nothing("an object that was deleted".to_owned()));
    }
    let in_body = [body.text("bucket", MAX_NAME)?, body.text("name", MAX_KEY)?, body.text("generation", MAX_NAME)?];
    let in_headers = ["bucketId", "objectId", "objectGeneration"].map(|name| message.header(name).map(str::to_owned));
    let [bucket, key, generation] = agreed(in_headers, in_body).map_err(|why| body.refuse(why))?;
    let needed = |text: Option<String>, what: &str| text.ok_or_else(|| body.refuse(format_args!("{what} is missing")));
    let (bucket, key) = (needed(bucket, "the bucket")?, needed(key, "the object's name")?);
    if bucket.len() > MAX_NAME || key.len() > MAX_KEY {
        return Err(body.refuse(format_args!("the object's name is longer than {MAX_KEY} bytes")));
    }
    if generation.as_ref().is_some_and(|g| g.len() > 20 || !g.bytes().all(|b| b.is_ascii_digit())) {
        return Err(body.refuse("the generation is not a number"));
    }
    let size = body.size("size")?;
    let mut meta = PayloadMeta::default();
    let time = message.header("eventTime").filter(|time| time.len() <= MAX_NAME).map(str::to_owned);
    let created = body.text("timeCreated", MAX_NAME)?;
    let texts = [
        ("filename", base_name(&key).map(str::to_owned)),
        ("bucket", Some(bucket.clone())),
        ("key", Some(key.clone())),
        ("event_time", time.or(created)),
        ("content_type", body.text("contentType", MAX_NAME)?),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            meta.extra_data.insert(name.to_owned(), text.into());
        }
    }
    let place = task::Place::Object { bucket, key, version: generation, etag: None };
    let root = Named { place: Place::Remote { place, size }, meta };
    Ok(Meaning::Reference(Decoded { roots: vec![root], request_meta: RequestMeta::default() }))
}

/// What headers and body say, where they do not contradict each other.
fn agreed<const N: usize>(
    headers: [Option<String>; N],
    body: [Option<String>; N],
) -> Result<[Option<String>; N], &'static str> {
    if headers.iter().zip(&body).any(|(one, other)| one.is_some() && other.is_some() && one != other) {
        return Err("attributes and body name different objects");
    }
    let mut body = body.into_iter();
    Ok(headers.map(|header| header.or(body.next().flatten())))
}
