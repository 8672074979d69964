//! How results look on a terminal: the tree of what came out of what, sums over many scans, and progress.
//!
//! Functions here turn a response into text and print nothing. Everything that came out of a payload is hostile: each
//! name, type, rule and error passes through [`stoq_runtime::escape`] before it is shown, and every list is bounded.

mod graph;
mod line;
mod progress;
mod style;
mod summary;
mod tree;

pub(crate) use line::name;
pub(crate) use progress::Progress;
pub(crate) use style::Look;
pub(crate) use summary::Totals;
pub(crate) use tree::{slim, tree};

#[cfg(test)]
mod tests;
