//! `azure`: Azure Blob Storage.

use std::path::PathBuf;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use serde::Deserialize;
use stoq_api::backend::{Options, StoreRegistration};
use stoq_api::scanner::{BuildError, OptionInfo, OptionKind, PluginInfo, PluginKind};
use stoq_api::store::Store;
use stoq_runtime::secret::Secret;

use super::remote::{ALLOW_HTTP, Common, PREFIX, TIMEOUT, build_error, required, retry};
use super::secrets::secret;
use super::{config_of, conn_str, option, shared};

/// How a container is reached, in every role.
pub(crate) const CONNECTION: [OptionInfo; 11] = [
    option("account", OptionKind::Text, "", "the storage account"),
    PREFIX,
    option(
        "access_key",
        OptionKind::Text,
        "",
        "the account's key; without it or sas_token, the environment's or the machine's identity",
    ),
    option("access_key_file", OptionKind::Text, "", "a file with the account's key"),
    option("sas_token", OptionKind::Text, "", "a shared access signature: sv=...&sig=..."),
    option("sas_token_file", OptionKind::Text, "", "a file with that"),
    option(
        "conn_str",
        OptionKind::Text,
        "",
        "instead of these and account: a connection string, with an account key or a shared access signature",
    ),
    option("conn_str_file", OptionKind::Text, "", "a file with that"),
    option("endpoint", OptionKind::Text, "\"\"", "another server than Azure's, as https://host/account"),
    ALLOW_HTTP,
    TIMEOUT,
];

const STORE: [OptionInfo; 12] = OptionInfo::joined(&[
    &[option("container", OptionKind::Text, "", "the container, which must be there")],
    &CONNECTION,
]);

/// Its entry in the registry.
pub(super) fn registration() -> StoreRegistration {
    StoreRegistration {
        info: PluginInfo {
            name: "azure",
            description: "Keeps payloads in a container of Azure Blob Storage",
            kinds: &[PluginKind::Store],
            options: &STORE,
            required_workers: &[],
        },
        open,
    }
}

/// How a container is reached.
#[derive(Deserialize)]
pub(crate) struct Config {
    #[serde(default, alias = "archive_container", alias = "results_container")]
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
    #[serde(default)]
    pub(crate) conn_str: Option<Secret>,
    #[serde(default)]
    pub(crate) conn_str_file: Option<PathBuf>,
    #[serde(flatten)]
    pub(crate) common: Common,
}

impl Config {
    /// With what its connection string says, if it has one.
    pub(crate) fn resolved(mut self) -> Result<Self, BuildError> {
        let Some(text) = secret("conn_str", self.conn_str.as_ref(), self.conn_str_file.as_ref())? else {
            return Ok(self);
        };
        let files = [&self.access_key_file, &self.sas_token_file];
        let others = [&self.access_key, &self.sas_token].iter().any(|secret| secret.is_some())
            || files.iter().any(|file| file.is_some())
            || !self.account.is_empty()
            || !self.common.endpoint.is_empty();
        if others {
            let text = "`conn_str` says account, endpoint and key itself: leave the options for these out";
            return Err(BuildError(text.to_owned()));
        }
        let said = conn_str::read(&text)?;
        (self.account, self.common.endpoint) = (said.account, said.endpoint);
        (self.access_key, self.sas_token) = (said.access_key, said.sas_token);
        Ok(self)
    }

    /// What the container is called in messages.
    pub(crate) fn place(&self) -> String {
        format!("azure://{}/{}", self.account, self.container)
    }

    /// The client, once it is [`Config::resolved`].
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
    let config = config_of::<Config>(options)?.resolved()?;
    Ok(shared(config.common.store(config.client()?, &config.place(), true)))
}
