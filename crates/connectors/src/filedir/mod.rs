//! `filedir`: each response as a file named after its scan, below `results_dir`.
//!
//! A file appears whole or not at all, and is durable when its response counts as delivered: it is written beside its place
//! under another name, flushed, renamed, and the directory flushed. A response whose file is there already is delivered:
//! the first one stays.

mod config;
mod write;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value};
use stoq_api::plugin::{Connector, Item, Verdict};
use stoq_api::scanner::{BuildError, OptionInfo, OptionKind, PluginInfo, PluginKind};
use stoq_api::{Fault, FaultKind};

use self::config::{Config, Validated};
use crate::{ConnectorRegistration, Context, config_of};

#[cfg(test)]
mod tests;

/// The connector's entry in the registry.
pub(crate) fn registration() -> ConnectorRegistration {
    const fn option(name: &'static str, kind: OptionKind, default: &'static str, help: &'static str) -> OptionInfo {
        OptionInfo { name, kind, default, help }
    }
    ConnectorRegistration {
        info: PluginInfo {
            name: "filedir",
            description: "Writes each response into a file",
            kinds: &[PluginKind::Connector],
            options: &const {
                [
                    option(
                        "results_dir",
                        OptionKind::Text,
                        "\"results\"",
                        "the directory for results; made if need be",
                    ),
                    option("date_mode", OptionKind::Bool, "false", "put results into directories by date"),
                    option(
                        "date_format",
                        OptionKind::Text,
                        "\"%Y/%m/%d\"",
                        "those directories, as strftime writes them",
                    ),
                    option("compactly", OptionKind::Bool, "true", "one line a response; false indents by 4"),
                ]
            },
            required_workers: &[],
        },
        build,
    }
}

fn build(options: &Map<String, Value>, _context: &Context) -> Result<Arc<dyn Connector>, BuildError> {
    let config = config_of::<Config>(options)?.validate()?;
    std::fs::create_dir_all(&config.results_dir)
        .map_err(|e| BuildError(format!("results_dir {:?} cannot be made: {e}", config.results_dir)))?;
    Ok(Arc::new(FileDir { config: Arc::new(config) }))
}

struct FileDir {
    config: Arc<Validated>,
}

#[async_trait]
impl Connector for FileDir {
    async fn deliver(&self, batch: &[Item]) -> Result<Vec<Verdict>, Fault> {
        let (config, batch) = (Arc::clone(&self.config), batch.to_vec());
        let written = tokio::task::spawn_blocking(move || write::all(&config, &batch));
        written.await.map_err(|e| Fault::because(FaultKind::Corrupt, "writing results stopped", e))
    }

    async fn check(&self) -> Result<(), Fault> {
        let config = Arc::clone(&self.config);
        let tried = tokio::task::spawn_blocking(move || write::can_write(&config)).await.map_err(std::io::Error::other);
        let text = format!("cannot write into results_dir {:?}", self.config.results_dir);
        // Disks are emptied, mounted and given rights again.
        tried.flatten().map_err(|e| Fault::because(FaultKind::Unavailable, text, e))
    }
}
