//! The tree of what came out of what.

use stoq_api::Response;
use stoq_api::response::PayloadResults;

use super::graph::{self, Graph};
use super::line;
use super::style::{Ink, Look};

/// Payloads shown below one payload.
const MAX_CHILDREN: usize = 20;
/// Levels shown below a root.
const MAX_DEPTH: usize = 12;
/// Payloads shown of one response.
const MAX_PAYLOADS: usize = 500;

/// Of a payload what the tree shows: a response may have very many, with results that nobody sees here.
pub(crate) fn slim(mut payload: PayloadResults) -> PayloadResults {
    payload.workers.0.retain(|(name, json)| name == line::TYPED || graph::may_match(json));
    payload.plugins_run = Default::default();
    payload.runs.retain(|run| line::ended_badly(run.status).is_some());
    payload
}

/// The tree of a response, with a new line at the end of each line. Where not everything fits, payloads with hits at or
/// below them come before others, and what is left out is counted.
pub(crate) fn tree(response: &Response, look: Look) -> String {
    let graph = Graph::of(response);
    let mut drawing = Drawing { response, graph: &graph, look, out: String::new(), left: MAX_PAYLOADS };
    drawing.level(&graph.roots, "", 0, true);
    for remark in line::general(response, look) {
        drawing.line("", &remark);
    }
    if !response.complete {
        let text = "! partial: time ran out before every payload had its answer";
        drawing.line("", &look.paint(Ink::Finding, text).to_string());
    }
    drawing.out
}

struct Drawing<'a> {
    response: &'a Response,
    graph: &'a Graph<'a>,
    look: Look,
    out: String,
    left: usize,
}

impl Drawing<'_> {
    fn line(&mut self, prefix: &str, text: &str) {
        self.out.push_str(prefix);
        self.out.push_str(text);
        self.out.push('\n');
    }

    /// Draws payloads that share a parent; those of the top stand without branches.
    fn level(&mut self, places: &[usize], prefix: &str, depth: usize, top: bool) {
        let shown = self.chosen(places);
        let hidden: Vec<_> = places.iter().filter(|p| shown.binary_search(p).is_err()).collect();
        for (nth, place) in shown.iter().enumerate() {
            let last = nth + 1 == shown.len() && hidden.is_empty();
            let (branch, below) = match (top, last) {
                (true, _) => (String::new(), prefix.to_owned()),
                (false, true) => (format!("{prefix}└─ "), format!("{prefix}   ")),
                (false, false) => (format!("{prefix}├─ "), format!("{prefix}│  ")),
            };
            self.payload(*place, &branch, &below, depth);
        }
        if !hidden.is_empty() {
            let branch = if top { "" } else { "└─ " };
            self.more(&format!("{prefix}{branch}"), hidden.into_iter().copied());
        }
    }

    fn payload(&mut self, place: usize, branch: &str, below: &str, depth: usize) {
        let node = &self.graph.nodes[place];
        let text = line::payload(node, self.look, branch.chars().count());
        let branch = if branch.is_empty() { String::new() } else { self.look.paint(Ink::Quiet, branch).to_string() };
        self.line(&branch, &text);
        let stem = if node.children.is_empty() { "   " } else { "│  " };
        let remarks = self.look.paint(Ink::Quiet, format!("{below}{stem}")).to_string();
        for remark in line::remarks(self.response, node.payload, self.look) {
            self.line(&remarks, &remark);
        }
        if node.children.is_empty() {
            return;
        }
        if depth + 1 >= MAX_DEPTH {
            self.more(&format!("{below}└─ "), node.children.iter().copied());
        } else {
            self.level(&node.children, below, depth + 1, false);
        }
    }

    /// Which of `places` to show, in their order.
    fn chosen(&mut self, places: &[usize]) -> Vec<usize> {
        let room = MAX_CHILDREN.min(self.left);
        let mut shown = places.to_vec();
        if shown.len() > room {
            shown.sort_by_key(|p| (self.graph.nodes[*p].with_hits == 0, *p));
            shown.truncate(room);
            shown.sort_unstable();
        }
        self.left -= shown.len();
        shown
    }

    fn more(&mut self, prefix: &str, hidden: impl Iterator<Item = usize>) {
        let (count, hits) = hidden.fold((0, 0), |(count, hits), place| {
            let node = &self.graph.nodes[place];
            (count + node.size, hits + node.with_hits)
        });
        let payloads = if count == 1 { "payload" } else { "payloads" };
        let mut text = self.look.paint(Ink::Quiet, format!("{prefix}… {count} more {payloads}")).to_string();
        if hits > 0 {
            text.push_str(&self.look.paint(Ink::Hit, format!(" ● {hits} with hits")).to_string());
        }
        self.line("", &text);
    }
}
