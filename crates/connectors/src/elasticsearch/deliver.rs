//! Batches into requests, answers into verdicts.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use stoq_api::plugin::{Connector, Item, Verdict};
use stoq_api::queue::Part;
use stoq_api::scanner::BuildError;
use stoq_api::{Fault, FaultKind};
use tokio::sync::mpsc;

use super::bulk::{Chunk, Encoder, Entry, FILTER, Fate, fates};
use super::config::Validated;
use super::{server, setup};
use crate::common::http::{Nodes, Request};
use crate::common::verdicts::Tally;

/// Chunks that are ready while one is on its way.
const AHEAD: usize = 1;
const NDJSON: &str = "application/x-ndjson";

/// The connector.
pub(super) struct Elasticsearch {
    config: Arc<Validated>,
    nodes: Nodes,
    target: String,
}

/// What the encoding side says.
enum Made {
    /// The item, or a document of it, cannot be sent at all.
    Refused(usize, String),
    Chunk(Chunk),
}

impl Elasticsearch {
    pub(super) fn new(config: Validated) -> Result<Self, BuildError> {
        let pipeline = match config.pipeline.as_str() {
            "" => String::new(),
            pipeline => format!("&pipeline={pipeline}"),
        };
        let nodes = Nodes::new(&config.http)?;
        Ok(Self { nodes, target: format!("/_bulk?{FILTER}{pipeline}"), config: Arc::new(config) })
    }

    /// Sends a chunk; in parts, if it is too large for the server. Gives what the index did not take, with the reason.
    async fn send(&self, chunk: &Chunk, tally: &mut Tally) -> Result<Vec<(Entry, String)>, Fault> {
        let mut refused = Vec::new();
        let mut open: Vec<Range<usize>> = Vec::from_iter([Range { start: 0, end: chunk.entries.len() }]);
        while let Some(range) = open.pop() {
            let entries = &chunk.entries[range.clone()];
            let [first, .., last] = entries else {
                // One document, or none.
                if let [only] = entries {
                    refused.extend(self.send_part(only, only, entries, &chunk.body, tally).await?.unwrap_or_default());
                }
                continue;
            };
            match self.send_part(first, last, entries, &chunk.body, tally).await? {
                Some(more) => refused.extend(more),
                None => {
                    let middle = range.start + range.len() / 2;
                    open.extend([middle..range.end, range.start..middle]);
                }
            }
        }
        Ok(refused)
    }

    /// One request. `None` if the server refuses it as a whole and may take its halves.
    async fn send_part(
        &self,
        first: &Entry,
        last: &Entry,
        entries: &[Entry],
        body: &Bytes,
        tally: &mut Tally,
    ) -> Result<Option<Vec<(Entry, String)>>, Fault> {
        let request = Request::new("POST", &self.target).with(NDJSON, body.slice(first.start..last.end));
        let reply = self.nodes.send(&request).await?;
        match reply.status {
            200 => {
                let broken = |why| Fault::new(FaultKind::Unavailable, format!("{}: {why}", reply.place));
                let fates = fates(&reply.body, entries.len(), self.config.op_type).map_err(broken)?;
                self.judge(entries, fates, &reply.place, tally).map(Some)
            }
            400 | 413 if entries.len() > 1 => Ok(None),
            400 | 413 if !reply.words().contains("pipeline") => {
                let size = last.end - first.source;
                let what = format!(
                    "{} to a request with this document alone, of {size} bytes: {}",
                    reply.status,
                    reply.words()
                );
                Ok(Some(vec![(first.clone(), what)]))
            }
            _ => Err(reply.fault("documents")),
        }
    }

