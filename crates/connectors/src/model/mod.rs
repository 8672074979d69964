//! Document models: what of a response a sink gets, and under which ids.
//!
//! A response may hold thousands of payloads, and most sinks want one document for each. Results pass through as the text
//! that their plugin wrote; only what places a payload in its scan is read. The same response gives the same documents,
//! with the same ids, wherever and whenever they are made: a sink that keeps one document an id keeps one of each.

mod cim;
mod ecs;
mod members;
mod payload;
mod plugin;
mod scan;
mod write;

use bytes::Bytes;
use serde::Deserialize;
use stoq_api::Timestamp;
use stoq_api::plugin::Item;

use scan::Scan;

/// The version of Elastic Common Schema that [`Model::Ecs`] follows.
pub const ECS_VERSION: &str = "8.17.0";
/// Most bytes of one document. What is larger is refused, with its id and size; no search engine takes it.
pub const MAX_DOCUMENT: usize = 64 << 20;
/// Most bytes that each part of a response that is about the whole scan may have to stand in every document. A larger
/// one stands only in the documents of the first payload, else a scan of thousands of payloads would be multiplied.
pub const MAX_SHARED: usize = 16 << 10;

/// What a sink's documents are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Model {
    /// The response, whole and as it is. Its id is the scan's.
    Response,
    /// One document a payload, with its place in the scan. Its id is the payload's.
    #[default]
    Payload,
    /// stoQ's `split()`: for each result of a worker a response with just that. Its id is made of the payload's and the
    /// worker's name.
    Plugin,
    /// One document a payload, in Elastic Common Schema. Its id is the payload's.
    Ecs,
}

/// One document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its id: a UUID in its text form.
    pub id: String,
    /// When the scan was first seen.
    pub time: Timestamp,
    /// Where the request came from, as the operator names it.
    pub source: Option<String>,
    /// Whose scan it is.
    pub tenant: Option<String>,
    /// The document: one JSON object on one line.
    pub json: Bytes,
}

impl Model {
    /// The model's name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Response => "response",
            Self::Payload => "payload",
            Self::Plugin => "plugin",
            Self::Ecs => "ecs",
        }
    }

    /// Whether its documents have `@timestamp`. The others are stoQ's schema, in which the scan's time is `time`.
    pub fn has_timestamp(self) -> bool {
        matches!(self, Self::Payload | Self::Ecs)
    }

    /// The documents of a response, made one after the other as they are asked for.
    ///
    /// # Errors
    /// The item is not a response; a sentence that says why.
    pub fn documents(self, item: &Item) -> Result<Documents<'_>, String> {
        let scan = Scan::read(&item.json)?;
        let worker = 0;
        Ok(Documents { model: self, item, scan, payload: 0, worker })
    }
}

/// The documents of one response, in the order of its payloads. One that is larger than [`MAX_DOCUMENT`] is an error:
/// a sentence that names it.
pub struct Documents<'a> {
    model: Model,
    item: &'a Item,
    scan: Scan<'a>,
    /// The next payload.
    payload: usize,
    /// The next worker of it, for [`Model::Plugin`].
    worker: usize,
}

impl Iterator for Documents<'_> {
    type Item = Result<Document, String>;

    fn next(&mut self) -> Option<Self::Item> {
        let (id, json) = match self.model {
            Model::Response => {
                let first = self.payload == 0;
                self.payload = 1;
                first.then(|| (self.scan.scan_id.to_string(), self.item.json.clone()))?
            }
            Model::Payload | Model::Ecs => {
                let node = self.scan.nodes.get(self.payload)?;
                let write = if self.model == Model::Ecs { ecs::document } else { payload::document };
                let json = write(&self.scan, self.payload);
                self.payload += 1;
                (node.id.to_string(), json.into())
            }
            Model::Plugin => self.next_of_plugin()?,
        };
        if json.len() > MAX_DOCUMENT {
            let what = self.model.name();
            return Some(Err(format!(
                "document {id} (model {what}) has {} bytes, more than {MAX_DOCUMENT}",
                json.len()
            )));
        }
        let Scan { time, source, tenant, .. } = &self.scan;
        let (source, tenant) = (source.as_deref().map(str::to_owned), tenant.as_deref().map(str::to_owned));
        Some(Ok(Document { id, time: *time, source, tenant, json }))
    }
}

impl Documents<'_> {
    /// Writes the fields of Splunk's Common Information Model for the document that was made last, and has that id, as an
    /// object. Of a whole response they describe the first root, with the hits of all payloads.
    pub fn cim(&self, id: &str, out: &mut Vec<u8>) {
        let place = if self.model == Model::Plugin { self.payload } else { self.payload.saturating_sub(1) };
        cim::write(&self.scan, place, self.model == Model::Response, id, out);
    }

    fn next_of_plugin(&mut self) -> Option<(String, Bytes)> {
        loop {
            let node = self.scan.nodes.get(self.payload)?;
            if let Some((name, result)) = node.workers().at(self.worker) {
                self.worker += 1;
                let json = plugin::document(&self.scan, self.payload, name, result);
                return Some((plugin::id(node.id, name), json.into()));
            }
            (self.payload, self.worker) = (self.payload + 1, 0);
        }
    }
}

#[cfg(test)]
mod tests;
