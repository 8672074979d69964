//! Documents as events.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use stoq_api::Timestamp;
use stoq_api::plugin::Item;

use super::config::Validated;
use crate::common::head::Head;
use crate::common::verdicts::Tally;
use crate::model::Documents;

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

#[derive(Serialize)]
struct Envelope<'a> {
    time: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sourcetype: Option<String>,
    event: &'a RawValue,
    fields: Map<String, Value>,
}

/// Makes events of a batch, as many as a request holds at a time.
pub(super) struct Packer<'a> {
    config: &'a Validated,
    batch: &'a [Item],
    /// The item that `documents` are of, or that is next.
    item: usize,
    documents: Option<Documents<'a>>,
    /// Did not fit any more.
    left: Option<Event>,
}

impl<'a> Packer<'a> {
    pub(super) fn new(config: &'a Validated, batch: &'a [Item]) -> Self {
        Self { config, batch, item: 0, documents: None, left: None }
    }

    /// The events of the next request; none when there are no more. What is no document is refused in `tally`.
    pub(super) fn next(&mut self, tally: &mut Tally) -> Vec<Event> {
        let (mut events, mut bytes) = (Vec::new(), 0);
        while let Some(event) = self.left.take().or_else(|| self.event(tally)) {
            bytes += event.json.len();
            if bytes > self.config.request_bytes && !events.is_empty() {
                self.left = Some(event);
                break;
            }
            events.push(event);
        }
        events
    }

    /// Gives up: everything that was not made yet is to be tried again.
    pub(super) fn rest(self, tally: &mut Tally, reason: &str) {
        if let Some(event) = &self.left {
            tally.retry(event.item, || reason.to_owned());
        }
        for item in self.item..self.batch.len() {
            // Documents that nobody made keep it from being delivered.
            tally.made(item);
            tally.retry(item, || reason.to_owned());
        }
    }

    fn event(&mut self, tally: &mut Tally) -> Option<Event> {
        loop {
            let Some(documents) = &mut self.documents else {
                match self.config.model.documents(self.batch.get(self.item)?) {
                    Ok(documents) => self.documents = Some(documents),
                    Err(reason) => {
                        tally.made(self.item);
                        tally.rejected(self.item, reason);
                        self.item += 1;
                    }
                }
                continue;
            };
            let Some(document) = documents.next() else {
                self.documents = None;
                self.item += 1;
                continue;
            };
            tally.made(self.item);
            let made = document.and_then(|document| {
                let fields = documents.cim(&document.id);
                encode(self.config, &document.id, &Head::from(&document), document.time, &document.json, fields)
            });
            match made {
                Ok((id, index, json)) => return Some(Event { item: self.item, id, index, json }),
                Err(reason) => tally.rejected(self.item, reason),
            }
        }
    }
}

type Made = (String, Option<String>, Bytes);

fn encode(
    config: &Validated,
    id: &str,
    head: &Head,
    time: Timestamp,
    document: &[u8],
    fields: Map<String, Value>,
) -> Result<Made, String> {
    let wrong = |e: serde_json::Error| format!("document {id} is not JSON: {e}");
    let name = |template: &Option<super::template::Template>| template.as_ref().map(|template| template.name(head));
    let index = name(&config.index);
    let envelope = Envelope {
        time: RawValue::from_string(seconds(time)).map_err(wrong)?,
        index: index.as_deref(),
        host: name(&config.host),
        source: name(&config.source),
        sourcetype: name(&config.sourcetype),
        event: serde_json::from_slice(document).map_err(wrong)?,
        fields,
    };
    let mut json = BytesMut::with_capacity(document.len() + 1_024).writer();
    serde_json::to_writer(&mut json, &envelope).map_err(wrong)?;
    let mut json = json.into_inner();
    json.put_u8(b'\n');
    Ok((id.to_owned(), index, json.freeze()))
}

/// Seconds since 1970 as digits and a point: Splunk takes no exponent.
fn seconds(time: Timestamp) -> String {
    format!("{}.{:06}", time.0 / 1_000_000, time.0 % 1_000_000)
}
