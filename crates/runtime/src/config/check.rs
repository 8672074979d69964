//! One source's tree against the keys that exist: unknown keys, wrong types and names of nothing, all of them at once.

use std::path::Path;

use globset::Glob;
use serde_json::Value;
use stoq_api::scanner::{OptionInfo, OptionKind, PluginKind};

use super::coerce;
use super::registry::{REQUIRED_WORKERS, Registry};
use super::responses::{RESPONSE_WHEN, WHEN};
use super::routes::ResultPath;
use super::schema::{Key, ROOT, Shape};
use super::tree::{Entry, Leaf, Node, join};
use crate::fail::{Origin, Place, Problem, nearest, one_of};
use crate::secret::is_secret;

/// Names that a message lists at most; beyond that only the nearest is named.
const MAX_LISTED: usize = 12;

/// Options of plugins that name workers, in every plugin that has them.
const NAMES_WORKERS: [&str; 2] = [REQUIRED_WORKERS.name, "always_dispatch"];

/// Checks one source. What comes back holds only what was right, with values in the types of their keys.
pub(super) fn check(node: Node, registry: Registry<'_>, base: Option<&Path>, problems: &mut Vec<Problem>) -> Node {
    let mut checker = Checker { registry, base, problems };
    checker.keys("", ROOT, node)
}

struct Checker<'a> {
    registry: Registry<'a>,
    base: Option<&'a Path>,
    problems: &'a mut Vec<Problem>,
}

