//! `s3`: payloads in a bucket of Amazon S3 or of a server of its protocol.

use std::sync::Arc;

use object_store::path::Path;
use serde::Deserialize;
use serde_json::{Map, Value};
use stoq_api::backend::OpenQueue;
use stoq_api::plugin::Archiver;
use stoq_api::scanner::{BuildError, OptionInfo, OptionKind, PluginInfo, PluginKind};

use super::{ARCHIVE, BucketArchiver, Keeping};
use crate::archivers::{ArchiverRegistration, config_of};
use crate::kinds::option;
use crate::kinds::remote::required;
use crate::kinds::s3::{Config as Connection, PLUGIN};
use crate::objects::Objects;

const OPTIONS: [OptionInfo; 15] = OptionInfo::joined(&[
    &[option("archive_bucket", OptionKind::Text, "", "the bucket, which must be there")],
    &PLUGIN,
    &ARCHIVE,
]);

/// The archiver's entry in the registry.
pub(crate) fn registration() -> ArchiverRegistration {
    ArchiverRegistration {
        info: PluginInfo {
            name: "s3",
            description: "Keeps payloads in a bucket of Amazon S3 or MinIO, and brings them back",
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
    required("archive_bucket", &connection.bucket)?;
    Ok(Arc::new(BucketArchiver {
        objects: Objects { inner: connection.client()?, place: connection.place().into() },
        prefix: Path::from(connection.common.prefix),
        naming: keeping.naming(),
        conditional: connection.conditional_put,
        max_size: keeping.max_size,
        plugin: "s3",
        keys: ("bucket", "path"),
        bucket: connection.bucket,
        more: Map::new(),
    }))
}
