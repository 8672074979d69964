//! `cargo xtask dist`: what a release hands out, in `target/dist`: an archive with the program, its manual, completions,
//! licences and bill of materials, and checksums. The same commit, compiler and `SOURCE_DATE_EPOCH` give the same archive.

mod archive;
mod crates;
mod licences;
mod materials;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};

use archive::Part;
use crates::Crates;

/// Folders and files of the tree that go along as they are.
const ALONG: [&str; 5] = ["LICENSE", "README.md", "CHANGELOG.md", "config", "deploy"];
/// Shells, and what a completion script for each is called.
const SHELLS: [(&str, &str); 3] = [("bash", "stoq.bash"), ("zsh", "_stoq"), ("fish", "stoq.fish")];
/// Deepest folder that goes along.
const MAX_DEPTH: usize = 8;

/// Builds the program, unless one is given with `--program`, and writes everything.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<()> {
    let crates = Crates::of_program(root)?;
    let program = match arguments {
        [] => build(root, &crates)?,
        [flag, path] if flag == "--program" => PathBuf::from(path),
        _ => bail!("usage: cargo xtask dist [--program PATH]"),
    };
    let name = format!("stoq-{}-{}", crates.version, crates.target);
    let epoch = epoch(root)?;
    let mut parts = vec![Part::program("stoq", fs::read(&program).with_context(|| program.display().to_string())?)];
    parts.push(Part::file("stoq.1", output(&program, &["man"])?));
    for (shell, file) in SHELLS {
        parts.push(Part::file(&format!("completions/{file}"), output(&program, &["completions", shell])?));
    }
    let materials = materials::document(&crates, epoch)?;
    parts.push(Part::file("stoq.cdx.json", materials.clone()));
    parts.push(Part::file("THIRD-PARTY.txt", licences::text(root, &crates)?.into_bytes()));
    for along in ALONG {
        add(root, Path::new(along), &mut parts, MAX_DEPTH)?;
    }
    let folder = crates.target_dir.join("dist");
    fs::create_dir_all(&folder)?;
    let files =
        [(format!("{name}.tar.gz"), archive::pack(&name, parts, epoch)?), (format!("{name}.cdx.json"), materials)];
    let mut sums = String::new();
    for (file, bytes) in &files {
        fs::write(folder.join(file), bytes)?;
        sums.push_str(&format!("{}  {file}\n", hex::encode(Sha256::digest(bytes))));
    }
    fs::write(folder.join("SHA256SUMS"), &sums)?;
    crate::report(&format!("in {}:\n{sums}", folder.display()));
    Ok(())
}

fn build(root: &Path, crates: &Crates) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status =
        Command::new(cargo).args(["build", "--release", "--locked", "-p", "stoq"]).current_dir(root).status()?;
    if !status.success() {
        bail!("building failed");
    }
    Ok(crates.target_dir.join("release/stoq"))
}

/// The time that stands in the archive: `SOURCE_DATE_EPOCH`, or that of the last commit.
fn epoch(root: &Path) -> Result<u64> {
    if let Ok(given) = std::env::var("SOURCE_DATE_EPOCH") {
        return given.parse().with_context(|| format!("SOURCE_DATE_EPOCH={given}: not a number of seconds"));
    }
    let told = Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(root).output().context("git")?;
    let told = String::from_utf8_lossy(&told.stdout).trim().to_owned();
    told.parse().context("git does not tell when the last commit was; set SOURCE_DATE_EPOCH")
}

fn output(program: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
    let done = Command::new(program).args(arguments).output().with_context(|| program.display().to_string())?;
    if !done.status.success() || done.stdout.is_empty() {
        bail!("{} {} said nothing", program.display(), arguments.join(" "));
    }
    Ok(done.stdout)
}

fn add(root: &Path, path: &Path, parts: &mut Vec<Part>, depth: usize) -> Result<()> {
    let place = root.join(path);
    if !place.is_dir() {
        parts.push(Part::file(&path.to_string_lossy(), fs::read(&place).with_context(|| place.display().to_string())?));
    } else if depth > 0 {
        for entry in fs::read_dir(&place)? {
            add(root, &path.join(entry?.file_name()), parts, depth - 1)?;
        }
    }
    Ok(())
}
