//! Bodies of `_bulk` and what its answers mean. Pure.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use stoq_api::json::Named;
use stoq_runtime::escape::shortened;

use super::config::{OpType, Validated};
use crate::model::{Document, Model};

/// Characters of the server's reason that are kept.
const MAX_REASON: usize = 400;
/// Members of documents that hold what plugins and senders named: only these can be what an index cannot take.
const FREE: [&str; 4] = ["workers", "payload_meta", "results", "request_meta"];
/// Where they go in a document whose index did not take them: it is kept there, and not indexed.
const UNINDEXED: &str = "unindexed";

/// Documents in the form in which they are sent, and where each stands.
#[derive(Default)]
pub(super) struct Chunk {
    pub(super) body: Bytes,
    pub(super) entries: Vec<Entry>,
}

/// One document in a body.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The item that it was made of, by its place in the batch.
    pub(super) item: usize,
    pub(super) id: String,
    pub(super) index: Arc<str>,
    /// Where its lines begin.
    pub(super) start: usize,
    /// Where its second line, the document, begins.
    pub(super) source: usize,
    /// Where they end.
    pub(super) end: usize,
}

/// Fills chunks.
pub(super) struct Encoder<'c> {
    config: &'c Validated,
    body: Vec<u8>,
    entries: Vec<Entry>,
    /// The index of the item that was added last: all documents of one have the same.
    index: Option<(usize, Arc<str>)>,
}

impl<'c> Encoder<'c> {
    pub(super) fn new(config: &'c Validated) -> Self {
        Self { config, body: Vec::new(), entries: Vec::new(), index: None }
    }

    fn index(&mut self, item: usize, document: &Document) -> Arc<str> {
        match &self.index {
            Some((of, index)) if *of == item => Arc::clone(index),
            _ => {
                let index: Arc<str> = self.config.names.of(document).into();
                self.index = Some((item, Arc::clone(&index)));
                index
            }
        }
    }

    /// Adds a document; gives the chunk before it, if it does not fit in there.
    pub(super) fn add(&mut self, item: usize, document: Document) -> Option<Chunk> {
        let full = self.body.len() + document.json.len() > self.config.max_request;
        let before = if full { self.take() } else { None };
        let index = self.index(item, &document);
        let start = self.body.len();
        head(&mut self.body, self.config.op_type, &index, &document.id);
        let source = self.body.len();
        if self.config.model.has_timestamp() {
            self.body.extend_from_slice(&document.json);
        } else {
            stamped(&mut self.body, &document);
        }
        self.body.push(b'\n');
        let (id, end) = (document.id, self.body.len());
        self.entries.push(Entry { item, id, index, start, source, end });
        before
    }

    /// Adds a document of another body, without what its index did not take. Says whether there is such a form of it.
    pub(super) fn add_reduced(&mut self, entry: &Entry, body: &Bytes, reason: &str) -> bool {
        let ecs = self.config.model == Model::Ecs;
        let Some(json) = reduced(&body[entry.source..entry.end], ecs, reason) else { return false };
        let start = self.body.len();
        head(&mut self.body, self.config.op_type, &entry.index, &entry.id);
        let source = self.body.len();
        self.body.extend_from_slice(&json);
        self.body.push(b'\n');
        let end = self.body.len();
        self.entries.push(Entry { start, source, end, ..entry.clone() });
        true
    }

    /// What was added since the last chunk.
    pub(super) fn take(&mut self) -> Option<Chunk> {
        let (body, entries) = (std::mem::take(&mut self.body), std::mem::take(&mut self.entries));
        (!entries.is_empty()).then(|| Chunk { body: body.into(), entries })
    }
}

