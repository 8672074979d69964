//! Messages of other people's producers made into references: one file a format, all of them pure functions of a message
//! and what the intake says about it.
//!
//! Nothing here looks at a file, a host or a bucket; it only says what a message names. Whether that may be fetched is
//! decided by `fetch::Rules`, here and again in the worker. Every message is hostile: lengths, counts and depths
//! are bounded by the constants below, and what is not understood is refused, never guessed.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value};
use stoq_api::queue::Message;
use stoq_api::task;
use stoq_api::{PayloadMeta, RequestMeta};

mod auto;
mod base64;
mod gcs;
mod inline;
mod json;
mod members;
mod native;
mod network;
mod raw;
mod s3;
mod stoq_task;
mod suricata;
#[cfg(test)]
mod tests;
mod zeek;

/// Most payloads that one reference may name.
pub const MAX_ROOTS: usize = 64;
/// Most bytes of a reference's metadata as JSON, all payloads together. Every task of the scan carries them.
pub const MAX_METADATA: usize = 64 << 10;
/// Most bytes of a path, or of a name in metadata that is not free text.
pub const MAX_NAME: usize = 4 << 10;
/// Most bytes of a URL.
pub const MAX_URL: usize = 8 << 10;
/// Most bytes of an object's key: what S3 and Google allow.
pub const MAX_KEY: usize = 1024;
/// Most values in one JSON message.
pub const MAX_VALUES: usize = 16 << 10;
/// Most workers that one payload may be sent to.
pub const MAX_DISPATCH: usize = 64;

/// How the messages of an intake are written; see `docs/references.md`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Whichever of the JSON formats a message is. Never [`Format::Raw`]: content that looks like a reference must not
    /// become one, and no message may choose to be content.
    #[default]
    Auto,
    /// stoq's own.
    Native,
    /// stoQ v3: `{"<archiver>": {…}}`.
    StoqTask,
    /// stoQ v3: a payload inside JSON, marked by `_is_payload`.
    StoqPayload,
    /// The message is the payload.
    Raw,
    /// Bucket notifications of S3 and MinIO.
    S3,
    /// Bucket notifications of Google Cloud Storage.
    Gcs,
    /// `fileinfo` events of Suricata's `eve.json`.
    Suricata,
    /// Lines of Zeek's `files.log` as JSON.
    Zeek,
}

/// What an intake says about its messages.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// How they are written.
    pub format: Format,
    /// Most bytes of one.
    pub max_message: usize,
    /// Cut off the front of paths: where the producer has what lies beneath the intake's root.
    pub strip_prefix: String,
}

/// What a message means.
#[derive(Clone, Debug, PartialEq)]
pub enum Meaning {
    /// These are to be scanned.
    Reference(Decoded),
    /// It is understood and names nothing to scan: an event of another kind.
    Nothing(String),
}

/// What a message names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// The payloads, at least one.
    pub roots: Vec<Named>,
    /// The request's metadata.
    pub request_meta: RequestMeta,
}

/// One payload of a message.
#[derive(Clone, Debug, PartialEq)]
pub struct Named {
    /// Its bytes, or where they are said to be.
    pub place: Place,
    /// How to treat it.
    pub meta: PayloadMeta,
}

/// Where a payload is said to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// In the message.
    Content(Bytes),
    /// Beneath the intake's root.
    File {
        /// Relative to it.
        path: String,
        /// Size in bytes, where the message says one.
        size: Option<u64>,
    },
    /// Behind a network.
    Remote {
        /// Where.
        place: task::Place,
        /// Size in bytes, where the message says one.
        size: Option<u64>,
    },
}

/// Why a message is no reference, for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// Reads a message.
///
/// # Errors
/// It is not in the intake's format, or is beyond a limit.
pub fn decode(message: &Message, settings: &Settings) -> Result<Meaning, Refusal> {
    let size = message.body.len();
    if size > settings.max_message {
        let max = settings.max_message;
        return Err(Refusal(format!("the message has {size} bytes, max_message allows {max}")));
    }
    let meaning = match settings.format {
        Format::Raw => raw::decode(message),
        Format::Gcs if message.body.is_empty() => gcs::decode(message, Map::new()),
        format => structured(message, format, json::object(&message.body)?, settings),
    }?;
    if let Meaning::Reference(decoded) = &meaning {
        bounded(decoded)?;
    }
    Ok(meaning)
}

fn structured(
    message: &Message,
    format: Format,
    members: Map<String, Value>,
    settings: &Settings,
) -> Result<Meaning, Refusal> {
    match format {
        Format::Auto => structured(message, auto::choose(message, &members)?, members, settings),
        Format::Native => native::decode(members, settings),
        Format::StoqTask => stoq_task::decode(members),
        Format::StoqPayload => inline::decode(members),
        Format::S3 => s3::decode(members),
        Format::Gcs => gcs::decode(message, members),
        Format::Suricata => suricata::decode(members),
        Format::Zeek => zeek::decode(members, settings),
        Format::Raw => Err(Refusal("a raw message has no members".to_owned())),
    }
}

/// What holds for references of every format.
fn bounded(decoded: &Decoded) -> Result<(), Refusal> {
    match decoded.roots.len() {
        0 => return Err(Refusal("it names no payload".to_owned())),
        1..=MAX_ROOTS => {}
        roots => return Err(Refusal(format!("it names {roots} payloads, at most {MAX_ROOTS} are taken"))),
    }
    let mut count = Count(0);
    let metas = decoded.roots.iter().map(|root| serde_json::to_writer(&mut count, &root.meta)).collect::<Vec<_>>();
    if metas.iter().any(Result::is_err) || serde_json::to_writer(&mut count, &decoded.request_meta).is_err() {
        return Err(Refusal(format!("its metadata is longer than {MAX_METADATA} bytes")));
    }
    Ok(())
}

/// Counts what is written, and stops at the limit.
struct Count(usize);

impl std::io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        if self.0 > MAX_METADATA { Err(std::io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The last part of a path or key, for `filename`.
fn base_name(path: &str) -> Option<&str> {
    path.rsplit('/').next().filter(|name| !name.is_empty())
}
