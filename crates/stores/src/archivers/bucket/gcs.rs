//! `gcs`: payloads in a bucket of Google Cloud Storage.

use std::path::PathBuf;
use std::sync::Arc;

use object_store::path::Path;
use serde::Deserialize;
use serde_json::{Map, Value};
use stoq_api::backend::OpenQueue;
use stoq_api::plugin::Archiver;
use stoq_api::scanner::{BuildError, OptionInfo, OptionKind, PluginInfo, PluginKind};

use super::{BucketArchiver, MAX_SIZE, Naming, USE_DATETIME, USE_SHA};
use crate::archivers::{ArchiverRegistration, config_of};
use crate::kinds::gcs::Config as Connection;
use crate::kinds::remote::{ALLOW_HTTP, Common, PREFIX, TIMEOUT, required};
use crate::objects::Objects;

/// The archiver's entry in the registry.
pub(crate) fn registration() -> ArchiverRegistration {
    const fn option(name: &'static str, kind: OptionKind, default: &'static str, help: &'static str) -> OptionInfo {
        OptionInfo { name, kind, default, help }
    }
    ArchiverRegistration {
        info: PluginInfo {
            name: "gcs",
            description: "Keeps payloads in a bucket of Google Cloud Storage, and brings them back",
            kinds: &[PluginKind::Archiver],
            options: &const {
                [
                    option("project_id", OptionKind::Text, "", "the project, which stands in results"),
                    option("archive_bucket", OptionKind::Text, "", "the bucket, which must be there"),
                    option(
                        "credentials_file",
                        OptionKind::Text,
                        "",
                        "a service account's key; without it, the environment's or the machine's account",
                    ),
                    option("endpoint", OptionKind::Text, "\"\"", "another server than Google's, as https://host:port"),
                    USE_SHA,
                    USE_DATETIME,
                    PREFIX,
                    ALLOW_HTTP,
                    TIMEOUT,
                    MAX_SIZE,
                ]
            },
            required_workers: &[],
        },
        build,
    }
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    project_id: String,
    #[serde(default)]
    archive_bucket: String,
    #[serde(default)]
    credentials_file: Option<PathBuf>,
    #[serde(default = "yes")]
    use_sha: bool,
    #[serde(default)]
    use_datetime: bool,
    #[serde(default = "super::default_max_size")]
    max_size: u64,
    #[serde(flatten)]
    common: Common,
}

fn yes() -> bool {
    true
}

fn build(options: &Map<String, Value>, _queues: &dyn OpenQueue) -> Result<Arc<dyn Archiver>, BuildError> {
    let config: Config = config_of(options)?;
    required("project_id", &config.project_id)?;
    required("archive_bucket", &config.archive_bucket)?;
    let connection = Connection {
        bucket: config.archive_bucket.clone(),
        credentials_file: config.credentials_file,
        common: config.common,
    };
    let place = format!("gs://{}", config.archive_bucket);
    Ok(Arc::new(BucketArchiver {
        objects: Objects { inner: connection.client()?, place: place.into() },
        prefix: Path::from(connection.common.prefix),
        naming: Naming::of(config.use_sha, config.use_datetime),
        max_size: config.max_size,
        plugin: "gcs",
        keys: ("bucketId", "objectId"),
        bucket: config.archive_bucket,
        more: Map::from_iter([("projectId".to_owned(), config.project_id.into())]),
    }))
}
