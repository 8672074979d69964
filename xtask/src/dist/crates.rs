//! What the program is built from, as cargo says: crates of its normal and build dependencies on this platform.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// A crate of somebody else.
pub(super) struct Crate {
    pub(super) name: String,
    pub(super) version: String,
    /// An SPDX expression.
    pub(super) licence: String,
    pub(super) authors: Vec<String>,
    /// Where its source lies.
    pub(super) folder: PathBuf,
    /// SHA-256 of its package, from the lock file.
    pub(super) checksum: String,
    /// Package URLs of what it depends on.
    pub(super) uses: Vec<String>,
}

impl Crate {
    /// Its package URL.
    pub(super) fn url(&self) -> String {
        url(&self.name, &self.version)
    }
}

/// All of them, and what the program is called.
pub(super) struct Crates {
    pub(super) version: String,
    /// The platform, as rustc calls it.
    pub(super) target: String,
    pub(super) target_dir: PathBuf,
    pub(super) all: Vec<Crate>,
    /// Package URLs of what the crates of the workspace use themselves.
    pub(super) uses: Vec<String>,
}

fn url(name: &str, version: &str) -> String {
    // A plus is a space where URLs are decoded.
    format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
}

impl Crates {
    /// Asks cargo about the package `stoq`.
    pub(super) fn of_program(root: &Path) -> Result<Self> {
        let target = host()?;
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["metadata", "--format-version", "1", "--locked", "--filter-platform", &target]).current_dir(root);
        let told = command.output().context("running cargo metadata")?;
        if !told.status.success() {
            bail!("cargo metadata: {}", String::from_utf8_lossy(&told.stderr));
        }
        let metadata: Value = serde_json::from_slice(&told.stdout)?;
        Self::read(&metadata, &checksums(root)?, target)
    }

    fn read(metadata: &Value, checksums: &BTreeMap<(String, String), String>, target: String) -> Result<Self> {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let packages = list(&metadata["packages"]);
        let packages: BTreeMap<String, &Value> = packages.iter().map(|p| (text(&p["id"]), p)).collect();
        let nodes = list(&metadata["resolve"]["nodes"]);
        let nodes: BTreeMap<String, &Value> = nodes.iter().map(|n| (text(&n["id"]), n)).collect();
        let program = packages.values().find(|p| p["name"] == "stoq").context("there is no package stoq")?;
        let mut waiting = vec![text(&program["id"])];
        let mut seen = BTreeSet::new();
        let (mut all, mut own) = (Vec::new(), BTreeSet::new());
        while let Some(id) = waiting.pop() {
            if !seen.insert(id.clone()) {
                continue;
            }
            let package = packages.get(&id).with_context(|| format!("cargo says nothing of {id}"))?;
            let node = nodes.get(&id).with_context(|| format!("{id} is not resolved"))?;
            let mut uses = Vec::new();
            for dependency in list(&node["deps"]) {
                // A kind of null is a normal dependency.
                if list(&dependency["dep_kinds"]).iter().all(|kind| kind["kind"] == "dev") {
                    continue;
                }
                let id = text(&dependency["pkg"]);
                let used = packages.get(&id).with_context(|| format!("cargo says nothing of {id}"))?;
                if used["source"].is_string() {
                    uses.push(url(&text(&used["name"]), &text(&used["version"])));
                }
                waiting.push(id);
            }
            if package["source"].is_null() {
                own.extend(uses);
                continue;
            }
            let (name, version) = (text(&package["name"]), text(&package["version"]));
            let checksum = checksums.get(&(name.clone(), version.clone()));
            let checksum = checksum.with_context(|| format!("{name} {version} has no checksum"))?.clone();
            let folder = Path::new(package["manifest_path"].as_str().unwrap_or_default()).parent();
            let folder = folder.unwrap_or(Path::new("")).to_path_buf();
            let authors = list(&package["authors"]).iter().map(text).collect();
            // Older crates write MIT/Apache-2.0.
            let licence = text(&package["license"]).replace('/', " OR ");
            all.push(Crate { name, version, licence, authors, folder, checksum, uses });
        }
        all.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        let version = text(&program["version"]);
        let target_dir = text(&metadata["target_directory"]).into();
        Ok(Self { version, target, target_dir, all, uses: own.into_iter().collect() })
    }
}

fn host() -> Result<String> {
    let told = Command::new("rustc").arg("-vV").output().context("running rustc")?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not tell its host")?.to_owned())
}

fn checksums(root: &Path) -> Result<BTreeMap<(String, String), String>> {
    let lock: toml_edit::DocumentMut = std::fs::read_to_string(root.join("Cargo.lock"))?.parse()?;
    let packages = lock["package"].as_array_of_tables().context("Cargo.lock has no packages")?;
    let word = |table: &toml_edit::Table, key: &str| table.get(key).and_then(|v| v.as_str()).map(str::to_owned);
    let known = packages
        .iter()
        .filter_map(|table| Some(((word(table, "name")?, word(table, "version")?), word(table, "checksum")?)));
    Ok(known.collect())
}
