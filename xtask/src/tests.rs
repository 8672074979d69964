//! `cargo xtask test`: installs what the tests need, checks what is handed out beside the program, and runs
//! all tests.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{services, ship};

/// A program that tests drive, and the Debian package that brings it.
struct Tool {
    program: &'static str,
    package: &'static str,
}

const TOOLS: &[Tool] = &[
    Tool { program: "exiftool", package: "libimage-exiftool-perl" },
    Tool { program: "rabbitmq-server", package: "rabbitmq-server" },
    Tool { program: "redis-server", package: "redis-server" },
    // Not a program, but what building the client of Kafka looks for.
    Tool { program: "/usr/include/openssl/ssl.h", package: "libssl-dev" },
    Tool { program: "pkg-config", package: "pkg-config" },
    Tool { program: "java", package: "default-jre-headless" },
    Tool { program: "mvn", package: "maven" },
    Tool { program: "go", package: "golang-go" },
    Tool { program: "npm", package: "npm" },
    // What Go checks servers' certificates with, and nothing that is installed here may bring.
    Tool { program: "/etc/ssl/certs/ca-certificates.crt", package: "ca-certificates" },
    // For promtool, which checks rules.
    Tool { program: "promtool", package: "prometheus" },
];

/// Where servers are installed, though it is not on every user's path.
const SERVERS: &str = "/usr/sbin";

/// Installs the packages that it is given. Tests start their own servers, so the packages' own are told not to start
/// while they are installed; whatever the system's policy was is put back at the end.
const INSTALL: &str = r#"set -e
export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d
kept=$policy.before-stoq
restore() { if [ -e "$kept" ]; then mv "$kept" "$policy"; else rm -f "$policy"; fi }
trap 'exit 1' HUP INT TERM
trap restore EXIT
if [ -e "$policy" ]; then mv "$policy" "$kept"; fi
printf '#!/bin/sh\nexit 101\n' > "$policy"
chmod 755 "$policy"
apt-get update -q
apt-get install -y -q --no-install-recommends "$@"
"#;

/// Runs every test of the workspace. `extra` goes to `cargo test`.
pub(crate) fn run(root: &Path, extra: &[String]) -> Result<()> {
    install()?;
    services::install()?;
    ship::run(root).context("what is handed out beside the program")?;
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
    let words = [prefix, &["sh", "-c", INSTALL, "install"], &missing].concat();
    let status = Command::new(words[0]).args(&words[1..]).status();
    if !status.is_ok_and(|s| s.success()) {
        bail!("installing packages failed; run `{by_hand}` as root and try again");
    }
    Ok(())
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain([SERVERS.into()]).any(|dir| dir.join(program).is_file())
}
