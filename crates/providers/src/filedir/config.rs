//! Options of `filedir`.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer};

/// What to scan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Files and directories, in the order in which they are read. In a configuration one path; on the command line, many.
    #[serde(deserialize_with = "one")]
    pub source_dir: Vec<PathBuf>,
    /// Go into directories below.
    pub recursive: bool,
    /// Take files, and go into directories, whose name starts with a dot.
    pub hidden: bool,
    /// Know files that are named themselves by their name alone, without `source_dir`, as stoQ's `scan` does.
    #[serde(skip)]
    pub bare: bool,
}

fn one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    Ok(if path.as_os_str().is_empty() { Vec::new() } else { vec![path] })
}
