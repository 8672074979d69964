//! Compose files: loaded by the reference implementation of their specification, as `docker compose config` would.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::quietly;
use crate::services;

/// Where they lie, which is what their paths start from.
const FOLDER: &str = "docker";
const FLEET: &str = "compose.yaml";
/// What is laid over it.
const OVER: [&[&str]; 2] = [&[], &["compose.test.yaml"]];
/// Services that are our own program.
const ROLES: [&str; 3] = ["provider", "worker", "connector"];
/// What mounts refer to; nothing but these is made by a run.
const MADE: &str = "docker/inbox";

/// Checks them alone and together.
pub(crate) fn check(root: &Path) -> Result<()> {
    let loader = services::go_program("compose-go")?;
    for over in OVER {
        let mut command = Command::new(&loader);
        command.args(["-format", "json", FLEET]).args(over).current_dir(root.join(FOLDER));
        let model: Value = serde_json::from_str(&quietly(&mut command)?).context("the model is not JSON")?;
        let services = model["services"].as_object().context("there are no services")?;
        for role in ROLES {
            let service = services.get(role).with_context(|| format!("there is no {role}"))?;
            ensure!(service["read_only"] == true, "{role}: can write to its root");
            ensure!(service["cap_drop"][0] == "ALL", "{role}: keeps capabilities");
        }
        for (name, service) in services {
            mounts(root, name, service)?;
            for needed in service["depends_on"].as_object().into_iter().flatten().map(|(name, _)| name) {
                ensure!(services.contains_key(needed), "{name}: depends on {needed}, which is not there");
            }
        }
    }
    Ok(())
}

/// What is mounted from the tree has to be in the tree: an engine would make an empty folder of it.
fn mounts(root: &Path, name: &str, service: &Value) -> Result<()> {
    for mount in service["volumes"].as_array().into_iter().flatten() {
        if mount["type"] == "bind" {
            let source = Path::new(mount["source"].as_str().unwrap_or_default());
            let there = source.exists() || source.ends_with(MADE);
            ensure!(there && source.starts_with(root), "{name}: {} is not in the tree", source.display());
        }
    }
    Ok(())
}
