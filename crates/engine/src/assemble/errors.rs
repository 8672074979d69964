//! The errors of a scan. There may be one or several of each payload, and nearly all say what others say, so each text is
//! held once.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use stoq_api::{ErrorEntry, PayloadId};

/// Errors in order.
#[derive(Default)]
pub(super) struct Errors {
    all: Vec<Line>,
    texts: Vec<Arc<str>>,
    /// Where each text is among them.
    known: HashMap<Arc<str>, u32>,
}

/// One error, with its texts by their places.
#[derive(Clone, Copy)]
struct Line {
    payload: Option<PayloadId>,
    plugin: Option<u32>,
    error: u32,
}

impl Errors {
    /// Adds one at the end.
    pub(super) fn push(&mut self, entry: ErrorEntry) {
        let ErrorEntry { error, plugin_name, payload_id } = entry;
        let line =
            Line { payload: payload_id, plugin: plugin_name.map(|name| self.text(&name)), error: self.text(&error) };
        self.all.push(line);
    }

    fn text(&mut self, text: &str) -> u32 {
        if let Some(place) = self.known.get(text) {
            return *place;
        }
        // Nothing that is in memory is as many.
        let place = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        let text: Arc<str> = text.into();
        self.texts.push(Arc::clone(&text));
        self.known.insert(text, place);
        place
    }

    /// Puts them in order, by (payload, plugin, text).
    pub(super) fn sort(&mut self) {
        let Self { all, texts, .. } = self;
        let text = |place: u32| &texts[place as usize];
        all.sort_unstable_by(|a, b| {
            let of = |line: &Line| (line.payload, line.plugin.map(text), text(line.error));
            of(a).cmp(&of(b))
        });
    }

    /// All of them, written out.
    pub(super) fn iter(&self) -> impl Iterator<Item = ErrorEntry> {
        let text = |place: u32| self.texts[place as usize].to_string();
        self.all.iter().map(move |line| ErrorEntry {
            error: text(line.error),
            plugin_name: line.plugin.map(text),
            payload_id: line.payload,
        })
    }
}

impl Extend<ErrorEntry> for Errors {
    fn extend<T: IntoIterator<Item = ErrorEntry>>(&mut self, entries: T) {
        entries.into_iter().for_each(|entry| self.push(entry));
    }
}

impl Serialize for Errors {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}
