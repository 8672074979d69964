//! Format `s3`: bucket notifications of S3, MinIO and others that write the same `Records`.
//!
//! Keys are encoded as in a form: `+` stands for a space. Only events that made an object name something to scan. A
//! message may hold several records, and MinIO repeats the first one's names outside of them.

use serde_json::{Map, Value};
use stoq_api::{PayloadMeta, RequestMeta, task};

use super::members::Members;
use super::{Decoded, MAX_KEY, MAX_NAME, MAX_ROOTS, Meaning, Named, Place, Refusal, base_name};

/// How the names of wanted events begin; MinIO puts `s3:` in front.
const CREATED: &str = "ObjectCreated:";
/// S3's first message when notifications are switched on.
const TEST: &str = "s3:TestEvent";
/// Most bytes of a key in its encoded form.
const MAX_ENCODED: usize = 3 * MAX_KEY;

pub(super) fn decode(members: Map<String, Value>) -> Result<Meaning, Refusal> {
    let mut members = Members::new("bucket notification", members);
    let Some(records) = members.list("Records")? else {
        return match members.text("Event", MAX_NAME)?.as_deref() {
            Some(TEST) => Ok(Meaning::Nothing(format!("the event {TEST}"))),
            _ => Err(members.refuse("Records is missing")),
        };
    };
    if records.is_empty() || records.len() > MAX_ROOTS {
        let records = records.len();
        return Err(members.refuse(format_args!("{records} records, 1 to {MAX_ROOTS} are taken")));
    }
    let mut roots = Vec::new();
    let mut other = String::new();
    for record in records {
        let Value::Object(record) = record else { return Err(members.refuse("a record is not an object")) };
        match root(record)? {
            Ok(root) => roots.push(root),
            Err(event) => other = event,
        }
    }
    if roots.is_empty() {
        return Ok(Meaning::Nothing(format!("the event {other}")));
    }
    Ok(Meaning::Reference(Decoded { roots, request_meta: RequestMeta::default() }))
}

/// What a record names, or the event that makes nothing to scan.
fn root(record: Map<String, Value>) -> Result<Result<Named, String>, Refusal> {
    let mut record = Members::new("record", record);
    let event = record.needed("eventName", MAX_NAME)?;
    if !event.strip_prefix("s3:").unwrap_or(&event).starts_with(CREATED) {
        return Ok(Err(event));
    }
    let mut s3 = inner(&mut record, "s3")?;
    let bucket = inner(&mut s3, "bucket")?.needed("name", MAX_NAME)?;
    let mut object = inner(&mut s3, "object")?;
    let key =
        unescape(&object.needed("key", MAX_ENCODED)?).ok_or_else(|| object.refuse("key is not encoded as UTF-8"))?;
    if key.len() > MAX_KEY {
        return Err(object.refuse(format_args!("key is longer than {MAX_KEY} bytes")));
    }
    let size = object.size("size")?;
    let etag = object.text("eTag", MAX_NAME)?.map(|etag| etag.trim_matches('"').to_owned()).filter(|e| !e.is_empty());
    // Buckets without versions have none, or one that is called so.
    let version = object.text("versionId", MAX_NAME)?.filter(|version| !version.is_empty() && version != "null");
    let mut meta = PayloadMeta::default();
    let texts = [
        ("filename", base_name(&key).map(str::to_owned)),
        ("bucket", Some(bucket.clone())),
        ("key", Some(key.clone())),
        ("event_time", record.text("eventTime", MAX_NAME)?),
        ("content_type", object.text("contentType", MAX_NAME)?),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            meta.extra_data.insert(name.to_owned(), text.into());
        }
    }
    Ok(Ok(Named { place: Place::Remote { place: task::Place::Object { bucket, key, version, etag }, size }, meta }))
}

fn inner(members: &mut Members, name: &'static str) -> Result<Members, Refusal> {
    let inner = members.object(name)?.ok_or_else(|| members.refuse(format_args!("{name} is missing")))?;
    Ok(Members::new(name, inner))
}

/// Form encoding undone; `None` if an escape is broken or the bytes are not UTF-8.
fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = rest.get(..2)?;
                rest = &rest[2..];
                let digit = |d: u8| char::from(d).to_digit(16);
                u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_unescaped_once() {
        for (text, key) in [
            ("a/b.exe", Some("a/b.exe")),
            ("caf%C3%A9+menu%2Bx.pdf", Some("caf\u{e9} menu+x.pdf")),
            ("%252e%252e", Some("%2e%2e")),
            ("a%2", None),
            ("a%zz", None),
            ("a%+1", None),
            ("%ff%fe", None),
        ] {
            assert_eq!(unescape(text).as_deref(), key, "{text}");
        }
    }
}
