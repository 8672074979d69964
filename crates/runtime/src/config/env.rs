//! Environment variables: `STOQ__SECTION__KEY`.

use std::sync::Arc;

use serde_json::Value;

use super::registry::Registry;
use super::schema::{Key, ROOT, Shape};
use super::tree::{Entry, Leaf, Node};
use crate::fail::{Origin, Place, Problem, fold};

/// What our variables begin with.
pub(super) const PREFIX: &str = "STOQ__";

/// The variable that sets the key at `path`.
pub(super) fn variable(path: &str) -> String {
    format!("{PREFIX}{}", fold(path).replace('.', "__").to_ascii_uppercase())
}

/// The trees of all of our variables, one each. A variable cannot carry the case of a name that the operator chose
/// (`connectors.Main`): that comes from the `weaker` layers.
pub(super) fn read(
    variables: &[(String, String)],
    registry: Registry<'_>,
    weaker: &[Node],
    problems: &mut Vec<Problem>,
) -> Vec<Node> {
    let mut out = Vec::new();
    for (name, value) in variables {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let at = Place { origin: Origin::Environment(Arc::from(name.as_str())), excerpt: None };
        let words: Vec<String> = rest.split("__").map(str::to_ascii_lowercase).collect();
        if words.iter().any(String::is_empty) || words.len() < 2 {
            let problem = Problem::error(at, "", format!("`{name}` names no key"));
            problems.push(problem.help(format!("write {PREFIX}SECTION__KEY, such as {PREFIX}SCAN__SLOTS")));
            continue;
        }
        let path = spelt(words, registry, weaker);
        out.push(Node::at_path(&path, Leaf { value: Value::String(value.clone()), at, text: true }));
    }
    out
}

/// What may stand at a place of a path.
enum Level {
    Keys(&'static [Key]),
    /// Names that the operator chooses, then these keys.
    Names(&'static [Key]),
    ComponentName,
    /// A plugin, then its options.
    Plugin,
    Options(String),
    Value,
}

/// The path with each word in the case that the configuration gives it; words that are not known stay as they are.
fn spelt(words: Vec<String>, registry: Registry<'_>, weaker: &[Node]) -> Vec<String> {
    let mut level = Level::Keys(ROOT);
    let mut out: Vec<String> = Vec::new();
    for word in words {
        let is = |name: &str| fold(name) == fold(&word);
        let (name, next) = match level {
            Level::Keys(keys) => match keys.iter().find(|k| is(k.name)) {
                Some(key) => (Some(key.name.to_owned()), below(&key.shape)),
                None => (None, Level::Value),
            },
            Level::Names(keys) => (chosen(weaker, &out, is), Level::Keys(keys)),
            Level::ComponentName => (chosen(weaker, &out, is), Level::Plugin),
            Level::Plugin => {
                let plugin = registry.spelt(&word).unwrap_or(&word).to_owned();
                (Some(plugin.clone()), Level::Options(plugin))
            }
            Level::Options(plugin) => {
                (registry.options(&plugin, None).iter().find(|o| is(o.name)).map(|o| o.name.to_owned()), Level::Value)
            }
            Level::Value => (None, Level::Value),
        };
        out.push(name.unwrap_or(word));
        level = next;
    }
    out
}

fn below(shape: &'static Shape) -> Level {
    match shape {
        Shape::Table(keys) => Level::Keys(keys),
        Shape::Each(keys) => Level::Names(keys),
        Shape::PluginOptions => Level::Plugin,
        Shape::Components(_) => Level::ComponentName,
        _ => Level::Value,
    }
}

/// The name that a weaker layer has at `path` and that `is` the word.
fn chosen(weaker: &[Node], path: &[String], is: impl Fn(&str) -> bool) -> Option<String> {
    fn at<'a>(node: &'a Node, path: &[String]) -> Option<&'a [Entry]> {
        let Node::Table(entries) = node else { return None };
        match path.split_first() {
            None => Some(entries),
            Some((key, rest)) => at(&entries.iter().find(|e| e.key == *key)?.node, rest),
        }
    }
    let entries = weaker.iter().filter_map(|node| at(node, path)).flatten();
    entries.map(|e| &e.key).find(|key| is(key)).cloned()
}