    fn judge(
        &self,
        entries: &[Entry],
        fates: Vec<Fate>,
        place: &str,
        tally: &mut Tally,
    ) -> Result<Vec<(Entry, String)>, Fault> {
        let mut refused = Vec::new();
        for (entry, fate) in entries.iter().zip(fates) {
            match fate {
                Fate::Done => tally.delivered(entry.item),
                Fate::Later(why) => tally.retry(entry.item, || format!("{place}: {why}")),
                Fate::Refused(why) => refused.push((entry.clone(), why)),
                Fate::Stuck(why) => {
                    let advice =
                        "look at the user's rights on the index, whether indices may be made, and at the options";
                    let text = format!("{place} takes no documents for {}: {why}; {advice}", entry.index);
                    return Err(Fault::new(FaultKind::Misconfigured, text));
                }
            }
        }
        Ok(refused)
    }

    /// Sends what an index did not take once more, with what can be the reason left out of the index. What is refused
    /// then is refused for good.
    async fn second_form(&self, body: &Bytes, refused: Vec<(Entry, String)>, tally: &mut Tally) -> Result<(), Fault> {
        let mut encoder = Encoder::new(&self.config);
        let mut tried = Vec::new();
        for (entry, why) in refused {
            if encoder.add_reduced(&entry, body, &why) {
                tried.push((entry, why));
            } else {
                tally.rejected(entry.item, named(&entry, &why));
            }
        }
        let Some(chunk) = encoder.take() else { return Ok(()) };
        let still = self.send(&chunk, tally).await?;
        for (entry, why) in tried {
            if still.iter().any(|(other, _)| other.id == entry.id) {
                tally.rejected(entry.item, named(&entry, &why));
            } else {
                tracing::debug!(id = entry.id, why, "kept without its results being indexed");
            }
        }
        Ok(())
    }
}

/// A reason that says which document it is about.
fn named(entry: &Entry, why: &str) -> String {
    format!("document {} for {}: {why}", entry.id, entry.index)
}

/// Makes chunks of all documents. Runs beside what sends them, and no further ahead than [`AHEAD`].
fn encode(config: &Validated, batch: &[Item], out: &mpsc::Sender<Made>) {
    let mut encoder = Encoder::new(config);
    // An error means that nobody wants more.
    let say = |made: Made| out.blocking_send(made).is_ok();
    for (number, item) in batch.iter().enumerate() {
        let documents = match config.model.documents(item) {
            Ok(documents) => documents,
            Err(why) => {
                if !say(Made::Refused(number, why)) {
                    return;
                }
                continue;
            }
        };
        for document in documents {
            let goes_on = match document {
                Ok(document) => encoder.add(number, document).is_none_or(|chunk| say(Made::Chunk(chunk))),
                Err(why) => say(Made::Refused(number, why)),
            };
            if !goes_on {
                return;
            }
        }
    }
    if let Some(chunk) = encoder.take() {
        say(Made::Chunk(chunk));
    }
}

#[async_trait]
impl Connector for Elasticsearch {
    async fn deliver(&self, batch: &[Item]) -> Result<Vec<Verdict>, Fault> {
        let mut tally = Tally::new(batch.len());
        let (sender, mut made) = mpsc::channel(AHEAD);
        let (config, items) = (Arc::clone(&self.config), batch.to_vec());
        let encoding = tokio::task::spawn_blocking(move || encode(&config, &items, &sender));
        while let Some(next) = made.recv().await {
            match next {
                Made::Refused(item, why) => {
                    tally.made(item);
                    tally.rejected(item, why);
                }
                Made::Chunk(chunk) => {
                    chunk.entries.iter().for_each(|entry| tally.made(entry.item));
                    let refused = self.send(&chunk, &mut tally).await?;
                    self.second_form(&chunk.body, refused, &mut tally).await?;
                }
            }
        }
        // A panic while reading one response must not look like the end of the batch.
        encoding.await.map_err(|e| Fault::because(FaultKind::Corrupt, "documents cannot be made", e))?;
        Ok(tally.verdicts())
    }

    async fn check(&self) -> Result<(), Fault> {
        server::is_known(&self.nodes.send(&Request::new("GET", "/")).await?)
    }

    async fn setup(&self, make: bool) -> Result<Vec<Part>, Fault> {
        setup::run(&self.config, &self.nodes, make).await
    }
}
