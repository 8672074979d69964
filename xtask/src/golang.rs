//! Go, which builds servers that tests drive: the system's, or a newer one, which the system's fetches as the module that
//! Go publishes itself as.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::services;

/// What some of the servers need, and the release that is fetched where the system's Go is older.
const LEAST: (u32, u32) = (1, 26);
const RELEASE: &str = "1.26.8";
/// Module archives hold no file of this name but their own, and no permissions: what the toolchain's are called in its
/// archive, and where its programs are.
const MODULE_FILE: &str = "go.mod";
const KEPT_MODULE_FILE: &str = "_go.mod";
const PROGRAMS: [&str; 2] = ["bin", "pkg/tool"];
const PROGRAM_MODE: u32 = 0o755;

/// How to have Go where it is missing.
pub(crate) const ADVICE: &str = "the tests need Go: apt-get install golang-go (1.18 or newer will do, it fetches a newer one where that is \
     needed), or unpack one from https://go.dev/dl and put its bin folder on the PATH";

/// Go as the servers need it, without flags of the user's; fetches it once, if need be.
pub(crate) fn go() -> Result<Command> {
    let mut go = Command::new("go");
    let told = Command::new("go").arg("version").output().context(ADVICE)?;
    if version(&String::from_utf8_lossy(&told.stdout)) < Some(LEAST) {
        let folder = services::cache()?.join(format!("go-{RELEASE}"));
        services::once(&folder, fetch)?;
        go = Command::new(folder.join("bin/go"));
        go.env_remove("GOROOT");
    }
    go.env_remove("GOFLAGS");
    Ok(go)
}

/// The folder of a module (`path@version`), which is fetched if it is not there.
pub(crate) fn module(mut go: Command, named: &str) -> Result<PathBuf> {
    // Outside of any module's folder, so that only this one counts.
    go.args(["mod", "download", "-json", named]).env("GOFLAGS", "-mod=mod").current_dir(std::env::temp_dir());
    let told = go.output().with_context(|| format!("running go, which fetches {named}"))?;
    let Ok(answer) = serde_json::from_slice::<Value>(&told.stdout) else {
        bail!("go said nothing of {named}: {}", String::from_utf8_lossy(&told.stderr).trim());
    };
    match answer["Dir"].as_str() {
        Some(dir) => Ok(dir.into()),
        None => bail!("{named} cannot be fetched: {}", answer["Error"]),
    }
}

/// Of `go version go1.26.8 linux/amd64` the first two numbers.
fn version(told: &str) -> Option<(u32, u32)> {
    let mut numbers = told.split(' ').nth(2)?.strip_prefix("go")?.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Has the system's Go fetch a newer one, whose sum it checks as it does for all modules.
fn fetch(folder: &Path) -> Result<()> {
    services::say(&format!("fetching Go {RELEASE}, once: the system's is older than {}.{}", LEAST.0, LEAST.1));
    let platform = Command::new("go").args(["env", "GOOS", "GOARCH"]).output().context(ADVICE)?;
    let platform = String::from_utf8(platform.stdout).context("the name of the platform is not UTF-8")?;
    let platform = platform.split_whitespace().collect::<Vec<_>>().join("-");
    let fetched = module(Command::new("go"), &format!("golang.org/toolchain@v0.0.1-go{RELEASE}.{platform}"))?;
    copy(&fetched, folder, false)?;
    for programs in PROGRAMS {
        copy(&fetched.join(programs), &folder.join(programs), true)?;
    }
    Ok(())
}

/// Copies what is in one folder into another, under the names that Go wants: writes, since modules may only be read.
fn copy(from: &Path, into: &Path, programs: bool) -> Result<()> {
    fs::create_dir_all(into).with_context(|| format!("cannot make {}", into.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))? {
        let entry = entry.with_context(|| format!("cannot list {}", from.display()))?;
        let name = entry.file_name();
        let target = into.join(if name == KEPT_MODULE_FILE { MODULE_FILE.as_ref() } else { name.as_os_str() });
        if entry.path().is_dir() {
            copy(&entry.path(), &target, programs)?;
            continue;
        }
        let content = fs::read(entry.path()).with_context(|| format!("cannot read {}", entry.path().display()))?;
        fs::write(&target, content).with_context(|| format!("cannot write {}", target.display()))?;
        if programs {
            let mode = fs::Permissions::from_mode(PROGRAM_MODE);
            fs::set_permissions(&target, mode)
                .with_context(|| format!("cannot make {} a program", target.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(version("go version go1.26.8 linux/amd64\n"), Some((1, 26)));
        assert_eq!(version("go version go1.19 linux/amd64\n"), Some((1, 19)));
        assert_eq!(version("go version go1.27rc1 linux/arm64\n"), Some((1, 27)));
        assert_eq!(version("go version devel\n"), None);
    }

    #[test]
    fn a_toolchain_is_copied_as_go_wants_it() {
        let [from, into] =
            ["from", "into"].map(|name| std::env::temp_dir().join(format!("stoq-go-{name}-{}", std::process::id())));
        fs::create_dir_all(from.join("linux")).expect("a folder");
        fs::write(from.join("linux/compile"), "program").expect("a file");
        fs::write(from.join(KEPT_MODULE_FILE), "module std").expect("a file");
        let read_only = fs::Permissions::from_mode(0o444);
        fs::set_permissions(from.join("linux/compile"), read_only).expect("a mode");
        copy(&from, &into, true).expect("a copy");
        assert_eq!(fs::read_to_string(into.join(MODULE_FILE)).expect("the module's file"), "module std");
        let mode = fs::metadata(into.join("linux/compile")).expect("the program").permissions().mode();
        assert_eq!(mode & 0o777, PROGRAM_MODE);
        for folder in [from, into] {
            fs::remove_dir_all(folder).expect("the folder goes");
        }
    }
}
