//! `cargo xtask fuzz`: runs the fuzz targets in turn, each for a while and within fixed limits.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Seconds for each target, where nothing else is said.
const SECONDS: u32 = 60;
/// Limits of libFuzzer: bytes of an input, MiB of memory, seconds of one input.
const LIMITS: [&str; 3] = ["-max_len=65536", "-rss_limit_mb=2048", "-timeout=20"];

/// Runs the targets that `arguments` name, or all. A finding does not keep the others from running.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<()> {
    let wanted = Wanted::read(arguments)?;
    let cargo_fuzz = cargo(root, &["--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !cargo_fuzz.is_ok_and(|status| status.success()) {
        bail!("cargo-fuzz is missing: `cargo install --locked cargo-fuzz` installs it");
    }
    let listed = cargo(root, &["list"]).output().context("listing the targets")?;
    let listed = String::from_utf8(listed.stdout).context("the list of targets is not UTF-8")?;
    let known: Vec<&str> = listed.lines().collect();
    if let Some(unknown) = wanted.targets.iter().find(|t| !known.contains(&t.as_str())) {
        bail!("there is no target {unknown}; there is {}", known.join(", "));
    }
    let targets = if wanted.targets.is_empty() { known } else { wanted.targets.iter().map(String::as_str).collect() };
    // Once and first, so that nothing runs for minutes before the next one does not compile.
    if !cargo(root, &["build"]).status().context("building the targets")?.success() {
        bail!("the targets do not build; the output is above");
    }
    let seconds = format!("-max_total_time={}", wanted.seconds);
    let mut failed = Vec::new();
    for target in targets {
        // The first corpus is where new inputs go, and only samples of findings belong into the one that is committed.
        let [found, corpus] = [root.join("fuzz/target/corpus").join(target), root.join("fuzz/corpus").join(target)];
        std::fs::create_dir_all(&found).with_context(|| found.display().to_string())?;
        let mut run = cargo(root, &["run", target]);
        let status = run.args([&found, &corpus]).args(["--", &seconds]).args(LIMITS).status();
        if !status.with_context(|| format!("running {target}"))?.success() {
            failed.push(target);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("{} found something: the inputs are in fuzz/artifacts/<target>", failed.join(", "));
}

struct Wanted {
    seconds: u32,
    targets: Vec<String>,
}

impl Wanted {
    fn read(arguments: &[String]) -> Result<Self> {
        let mut wanted = Self { seconds: SECONDS, targets: Vec::new() };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            if argument == "--seconds" {
                let number = arguments.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
                wanted.seconds = number.context("--seconds takes a whole number from 1")?;
            } else if argument.starts_with('-') {
                bail!("unknown option {argument}: there is --seconds");
            } else {
                wanted.targets.push(argument.clone());
            }
        }
        Ok(wanted)
    }
}

/// cargo-fuzz, which needs a nightly compiler, or one that passes for one.
fn cargo(root: &Path, arguments: &[&str]) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.arg("fuzz").args(arguments).current_dir(root).env("RUSTC_BOOTSTRAP", "1");
    cargo
}
