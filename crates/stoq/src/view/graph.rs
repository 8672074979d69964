//! The payloads of a response as a tree: each below the first of its parents.

use std::collections::HashMap;

use serde_json::Value;
use stoq_api::response::PayloadResults;
use stoq_api::{Json, Response};

/// Rules kept of one payload.
const MAX_HITS: usize = 100;

/// A payload's place in the tree.
pub(super) struct Node<'a> {
    /// The payload.
    pub(super) payload: &'a PayloadResults,
    /// Payloads below it, in the response's order.
    pub(super) children: Vec<usize>,
    /// What plugins matched in it.
    pub(super) hits: Vec<String>,
    /// Payloads at and below it.
    pub(super) size: usize,
    /// Of these, how many have hits.
    pub(super) with_hits: usize,
}

/// All payloads of a response.
pub(super) struct Graph<'a> {
    /// In the response's order.
    pub(super) nodes: Vec<Node<'a>>,
    /// Those without a parent.
    pub(super) roots: Vec<usize>,
}

impl<'a> Graph<'a> {
    /// Finds each payload's place. A parent that is not there, or does not stand before its child, counts as none: whatever
    /// a response says, the result has no cycle.
    pub(super) fn of(response: &'a Response) -> Self {
        let mut places = HashMap::new();
        let mut graph = Graph { nodes: Vec::with_capacity(response.results.len()), roots: Vec::new() };
        let mut parents = Vec::with_capacity(response.results.len());
        for (place, payload) in response.results.iter().enumerate() {
            let parent = payload.extracted_from.iter().find_map(|id| places.get(id).copied());
            match parent {
                Some(parent) => graph.child(parent, place),
                None => graph.roots.push(place),
            }
            parents.push(parent);
            places.entry(payload.payload_id).or_insert(place);
            let hits = hits(payload);
            let with_hits = usize::from(!hits.is_empty());
            graph.nodes.push(Node { payload, children: Vec::new(), hits, size: 1, with_hits });
        }
        // Children stand behind their parents, so from the end each sum is complete when it is passed up.
        for (place, parent) in parents.into_iter().enumerate().rev() {
            if let Some(parent) = parent {
                let (size, with_hits) = (graph.nodes[place].size, graph.nodes[place].with_hits);
                graph.nodes[parent].size += size;
                graph.nodes[parent].with_hits += with_hits;
            }
        }
        graph
    }

    fn child(&mut self, parent: usize, child: usize) {
        self.nodes[parent].children.push(child);
    }
}

/// Most results have no list of matches; looking for the word spares reading them.
pub(super) fn may_match(result: &Json) -> bool {
    result.get().contains("\"matches\"")
}

/// What plugins matched: rules of `yara` by name, matches of other plugins by plugin and number.
pub(super) fn hits(payload: &PayloadResults) -> Vec<String> {
    let mut hits = Vec::new();
    for (plugin, json) in payload.workers.iter() {
        if !may_match(json) {
            continue;
        }
        let value = json.value();
        let Some(matches) = value.get("matches").and_then(Value::as_array).filter(|m| !m.is_empty()) else { continue };
        let rules: Vec<_> = matches.iter().filter_map(|m| m.get("rule").and_then(Value::as_str)).collect();
        if rules.is_empty() {
            hits.push(format!("{plugin} ({})", matches.len()));
        }
        hits.extend(rules.into_iter().map(str::to_owned));
        hits.truncate(MAX_HITS);
    }
    hits
}
