//! `s3`: payloads in a bucket of Amazon S3 or of a server of its protocol.

use std::sync::Arc;

use object_store::path::Path;
use serde::Deserialize;
use serde_json::{Map, Value};
use stoq_api::backend::OpenQueue;
use stoq_api::plugin::Archiver;
use stoq_api::scanner::{BuildError, OptionInfo, OptionKind, PluginInfo, PluginKind};
use stoq_runtime::secret::Secret;

use super::{BucketArchiver, MAX_SIZE, Naming, USE_SHA};
use crate::archivers::{ArchiverRegistration, config_of};
use crate::kinds::remote::{ALLOW_HTTP, Common, PREFIX, TIMEOUT, required};
use crate::kinds::s3::Config as Connection;
use crate::objects::Objects;

/// The archiver's entry in the registry.
pub(crate) fn registration() -> ArchiverRegistration {
    const fn option(name: &'static str, kind: OptionKind, default: &'static str, help: &'static str) -> OptionInfo {
        OptionInfo { name, kind, default, help }
    }
    ArchiverRegistration {
        info: PluginInfo {
            name: "s3",
            description: "Keeps payloads in a bucket of Amazon S3 or MinIO, and brings them back",
            kinds: &[PluginKind::Archiver],
            options: &const {
                [
                    option("archive_bucket", OptionKind::Text, "", "the bucket, which must be there"),
                    option("access_key", OptionKind::Text, "", "without it, the environment's or the role's"),
                    option("secret_key", OptionKind::Text, "", "the key's secret"),
                    option("session_token", OptionKind::Text, "", "of a temporary key"),
                    option("region", OptionKind::Text, "\"us-east-1\"", "the bucket's region"),
                    option("endpoint", OptionKind::Text, "\"\"", "another server than Amazon's, as https://host:port"),
                    USE_SHA,
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
    archive_bucket: String,
    #[serde(default)]
    access_key: String,
    #[serde(default)]
    secret_key: Option<Secret>,
    #[serde(default)]
    session_token: Option<Secret>,
    #[serde(default)]
    region: Option<String>,
    #[serde(default = "yes")]
    use_sha: bool,
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
    required("archive_bucket", &config.archive_bucket)?;
    let secret_key = config.secret_key.filter(|key| !key.expose().is_empty());
    if config.access_key.is_empty() != secret_key.is_none() {
        return Err(BuildError("`access_key` and `secret_key` go together: set both or none".to_owned()));
    }
    let connection = Connection {
        bucket: config.archive_bucket.clone(),
        region: config.region.unwrap_or_else(|| "us-east-1".to_owned()),
        access_key_id: config.access_key,
        secret_access_key: secret_key,
        secret_access_key_file: None,
        session_token: config.session_token,
        session_token_file: None,
        virtual_hosted: false,
        conditional_put: true,
        common: config.common,
    };
    let place = format!("s3://{}", config.archive_bucket);
    Ok(Arc::new(BucketArchiver {
        objects: Objects { inner: connection.client()?, place: place.into() },
        prefix: Path::from(connection.common.prefix),
        naming: Naming::of(config.use_sha, false),
        max_size: config.max_size,
        plugin: "s3",
        keys: ("bucket", "path"),
        bucket: config.archive_bucket,
        more: Map::new(),
    }))
}
