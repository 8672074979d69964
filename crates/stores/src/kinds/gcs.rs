//! `gcs`: Google Cloud Storage.

use std::path::PathBuf;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::gcp::GoogleCloudStorageBuilder;
use serde::Deserialize;
use stoq_api::backend::{Options, StoreRegistration};
use stoq_api::scanner::{BuildError, OptionInfo, OptionKind, PluginInfo, PluginKind};
use stoq_api::store::Store;

use super::remote::{ALLOW_HTTP, Common, PREFIX, TIMEOUT, build_error, required, retry};
use super::{config_of, option, shared};

/// How a bucket is reached, in every role.
pub(crate) const CONNECTION: [OptionInfo; 5] = [
    PREFIX,
    option(
        "credentials_file",
        OptionKind::Text,
        "",
        "a service account's key; without it, the environment's or the machine's account",
    ),
    option("endpoint", OptionKind::Text, "\"\"", "another server than Google's, as https://host:port"),
    ALLOW_HTTP,
    TIMEOUT,
];

const STORE: [OptionInfo; 6] =
    OptionInfo::joined(&[&[option("bucket", OptionKind::Text, "", "the bucket, which must be there")], &CONNECTION]);

/// Its entry in the registry.
pub(super) fn registration() -> StoreRegistration {
    StoreRegistration {
        info: PluginInfo {
            name: "gcs",
            description: "Keeps payloads in a bucket of Google Cloud Storage",
            kinds: &[PluginKind::Store],
            options: &STORE,
            required_workers: &[],
        },
        open,
    }
}

/// How a bucket is reached.
#[derive(Deserialize)]
pub(crate) struct Config {
    #[serde(default, alias = "archive_bucket", alias = "connector_bucket")]
    pub(crate) bucket: String,
    #[serde(default)]
    pub(crate) credentials_file: Option<PathBuf>,
    #[serde(flatten)]
    pub(crate) common: Common,
}

impl Config {
    /// What the bucket is called in messages.
    pub(crate) fn place(&self) -> String {
        format!("gs://{}", self.bucket)
    }

    /// The client.
    pub(crate) fn client(&self) -> Result<Arc<dyn ObjectStore>, BuildError> {
        required("bucket", &self.bucket)?;
        self.common.validate()?;
        let mut builder = GoogleCloudStorageBuilder::from_env();
        if let Some(file) = self.credentials_file.as_ref().filter(|f| !f.as_os_str().is_empty()) {
            let wrong = |why: &str| BuildError(format!("`credentials_file` {}: {why}", file.display()));
            let path = file.to_str().ok_or_else(|| wrong("is not UTF-8"))?;
            // Said here, because the client would go on with the machine's account.
            std::fs::metadata(file).map_err(|e| wrong(&e.to_string()))?;
            builder = GoogleCloudStorageBuilder::new().with_service_account_path(path);
        }
        if let Some(endpoint) = self.common.endpoint() {
            builder = builder.with_base_url(endpoint);
        }
        let built = builder
            .with_bucket_name(&self.bucket)
            .with_client_options(self.common.client())
            .with_retry(retry())
            .build();
        Ok(Arc::new(built.map_err(|e| build_error(&e))?))
    }
}

fn open(options: &Options) -> Result<Arc<dyn Store>, BuildError> {
    let config: Config = config_of(options)?;
    Ok(shared(config.common.store(config.client()?, &config.place(), true)))
}
