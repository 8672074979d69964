//! Documents as events.

use bytes::Bytes;
use stoq_api::Timestamp;
use stoq_api::plugin::Item;
use tokio::sync::mpsc;

use super::config::Validated;
use super::names::Names;
use crate::common::head::Head;
use crate::model::{Document, Documents};

/// Bytes that an event takes beside its document, mostly.
const ROOM: usize = 1 << 10;

/// An event as it stands in a request.
#[derive(Clone)]
pub(super) struct Event {
    /// The item of the batch that it is made of.
    pub(super) item: usize,
    /// Its document's id.
    pub(super) id: String,
    /// The index that it names.
    pub(super) index: Option<String>,
    /// Its text, one line.
    pub(super) json: Bytes,
}

/// What the encoding side says.
pub(super) enum Made {
    /// A document of the item cannot be sent at all.
    Refused { item: usize, reason: String },
    /// The events of one request.
    Request {
        events: Vec<Event>,
        /// So many items of the batch have all of their events in this request or an earlier one.
        whole: usize,
    },
}

/// Makes the events of a batch, in requests as large as they may be. Ends early where nobody wants more.
pub(super) fn encode(config: &Validated, batch: &[Item], out: &mpsc::Sender<Made>) {
    let mut request = Request::default();
    for (item, response) in batch.iter().enumerate() {
        let mut documents = match config.model.documents(response) {
            Ok(documents) => documents,
            Err(reason) => match out.blocking_send(Made::Refused { item, reason }) {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        while let Some(document) = documents.next() {
            let made = document.and_then(|document| event(config, item, &document, &documents));
            let goes_on = match made {
                Ok(event) => request
                    .add(event, config.request_bytes)
                    .is_none_or(|full| out.blocking_send(Made::Request { events: full, whole: item }).is_ok()),
                Err(reason) => out.blocking_send(Made::Refused { item, reason }).is_ok(),
            };
            if !goes_on {
                return;
            }
        }
    }
    if !request.events.is_empty() {
        // An error means that nobody wants it.
        out.blocking_send(Made::Request { events: request.events, whole: batch.len() }).ok();
    }
}

/// Events that go out together.
#[derive(Default)]
struct Request {
    events: Vec<Event>,
    bytes: usize,
}

impl Request {
    /// Adds an event; gives those before it, if it has no room beside them.
    fn add(&mut self, event: Event, most: usize) -> Option<Vec<Event>> {
        let full = !self.events.is_empty() && self.bytes + event.json.len() > most;
        let before = full.then(|| std::mem::take(self).events);
        self.bytes += event.json.len();
        self.events.push(event);
        before
    }
}

fn event(config: &Validated, item: usize, document: &Document, documents: &Documents<'_>) -> Result<Event, String> {
    let wrong = |e: &dyn std::fmt::Display| format!("document {} is not JSON: {e}", document.id);
    let head = Head::from(document);
    let name = |template: &Option<Names>| template.as_ref().map(|template| template.name(&head));
    // Its syntax was read when the document was made.
    let event = std::str::from_utf8(&document.json).map_err(|e| wrong(&e))?;
    let index = name(&config.index);
    let mut json = Vec::with_capacity(event.len() + ROOM);
    json.extend_from_slice(b"{\"time\":");
    json.extend_from_slice(seconds(document.time).as_bytes());
    let (host, source, sourcetype) = (name(&config.host), name(&config.source), name(&config.sourcetype));
    let places = [("index", &index), ("host", &host), ("source", &source), ("sourcetype", &sourcetype)];
    for (key, place) in places.into_iter().filter_map(|(key, place)| Some((key, place.as_ref()?))) {
        json.extend_from_slice(format!(",\"{key}\":").as_bytes());
        serde_json::to_writer(&mut json, place).map_err(|e| wrong(&e))?;
    }
    json.extend_from_slice(b",\"event\":");
    json.extend_from_slice(event.as_bytes());
    json.extend_from_slice(b",\"fields\":");
    documents.cim(&document.id, &mut json);
    json.extend_from_slice(b"}\n");
    Ok(Event { item, id: document.id.clone(), index, json: json.into() })
}

/// Seconds since 1970 as digits and a point: Splunk takes no exponent.
fn seconds(time: Timestamp) -> String {
    format!("{}.{:06}", time.0 / 1_000_000, time.0 % 1_000_000)
}
