//! `azure`: Azure Blob Storage.

use std::path::PathBuf;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use serde::Deserialize;
use stoq_api::backend::{Options, StoreRegistration};
use stoq_api::scanner::{BuildError, OptionKind, PluginInfo, PluginKind};
use stoq_api::store::Store;
use stoq_runtime::secret::Secret;

use super::remote::{ALLOW_HTTP, Common, PREFIX, TIMEOUT, build_error, required, retry};
use super::secrets::secret;
use super::{config_of, option, shared};

/// Its entry in the registry.
pub(super) fn registration() -> StoreRegistration {
    StoreRegistration {
        info: PluginInfo {
            name: "azure",
            description: "Keeps payloads in a container of Azure Blob Storage",
            kinds: &[PluginKind::Store],
            options: &const {
                [
                    option("container", OptionKind::Text, "", "the container, which must be there"),
                    option("account", OptionKind::Text, "", "the storage account"),
                    PREFIX,
                    option(
                        "access_key",
                        OptionKind::Text,
                        "",
                        "the account's key; without it or sas_token, the \
                         environment's or the machine's identity",
                    ),
                    option("access_key_file", OptionKind::Text, "", "a file with the account's key"),
                    option("sas_token", OptionKind::Text, "", "a shared access signature: sv=...&sig=..."),
                    option("sas_token_file", OptionKind::Text, "", "a file with that"),
                    option(
                        "endpoint",
                        OptionKind::Text,
                        "\"\"",
                        "another server than Azure's, as https://host/account",
                    ),
                    ALLOW_HTTP,
                    TIMEOUT,
                ]
            },
            required_workers: &[],
        },
        open,
    }
}

/// How a container is reached.
#[derive(Deserialize)]
pub(crate) struct Config {
    #[serde(default)]
    pub(crate) container: String,
    #[serde(default)]
    pub(crate) account: String,
    #[serde(default)]
    pub(crate) access_key: Option<Secret>,
    #[serde(default)]
    pub(crate) access_key_file: Option<PathBuf>,
    #[serde(default)]
    pub(crate) sas_token: Option<Secret>,
    #[serde(default)]
    pub(crate) sas_token_file: Option<PathBuf>,
    #[serde(flatten)]
    pub(crate) common: Common,
}

impl Config {
    /// The client.
    pub(crate) fn client(&self) -> Result<Arc<dyn ObjectStore>, BuildError> {
        required("container", &self.container)?;
        required("account", &self.account)?;
        self.common.validate()?;
        let key = secret("access_key", self.access_key.as_ref(), self.access_key_file.as_ref())?;
        let token = secret("sas_token", self.sas_token.as_ref(), self.sas_token_file.as_ref())?;
        let mut builder = match (key, token) {
            (None, None) => MicrosoftAzureBuilder::from_env(),
            (Some(key), None) => MicrosoftAzureBuilder::new().with_access_key(key.expose()),
            (None, Some(token)) => {
                let token = token.expose().trim_start_matches('?').to_owned();
                MicrosoftAzureBuilder::new().with_config(AzureConfigKey::SasKey, token)
            }
            (Some(_), Some(_)) => {
                return Err(BuildError("`access_key` and `sas_token` are both set: leave one out".to_owned()));
            }
        };
        if let Some(endpoint) = self.common.endpoint() {
            builder = builder.with_endpoint(endpoint.to_owned());
        }
        let built = builder
            .with_account(&self.account)
            .with_container_name(&self.container)
            .with_client_options(self.common.client())
            .with_retry(retry())
            .build();
        Ok(Arc::new(built.map_err(|e| build_error(&e))?))
    }
}

fn open(options: &Options) -> Result<Arc<dyn Store>, BuildError> {
    let config: Config = config_of(options)?;
    let place = format!("azure://{}/{}", config.account, config.container);
    Ok(shared(config.common.store(config.client()?, &place, true)))
}
