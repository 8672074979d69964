//! One source's values with the place of each, and the way through the `config` crate that merges the layers.

use std::collections::BTreeMap;

use config::{ConfigError, Map as Layer, Source, Value as Merged, ValueKind};
use serde_json::{Map, Number, Value};

use crate::fail::{Origin, Place};

/// Where each value of the effective configuration comes from, by dotted path.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    values: BTreeMap<String, Place>,
    /// Where a table was opened last: an empty one has no value to point at.
    tables: BTreeMap<String, Place>,
}

impl Origins {
    /// The origin of the value at `path`; a value that no source names is a default.
    pub fn of(&self, path: &str) -> &Origin {
        self.values.get(path).map_or(&Origin::Default, |place| &place.origin)
    }

    /// Where the value or the table at `path` stands.
    pub fn place(&self, path: &str) -> Place {
        self.values.get(path).or_else(|| self.tables.get(path)).cloned().unwrap_or_default()
    }
}

/// A value of one source.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// Keys and what they hold, in the order of the source.
    Table(Vec<Entry>),
    /// A scalar, or a list with whatever is in it.
    Leaf(Leaf),
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    /// Where the key stands.
    pub(super) at: Place,
    pub(super) node: Node,
}

#[derive(Clone, Debug)]
pub(super) struct Leaf {
    pub(super) value: Value,
    pub(super) at: Place,
    /// The source knows text only (environment, flags, `stoq.cfg`), so types are read from it.
    pub(super) text: bool,
}

impl Node {
    /// A table with nothing in it but `leaf` at `path`.
    pub(super) fn at_path(path: &[String], leaf: Leaf) -> Self {
        match path.split_first() {
            None => Self::Leaf(leaf),
            Some((key, rest)) => {
                let at = leaf.at.clone();
                Self::Table(vec![Entry { key: key.clone(), at, node: Self::at_path(rest, leaf) }])
            }
        }
    }

    /// Puts `leaf` at `path` into this table, beside what is there.
    pub(super) fn put(&mut self, path: &[String], leaf: Leaf) {
        let (Self::Table(entries), Some((key, rest))) = (&mut *self, path.split_first()) else {
            *self = Self::at_path(path, leaf);
            return;
        };
        match entries.iter_mut().find(|e| e.key == *key) {
            Some(entry) => entry.node.put(rest, leaf),
            None => {
                let at = leaf.at.clone();
                entries.push(Entry { key: key.clone(), at, node: Self::at_path(rest, leaf) });
            }
        }
    }
}

/// `path.key`, with quotes where TOML needs them.
pub(super) fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// The layers, weakest first, merged by the `config` crate.
///
/// # Errors
/// Never for trees made here; the crate's interface has it.
pub(super) fn merge(layers: Vec<Node>) -> Result<(Value, Origins), ConfigError> {
    let mut places = Vec::new();
    let mut origins = Origins::default();
    let mut builder = config::Config::builder();
    for layer in layers {
        builder = builder.add_source(Placed(table("", layer, &mut places, &mut origins)));
    }
    let merged = builder.build()?;
    let value = resolved(merged.cache, "", &places, &mut origins);
    Ok((value, origins))
}

/// A layer whose values carry the number of their place as origin, which the crate keeps through the merge.
#[derive(Clone, Debug)]
struct Placed(Layer<String, Merged>);

impl Source for Placed {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Layer<String, Merged>, ConfigError> {
        Ok(self.0.clone())
    }
}

fn table(path: &str, node: Node, places: &mut Vec<Place>, origins: &mut Origins) -> Layer<String, Merged> {
    let Node::Table(entries) = node else { return Layer::new() };
    let mut out = Layer::new();
    for Entry { key, at, node } in entries {
        let value = match node {
            Node::Leaf(leaf) => {
                let number = places.len().to_string();
                places.push(leaf.at);
                placed(leaf.value, &number)
            }
            inner @ Node::Table(_) => {
                let here = join(path, &key);
                let members = table(&here, inner, places, origins);
                origins.tables.insert(here, at);
                Merged::new(None, ValueKind::Table(members))
            }
        };
        out.insert(key, value);
    }
    out
}

fn placed(value: Value, number: &String) -> Merged {
    let kind = match value {
        Value::Null => ValueKind::Nil,
        Value::Bool(b) => ValueKind::Boolean(b),
        Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(i), _) => ValueKind::I64(i),
            (None, Some(u)) => ValueKind::U64(u),
            (None, None) => ValueKind::Float(n.as_f64().unwrap_or_default()),
        },
        Value::String(s) => ValueKind::String(s),
        Value::Array(items) => ValueKind::Array(items.into_iter().map(|v| placed(v, number)).collect()),
        Value::Object(members) => ValueKind::Table(members.into_iter().map(|(k, v)| (k, placed(v, number))).collect()),
    };
    Merged::new(Some(number), kind)
}

/// The merged tree as JSON, tables in order of their keys, with the origins noted.
fn resolved(merged: Merged, path: &str, places: &[Place], origins: &mut Origins) -> Value {
    if let Some(place) = merged.origin().and_then(|number| places.get(number.parse::<usize>().ok()?)) {
        origins.values.insert(path.to_owned(), place.clone());
    }
    match merged.kind {
        ValueKind::Table(members) => {
            let sorted: BTreeMap<_, _> = members.into_iter().collect();
            let object: Map<String, Value> = sorted
                .into_iter()
                .map(|(key, value)| {
                    let value = resolved(value, &join(path, &key), places, origins);
                    (key, value)
                })
                .collect();
            Value::Object(object)
        }
        other => json(other),
    }
}

fn json(kind: ValueKind) -> Value {
    match kind {
        ValueKind::Nil => Value::Null,
        ValueKind::Boolean(b) => b.into(),
        ValueKind::I64(i) => i.into(),
        ValueKind::U64(u) => u.into(),
        // These two cannot come from a layer made here.
        ValueKind::I128(i) => i64::try_from(i).map_or(Value::Null, Value::from),
        ValueKind::U128(u) => u64::try_from(u).map_or(Value::Null, Value::from),
        ValueKind::Float(f) => Number::from_f64(f).map_or(Value::Null, Value::Number),
        ValueKind::String(s) => s.into(),
        ValueKind::Array(items) => items.into_iter().map(|v| json(v.kind)).collect(),
        ValueKind::Table(members) => {
            let sorted: BTreeMap<_, _> = members.into_iter().collect();
            Value::Object(sorted.into_iter().map(|(k, v)| (k, json(v.kind))).collect())
        }
    }
}
