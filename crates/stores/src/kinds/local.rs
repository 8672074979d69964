//! `local`: a directory, of this machine or one that all machines of a fleet share.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use stoq_api::backend::{Options, StoreRegistration};
use stoq_api::fault::chain;
use stoq_api::scanner::{BuildError, OptionKind, PluginInfo, PluginKind};
use stoq_api::store::Store;

use super::{config_of, option, shared};
use crate::file::{FileStore, FileStoreOptions};

/// Its entry in the registry.
pub(super) fn registration() -> StoreRegistration {
    StoreRegistration {
        info: PluginInfo {
            name: "local",
            description: "Keeps payloads in a directory, which a fleet has to share",
            kinds: &[PluginKind::Store],
            options: &const {
                [
                    option("path", OptionKind::Text, "", "the directory; made if need be"),
                    option("fsync", OptionKind::Bool, "true", "write each payload through to the disk"),
                ]
            },
            required_workers: &[],
        },
        open,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    path: Option<PathBuf>,
    #[serde(default = "yes")]
    fsync: bool,
}

fn yes() -> bool {
    FileStoreOptions::default().fsync
}

fn open(options: &Options) -> Result<Arc<dyn Store>, BuildError> {
    let config: Config = config_of(options)?;
    let path = config.path.filter(|p| !p.as_os_str().is_empty());
    let path = path.ok_or_else(|| BuildError("`path` is missing: name a directory".to_owned()))?;
    let opened = FileStore::open(&path, FileStoreOptions { fsync: config.fsync });
    opened.map(shared).map_err(|e| BuildError(chain(&e)))
}
