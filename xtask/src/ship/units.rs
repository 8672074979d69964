//! Units of systemd: verified, and held to a score, where systemd is installed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::quietly;

const UNITS: &str = "deploy/systemd";
/// Where the system's own units lie, which ours name.
const SYSTEM: [&str; 2] = ["/usr/lib/systemd/system", "/lib/systemd/system"];
/// Most exposure that `systemd-analyze security` may see in a service, in tenths; it calls anything below 20 fine.
const MOST_EXPOSURE: u32 = 16;

/// Checks all units. Without `systemd-analyze` only what each service must have.
pub(crate) fn check(root: &Path) -> Result<()> {
    let mut units: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(root.join(UNITS))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "service" || e == "timer") {
            units.push(path);
        }
    }
    units.sort();
    ensure!(!units.is_empty(), "no units in {UNITS}");
    for unit in &units {
        alike(&fs::read_to_string(unit)?).with_context(|| unit.display().to_string())?;
    }
    let system = SYSTEM.iter().map(Path::new).find(|path| path.is_dir());
    let here = Command::new("systemd-analyze").arg("--version").output().is_ok();
    let (Some(system), true) = (system, here) else {
        crate::report("systemd is not installed: its units were read, and not verified");
        return Ok(());
    };
    let scratch = Scratch::new()?;
    let analyzed = analyze(&scratch.0, system, &units);
    drop(scratch);
    analyzed
}

/// What every long-running service of ours has.
fn alike(text: &str) -> Result<()> {
    let long = text.contains("Restart=always");
    if long {
        ensure!(text.contains("KillMode=mixed"), "slots would get SIGTERM with everything else");
        ensure!(text.contains("RestartPreventExitStatus=2"), "would be restarted with an unusable configuration");
    }
    if text.contains("[Service]") {
        for line in ["User=stoq", "NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet=\n"] {
            ensure!(text.contains(line), "lacks {}", line.trim());
        }
    }
    Ok(())
}

fn analyze(root: &Path, system: &Path, units: &[PathBuf]) -> Result<()> {
    let own = root.join("etc/systemd/system");
    let bin = root.join("usr/bin");
    for folder in [&own, &bin, &root.join("usr/lib/systemd/system")] {
        fs::create_dir_all(folder)?;
    }
    fs::write(bin.join("stoq"), "#!/bin/sh\n")?;
    fs::set_permissions(bin.join("stoq"), fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(system)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), root.join("usr/lib/systemd/system").join(entry.file_name()))?;
        }
    }
    for unit in units {
        let name = unit.file_name().unwrap_or_default();
        fs::copy(unit, own.join(name))?;
    }
    let flag = format!("--root={}", root.display());
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no", &flag]).args(units.iter().filter_map(|unit| unit.file_name()));
    let done = command.output()?;
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    // A warning is said and forgiven by it; of ours none is.
    let ours = said.lines().any(|line| line.contains("stoq"));
    ensure!(done.status.success() && !ours, "systemd-analyze verify says:\n{said}");
    for unit in units.iter().filter(|unit| unit.extension().is_some_and(|e| e == "service")) {
        let name = unit.file_name().unwrap_or_default();
        let threshold = format!("--threshold={MOST_EXPOSURE}");
        let mut command = Command::new("systemd-analyze");
        command.args(["security", "--no-pager", "--offline=true", &threshold, &flag]).arg(name);
        quietly(&mut command)?;
    }
    Ok(())
}

/// A folder that goes when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("stoq-units-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left of it harms nobody.
        fs::remove_dir_all(&self.0).ok();
    }
}
