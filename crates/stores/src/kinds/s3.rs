//! `s3`: Amazon S3, and servers that speak its protocol.

use std::path::PathBuf;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use serde::Deserialize;
use stoq_api::backend::{Options, StoreRegistration};
use stoq_api::scanner::{BuildError, OptionInfo, OptionKind, PluginInfo, PluginKind};
use stoq_api::store::Store;
use stoq_runtime::secret::Secret;

use super::remote::{ALLOW_HTTP, Common, PREFIX, TIMEOUT, build_error, required, retry};
use super::secrets::secret;
use super::{config_of, option, shared};

/// How the server is reached, in every role.
const CONNECTION: [OptionInfo; 8] = [
    PREFIX,
    option("region", OptionKind::Text, "\"us-east-1\"", "the bucket's region"),
    option("endpoint", OptionKind::Text, "\"\"", "another server than Amazon's, as https://host:port"),
    option("session_token", OptionKind::Text, "", "of a temporary key"),
    option("session_token_file", OptionKind::Text, "", "a file with that"),
    option(
        "virtual_hosted",
        OptionKind::Bool,
        "false",
        "the bucket's name stands in the host's name; endpoint holds it then",
    ),
    option(
        "conditional_put",
        OptionKind::Bool,
        "true",
        "the server knows If-None-Match; without it each object costs a question more",
    ),
    ALLOW_HTTP,
];

const STORE: [OptionInfo; 13] = OptionInfo::joined(&[
    &[
        option("bucket", OptionKind::Text, "", "the bucket, which must be there"),
        option("access_key_id", OptionKind::Text, "", "without it, the environment's or the role's"),
        option("secret_access_key", OptionKind::Text, "", "the key's secret"),
        option("secret_access_key_file", OptionKind::Text, "", "a file with the key's secret"),
    ],
    &CONNECTION,
    &[TIMEOUT],
]);

/// The same for plugins, whose keys have stoQ's names.
pub(crate) const PLUGIN: [OptionInfo; 12] = OptionInfo::joined(&[
    &[
        option("access_key", OptionKind::Text, "", "without it, the environment's or the role's"),
        option("secret_key", OptionKind::Text, "", "the key's secret"),
        option("secret_key_file", OptionKind::Text, "", "a file with the key's secret"),
    ],
    &CONNECTION,
    &[TIMEOUT],
]);

/// Its entry in the registry.
pub(super) fn registration() -> StoreRegistration {
    StoreRegistration {
        info: PluginInfo {
            name: "s3",
            description: "Keeps payloads in a bucket of Amazon S3, MinIO or another server of that protocol",
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
    #[serde(default = "default_region")]
    pub(crate) region: String,
    #[serde(default, alias = "access_key")]
    pub(crate) access_key_id: String,
    #[serde(default, alias = "secret_key")]
    pub(crate) secret_access_key: Option<Secret>,
    #[serde(default, alias = "secret_key_file")]
    pub(crate) secret_access_key_file: Option<PathBuf>,
    #[serde(default)]
    pub(crate) session_token: Option<Secret>,
    #[serde(default)]
    pub(crate) session_token_file: Option<PathBuf>,
    #[serde(default)]
    pub(crate) virtual_hosted: bool,
    #[serde(default = "yes")]
    pub(crate) conditional_put: bool,
    #[serde(flatten)]
    pub(crate) common: Common,
}

fn default_region() -> String {
    "us-east-1".to_owned()
}

fn yes() -> bool {
    true
}

impl Config {
    /// What the bucket is called in messages.
    pub(crate) fn place(&self) -> String {
        format!("s3://{}", self.bucket)
    }

    /// The client.
    pub(crate) fn client(&self) -> Result<Arc<dyn ObjectStore>, BuildError> {
        required("bucket", &self.bucket)?;
        self.common.validate()?;
        let key = secret("secret_access_key", self.secret_access_key.as_ref(), self.secret_access_key_file.as_ref())?;
        let token = secret("session_token", self.session_token.as_ref(), self.session_token_file.as_ref())?;
        let mut builder = match (self.access_key_id.as_str(), key) {
            // Roles of containers and machines, web identities, and the usual variables.
            ("", None) => AmazonS3Builder::from_env(),
            ("", Some(_)) => return Err(BuildError("`access_key_id` is missing for the secret key".to_owned())),
            (_, None) => return Err(BuildError("`secret_access_key` is missing for `access_key_id`".to_owned())),
            (id, Some(key)) => AmazonS3Builder::new().with_access_key_id(id).with_secret_access_key(key.expose()),
        };
        if let Some(token) = token {
            builder = builder.with_token(token.expose());
        }
        if let Some(endpoint) = self.common.endpoint() {
            builder = builder.with_endpoint(endpoint);
        }
        let conditional = if self.conditional_put { S3ConditionalPut::ETagMatch } else { S3ConditionalPut::Disabled };
        let built = builder
            .with_bucket_name(&self.bucket)
            .with_region(&self.region)
            .with_virtual_hosted_style_request(self.virtual_hosted)
            .with_conditional_put(conditional)
            .with_client_options(self.common.client())
            .with_retry(retry())
            .build();
        Ok(Arc::new(built.map_err(|e| build_error(&e))?))
    }
}

fn open(options: &Options) -> Result<Arc<dyn Store>, BuildError> {
    let config: Config = config_of(options)?;
    let store = config.common.store(config.client()?, &config.place(), config.conditional_put);
    Ok(shared(store))
}