impl Checker<'_> {
    fn keys(&mut self, path: &str, keys: &'static [Key], node: Node) -> Node {
        self.each(path, "a table", node, |this, here, entry| match keys.iter().find(|k| k.name == entry.key) {
            Some(Key { shape: Shape::Tables(_), .. }) if matches!(&entry.node, Node::Table(inner) if inner.is_empty()) => {
                let text = "no condition is written here, so it would hold for every response";
                this.problems.push(Problem::error(entry.at, here, text.to_owned()));
                None
            }
            Some(key) => this.shape(here, &key.shape, entry.node),
            None => {
                this.unknown(here, &entry, "key", keys.iter().map(|k| k.name).collect());
                None
            }
        })
    }

    /// Hands each entry of the table `node` to `take`, with its path, and keeps what comes back.
    fn each(
        &mut self,
        path: &str,
        expected: &str,
        node: Node,
        mut take: impl FnMut(&mut Self, &str, Entry) -> Option<Node>,
    ) -> Node {
        let entries = match node {
            Node::Table(entries) => entries,
            Node::Leaf(leaf) => {
                self.mismatch(path, &leaf, &format!("expected {expected}"));
                Vec::new()
            }
        };
        let mut out = Vec::new();
        for entry in entries {
            let (key, at) = (entry.key.clone(), entry.at.clone());
            if let Some(node) = take(self, &join(path, &key), entry) {
                out.push(Entry { key, at, node });
            }
        }
        Node::Table(out)
    }

    fn shape(&mut self, path: &str, shape: &'static Shape, node: Node) -> Option<Node> {
        match shape {
            Shape::Table(keys) => Some(self.keys(path, keys, node)),
            Shape::Each(keys) => Some(
                self.each(path, "a table of names", node, |this, here, entry| Some(this.keys(here, keys, entry.node))),
            ),
            Shape::Many(keys) => self.many(path, keys, true, node),
            Shape::Tables(keys) => self.many(path, keys, false, node),
            Shape::PluginOptions => Some(self.each(path, "a table of plugins", node, Self::plugin)),
            Shape::Components(kind) => Some(self.each(path, "a table of names", node, |this, here, entry| {
                let expected = format!("a table that names a kind: [{here}.<kind>]");
                Some(this.each(here, &expected, entry.node, |this, here, entry| this.component(here, *kind, entry)))
            })),
            Shape::Value(kind) => {
                let node = self.leaf_or_json(path, *kind == OptionKind::Json, node)?;
                self.settle(path, node, |this, leaf| coerce::value(*kind, leaf, this.base))
            }
            leaf => {
                let node = self.leaf_or_json(path, false, node)?;
                self.settle(path, node, |this, value| this.scalar(leaf, value))
            }
        }
    }

    /// The value of a leaf with one of the simple shapes.
    fn scalar(&mut self, shape: &Shape, leaf: &Leaf) -> Result<Value, String> {
        let list = || coerce::value(OptionKind::List, leaf, None);
        match shape {
            Shape::Count { min, max } => match coerce::integer(&leaf.value, leaf.text) {
                Some(n) if (*min..=*max).contains(&n) => Ok(n.into()),
                _ if *max == i64::MAX => Err(format!("expected a whole number from {min}")),
                _ => Err(format!("expected a whole number from {min} to {max}")),
            },
            Shape::Choice(words) => {
                let given = leaf.value.as_str().unwrap_or_default().to_ascii_lowercase();
                let word = if given == "warn" { "warning" } else { given.as_str() };
                words
                    .iter()
                    .find(|w| **w == word)
                    .map(|w| (*w).into())
                    .ok_or_else(|| format!("expected {}", one_of(words.iter().copied())))
            }
            Shape::Path => match coerce::text(&leaf.value, leaf.text) {
                Some(path) => Ok(coerce::joined(self.base, &path)),
                None => Err("expected a path".to_owned()),
            },
            Shape::ResultPath => match leaf.value.as_str().unwrap_or_default().parse::<ResultPath>() {
                Ok(path) if self.registry.has(path.worker(), Some(PluginKind::Worker)) => Ok(path.to_string().into()),
                Ok(path) => Err(self.no_plugin(&[path.worker()], PluginKind::Worker)),
                Err(error) => Err(error.to_string()),
            },
            Shape::FieldPath => match leaf.value.as_str().unwrap_or_default().parse::<ResultPath>() {
                Ok(path) => Ok(path.to_string().into()),
                Err(error) => Err(error.to_string()),
            },
            Shape::Globs => {
                let patterns = list()?;
                for pattern in patterns.as_array().into_iter().flatten().filter_map(Value::as_str) {
                    Glob::new(pattern).map_err(|e| format!("expected a pattern such as \"image/*\": {}", e.kind()))?;
                }
                Ok(patterns)
            }
            Shape::Plugins(kind) => {
                let names = list()?;
                let given = names.as_array().into_iter().flatten().filter_map(Value::as_str);
                let unknown: Vec<_> = given.filter(|name| !self.registry.has(name, Some(*kind))).collect();
                if unknown.is_empty() { Ok(names) } else { Err(self.no_plugin(&unknown, *kind)) }
            }
            // Whether a component of the name is configured is known only after merging.
            Shape::Active(kind) => {
                list().map_err(|_| format!("expected a list of {}s", kind.name().to_ascii_lowercase()))
            }
            Shape::One(kind) => match coerce::text(&leaf.value, leaf.text) {
                Some(name) => Ok(name.into()),
                None => Err(format!("expected the name of a {}", kind.name().to_ascii_lowercase())),
            },
            _ => list(),
        }
    }

    fn plugin(&mut self, path: &str, entry: Entry) -> Option<Node> {
        if !self.registry.has(&entry.key, None) {
            self.unknown(path, &entry, "plugin", self.registry.names(None));
            return None;
        }
        let options = self.registry.options(&entry.key, None);
        Some(self.options(path, &entry.key, &options, entry.node))
    }

    fn component(&mut self, path: &str, kind: PluginKind, entry: Entry) -> Option<Node> {
        if !self.registry.has(&entry.key, Some(kind)) {
            let what = format!("kind of {}", kind.name().to_ascii_lowercase());
            self.unknown(path, &entry, &what, self.registry.names(Some(kind)));
            return None;
        }
        let options = self.registry.options(&entry.key, Some(kind));
        Some(self.options(path, &entry.key, &options, entry.node))
    }

    fn options(&mut self, path: &str, plugin: &str, options: &[OptionInfo], node: Node) -> Node {
        let what = format!("option of {plugin}");
        self.each(path, "a table of options", node, |this, here, entry| {
            let Some(option) = options.iter().find(|o| o.name == entry.key) else {
                this.unknown(here, &entry, &what, options.iter().map(|o| o.name).collect());
                return None;
            };
            if option.name == WHEN && option.kind == OptionKind::Json {
                return this.when(here, entry.node);
            }
            let node = this.leaf_or_json(here, option.kind == OptionKind::Json, entry.node)?;
            this.settle(here, node, |this, leaf| match option.name {
                name if NAMES_WORKERS.contains(&name) => this.scalar(&Shape::Plugins(PluginKind::Worker), leaf),
                _ => coerce::value(option.kind, leaf, this.base),
            })
        })
    }

    /// Conditions on responses: a table, or one as JSON text.
    fn when(&mut self, path: &str, node: Node) -> Option<Node> {
        let node = match node {
            Node::Leaf(Leaf { value: Value::String(json), at, text: true }) => match serde_json::from_str(&json) {
                Ok(value) => placed(value, &at, true),
                Err(e) => {
                    self.problems.push(Problem::error(at, path, format!("expected conditions as JSON: {e}")));
                    return None;
                }
            },
            node => node,
        };
        match node {
            Node::Leaf(leaf) => {
                self.mismatch(path, &leaf, "expected a table of conditions, such as { matched = true }");
                None
            }
            table => Some(self.keys(path, &RESPONSE_WHEN, table)),
        }
    }

    /// One table or a list of tables, as a list whose members are checked; with `first`, each must have its first key.
    fn many(&mut self, path: &str, keys: &'static [Key], first: bool, node: Node) -> Option<Node> {
        let (tables, at, text) = match node {
            Node::Leaf(Leaf { value: Value::Array(items), at, text }) => (items, at, text),
            Node::Leaf(leaf) => {
                self.mismatch(path, &leaf, "expected a table or a list of tables");
                return None;
            }
            table @ Node::Table(_) => {
                let at = first_place(&table)?;
                let checked = self.member(path, keys, first, &at, table);
                return Some(Node::Leaf(Leaf { value: Value::Array(vec![plain(checked)]), at, text: false }));
            }
        };
        let mut out = Vec::new();
        for (index, item) in tables.into_iter().enumerate() {
            let here = format!("{path}[{index}]");
            out.push(plain(self.member(&here, keys, first, &at, placed(item, &at, text))));
        }
        Some(Node::Leaf(Leaf { value: Value::Array(out), at, text: false }))
    }

    fn member(&mut self, path: &str, keys: &'static [Key], first: bool, at: &Place, node: Node) -> Node {
        if let (Node::Table(entries), Some(first)) = (&node, keys.first().filter(|_| first))
            && entries.iter().all(|e| e.key != first.name)
        {
            let message = format!("`{}` is missing: {}", first.name, first.help);
            self.problems.push(Problem::error(at.clone(), path, message));
        }
        self.keys(path, keys, node)
    }

    /// A table is no value, unless the option takes any JSON.
    fn leaf_or_json(&mut self, path: &str, json: bool, node: Node) -> Option<Node> {
        match node {
            Node::Table(_) if !json => {
                let at = first_place(&node).unwrap_or_default();
                self.problems.push(Problem::error(at, path, "expected a value, found a table"));
                None
            }
            node => Some(node),
        }
    }

    fn settle(
        &mut self,
        path: &str,
        node: Node,
        read: impl FnOnce(&mut Self, &Leaf) -> Result<Value, String>,
    ) -> Option<Node> {
        let Node::Leaf(leaf) = node else { return Some(node) };
        match read(self, &leaf) {
            Ok(value) => Some(Node::Leaf(Leaf { value, at: leaf.at, text: false })),
            Err(expected) => {
                self.mismatch(path, &leaf, &expected);
                None
            }
        }
    }

    fn mismatch(&mut self, path: &str, leaf: &Leaf, expected: &str) {
        let secret = path.rsplit('.').next().is_some_and(is_secret);
        // A message that explains itself ("unknown unit …") needs no repetition of what was found.
        let message = if secret || !expected.starts_with("expected") || expected.contains(": ") {
            expected.to_owned()
        } else {
            format!("{expected}, {}", coerce::found(&leaf.value))
        };
        let mut problem = Problem::error(leaf.at.clone(), path, message);
        if !leaf.text
            && let Value::String(text) = &leaf.value
            && !secret
            && (matches!(text.as_str(), "true" | "false") || text.parse::<i64>().is_ok())
        {
            problem = problem.help(format!("write {text} without quotes"));
        }
        self.problems.push(problem);
    }

    fn no_plugin(&self, names: &[&str], kind: PluginKind) -> String {
        let known = self.registry.names(Some(kind));
        let role = kind.name().to_ascii_lowercase();
        let mut hints: Vec<String> = names
            .iter()
            .filter_map(|name| nearest(name, known.iter().copied()))
            .map(|near| format!("did you mean `{near}`?"))
            .collect();
        if hints.is_empty() && known.len() <= MAX_LISTED {
            hints.push(format!("there is {}", one_of(known)));
        }
        let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
        let names = names.join(", ");
        format!("expected names of {role}s: no {role} is called {names}; {}", hints.join(" "))
    }

    fn unknown(&mut self, path: &str, entry: &Entry, what: &str, known: Vec<&'static str>) {
        let mut problem = Problem::error(entry.at.clone(), path, format!("unknown {what} `{}`", entry.key));
        let parent = path.len().checked_sub(entry.key.len() + 1).and_then(|end| path.get(..end)).unwrap_or_default();
        let name = |key: &str| match &entry.at {
            Place { origin: Origin::Environment(_), .. } => super::env::variable(&join(parent, key)),
            _ => key.to_owned(),
        };
        if let Some(near) = nearest(&entry.key, known.iter().copied()) {
            problem = problem.help(format!("did you mean `{}`?", name(near)));
        } else if let Some(home) = home_of(&entry.key) {
            problem = problem.help(format!("`{}` belongs into [{home}]", entry.key));
        } else if known.is_empty() {
            problem = problem.help("it has no options".to_owned());
        } else if known.len() <= MAX_LISTED {
            problem = problem.help(format!("there is {}", one_of(known)));
        }
        self.problems.push(problem);
    }
}

