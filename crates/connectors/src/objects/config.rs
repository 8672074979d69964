//! Options that connectors in buckets have beside those of their bucket.

use serde::Deserialize;
use stoq_api::scanner::{BuildError, OptionInfo, OptionKind};

use crate::common::path::PathTemplate;
use crate::model::Model;

const fn option(name: &'static str, kind: OptionKind, default: &'static str, help: &'static str) -> OptionInfo {
    OptionInfo { name, kind, default, help }
}

/// As they are listed.
pub(super) const OPTIONS: [OptionInfo; 4] = [
    option("model", OptionKind::Text, "\"response\"", "what a document is: response, payload, plugin or ecs"),
    option("per", OptionKind::Text, "\"response\"", "an object for each response, or for each batch of them"),
    option(
        "partition",
        OptionKind::Text,
        "\"dt={date}/\"",
        "in front of names, below prefix: {date}, {hour} of the scan, {tenant}, {source}",
    ),
    option("gzip", OptionKind::Bool, "false", "compress objects; their names end in .gz"),
];

/// As they stand in the configuration, among those of the bucket.
#[derive(Deserialize)]
pub(super) struct Config {
    #[serde(default = "model")]
    model: Model,
    #[serde(default)]
    per: Per,
    #[serde(default = "partition")]
    partition: String,
    #[serde(default)]
    gzip: bool,
}

fn model() -> Model {
    Model::Response
}

fn partition() -> String {
    "dt={date}/".to_owned()
}

/// What becomes one object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Per {
    /// Each response.
    #[default]
    Response,
    /// The responses of one partition in a batch.
    Batch,
}

/// As they are used.
pub(super) struct Validated {
    pub(super) model: Model,
    pub(super) per: Per,
    pub(super) partition: PathTemplate,
    pub(super) gzip: bool,
}

impl Config {
    pub(super) fn validate(self) -> Result<Validated, BuildError> {
        let wrong = |why: String| BuildError(format!("`partition` {:?}: {why}", self.partition));
        let partition = PathTemplate::folder(&self.partition).map_err(wrong)?;
        Ok(Validated { model: self.model, per: self.per, partition, gzip: self.gzip })
    }
}

impl Validated {
    /// The end of names: one document, or lines of them.
    pub(super) fn ending(&self) -> &'static str {
        match (self.per, self.model) {
            (Per::Response, Model::Response) => "json",
            _ => "jsonl",
        }
    }
}
