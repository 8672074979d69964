//! `cargo xtask chaos`: the test of a fleet under which everything breaks, with figures of one's own.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Flags and the variables by which `tests/chaos.rs` knows them.
const FLAGS: [(&str, &str); 4] = [
    ("--broker", "CHAOS_BROKER"),
    ("--roots", "CHAOS_ROOTS"),
    ("--seconds", "CHAOS_SECONDS"),
    ("--seed", "CHAOS_SEED"),
];

/// Builds the fleet as benchmarks are built, for runs that take longer than that does.
const OPTIMISED: &str = "--optimised";

/// Runs it as `arguments` say; what they leave out is as in the test suite.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["test", "--locked", "-p", "stoq", "--test", "chaos"]).current_dir(root);
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        if flag == OPTIMISED {
            cargo.args(["--profile", "bench"]);
            continue;
        }
        let Some((_, variable)) = FLAGS.iter().find(|(name, _)| name == flag) else {
            bail!("unknown flag {flag}; there are {OPTIMISED}, {}", FLAGS.map(|(name, _)| name).join(", "));
        };
        let value = rest.next().with_context(|| format!("{flag} needs a value"))?;
        cargo.env(variable, value);
    }
    cargo.args(["--", "--nocapture"]);
    if !cargo.status().context("running cargo test")?.success() {
        bail!("something was lost, doubled or left open; the output is above");
    }
    Ok(())
}
