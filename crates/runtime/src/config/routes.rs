//! Routes: which plugins see which payloads. Written down here, compiled and applied by the engine.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::units::ByteSize;

/// `[routes]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Routes {
    /// Workers for every payload, children too.
    pub always: Vec<String>,
    /// Workers for roots.
    pub start: Vec<String>,
    /// Dispatchers that are asked about every payload in every round.
    pub dispatchers: Vec<String>,
    /// Longest chain of required workers.
    pub max_required_depth: u32,
    /// Rules by name. They have no order: a payload gets the workers of every rule that fits.
    #[serde(default)]
    pub rules: BTreeMap<String, RouteRule>,
}

/// `[routes.rules.<name>]`: workers for the payloads that fit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteRule {
    /// Conditions, all of which must hold. There is at least one, unless `run` is empty.
    #[serde(default)]
    pub when: When,
    /// Workers to run. None switches a rule off that a weaker layer of the configuration has.
    #[serde(default)]
    pub run: Vec<String>,
}

/// Conditions on a payload. A condition on something that is not known of the payload does not hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct When {
    /// One of these patterns fits the member `mimetype` of the result of the worker `mimetype`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mimetype: Vec<String>,
    /// One of these patterns fits `extra_data.filename`, regardless of case; `*` crosses slashes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filename: Vec<String>,
    /// One of these patterns fits the request's source.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source: Vec<String>,
    /// The payload has at least so many bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_min: Option<ByteSize>,
    /// The payload has at most so many bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_max: Option<ByteSize>,
    /// The payload is a root (`true`), or was extracted (`false`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<bool>,
    /// Each of these holds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub result: Vec<ResultTest>,
}

/// A condition on what workers found in earlier rounds: one of `equals` and `matches`. With neither `equals` nor `matches` it holds if there is any value
/// but `null` and `false` at the path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResultTest {
    /// Where to look.
    pub path: ResultPath,
    /// A value at the path is this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equals: Option<Value>,
    /// A text at the path fits one of these patterns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<String>,
}

impl When {
    /// No condition at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A place in workers' results: the worker, then members and lists, such as `yara.matches[].rule` (the rule of each
/// match) or `exif.tags[0]` (the first tag).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ResultPath {
    text: String,
    worker: String,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Member(String),
    Each,
    At(usize),
}

/// Why a text is no [`ResultPath`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a worker and members, such as \"yara.matches[].rule\" or \"mimetype.mimetype\"")]
pub struct ResultPathError;

/// Steps of a path; results do not nest deeper than JSON readers go.
const MAX_STEPS: usize = 32;
/// Values looked at per path: a result with a million members must not hold up every rule.
const MAX_VALUES: usize = 10_000;

impl ResultPath {
    /// The worker whose result is looked at.
    pub fn worker(&self) -> &str {
        &self.worker
    }

    /// The values at the path, at most 10,000 of them.
    pub fn select<'a>(&self, results: &'a Map<String, Value>) -> Vec<&'a Value> {
        let mut values: Vec<&Value> = results.get(&self.worker).into_iter().collect();
        for step in &self.steps {
            values = values
                .into_iter()
                .flat_map(|value| match (step, value) {
                    (Step::Member(name), Value::Object(members)) => members.get(name).map(std::slice::from_ref),
                    (Step::Each, Value::Array(items)) => Some(items.as_slice()),
                    (Step::At(index), Value::Array(items)) => items.get(*index).map(std::slice::from_ref),
                    _ => None,
                })
                .flatten()
                .take(MAX_VALUES)
                .collect();
        }
        values
    }
}

impl FromStr for ResultPath {
    type Err = ResultPathError;

    fn from_str(text: &str) -> Result<Self, ResultPathError> {
        let mut steps = Vec::new();
        let mut worker = None;
        for part in text.split('.') {
            let (name, mut lists) = part.split_at(part.find('[').unwrap_or(part.len()));
            let named = !name.is_empty() && !name.contains(|c: char| c == ']' || c.is_whitespace() || c.is_control());
            if !named {
                return Err(ResultPathError);
            }
            match worker {
                None => worker = Some(name.to_owned()),
                Some(_) => steps.push(Step::Member(name.to_owned())),
            }
            while !lists.is_empty() {
                let (index, rest) =
                    lists.strip_prefix('[').and_then(|inner| inner.split_once(']')).ok_or(ResultPathError)?;
                steps.push(match index {
                    "" => Step::Each,
                    digits => Step::At(digits.parse().map_err(|_| ResultPathError)?),
                });
                lists = rest;
            }
        }
        match worker {
            Some(worker) if steps.len() <= MAX_STEPS => Ok(Self { text: text.to_owned(), worker, steps }),
            _ => Err(ResultPathError),
        }
    }
}

impl fmt::Display for ResultPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for ResultPath {
    type Error = ResultPathError;

    fn try_from(text: String) -> Result<Self, ResultPathError> {
        text.parse()
    }
}

impl From<ResultPath> for String {
    fn from(path: ResultPath) -> Self {
        path.text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selects() {
        let results = json!({
            "yara": { "matches": [ { "rule": "a", "tags": ["x", "y"] }, { "rule": "b" }, 7 ] },
            "mimetype": { "mimetype": "text/plain" }
        });
        for (path, found) in [
            ("yara.matches[].rule", json!(["a", "b"])),
            ("yara.matches[0].tags[]", json!(["x", "y"])),
            ("yara.matches[].tags[1]", json!(["y"])),
            ("yara.matches[9]", json!([])),
            ("yara.matches.rule", json!([])),
            ("mimetype.mimetype", json!(["text/plain"])),
            ("mimetype", json!([{ "mimetype": "text/plain" }])),
            ("hash.md5", json!([])),
        ] {
            let path: ResultPath = path.parse().unwrap();
            assert_eq!(json!(path.select(results.as_object().unwrap())), found, "{path}");
        }
    }

    #[test]
    fn refused() {
        for path in
            ["", ".", "yara.", "yara..x", "yara.x[", "yara.x[a]", "yara.x[]y", "yara.[]", "a b", &".x".repeat(40)]
        {
            assert!(path.parse::<ResultPath>().is_err(), "{path}");
        }
        assert!(format!("a{}", "[]".repeat(33)).parse::<ResultPath>().is_err());
    }
}
