//! The kinds of payload store, one file each, and what their options have in common.

use std::sync::Arc;

use stoq_api::backend::{Options, StoreRegistration};
use stoq_api::scanner::{BuildError, OptionInfo, OptionKind};

#[cfg(feature = "azure")]
pub(crate) mod azure;
#[cfg(feature = "azure")]
mod conn_str;
#[cfg(feature = "gcs")]
pub(crate) mod gcs;
mod local;
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
pub(crate) mod remote;
#[cfg(feature = "s3")]
pub(crate) mod s3;
#[cfg(any(feature = "s3", feature = "azure"))]
mod secrets;

/// All kinds of payload store that this build holds, by name.
pub fn registry() -> Vec<StoreRegistration> {
    vec![
        #[cfg(feature = "azure")]
        azure::registration(),
        #[cfg(feature = "gcs")]
        gcs::registration(),
        local::registration(),
        #[cfg(feature = "s3")]
        s3::registration(),
    ]
}

pub(crate) const fn option(
    name: &'static str,
    kind: OptionKind,
    default: &'static str,
    help: &'static str,
) -> OptionInfo {
    OptionInfo { name, kind, default, help }
}

/// Reads options, which were checked against their description, into a kind's own type.
pub(crate) fn config_of<T: serde::de::DeserializeOwned>(options: &Options) -> Result<T, BuildError> {
    serde_json::from_value(serde_json::Value::Object(options.clone())).map_err(|e| BuildError(e.to_string()))
}

/// A store behind its trait.
fn shared<S: stoq_api::store::Store + 'static>(store: S) -> Arc<dyn stoq_api::store::Store> {
    Arc::new(store)
}
