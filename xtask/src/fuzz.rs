//! `cargo xtask fuzz`: runs the fuzz targets in turn, each for a while and within fixed limits, and says what they did as
//! lines of the table in docs/releasing.md. What tidy checks: that every target stands there and in fuzz/Cargo.toml.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{pass_on, report};

/// The targets, what builds them, and the table of their last clean runs.
const TARGETS: &str = "fuzz/fuzz_targets";
const MANIFEST: &str = "fuzz/Cargo.toml";
const TABLE: &str = "docs/releasing.md";
/// What the table's heading begins with.
const HEADING: &str = "| target |";
/// How libFuzzer says at its end what it did: `Done 5215 runs in 61 second(s)`.
const DONE: &str = "Done ";

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
    let (mut failed, mut clean) = (Vec::new(), Vec::new());
    for target in targets {
        // The first corpus is where new inputs go, and only samples of findings belong into the one that is committed.
        let [found, corpus] = [root.join("fuzz/target/corpus").join(target), root.join("fuzz/corpus").join(target)];
        std::fs::create_dir_all(&found).with_context(|| found.display().to_string())?;
        let mut run = cargo(root, &["run", target]);
        run.args([&found, &corpus]).args(["--", &seconds]).args(LIMITS);
        match watch(run).with_context(|| format!("running {target}"))? {
            Some(done) => clean.push(format!("{target}: {done}")),
            None => failed.push(target),
        }
    }
    if !clean.is_empty() {
        report(&format!("clean, for the table in {TABLE}:\n  {}", clean.join("\n  ")));
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("{} found something: the inputs are in fuzz/artifacts/<target>", failed.join(", "));
}

/// Runs a target with its output going on to where ours goes; how much it did, unless it found something.
fn watch(mut run: Command) -> Result<Option<String>> {
    let mut child = run.stderr(Stdio::piped()).spawn()?;
    let mut done = None;
    for line in BufReader::new(child.stderr.take().context("there is no pipe")?).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        pass_on(&line);
        done = amount(&line).or(done);
    }
    let clean = child.wait()?.success();
    Ok(done.filter(|_| clean))
}

/// What the line says that libFuzzer did, in the table's words.
fn amount(line: &str) -> Option<String> {
    let mut words = line.strip_prefix(DONE)?.split(' ');
    let (runs, seconds) = (words.next()?, words.nth(2)?);
    // In groups of three, as figures are written here.
    let groups: Vec<&str> =
        runs.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    Some(format!("{seconds} s, {} inputs", groups.join(" ")))
}

/// Every target has its entry in the manifest, and its line in the table of clean runs; neither names another one.
pub(crate) fn check(root: &Path, files: &[PathBuf], problems: &mut Vec<String>) -> Result<()> {
    let targets: BTreeSet<&str> =
        files.iter().filter(|f| f.starts_with(TARGETS)).filter_map(|f| f.file_stem()?.to_str()).collect();
    let read = |name: &str| std::fs::read_to_string(root.join(name)).with_context(|| name.to_owned());
    let (manifest, table) = (read(MANIFEST)?, read(TABLE)?);
    let manifest: toml_edit::DocumentMut = manifest.parse().context(MANIFEST)?;
    let built = manifest.get("bin").and_then(|bins| bins.as_array_of_tables()).into_iter().flatten();
    let built: BTreeSet<&str> = built.filter_map(|bin| bin.get("name")?.as_str()).collect();
    compare(MANIFEST, &targets, &built, problems);
    compare(TABLE, &targets, &rows(&table), problems);
    Ok(())
}

fn compare(place: &str, targets: &BTreeSet<&str>, named: &BTreeSet<&str>, problems: &mut Vec<String>) {
    problems.extend(targets.difference(named).map(|target| format!("{place}: lacks the fuzz target `{target}`")));
    let gone = named.difference(targets);
    problems.extend(gone.map(|target| format!("{place}: names `{target}`, and {TARGETS} has no such file")));
}

/// The target of each line of the table.
fn rows(page: &str) -> BTreeSet<&str> {
    let rows = page.lines().skip_while(|line| !line.starts_with(HEADING)).skip(2);
    rows.map_while(|line| line.strip_prefix("| `")?.split('`').next()).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libfuzzer_did_is_read() {
        let amounts = ["Done 1479680 runs in 61 second(s)", "Done 52 runs in 61 second(s)", "#2 INITED"].map(amount);
        assert_eq!(amounts, [Some("61 s, 1 479 680 inputs".to_owned()), Some("61 s, 52 inputs".to_owned()), None]);
    }

    #[test]
    fn targets_without_a_line_and_lines_without_a_target_are_found() {
        let root = std::env::temp_dir().join(format!("stoq-fuzz-{}", std::process::id()));
        let table = "| target | what it reads | last clean run |\n|---|---|---|\n| `a` | x | 2026-11-24, 60 s, 5 inputs |\n\
                     | `b` | x | not recorded |\n| `d` | x | 2026-11-24, 60 s, 7 inputs |\n\n| `e` | another table |\n";
        let manifest = "[[bin]]\nname = \"a\"\n[[bin]]\nname = \"b\"\n";
        for (name, text) in [(TABLE, table), (MANIFEST, manifest)] {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().expect("a file lies somewhere")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        }
        let files = ["a", "b", "c"].map(|target| Path::new(TARGETS).join(target).with_extension("rs"));
        let mut found = Vec::new();
        check(&root, &files, &mut found).expect("both can be read");
        std::fs::remove_dir_all(root).expect("the folder goes");
        let expected = [
            "fuzz/Cargo.toml: lacks the fuzz target `c`",
            "docs/releasing.md: lacks the fuzz target `c`",
            "docs/releasing.md: names `d`, and fuzz/fuzz_targets has no such file",
        ];
        assert_eq!(found, expected);
    }
}
