//! What the stores behind a network share: their place, their patience, their secrets.

use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path;
use object_store::{BackoffConfig, ClientConfigKey, ClientOptions, ObjectStore, RetryConfig};
use serde::Deserialize;
use stoq_api::scanner::{BuildError, OptionInfo, OptionKind};

use super::option;
use crate::bucket::BucketStore;
use crate::objects::Objects;

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Idle connections are closed after this long, before load balancers silently do.
const IDLE: Duration = Duration::from_secs(50);
/// What the client tries itself before it says that a store is away: enough for a dropped connection or one busy
/// server. Patience beyond that is the caller's.
const RETRIES: usize = 3;
/// No further try begins after this long.
const RETRY_FOR: Duration = Duration::from_secs(10);

/// Where objects lie, and how long to wait.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Common {
    /// In front of every name.
    #[serde(default)]
    pub(crate) prefix: String,
    /// Another server than the cloud's own.
    #[serde(default)]
    pub(crate) endpoint: String,
    /// The endpoint may be one without TLS.
    #[serde(default)]
    pub(crate) allow_http: bool,
    /// Longest silence, in seconds.
    #[serde(default = "default_timeout")]
    pub(crate) timeout: f64,
}

fn default_timeout() -> f64 {
    30.0
}

impl Default for Common {
    fn default() -> Self {
        Self { prefix: String::new(), endpoint: String::new(), allow_http: false, timeout: default_timeout() }
    }
}

/// The description of `prefix`.
pub(crate) const PREFIX: OptionInfo =
    option("prefix", OptionKind::Text, "\"\"", "in front of every object's name, such as stoq/");
/// The description of `allow_http`.
pub(crate) const ALLOW_HTTP: OptionInfo =
    option("allow_http", OptionKind::Bool, "false", "the endpoint may begin with http://; payloads travel readable");
/// The description of `timeout`.
pub(crate) const TIMEOUT: OptionInfo = option(
    "timeout",
    OptionKind::Duration,
    "\"30 s\"",
    "longest silence of the server; also the longest time for one part of 8 MiB to be sent",
);

impl Common {
    /// Checks what all kinds check.
    pub(crate) fn validate(&self) -> Result<(), BuildError> {
        if !self.endpoint.is_empty() {
            let plain = self.endpoint.starts_with("http://");
            if !plain && !self.endpoint.starts_with("https://") {
                return Err(BuildError("`endpoint` must begin with https:// or http://".to_owned()));
            }
            if plain && !self.allow_http {
                let text = "`endpoint` begins with http://: use https://, or set allow_http = true";
                return Err(BuildError(text.to_owned()));
            }
            if self.endpoint.contains('@') || self.endpoint.contains('?') {
                let text = "`endpoint` is no place for credentials: use the options of this store for them";
                return Err(BuildError(text.to_owned()));
            }
        }
        if !(self.timeout.is_finite() && self.timeout >= 1.0) {
            return Err(BuildError("`timeout` must be one second or more".to_owned()));
        }
        Ok(())
    }

    /// The endpoint without a slash at its end.
    pub(crate) fn endpoint(&self) -> Option<&str> {
        (!self.endpoint.is_empty()).then(|| self.endpoint.trim_end_matches('/'))
    }

    /// How requests are sent.
    pub(crate) fn client(&self) -> ClientOptions {
        ClientOptions::new()
            .with_config(ClientConfigKey::UserAgent, concat!("stoq/", env!("CARGO_PKG_VERSION")))
            .with_allow_http(self.allow_http)
            .with_connect_timeout(CONNECT)
            // A large object may take as long as it likes, as long as it moves.
            .with_timeout_disabled()
            .with_read_timeout(Duration::from_secs_f64(self.timeout))
            .with_pool_idle_timeout(IDLE)
    }

    /// The store in `inner`, which messages call `place`.
    pub(crate) fn store(&self, inner: Arc<dyn ObjectStore>, place: &str, conditional: bool) -> BucketStore {
        BucketStore::new(Objects { inner, place: place.into() }, Path::from(self.prefix.as_str()), conditional)
    }
}

/// How often and how long the client tries itself.
pub(crate) fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
            base: 2.0,
        },
        max_retries: RETRIES,
        retry_timeout: RETRY_FOR,
    }
}

/// A name that cannot be done without.
pub(crate) fn required(name: &str, value: &str) -> Result<(), BuildError> {
    if value.is_empty() { Err(BuildError(format!("`{name}` is missing"))) } else { Ok(()) }
}

/// What a client says of options that it does not take.
pub(crate) fn build_error(error: &object_store::Error) -> BuildError {
    BuildError(stoq_api::fault::chain(error))
}
