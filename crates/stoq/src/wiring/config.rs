//! Which configuration applies, and how its mistakes are shown.

use std::path::{Path, PathBuf};

use stoq_runtime::config::flags::Flag;
use stoq_runtime::config::{Loaded, Sources, load};
use stoq_runtime::fail::{Problem, render};

use super::registry;
use crate::cli::CommonArgs;
use crate::exit::UsageError;

/// What applies where nothing is configured.
const SHIPPED: &str = include_str!("../../../../config/local.toml");

/// Loads the configuration for a command.
///
/// # Errors
/// [`UsageError`] with every mistake of every source.
pub(crate) fn read(common: &CommonArgs, flags: Vec<Flag>) -> anyhow::Result<Loaded> {
    let mut sources = Sources::new().shipped("the shipped default", SHIPPED);
    for file in files(common) {
        sources = sources.file(file);
    }
    let mut all = common.flags().map_err(UsageError)?;
    all.extend(flags);
    let loaded = load(&sources.environment().flags(all), &registry::all());
    loaded.map_err(|problems| UsageError(shown(&problems)).into())
}

/// All problems, one under the other.
pub(crate) fn shown(problems: &[Problem]) -> String {
    format!("the configuration cannot be used\n\n{}", render(problems).trim_end())
}

/// The files named, or else those of stoQ's home: its TOML file if there is one, its old one if not.
fn files(common: &CommonArgs) -> Vec<PathBuf> {
    if !common.config_files.is_empty() {
        return common.config_files.clone();
    }
    let Some(home) = home() else { return Vec::new() };
    ["stoq.toml", "stoq.cfg"].iter().map(|name| home.join(name)).find(|path| path.is_file()).into_iter().collect()
}

fn home() -> Option<PathBuf> {
    let named = std::env::var_os("STOQ_HOME").map(PathBuf::from);
    named.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".stoq")))
}
