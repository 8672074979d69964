//! `cargo xtask book`: the documentation as a book, in `target/book`, by mdBook, which is built once.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::services;

const VERSION: &str = "0.5.4";
const BOOK: &str = "docs";
/// How mdBook begins a line that is no mere information.
const WARNING: [&str; 2] = ["WARN", "ERROR"];

/// Builds the book. What mdBook warns of is an error, since nobody would look at it otherwise.
pub(crate) fn run(root: &Path) -> Result<()> {
    let folder = services::cache()?.join(format!("mdbook-{VERSION}"));
    services::once(&folder, install)?;
    let done = Command::new(folder.join("bin/mdbook")).args(["build", BOOK]).current_dir(root).output();
    let done = done.context("running mdbook")?;
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    ensure!(done.status.success(), "mdbook failed:\n{said}");
    if said.lines().any(|line| WARNING.iter().any(|word| line.contains(word))) {
        bail!("mdbook is not content:\n{said}");
    }
    crate::report("the book is in target/book");
    Ok(())
}

fn install(folder: &Path) -> Result<()> {
    services::say(&format!("building mdbook {VERSION}, once; this takes a few minutes"));
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Without a server and without watching: the book is only built here.
    cargo.args(["install", "--locked", "--no-default-features", "--features", "search", "--no-track"]);
    cargo.args(["--version", VERSION, "--root"]).arg(folder).arg("mdbook");
    // Beside the programs of the workspace its objects would only be in the way.
    cargo.env("CARGO_TARGET_DIR", folder.join("build")).current_dir(folder);
    services::run(cargo, "mdbook is built by cargo, from crates.io")?;
    std::fs::remove_dir_all(folder.join("build")).context("cannot remove what building mdbook left")
}
