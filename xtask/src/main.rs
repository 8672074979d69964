//! Maintenance commands of the workspace: `cargo xtask <command>`.

mod blocks;
mod book;
mod chaos;
mod dist;
mod fixtures;
mod fuzz;
mod golang;
mod k8s;
mod mdbook;
mod pictures;
mod plot;
mod services;
mod ship;
mod sizing;
mod tests;
mod tidy;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

const HELP: &str = "\
cargo xtask <command>

  book                                the documentation as a book in target/book; builds mdBook once
  chaos [--broker <B>] [--roots <N>] [--seconds <S>] [--seed <N>] [--optimised]
                                      break everything under a fleet, and look whether anything was lost
  dist [--program <PATH>]             what a release hands out, in target/dist: archive, licences, bill of materials
  fixtures                            write tests/fixtures again, byte for byte
  fuzz [--seconds <N>] [<TARGET>...]  run fuzz targets, all unless named, 60 seconds each unless said
  k8s [--payloads <N>] [--program <PATH>] [--draw] [--build]
                                      the chart on a real control plane with KEDA, scaled by a burst; builds Kubernetes once,
                                      which takes half an hour; --draw writes docs/k8s.svg, --build only builds
  pictures [--optimised] [--seconds <N>] [--draw]
                                      docs/pictures again: the program on a terminal, and the dashboards over a small fleet;
                                      --draw only draws what was seen before
  schemas                             write helm/schemas again, from what Kubernetes and others publish
  ship                                check chart, rules, dashboards, compose files and units
  sizing [--payloads <N>] [--cost-ms <N>] [--slots <N>] [--messages <N>] [--min <N>] [--max <N>]
                                      a day of bursts against a pool that is scaled; without flags draws docs/sizing.svg
  test [args]                         install what the tests need and run them all; args go to cargo test
  tidy                                check what no compiler checks: dependencies, shape of files, links";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next();
    let rest: Vec<String> = arguments.collect();
    // The manifest of this crate lies one folder below the workspace.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let done: Result<()> = match command.as_deref() {
        Some("book") => mdbook::run(root),
        Some("chaos") => chaos::run(root, &rest),
        Some("dist") => dist::run(root, &rest),
        Some("fixtures") => fixtures::write_all(),
        Some("fuzz") => fuzz::run(root, &rest),
        Some("k8s") => k8s::run(root, &rest),
        Some("pictures") => pictures::run(root, &rest),
        Some("schemas") => ship::schemas::write(root),
        Some("ship") => ship::run(root),
        Some("sizing") => sizing::run(root, &rest),
        Some("test") => tests::run(root, &rest),
        Some("tidy") => tidy::run(root),
        _ => Err(anyhow::anyhow!("which command?\n\n{HELP}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

pub(crate) fn report(text: &str) {
    pass_on(&format!("xtask: {text}"));
}

/// Says what another program said, as it is.
#[expect(clippy::print_stderr, reason = "a command line tool talks to a person")]
pub(crate) fn pass_on(text: &str) {
    eprintln!("{text}");
}