/// The line that says what to do with the next one. Names and ids have no character that JSON escapes.
fn head(body: &mut Vec<u8>, op: OpType, index: &str, id: &str) {
    let op = op.name();
    // Writing to a buffer cannot fail.
    writeln!(body, r#"{{"{op}":{{"_index":"{index}","_id":"{id}"}}}}"#).ok();
}

/// stoQ's schema with the time under the name that data streams and dashboards look for.
fn stamped(body: &mut Vec<u8>, document: &Document) {
    write!(body, r#"{{"@timestamp":"{}Z","#, document.time.iso()).ok();
    // A response is an object with members, on one line: it was read before.
    let json = document.json.trim_ascii_start();
    body.extend(json.get(1..).unwrap_or_default().iter().filter(|byte| !matches!(byte, b'\n' | b'\r')));
}

/// The document with [`FREE`] members moved away, and why; under `stoq` in ECS. `None` if it has none.
fn reduced(json: &[u8], ecs: bool, reason: &str) -> Option<Vec<u8>> {
    let Named(members): Named<&RawValue> = serde_json::from_slice(json).ok()?;
    if ecs && !members.iter().any(|(name, _)| name == "stoq") {
        return None;
    }
    if ecs {
        let whole: Option<Vec<_>> = members
            .into_iter()
            .map(|(name, value)| {
                let value = match name.as_str() {
                    "stoq" => raw(reduced(value.get().as_bytes(), false, reason)?)?,
                    _ => value.to_owned(),
                };
                Some((name, value))
            })
            .collect();
        return serde_json::to_vec(&Named(whole?)).ok();
    }
    let (mut away, mut kept): (Vec<_>, Vec<_>) =
        members.into_iter().partition(|(name, _)| FREE.contains(&name.as_str()));
    if away.is_empty() {
        return None;
    }
    let reason = raw(serde_json::to_vec(reason).ok()?)?;
    away.push(("reason".to_owned(), &*reason));
    let away = raw(serde_json::to_vec(&Named(away)).ok()?)?;
    kept.push((UNINDEXED.to_owned(), &*away));
    serde_json::to_vec(&Named(kept)).ok()
}

fn raw(json: Vec<u8>) -> Option<Box<RawValue>> {
    RawValue::from_string(String::from_utf8(json).ok()?).ok()
}

/// What became of one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is there.
    Done,
    /// Not now.
    Later(String),
    /// The index cannot take it.
    Refused(String),
    /// No document gets in before a person does something.
    Stuck(String),
}

#[derive(Deserialize)]
struct Reply {
    items: Vec<Named<Answer>>,
}

#[derive(Deserialize)]
struct Answer {
    status: u16,
    #[serde(default)]
    error: Option<Error>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Error {
    r#type: String,
    reason: String,
    caused_by: Option<Cause>,
}

#[derive(Deserialize)]
struct Cause {
    #[serde(default)]
    reason: String,
}

/// Which parts of an answer are asked for.
pub(super) const FILTER: &str =
    "filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by.reason";

/// The fates in an answer of status 200, one for each document that was sent.
///
/// # Errors
/// It is not such an answer; a sentence that says so.
pub(super) fn fates(reply: &[u8], sent: usize, op: OpType) -> Result<Vec<Fate>, String> {
    let Reply { items } = serde_json::from_slice(reply).map_err(|e| format!("the answer cannot be read: {e}"))?;
    if items.len() != sent {
        return Err(format!("the answer is about {} documents and not about {sent}", items.len()));
    }
    Ok(items
        .into_iter()
        .map(|Named(item)| item.into_iter().next().map_or_else(unheard, |(_, one)| fate(one, op)))
        .collect())
}

fn unheard() -> Fate {
    Fate::Later("nothing was said of it".to_owned())
}

fn fate(Answer { status, error }: Answer, op: OpType) -> Fate {
    let Error { r#type: kind, mut reason, caused_by } = error.unwrap_or_default();
    if let Some(cause) = caused_by.filter(|cause| !cause.reason.is_empty() && !reason.contains(&cause.reason)) {
        reason = format!("{reason}: {}", cause.reason);
    }
    let said = shortened(&format!("{status} {kind}: {reason}"), MAX_REASON);
    match (status, kind.as_str()) {
        (200..=299, _) => Fate::Done,
        // The same document was there before.
        (409, _) if op == OpType::Create => Fate::Done,
        // A full disk, or an index that somebody closed for writing: it passes once there is room.
        (403, "cluster_block_exception") => Fate::Later(said),
        // Too many shards in the cluster; nothing is wrong with the document.
        (400, "validation_exception") => Fate::Later(said),
        (401 | 403 | 404, _) | (400, "invalid_index_name_exception") => Fate::Stuck(said),
        (400, "illegal_argument_exception") if reason.starts_with("pipeline with id") => Fate::Stuck(said),
        (408 | 409 | 429 | 500..=599, _) => Fate::Later(said),
        _ => Fate::Refused(said),
    }
}
