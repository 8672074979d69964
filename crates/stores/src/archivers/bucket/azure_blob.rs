//! `azure_blob`: payloads in a container of Azure Blob Storage.

use std::sync::Arc;

use object_store::path::Path;
use serde::Deserialize;
use serde_json::{Map, Value};
use stoq_api::backend::OpenQueue;
use stoq_api::plugin::Archiver;
use stoq_api::scanner::{BuildError, OptionInfo, OptionKind, PluginInfo, PluginKind};

use super::{ARCHIVE, BucketArchiver, Keeping, USE_DATETIME};
use crate::archivers::{ArchiverRegistration, config_of};
use crate::kinds::azure::{CONNECTION, Config as Connection};
use crate::kinds::option;
use crate::objects::Objects;

const OPTIONS: [OptionInfo; 15] = OptionInfo::joined(&[
    &[option("archive_container", OptionKind::Text, "\"stoq-archive\"", "the container, which must be there")],
    &CONNECTION,
    &ARCHIVE,
    &[USE_DATETIME],
]);

/// The archiver's entry in the registry.
pub(crate) fn registration() -> ArchiverRegistration {
    ArchiverRegistration {
        info: PluginInfo {
            name: "azure_blob",
            description: "Keeps payloads in a container of Azure Blob Storage, and brings them back",
            kinds: &[PluginKind::Archiver],
            options: &OPTIONS,
            required_workers: &[],
        },
        build,
    }
}

#[derive(Deserialize)]
struct Config {
    #[serde(flatten)]
    keeping: Keeping,
    #[serde(flatten)]
    connection: Connection,
}

fn build(options: &Map<String, Value>, _queues: &dyn OpenQueue) -> Result<Arc<dyn Archiver>, BuildError> {
    let Config { keeping, connection } = config_of(options)?;
    let mut connection = connection.resolved()?;
    if connection.container.is_empty() {
        connection.container = "stoq-archive".to_owned();
    }
    Ok(Arc::new(BucketArchiver {
        objects: Objects { inner: connection.client()?, place: connection.place().into() },
        prefix: Path::from(connection.common.prefix),
        naming: keeping.naming(),
        conditional: true,
        max_size: keeping.max_size,
        plugin: "azure_blob",
        keys: ("container_name", "blob_name"),
        bucket: connection.container,
        more: Map::new(),
    }))
}
