//! `cargo xtask tidy`: what no compiler checks. The direction of dependencies, the shape of files, that nothing of
//! somebody's machine stands in the tree, that links of the documentation lead somewhere, and that fuzz targets are listed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{book, fuzz};

/// Most lines of a source file.
const MAX_LINES: usize = 800;
/// Least lines of all source files of a crate together: what is smaller does not need to be one.
const MIN_CRATE_LINES: usize = 30;

/// Which crates of the workspace a crate may depend on. Everything may depend on `stoq-api`; `stoq-testkit` may be a
/// development dependency of all. ARCHITECTURE.md says why.
const MAY_USE: &[(&str, &[&str])] = &[
    ("stoq-api", &[]),
    ("stoq-runtime", &[]),
    ("stoq-md5", &[]),
    ("stoq-scanners", &["stoq-md5"]),
    ("stoq-jail", &["stoq-runtime", "stoq-scanners"]),
    ("stoq-engine", &["stoq-runtime", "stoq-jail"]),
    ("stoq-kafka", &["stoq-runtime"]),
    ("stoq-memory", &["stoq-runtime"]),
    ("stoq-rabbitmq", &["stoq-runtime"]),
    ("stoq-redis", &["stoq-runtime"]),
    ("stoq-sqlite", &["stoq-runtime"]),
    ("stoq-pubsub", &["stoq-runtime"]),
    ("stoq-stores", &["stoq-runtime"]),
    ("stoq-providers", &["stoq-runtime"]),
    ("stoq-connectors", &["stoq-runtime", "stoq-stores"]),
    ("stoq-testkit", &["stoq-runtime"]),
];

/// Crates that may use everything.
const ALL: &[&str] = &["stoq", "xtask"];

/// Development dependencies beyond the test kit, each with a reason: the engine settles over real implementations, and the
/// provider of queues reads one.
const TEST_ONLY: &[(&str, &[&str])] = &[
    ("stoq-engine", &["stoq-memory", "stoq-sqlite"]),
    ("stoq-providers", &["stoq-memory"]),
    ("stoq-connectors", &["stoq-memory"]),
];

/// Runs all checks and reports everything that is wrong at once.
pub(crate) fn run(root: &Path) -> Result<()> {
    let files = tracked(root)?;
    let mut problems = Vec::new();
    sources(root, &files, &mut problems)?;
    manifests(root, &files, &mut problems)?;
    book::check(root, &files, &mut problems)?;
    fuzz::check(root, &files, &mut problems)?;
    if problems.is_empty() {
        return Ok(());
    }
    bail!("{} problems:\n  {}", problems.len(), problems.join("\n  "));
}

/// All files that git knows.
pub(crate) fn tracked(root: &Path) -> Result<Vec<PathBuf>> {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root).output().context("running git")?;
    let text = String::from_utf8(listed.stdout).context("a tracked file's name is not UTF-8")?;
    Ok(text.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect())
}

fn sources(root: &Path, files: &[PathBuf], problems: &mut Vec<String>) -> Result<()> {
    for file in files.iter().filter(|f| f.extension().is_some_and(|e| e == "rs")) {
        let Ok(text) = std::fs::read_to_string(root.join(file)) else { continue };
        let name = file.display();
        // A fuzz target may have to say first that it has no main.
        let opening = text.lines().find(|line| !line.starts_with("#!["));
        if !opening.is_some_and(|line| line.starts_with("//!")) {
            problems.push(format!("{name}: does not open with a `//!` that says what it is for"));
        }
        let lines = text.lines().count();
        if lines > MAX_LINES {
            problems.push(format!("{name}: {lines} lines, {MAX_LINES} at most; split it by meaning"));
        }
    }
    Ok(())
}

fn manifests(root: &Path, files: &[PathBuf], problems: &mut Vec<String>) -> Result<()> {
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        MAY_USE.iter().map(|(name, uses)| (*name, uses.iter().copied().collect())).collect();
    for manifest in files.iter().filter(|f| f.ends_with("Cargo.toml") && f.components().count() > 1) {
        if manifest.starts_with("fuzz") {
            continue;
        }
        let text = std::fs::read_to_string(root.join(manifest))?;
        let document: toml_edit::DocumentMut = text.parse().with_context(|| manifest.display().to_string())?;
        let name = document["package"]["name"].as_str().unwrap_or_default().to_owned();
        if document.get("lints").and_then(|l| l.get("workspace")).and_then(|w| w.as_bool()) != Some(true) {
            problems.push(format!("{}: has no `[lints] workspace = true`", manifest.display()));
        }
        size(root, manifest, files, problems);
        if ALL.contains(&name.as_str()) {
            continue;
        }
        let Some(uses) = allowed.get(name.as_str()) else {
            problems.push(format!("{name}: not listed in xtask/src/tidy.rs; say there what it may depend on"));
            continue;
        };
        for dependency in workspace_dependencies(&document, "dependencies") {
            if dependency != "stoq-api" && !uses.contains(dependency.as_str()) {
                problems.push(format!("{name}: must not depend on {dependency}"));
            }
        }
        let for_tests = TEST_ONLY.iter().find(|(n, _)| *n == name).map_or(&[][..], |(_, uses)| uses);
        for dependency in workspace_dependencies(&document, "dev-dependencies") {
            let known = ["stoq-api", "stoq-testkit"].contains(&dependency.as_str());
            if !known && !uses.contains(dependency.as_str()) && !for_tests.contains(&dependency.as_str()) {
                problems.push(format!("{name}: must not depend on {dependency}, not even in tests"));
            }
        }
    }
    Ok(())
}

fn workspace_dependencies(document: &toml_edit::DocumentMut, table: &str) -> Vec<String> {
    let listed = document.get(table).and_then(|t| t.as_table_like());
    let names = listed.into_iter().flat_map(|t| t.iter().map(|(name, _)| name.to_owned()));
    names.filter(|name| name == "stoq" || name.starts_with("stoq-")).collect()
}

fn size(root: &Path, manifest: &Path, files: &[PathBuf], problems: &mut Vec<String>) {
    let Some(folder) = manifest.parent() else { return };
    let own = files.iter().filter(|f| f.starts_with(folder) && f.extension().is_some_and(|e| e == "rs"));
    let lines: usize = own.filter_map(|f| std::fs::read_to_string(root.join(f)).ok()).map(|t| t.lines().count()).sum();
    if lines < MIN_CRATE_LINES {
        problems.push(format!("{}: {lines} lines of code; it does not need to be a crate", folder.display()));
    }
}
