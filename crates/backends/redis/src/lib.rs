//! The ledger of a fleet, in Redis (or Valkey), alone or as a cluster.
//!
//! Each operation is one Lua script: Redis runs it as a whole and nothing else meanwhile, and its keys, which all have the
//! hash tag of the scan's bucket, lie on one node. Times come from the callers. What a Redis that loses its last
//! operations can and cannot do to scans stands in `docs/ledger.md`.
#![forbid(unsafe_code)]

mod check;
mod config;
mod fault;
mod keys;
mod ledger;
mod link;
mod script;

use std::sync::Arc;

use stoq_api::backend::{LedgerRegistration, Options};
use stoq_api::ledger::Ledger;
use stoq_api::scanner::{BuildError, PluginInfo, PluginKind};
use stoq_api::store::Store;

use crate::config::{Config, OPTIONS};
use crate::ledger::RedisLedger;

/// The entry for the list of ledgers.
pub fn registration() -> LedgerRegistration {
    LedgerRegistration {
        info: PluginInfo {
            name: "redis",
            description: "Keeps open scans in Redis, for a fleet",
            kinds: &[PluginKind::Ledger],
            options: OPTIONS,
            required_workers: &[],
        },
        open,
    }
}

fn open(options: &Options, store: Arc<dyn Store>) -> Result<Arc<dyn Ledger>, BuildError> {
    let config = Config::read(options)?;
    // TLS takes the process's provider; where somebody chose one before, that one stays.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    Ok(Arc::new(RedisLedger::new(config, store)))
}
