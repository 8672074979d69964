//! Messages as records, and back.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use rdkafka::Message as _;
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Header, Headers as _, OwnedHeaders, Timestamp as Stamp};
use stoq_api::Timestamp;
use stoq_api::queue::Message;

/// Header that carries [`Message::id`] on lanes.
const ID: &str = "stoq-id";
/// Most headers of a record that are looked at; the others of somebody else's record are left out.
const MAX_HEADERS: usize = 256;

/// How ids and records belong together.
#[derive(Clone, Debug)]
pub(crate) enum Identity {
    /// A lane of ours: a header carries the id.
    Header,
    /// Somebody else's topic: the id is the record's place in the cluster of this id.
    Place(String),
}

/// A record that was read.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) offset: i64,
    pub(crate) message: Message,
    pub(crate) published: Option<Timestamp>,
}

impl Record {
    /// Copies `message` out of the client's memory.
    pub(crate) fn new(message: &BorrowedMessage<'_>, identity: &Identity) -> Self {
        let mut headers = message.headers().map(read_headers).unwrap_or_default();
        let mut id = None;
        if matches!(identity, Identity::Header)
            && let Some(at) = headers.iter().position(|(name, _)| name == ID)
        {
            id = Some(headers.remove(at).1);
        }
        let published = published(message.timestamp());
        let id = match identity {
            Identity::Header => id.unwrap_or_default(),
            Identity::Place(cluster) => {
                let stamp = message.timestamp().to_millis().unwrap_or_default();
                format!("{cluster}/{}/{}/{}/{stamp}", message.topic(), message.partition(), message.offset())
            }
        };
        let body = Bytes::copy_from_slice(message.payload().unwrap_or_default());
        Self { offset: message.offset(), message: Message { id, body, headers }, published }
    }

    /// What it takes in memory, roughly.
    pub(crate) fn size(&self) -> usize {
        let headers: usize = self.message.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.message.body.len() + self.message.id.len() + headers
    }
}

/// The headers as text. Values that are no UTF-8 are read as far as they are.
///
/// The client panics over a name that is none, and records of an intake come from anybody: such a name and the headers
/// behind it are left out.
fn read_headers(given: &BorrowedHeaders) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    for index in 0..given.count().min(MAX_HEADERS) {
        let Ok(Some(header)) = catch_unwind(AssertUnwindSafe(|| given.try_get(index))) else {
            tracing::warn!(index, "a header's name is no text; it and those behind it are left out");
            break;
        };
        let value = header.value.map(|v| String::from_utf8_lossy(v).into_owned()).unwrap_or_default();
        headers.push((header.key.to_owned(), value));
    }
    headers
}

/// When the record was published: by the producer's clock or the broker's, as the topic is configured.
pub(crate) fn published(stamp: Stamp) -> Option<Timestamp> {
    stamp.to_millis().and_then(|millis| u64::try_from(millis).ok()).map(|millis| Timestamp(millis.saturating_mul(1000)))
}

/// The headers that `message` is published with. Their names hold no NUL, or the client panics.
pub(crate) fn headers(message: &Message, identity: &Identity) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new_with_capacity(message.headers.len() + 1);
    if matches!(identity, Identity::Header) {
        headers = headers.insert(Header { key: ID, value: Some(&message.id) });
    }
    for (name, value) in &message.headers {
        headers = headers.insert(Header { key: name, value: Some(value) });
    }
    headers
}
