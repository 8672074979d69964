//! Rules, their tests and runbooks, dashboards, and manifests that need no chart.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{chart, quietly};
use crate::services;

const RULES: &str = "deploy/prometheus/stoq.rules.yml";
const RULE_TESTS: &str = "deploy/prometheus/stoq.rules.test.yml";
const DASHBOARDS: &str = "deploy/grafana";
const MANIFESTS: &str = "deploy/keda";
const RUNBOOKS: &str = "docs/runbooks";
/// Variables that dashboards put into expressions.
const VARIABLES: [&str; 2] = ["$plugin", "$connector"];

/// Checks all of it.
pub(crate) fn check(root: &Path) -> Result<()> {
    promtool(root, &["check", "rules", RULES])?;
    promtool(root, &["test", "rules", RULE_TESTS])?;
    let rules: Value = serde_yaml_ng::from_str(&fs::read_to_string(root.join(RULES))?)?;
    let groups = rules["groups"].as_array().into_iter().flatten();
    let rules: Vec<&Value> = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten()).collect();
    alerts(root, &rules)?;
    let recorded: BTreeSet<&str> = rules.iter().filter_map(|rule| rule["record"].as_str()).collect();
    dashboards(root, &recorded)?;
    let conform = services::go_program("kubeconform")?;
    for file in files(&root.join(MANIFESTS), "yaml")? {
        let text = fs::read_to_string(&file)?;
        chart::conforms(root, &conform, &text).with_context(|| file.display().to_string())?;
        let problems: Vec<String> = chart::objects(&text)?.iter().flat_map(chart::triggers).collect();
        ensure!(problems.is_empty(), "{}: {}", file.display(), problems.join("\n  "));
    }
    Ok(())
}

fn promtool(root: &Path, arguments: &[&str]) -> Result<()> {
    quietly(Command::new("promtool").args(arguments).current_dir(root)).map(|_| ())
}

fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Each alert has a page, which its annotation names, and tests of both kinds; no page is for an alert that is gone.
fn alerts(root: &Path, rules: &[&Value]) -> Result<()> {
    let tests: Value = serde_yaml_ng::from_str(&fs::read_to_string(root.join(RULE_TESTS))?)?;
    let tests = tests["tests"].as_array().into_iter().flatten();
    let tests: Vec<&Value> = tests.flat_map(|test| test["alert_rule_test"].as_array().into_iter().flatten()).collect();
    let mut pages = BTreeSet::new();
    for rule in rules.iter().filter(|rule| rule["alert"].is_string()) {
        let name = rule["alert"].as_str().unwrap_or_default();
        let page = format!("{RUNBOOKS}/{name}.md");
        ensure!(rule["annotations"]["runbook"].as_str() == Some(&page), "{name}: annotations.runbook is not {page}");
        let text = fs::read_to_string(root.join(&page)).with_context(|| format!("{name} has no {page}"))?;
        ensure!(text.starts_with(&format!("# {name}\n")), "{page}: does not begin with the alert's name");
        let of_it = |test: &&&Value| test["alertname"].as_str() == Some(name);
        let fires = |test: &&Value| test["exp_alerts"].as_array().is_some_and(|all| !all.is_empty());
        ensure!(tests.iter().filter(of_it).any(fires), "{name}: no test in which it fires");
        ensure!(tests.iter().filter(of_it).any(|test| !fires(test)), "{name}: no test in which it is silent");
        pages.insert(root.join(page));
    }
    pages.insert(root.join(RUNBOOKS).join("README.md"));
    for page in files(&root.join(RUNBOOKS), "md")? {
        ensure!(pages.contains(&page), "{}: there is no such alert", page.display());
    }
    Ok(())
}

/// Dashboards have names and numbers that do not collide, and expressions that Prometheus understands, on names that are
/// recorded. Which metrics there are is checked where they are made.
fn dashboards(root: &Path, recorded: &BTreeSet<&str>) -> Result<()> {
    let mut uids = BTreeSet::new();
    let mut expressions = Vec::new();
    for file in files(&root.join(DASHBOARDS), "json")? {
        let shown = file.display();
        let board: Value = serde_json::from_str(&fs::read_to_string(&file)?).with_context(|| shown.to_string())?;
        let uid = board["uid"].as_str().unwrap_or_default().to_owned();
        ensure!(!uid.is_empty() && uids.insert(uid), "{shown}: needs a uid of its own");
        let mut ids = BTreeSet::new();
        for panel in board["panels"].as_array().into_iter().flatten() {
            ensure!(ids.insert(panel["id"].as_u64()), "{shown}: panel {} is there twice", panel["id"]);
            let titled = panel["title"].as_str().is_some_and(|title| !title.is_empty());
            ensure!(titled, "{shown}: panel {} has no title", panel["id"]);
            for target in panel["targets"].as_array().into_iter().flatten() {
                let expression = target["expr"].as_str().with_context(|| format!("{shown}: a target without expr"))?;
                ensure!(target["datasource"]["uid"] == "${source}", "{shown}: a data source of somebody's own");
                expressions.push(expression.to_owned());
            }
        }
        ensure!(ids.len() > 1, "{shown}: is empty");
    }
    for expression in &expressions {
        let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
        for word in words.filter(|word| word.starts_with("stoq:")) {
            ensure!(recorded.contains(word), "a dashboard names {word}, which nothing records");
        }
    }
    understood(&expressions)
}

/// Has Prometheus read the expressions, as rules.
fn understood(expressions: &[String]) -> Result<()> {
    let rules = expressions.iter().enumerate().map(|(at, expression)| {
        let plain = VARIABLES.iter().fold(expression.clone(), |text, variable| text.replace(variable, ".+"));
        serde_json::json!({ "record": format!("dashboard:{at}"), "expr": plain })
    });
    let group = serde_json::json!({ "groups": [{ "name": "dashboards", "rules": rules.collect::<Vec<_>>() }] });
    let file = std::env::temp_dir().join(format!("stoq-dashboards-{}.yml", std::process::id()));
    fs::write(&file, serde_yaml_ng::to_string(&group)?)?;
    let done = quietly(Command::new("promtool").args(["check", "rules"]).arg(&file));
    fs::remove_file(&file)?;
    done.map(|_| ())
}
