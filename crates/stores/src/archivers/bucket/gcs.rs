//! `gcs`: payloads in a bucket of Google Cloud Storage.

use std::sync::Arc;

use object_store::path::Path;
use serde::Deserialize;
use serde_json::{Map, Value};
use stoq_api::backend::OpenQueue;
use stoq_api::plugin::Archiver;
use stoq_api::scanner::{BuildError, OptionInfo, OptionKind, PluginInfo, PluginKind};

use super::{ARCHIVE, BucketArchiver, Keeping, USE_DATETIME};
use crate::archivers::{ArchiverRegistration, config_of};
use crate::kinds::gcs::{CONNECTION, Config as Connection};
use crate::kinds::option;
use crate::kinds::remote::required;
use crate::objects::Objects;

const OPTIONS: [OptionInfo; 10] = OptionInfo::joined(&[
    &[
        option("project_id", OptionKind::Text, "", "the project, which stands in results"),
        option("archive_bucket", OptionKind::Text, "", "the bucket, which must be there"),
    ],
    &CONNECTION,
    &ARCHIVE,
    &[USE_DATETIME],
]);

/// The archiver's entry in the registry.
pub(crate) fn registration() -> ArchiverRegistration {
    ArchiverRegistration {
        info: PluginInfo {
            name: "gcs",
            description: "Keeps payloads in a bucket of Google Cloud Storage, and brings them back",
            kinds: &[PluginKind::Archiver],
            options: &OPTIONS,
            required_workers: &[],
        },
        build,
    }
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    project_id: String,
    #[serde(flatten)]
    keeping: Keeping,
    #[serde(flatten)]
    connection: Connection,
}

fn build(options: &Map<String, Value>, _queues: &dyn OpenQueue) -> Result<Arc<dyn Archiver>, BuildError> {
    let Config { project_id, keeping, connection } = config_of(options)?;
    required("project_id", &project_id)?;
    required("archive_bucket", &connection.bucket)?;
    Ok(Arc::new(BucketArchiver {
        objects: Objects { inner: connection.client()?, place: connection.place().into() },
        prefix: Path::from(connection.common.prefix),
        naming: keeping.naming(),
        conditional: true,
        max_size: keeping.max_size,
        plugin: "gcs",
        keys: ("bucketId", "objectId"),
        bucket: connection.bucket,
        more: Map::from_iter([("projectId".to_owned(), project_id.into())]),
    }))
}
