//! The `rules` dispatcher: static attributes of a payload, or what workers found, choose plugins.
//!
//! Rules are configured as [`RouteRule`]s. They are evaluated in every round, so a rule on a worker's result takes effect
//! in the round after that worker ran.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use stoq_runtime::config::routes::RouteRule;
use stoq_runtime::matcher::{Patterns, Test};

/// Name of this dispatcher in configuration and reasons.
pub const NAME: &str = "rules";

/// What rules look at.
pub struct Facts<'a> {
    /// The payload's size in bytes.
    pub size: u64,
    /// Its name.
    pub filename: Option<&'a str>,
    /// The request's source.
    pub source: Option<&'a str>,
    /// It came in by itself, instead of being extracted.
    pub root: bool,
    /// Results so far, by worker.
    pub results: &'a Map<String, Value>,
}

/// A rule that is ready to be evaluated.
struct Rule {
    name: String,
    mimetype: Patterns,
    filename: Patterns,
    source: Patterns,
    size_min: Option<u64>,
    size_max: Option<u64>,
    root: Option<bool>,
    result: Vec<Test>,
    run: Vec<String>,
}

/// Compiled rules.
#[derive(Default)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// Compiles rules.
    ///
    /// # Errors
    /// Each rule with a broken glob, by name, all at once.
    pub fn compile(rules: &BTreeMap<String, RouteRule>) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let mut compiled = Vec::new();
        // A rule without workers only switches off one of a weaker layer of the configuration.
        for (name, rule) in rules.iter().filter(|(_, rule)| !rule.run.is_empty()) {
            match compile(name, rule) {
                Ok(rule) => compiled.push(rule),
                Err(problem) => problems.push(format!("routes.rules.{name}: {problem}")),
            }
        }
        if problems.is_empty() { Ok(Self(compiled)) } else { Err(problems) }
    }

    /// As [`Patterns::prepare`].
    pub fn prepare(&self) {
        for Rule { mimetype, filename, source, result, .. } in &self.0 {
            [mimetype, filename, source].into_iter().for_each(Patterns::prepare);
            result.iter().for_each(Test::prepare);
        }
    }

    /// Whether some rule looks at results of `worker`.
    pub fn look_at(&self, worker: &str) -> bool {
        self.0.iter().any(|rule| {
            (worker == "mimetype" && !rule.mimetype.is_empty()) || rule.result.iter().any(|test| test.first() == worker)
        })
    }

    /// Calls `want` with each worker that a rule chooses and that rule's name.
    pub fn choose<'s>(&'s self, facts: &Facts<'_>, mut want: impl FnMut(&'s str, &'s str)) {
        for rule in self.0.iter().filter(|rule| rule.holds(facts)) {
            for plugin in &rule.run {
                want(plugin, &rule.name);
            }
        }
    }
}

impl Rule {
    fn holds(&self, facts: &Facts<'_>) -> bool {
        self.size_min.is_none_or(|least| facts.size >= least)
            && self.size_max.is_none_or(|most| facts.size <= most)
            && self.root.is_none_or(|root| facts.root == root)
            && self.filename.allow(facts.filename.map(str::to_lowercase).as_deref())
            && self.source.allow(facts.source)
            && self.mimetype.allow(mimetype(facts.results))
            && self.result.iter().all(|test| test.holds(facts.results))
    }
}

fn mimetype(results: &Map<String, Value>) -> Option<&str> {
    results.get("mimetype")?.get("mimetype")?.as_str()
}

fn compile(name: &str, rule: &RouteRule) -> Result<Rule, String> {
    let when = &rule.when;
    let lower: Vec<String> = when.filename.iter().map(|glob| glob.to_lowercase()).collect();
    Ok(Rule {
        name: name.to_owned(),
        mimetype: Patterns::compile(&when.mimetype)?,
        filename: Patterns::compile(&lower)?,
        source: Patterns::compile(&when.source)?,
        size_min: when.size_min.map(|size| size.get()),
        size_max: when.size_max.map(|size| size.get()),
        root: when.root,
        result: when.result.iter().map(Test::compile).collect::<Result<_, _>>()?,
        run: rule.run.clone(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chosen(rules: Value, size: u64, name: &str, results: Value) -> Vec<String> {
        let rules: BTreeMap<String, RouteRule> = serde_json::from_value(rules).unwrap();
        let rules = Rules::compile(&rules).unwrap();
        let results = results.as_object().unwrap();
        let mut names = Vec::new();
        let facts = Facts { size, filename: Some(name), source: None, root: true, results };
        rules.choose(&facts, |plugin, _| names.push(plugin.into()));
        names
    }

    #[test]
    fn every_condition_must_hold_and_any_value_may() {
        let rules = json!({ "pe": { "run": ["pecarve"], "when": {
            "mimetype": ["application/x-dos*", "application/pdf"], "filename": ["*.EXE"],
            "size_min": 10, "size_max": 20, "root": true } } });
        let results = json!({ "mimetype": { "mimetype": "application/x-dosexec" } });
        assert_eq!(chosen(rules.clone(), 10, "a.ExE", results.clone()), ["pecarve"]);
        assert!(chosen(rules.clone(), 9, "a.exe", results.clone()).is_empty());
        assert!(chosen(rules.clone(), 21, "a.exe", results.clone()).is_empty());
        assert!(chosen(rules.clone(), 10, "a.dll", results).is_empty());
        assert!(chosen(rules, 10, "a.exe", json!({})).is_empty());
    }

    #[test]
    fn results_are_looked_up_by_path() {
        let test = |test: Value| json!({ "hit": { "run": ["x"], "when": { "result": [test] } } });
        let hit = json!({ "yara": { "matches": [{ "rule": "other" }, { "rule": "exe_upx" }] } });
        let by_glob = test(json!({ "path": "yara.matches[].rule", "matches": ["exe_*"] }));
        assert_eq!(chosen(by_glob.clone(), 0, "", hit.clone()), ["x"]);
        assert!(chosen(by_glob, 0, "", json!({ "yara": { "matches": [] } })).is_empty());
        let by_value = test(json!({ "path": "yara.matches[0].rule", "equals": "other" }));
        assert_eq!(chosen(by_value, 0, "", hit.clone()), ["x"]);
        assert_eq!(chosen(test(json!({ "path": "yara.matches" })), 0, "", hit), ["x"]);
    }

    #[test]
    fn broken_rules_are_named_all_at_once_and_empty_ones_are_off() {
        let rules: BTreeMap<String, RouteRule> = serde_json::from_value(json!({
            "off": { "run": [], "when": { "mimetype": ["a["] } },
            "b": { "run": ["x"], "when": { "mimetype": ["a["] } },
            "c": { "run": ["x"], "when": { "result": [{ "path": "yara.x", "equals": 1, "matches": ["a"] }] } },
        }))
        .unwrap();
        assert_eq!(Rules::compile(&rules).err().map(|p| p.len()), Some(2));
    }
}
