//! TOML files as trees with places.

use std::ops::Range;
use std::sync::Arc;

use serde_json::{Number, Value};
use toml_edit::{Document, InlineTable, Item, Table, Value as Toml};

use super::tree::{Entry, Leaf, Node};
use crate::fail::{Excerpt, Origin, Place, Problem};
use crate::secret::is_secret;

/// Reads `text`, called `name` in messages.
///
/// # Errors
/// It is not TOML; or it holds values that no key could take, which are left out of the tree.
pub(super) fn read(name: &str, text: &str, problems: &mut Vec<Problem>) -> Option<Node> {
    let lines = Lines::new(name, text);
    match Document::parse(text) {
        Ok(document) => {
            let mut reader = Reader { lines, problems };
            Some(reader.table(document.as_table()))
        }
        Err(error) => {
            let place = error.span().map_or_else(|| Place::file(name), |span| lines.place(span, Show::IfHarmless));
            let message = format!("this is not TOML: {}", error.message().replace('\n', ", "));
            problems.push(Problem::error(place, "", message));
            None
        }
    }
}

/// Lines that one value may have before a message no longer finds its key.
const MAX_LINES_BACK: usize = 1_000;

/// Finds the line of an offset.
pub(super) struct Lines<'a> {
    name: Arc<str>,
    text: &'a str,
    /// Offset of each line's first byte.
    starts: Vec<usize>,
}

/// How much of a line may be kept for messages.
#[derive(Clone, Copy)]
pub(super) enum Show {
    /// All of it.
    Line,
    /// What stands before the value, because the value may be a secret.
    Key,
    /// All of it, unless it may belong to a secret's value: what is broken cannot be told apart.
    IfHarmless,
}

/// Where a secret's value may begin in a line: behind a key that names one, or within a URL.
fn secret_at(line: &str) -> Option<usize> {
    let mut end = 0;
    let by_key = line.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-').find_map(|word| {
        end += word.len();
        is_secret(word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric())).then_some(end)
    });
    let by_key =
        by_key.map(|end| line.get(end..).and_then(|rest| rest.find(['=', ':'])).map_or(end, |at| end + at + 2));
    let by_url = line.find("://").filter(|at| line[*at..].contains('@')).map(|at| at + 3);
    [by_key, by_url].into_iter().flatten().min()
}

impl<'a> Lines<'a> {
    pub(super) fn new(name: &str, text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { name: name.into(), text, starts }
    }

    /// The line that the value on the line `index` belongs to: the nearest with an `=`, or that line itself.
    fn assignment(&self, index: usize) -> &str {
        let line = |i: usize| {
            let end = self.starts.get(i + 1).map_or(self.text.len(), |next| next - 1);
            &self.text[self.starts[i]..end]
        };
        (0..=index).rev().take(MAX_LINES_BACK).map(line).find(|l| l.contains('=')).unwrap_or_else(|| line(index))
    }

    pub(super) fn place(&self, span: Range<usize>, show: Show) -> Place {
        let index = self.starts.partition_point(|start| *start <= span.start).saturating_sub(1);
        let start = self.starts[index];
        let end = self.starts.get(index + 1).map_or(self.text.len(), |next| next - 1);
        let line = &self.text[start..end];
        let (from, to) = (span.start - start, span.end.min(end).saturating_sub(start));
        let shown = match show {
            Show::Line => None,
            Show::Key => line.get(to..).and_then(|rest| rest.find(['=', ':'])).map(|at| to + at + 2),
            // The broken line may be one of several of a secret's value.
            Show::IfHarmless => secret_at(self.assignment(index)).map(|_| 0),
        };
        // Whatever is meant, another value of the same line may be a secret.
        let cut = [shown, secret_at(line)].into_iter().flatten().min();
        let line_number = u32::try_from(index + 1).unwrap_or(u32::MAX);
        Place {
            origin: Origin::File { path: Arc::clone(&self.name), line: line_number },
            excerpt: Some(Excerpt::new(line, from, to, cut)),
        }
    }
}

struct Reader<'a, 'p> {
    lines: Lines<'a>,
    problems: &'p mut Vec<Problem>,
}

impl Reader<'_, '_> {
    fn table(&mut self, table: &Table) -> Node {
        let mut entries = Vec::new();
        for (name, item) in table {
            let span = table.key(name).and_then(toml_edit::Key::span);
            self.entry(name, span, item, &mut entries);
        }
        Node::Table(entries)
    }

    fn inline(&mut self, table: &InlineTable) -> Node {
        let mut entries = Vec::new();
        for (name, value) in table {
            let span = table.key(name).and_then(toml_edit::Key::span);
            self.entry(name, span, &Item::Value(value.clone()), &mut entries);
        }
        Node::Table(entries)
    }

    fn entry(&mut self, name: &str, span: Option<Range<usize>>, item: &Item, entries: &mut Vec<Entry>) {
        let span = span.or_else(|| item.span()).unwrap_or(0..0);
        let at = self.lines.place(span.clone(), Show::Key);
        let node = match item {
            Item::None => return,
            Item::Table(table) => self.table(table),
            Item::Value(Toml::InlineTable(table)) => self.inline(table),
            _ => {
                let show = if is_secret(name) { Show::Key } else { Show::Line };
                // A secret's place is its key's: the span of its value would leave the excerpt empty.
                let value_span = item.span().filter(|_| !is_secret(name)).unwrap_or(span);
                let place = self.lines.place(value_span, show);
                let Some(value) = self.item(item, &place) else { return };
                Node::Leaf(Leaf { value, at: place, text: false })
            }
        };
        entries.push(Entry { key: name.to_owned(), at, node });
    }

    fn item(&mut self, item: &Item, place: &Place) -> Option<Value> {
        match item {
            Item::None => None,
            Item::Value(value) => self.value(value, place),
            Item::Table(table) => Some(Value::Object(
                table.iter().filter_map(|(k, v)| Some((k.to_owned(), self.item(v, place)?))).collect(),
            )),
            Item::ArrayOfTables(tables) => {
                let mut out = Vec::new();
                for table in tables {
                    out.push(self.item(&Item::Table(table.clone()), place)?);
                }
                Some(Value::Array(out))
            }
        }
    }

    fn value(&mut self, value: &Toml, place: &Place) -> Option<Value> {
        Some(match value {
            Toml::String(text) => text.value().clone().into(),
            Toml::Integer(number) => (*number.value()).into(),
            Toml::Boolean(flag) => (*flag.value()).into(),
            Toml::Datetime(time) => time.value().to_string().into(),
            Toml::Float(number) => match Number::from_f64(*number.value()) {
                Some(number) => Value::Number(number),
                None => {
                    self.problems.push(Problem::error(
                        place.clone(),
                        "",
                        "`nan` and `inf` are not figures to work with",
                    ));
                    return None;
                }
            },
            Toml::Array(items) => {
                let mut out = Vec::new();
                for item in items {
                    out.push(self.value(item, place)?);
                }
                Value::Array(out)
            }
            Toml::InlineTable(table) => {
                Value::Object(table.iter().filter_map(|(k, v)| Some((k.to_owned(), self.value(v, place)?))).collect())
            }
        })
    }
}
