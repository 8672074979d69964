//! What an indexer holds.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

/// An event as it can be searched.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Seconds since 1970, as they were written.
    pub time: Option<String>,
    /// Its index.
    pub index: String,
    /// Where it came from, as the sender said.
    pub host: Option<String>,
    /// Where it came from there.
    pub source: Option<String>,
    /// What it is.
    pub sourcetype: Option<String>,
    /// The event itself.
    pub event: Value,
    /// Its indexed fields.
    pub fields: Map<String, Value>,
}

/// One indexer.
#[derive(Default)]
pub(super) struct Indexer {
    channels: HashMap<String, Channel>,
    queue: Vec<Batch>,
    pub(super) indexed: Vec<Event>,
    /// What is taken waits.
    pub(super) holds: bool,
    /// Nobody learns that something is indexed.
    pub(super) withholds: bool,
}

/// A client's numbers.
#[derive(Default)]
struct Channel {
    next: u64,
    /// Given and not yet answered with yes; whether it is indexed.
    acks: BTreeMap<u64, bool>,
}

struct Batch {
    events: Vec<Event>,
    ack: Option<(String, u64)>,
}

impl Indexer {
    /// Takes events; the number under which one may ask for them, if they came over a channel. `None` for a channel with
    /// `max_pending` numbers that nobody asked for.
    pub(super) fn take(
        &mut self,
        events: Vec<Event>,
        channel: Option<&str>,
        max_pending: usize,
    ) -> Option<Option<u64>> {
        let ack = match channel {
            None => None,
            Some(name) => {
                let channel = self.channels.entry(name.to_owned()).or_default();
                if channel.acks.len() >= max_pending {
                    return None;
                }
                let number = channel.next;
                channel.next += 1;
                channel.acks.insert(number, false);
                Some((name.to_owned(), number))
            }
        };
        let number = ack.as_ref().map(|(_, number)| *number);
        self.queue.push(Batch { events, ack });
        if !self.holds {
            self.index();
        }
        Some(number)
    }

    /// Makes what waits searchable.
    pub(super) fn index(&mut self) {
        for batch in self.queue.drain(..) {
            self.indexed.extend(batch.events);
            let Some((channel, number)) = batch.ack else { continue };
            if let Some(indexed) = self.channels.get_mut(&channel).and_then(|channel| channel.acks.get_mut(&number)) {
                *indexed = true;
            }
        }
    }

    /// Answers a question. What was answered with yes is forgotten; what is not known is answered with no.
    pub(super) fn ask(&mut self, channel: &str, numbers: &[u64]) -> BTreeMap<u64, bool> {
        let mut channel = self.channels.get_mut(channel).filter(|_| !self.withholds);
        let mut answer = |number| {
            let Some(channel) = &mut channel else { return false };
            let indexed = channel.acks.get(number) == Some(&true);
            if indexed {
                channel.acks.remove(number);
            }
            indexed
        };
        numbers.iter().map(|number| (*number, answer(number))).collect()
    }

    /// Loses what is only in memory.
    pub(super) fn forget(&mut self) {
        self.queue.clear();
        self.channels.clear();
    }

    pub(super) fn waiting(&self) -> usize {
        self.queue.iter().map(|batch| batch.events.len()).sum()
    }

    pub(super) fn channels(&self) -> usize {
        self.channels.len()
    }
}
