//! Options of `files`.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use stoq_api::scanner::{BuildError, OptionInfo, OptionKind};

use crate::common::path::PathTemplate;
use crate::model::Model;

const fn option(name: &'static str, kind: OptionKind, default: &'static str, help: &'static str) -> OptionInfo {
    OptionInfo { name, kind, default, help }
}

/// As they are listed.
pub(super) const OPTIONS: [OptionInfo; 6] = [
    option("directory", OptionKind::Text, "", "the directory for files; made if need be"),
    option("model", OptionKind::Text, "\"response\"", "what a line is: response, payload, plugin or ecs"),
    option(
        "name",
        OptionKind::Text,
        "\"{date}/stoq-{time}-{seq}.jsonl\"",
        "of files: {tenant}, {source}, {date}, {hour} of the scan, {time} of the file's begin, {seq}",
    ),
    option("max_size", OptionKind::Size, "134217728", "a file ends once it has so many bytes"),
    option("max_age", OptionKind::Duration, "300", "a file ends after so long"),
    option("compress", OptionKind::Text, "\"none\"", "finished files: none, gzip or zstd"),
];

/// As they stand in the configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    #[serde(default)]
    directory: PathBuf,
    #[serde(default = "model")]
    model: Model,
    #[serde(default = "name")]
    name: String,
    #[serde(default = "max_size")]
    max_size: u64,
    #[serde(default = "max_age")]
    max_age: f64,
    #[serde(default)]
    compress: Compress,
}

fn model() -> Model {
    Model::Response
}

fn name() -> String {
    "{date}/stoq-{time}-{seq}.jsonl".to_owned()
}

fn max_size() -> u64 {
    128 << 20
}

fn max_age() -> f64 {
    300.0
}

/// What becomes of a finished file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Compress {
    /// It stays as it is.
    #[default]
    None,
    /// `.gz`
    Gzip,
    /// `.zst`
    Zstd,
}

impl Compress {
    /// What is added to a compressed file's name.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
        }
    }
}

/// As they are used.
pub(super) struct Validated {
    pub(super) directory: PathBuf,
    pub(super) model: Model,
    pub(super) name: PathTemplate,
    pub(super) max_size: u64,
    pub(super) max_age: Duration,
    pub(super) compress: Compress,
}

/// The longest time that a file may stay unfinished.
const MOST_AGE: f64 = 7.0 * 86_400.0;

impl Config {
    pub(super) fn validate(self) -> Result<Validated, BuildError> {
        if self.directory.as_os_str().is_empty() {
            return Err(BuildError("`directory` is missing: name one".to_owned()));
        }
        if !(1.0..=MOST_AGE).contains(&self.max_age) {
            return Err(BuildError("`max_age` must be from one second to seven days".to_owned()));
        }
        if self.max_size == 0 {
            return Err(BuildError("`max_size` must be one byte or more".to_owned()));
        }
        let name =
            PathTemplate::file(&self.name).map_err(|why| BuildError(format!("`name` {:?}: {why}", self.name)))?;
        Ok(Validated {
            directory: self.directory,
            model: self.model,
            name,
            max_size: self.max_size,
            max_age: Duration::from_secs_f64(self.max_age),
            compress: self.compress,
        })
    }
}
