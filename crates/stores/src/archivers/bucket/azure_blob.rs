//! `azure_blob`: payloads in a container of Azure Blob Storage.

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::path::Path;
use serde::Deserialize;
use serde_json::{Map, Value};
use stoq_api::backend::OpenQueue;
use stoq_api::plugin::Archiver;
use stoq_api::scanner::{BuildError, OptionInfo, OptionKind, PluginInfo, PluginKind};
use stoq_runtime::secret::Secret;

use super::{BucketArchiver, MAX_SIZE, Naming, USE_DATETIME, USE_SHA};
use crate::archivers::{ArchiverRegistration, config_of};
use crate::kinds::azure::Config as Connection;
use crate::kinds::remote::{ALLOW_HTTP, Common, PREFIX, TIMEOUT};
use crate::objects::Objects;

/// The archiver's entry in the registry.
pub(crate) fn registration() -> ArchiverRegistration {
    const fn option(name: &'static str, kind: OptionKind, default: &'static str, help: &'static str) -> OptionInfo {
        OptionInfo { name, kind, default, help }
    }
    ArchiverRegistration {
        info: PluginInfo {
            name: "azure_blob",
            description: "Keeps payloads in a container of Azure Blob Storage, and brings them back",
            kinds: &[PluginKind::Archiver],
            options: &const {
                [
                    option(
                        "conn_str",
                        OptionKind::Text,
                        "",
                        "the connection string, with an account key or a shared access signature",
                    ),
                    option(
                        "archive_container",
                        OptionKind::Text,
                        "\"stoq-archive\"",
                        "the container, which must be there",
                    ),
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
    conn_str: Option<Secret>,
    #[serde(default = "default_container")]
    archive_container: String,
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

fn default_container() -> String {
    "stoq-archive".to_owned()
}

/// What a connection string says: see
/// <https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string>. Nothing of it is shown in
/// messages but the names of its parts.
fn connection(text: &Secret, container: &str, mut common: Common) -> Result<Connection, BuildError> {
    let mut parts = BTreeMap::new();
    for part in text.expose().split(';').filter(|part| !part.trim().is_empty()) {
        let (name, value) = part.split_once('=').ok_or_else(|| {
            BuildError("`conn_str` is no connection string: its parts are name=value, with ; between".to_owned())
        })?;
        parts.insert(name.trim().to_ascii_lowercase(), value.trim());
    }
    let part = |name: &str| parts.get(name).copied().filter(|value| !value.is_empty());
    let endpoint = part("blobendpoint").map(str::to_owned);
    // The account is the endpoint's first name, if it is not said.
    let of_host = || endpoint.as_deref().and_then(|url| url.split_once("://")?.1.split(['.', ':', '/']).next());
    let account = part("accountname").or_else(of_host);
    let account = account.ok_or_else(|| BuildError("`conn_str` names no AccountName".to_owned()))?.to_owned();
    if part("accountkey").is_none() && part("sharedaccesssignature").is_none() {
        return Err(BuildError("`conn_str` holds neither AccountKey nor SharedAccessSignature".to_owned()));
    }
    let scheme = part("defaultendpointsprotocol").unwrap_or("https");
    let suffix = part("endpointsuffix").unwrap_or("core.windows.net");
    common.endpoint = endpoint.unwrap_or_else(|| format!("{scheme}://{account}.blob.{suffix}"));
    let secret = |name: &str| part(name).map(Secret::new);
    Ok(Connection {
        container: container.to_owned(),
        account,
        access_key: secret("accountkey"),
        access_key_file: None,
        sas_token: if part("accountkey").is_some() { None } else { secret("sharedaccesssignature") },
        sas_token_file: None,
        common,
    })
}

fn build(options: &Map<String, Value>, _queues: &dyn OpenQueue) -> Result<Arc<dyn Archiver>, BuildError> {
    let config: Config = config_of(options)?;
    let text = config.conn_str.filter(|text| !text.expose().is_empty());
    let text = text.ok_or_else(|| BuildError("`conn_str` is missing".to_owned()))?;
    let connection = connection(&text, &config.archive_container, config.common)?;
    let place = format!("azure://{}/{}", connection.account, connection.container);
    Ok(Arc::new(BucketArchiver {
        objects: Objects { inner: connection.client()?, place: place.into() },
        prefix: Path::from(connection.common.prefix),
        naming: Naming::of(config.use_sha, config.use_datetime),
        max_size: config.max_size,
        plugin: "azure_blob",
        keys: ("container_name", "blob_name"),
        bucket: config.archive_container,
        more: Map::new(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_strings_are_read_as_azure_writes_them() {
        let read = |text: &str| connection(&Secret::new(text), "c", Common::default());
        let one =
            read("DefaultEndpointsProtocol=https;AccountName=acc;AccountKey=a2V5PQ==;EndpointSuffix=core.windows.net")
                .unwrap();
        assert_eq!((one.account.as_str(), one.common.endpoint.as_str()), ("acc", "https://acc.blob.core.windows.net"));
        assert_eq!(one.access_key.unwrap().expose(), "a2V5PQ==", "the padding is part of the key");
        let signed =
            read("BlobEndpoint=https://acc.blob.core.windows.net/;SharedAccessSignature=sv=1&sig=x%3D").unwrap();
        assert_eq!((signed.account.as_str(), signed.sas_token.unwrap().expose()), ("acc", "sv=1&sig=x%3D"));
        for (text, said) in [
            ("no string", "name=value"),
            ("AccountKey=secret", "no AccountName"),
            ("AccountName=a", "neither AccountKey"),
        ] {
            let error = read(text).err().unwrap().0;
            assert!(error.contains(said) && !error.contains("=secret"), "{error}");
        }
    }
}
