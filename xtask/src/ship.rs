//! `cargo xtask ship`: checks what is handed out beside the program. The chart with every example against the API of
//! Kubernetes, rules and their tests, dashboards with their pictures, compose files, units of systemd.

mod chart;
mod compose;
mod deploy;
pub(crate) mod schemas;
mod units;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::pictures;

/// Where the schemas lie that manifests are checked against.
const SCHEMAS: &str = "helm/schemas";

/// Runs all checks, the quick ones first.
pub(crate) fn run(root: &Path) -> Result<()> {
    deploy::check(root)?;
    pictures::check::run(root)?;
    compose::check(root)?;
    units::check(root)?;
    chart::check(root)
}

/// Runs a command and says what it said, if it failed.
fn quietly(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = command.output().with_context(|| format!("running {program}"))?;
    let out = String::from_utf8_lossy(&done.stdout).into_owned();
    if !done.status.success() {
        bail!("{command:?} failed:\n{out}{}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(out)
}