/// The section that has a key of this name, if one does.
fn home_of(name: &str) -> Option<String> {
    fn find(keys: &'static [Key], path: &str, name: &str) -> Option<String> {
        keys.iter().find_map(|key| match &key.shape {
            Shape::Table(inner) => find(inner, &join(path, key.name), name),
            _ if key.name == name && !path.is_empty() => Some(path.to_owned()),
            _ => None,
        })
    }
    find(ROOT, "", name)
}

/// The place of the first thing in a table.
pub(super) fn first_place(node: &Node) -> Option<Place> {
    match node {
        Node::Leaf(leaf) => Some(leaf.at.clone()),
        Node::Table(entries) => entries.first().map(|e| e.at.clone()),
    }
}

/// A value as a tree, all of it at one place.
fn placed(value: Value, at: &Place, text: bool) -> Node {
    match value {
        Value::Object(members) => Node::Table(
            members.into_iter().map(|(key, v)| Entry { key, at: at.clone(), node: placed(v, at, text) }).collect(),
        ),
        value => Node::Leaf(Leaf { value, at: at.clone(), text }),
    }
}

/// A tree as a value.
fn plain(node: Node) -> Value {
    match node {
        Node::Leaf(leaf) => leaf.value,
        Node::Table(entries) => Value::Object(entries.into_iter().map(|e| (e.key, plain(e.node))).collect()),
    }
}
