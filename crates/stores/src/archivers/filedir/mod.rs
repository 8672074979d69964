//! `filedir`: payloads as files below `archive_dir`, named after their content, or after their payload and the day.
//!
//! A file appears whole or not at all: it is written beside its place under another name, flushed and renamed. One that
//! is there already is kept. What a task asks for is opened beneath `archive_dir` without following links, whatever
//! path the task names.

mod config;
mod read;
mod write;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use stoq_api::backend::OpenQueue;
use stoq_api::plugin::Archiver;
use stoq_api::response::PayloadResults;
use stoq_api::scanner::{BuildError, OptionInfo, OptionKind, PluginInfo, PluginKind};
use stoq_api::{Content, Fault, FaultKind, Json, PayloadMeta, RequestMeta, Timestamp};

use self::config::{Config, Validated};
use super::{ArchiverRegistration, config_of};

#[cfg(test)]
mod tests;

/// The archiver's entry in the registry.
pub(crate) fn registration() -> ArchiverRegistration {
    const fn option(name: &'static str, kind: OptionKind, default: &'static str, help: &'static str) -> OptionInfo {
        OptionInfo { name, kind, default, help }
    }
    ArchiverRegistration {
        info: PluginInfo {
            name: "filedir",
            description: "Keeps payloads as files, and brings them back",
            kinds: &[PluginKind::Archiver],
            options: &const {
                [
                    option(
                        "archive_dir",
                        OptionKind::Text,
                        "\"archive\"",
                        "the directory of payloads; made if need be",
                    ),
                    option("use_sha", OptionKind::Bool, "true", "name files by their SHA-1; each content is kept once"),
                    option(
                        "date_mode",
                        OptionKind::Bool,
                        "false",
                        "without use_sha: put files into directories by date",
                    ),
                    option(
                        "date_format",
                        OptionKind::Text,
                        "\"%Y/%m/%d\"",
                        "those directories, as strftime writes them",
                    ),
                    option("max_size", OptionKind::Size, "268435456", "the largest file that is brought back"),
                ]
            },
            required_workers: &[],
        },
        build,
    }
}

fn build(options: &Map<String, Value>, _queues: &dyn OpenQueue) -> Result<Arc<dyn Archiver>, BuildError> {
    Ok(Arc::new(FileDir { config: Arc::new(config_of::<Config>(options)?.validate()?) }))
}

struct FileDir {
    config: Arc<Validated>,
}

#[async_trait]
impl Archiver for FileDir {
    async fn archive(
        &self,
        content: &Content,
        results: &PayloadResults,
        _request: &RequestMeta,
    ) -> Result<Option<Json>, Fault> {
        let (config, content, payload) = (Arc::clone(&self.config), content.clone(), results.payload_id);
        let path = blocking(move || write::keep(&config, &content, payload, Timestamp::now())).await?;
        Ok(Some(Json::of(&json!({ "path": path }))))
    }

    async fn get(&self, task: &Value) -> Result<(Content, PayloadMeta), Fault> {
        let refused = |why: &str| Fault::new(FaultKind::Refused, format!("filedir: {why}"));
        let fields = task.as_object().ok_or_else(|| refused("the task is not an object"))?;
        let path = fields.get("path").and_then(Value::as_str).ok_or_else(|| refused("the task has no `path`"))?;
        let (config, path) = (Arc::clone(&self.config), path.to_owned());
        let content = blocking(move || read::open(&config, &path)).await?;
        Ok((content, PayloadMeta { extra_data: fields.clone(), ..PayloadMeta::default() }))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Fault> + Send + 'static) -> Result<T, Fault> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Fault::because(FaultKind::Unavailable, "filedir: stopped before its end", e))?
}
