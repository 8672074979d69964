//! `cargo xtask pictures`: the pictures of the documentation, made again. What the program prints is drawn as a terminal
//! shows it, and each dashboard as it shows what a real Prometheus answers: there is no Grafana that could be run
//! everywhere, so panels are drawn from the dashboard's own description.

mod board;
pub(crate) mod check;
mod panel;
mod terminal;
mod units;
mod views;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use self::views::VIEWS;

/// The pictures.
pub(crate) const PICTURES: &str = "docs/pictures";
/// Dashboards.
pub(crate) const BOARDS: &str = "deploy/grafana";
/// Where the test leaves what is drawn.
const MATERIAL: &str = "target/pictures";

/// Watches the program as `arguments` say, and draws what was seen.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["test", "--locked", "-p", "stoq", "--test", "pictures"]);
    let (material, mut only_draw) = (root.join(MATERIAL), false);
    cargo.current_dir(root).env("PICTURES_INTO", &material);
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        match flag.as_str() {
            "--seconds" => {
                cargo.env("PICTURES_SECONDS", rest.next().context("--seconds needs a value")?);
            }
            // A program that is not optimised shows times that nobody has.
            "--optimised" => {
                cargo.args(["--profile", "bench"]);
            }
            "--draw" => only_draw = true,
            _ => bail!("unknown flag {flag}; there are --optimised, --seconds, --draw"),
        }
    }
    if !only_draw {
        fs::create_dir_all(&material).with_context(|| format!("cannot make {MATERIAL}"))?;
        cargo.args(["--", "--ignored", "--nocapture"]);
        ensure!(cargo.status().context("running cargo test")?.success(), "nothing to draw; the output is above");
    }
    draw(root, &material)
}

fn draw(root: &Path, material: &Path) -> Result<()> {
    fs::create_dir_all(root.join(PICTURES)).with_context(|| format!("cannot make {PICTURES}"))?;
    for view in &VIEWS {
        let said = fs::read_to_string(material.join(view.name).with_extension("ansi"))
            .with_context(|| format!("{} was not shown: run this without --draw first", view.command))?;
        write(root, view.name, &terminal::draw(view, &said)?)?;
    }
    for (name, board) in boards(root)? {
        let answers = fs::read_to_string(material.join(&name).with_extension("json"))
            .with_context(|| format!("nothing was asked for the dashboard {name}"))?;
        let (drawn, silent) = board::draw(&board, &serde_json::from_str(&answers)?)?;
        write(root, &name, &drawn)?;
        for title in silent {
            crate::report(&format!("dashboard {name}: no data for {title:?}"));
        }
    }
    check::run(root)
}

fn write(root: &Path, name: &str, drawn: &str) -> Result<()> {
    fs::write(picture(root, name), drawn).with_context(|| format!("cannot write {PICTURES}/{name}.svg"))
}

fn picture(root: &Path, name: &str) -> PathBuf {
    root.join(PICTURES).join(name).with_extension("svg")
}

/// All dashboards with their names.
fn boards(root: &Path) -> Result<Vec<(String, Value)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(root.join(BOARDS)).context(BOARDS)? {
        let path = entry?.path();
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        all.push((name, serde_json::from_str(&text).with_context(|| path.display().to_string())?));
    }
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(all)
}
