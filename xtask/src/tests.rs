//! `cargo xtask test`: installs what the tests need and runs them all.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A program that tests drive, and the Debian package that brings it.
struct Tool {
    program: &'static str,
    package: &'static str,
}

const TOOLS: &[Tool] = &[Tool { program: "exiftool", package: "libimage-exiftool-perl" }];

/// Runs every test of the workspace. `extra` goes to `cargo test`.
pub(crate) fn run(root: &Path, extra: &[String]) -> Result<()> {
    install()?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["test", "--workspace", "--locked"]).args(extra).current_dir(root);
    let status = cargo.status().context("running cargo test")?;
    if !status.success() {
        bail!("some tests failed; their output is above");
    }
    Ok(())
}

fn install() -> Result<()> {
    let missing: Vec<&str> = TOOLS.iter().filter(|tool| !on_path(tool.program)).map(|tool| tool.package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let by_hand = format!("apt-get install {}", missing.join(" "));
    if !on_path("apt-get") {
        bail!("the tests need {}; this system has no apt-get, so install them by its own means", missing.join(", "));
    }
    // Without root, sudo may do it; nothing is asked for, so that an unattended run fails instead of waiting.
    let root = Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout == b"0\n");
    let prefix: &[&str] = if root { &[] } else { &["sudo", "-n"] };
    for arguments in
        [&["update", "-q"][..], &[&["install", "-y", "-q", "--no-install-recommends"], &missing[..]].concat()]
    {
        let mut words = prefix.to_vec();
        words.push("apt-get");
        words.extend(arguments);
        let status = Command::new(words[0]).args(&words[1..]).env("DEBIAN_FRONTEND", "noninteractive").status();
        if !status.is_ok_and(|s| s.success()) {
            bail!("`{}` failed; run `{by_hand}` as root and try again", words.join(" "));
        }
    }
    Ok(())
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}
