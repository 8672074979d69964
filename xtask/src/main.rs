//! Maintenance commands of the workspace: `cargo xtask <command>`.

mod fixtures;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let command = std::env::args().nth(1);
    match command.as_deref() {
        Some("fixtures") => fixtures::write_all(),
        Some(other) => bail!("unknown command `{other}`; there is: fixtures"),
        None => bail!("which command? there is: fixtures"),
    }
}
