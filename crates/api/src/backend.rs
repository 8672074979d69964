//! How the kinds of queue, ledger and store that a binary holds are listed and opened.
//!
//! Like plugins they have options, which are checked against their [`PluginInfo`] before they get here; opening one only
//! looks at the options and connects to nothing.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::ledger::Ledger;
use crate::queue::{Broker, Queue};
use crate::scanner::{BuildError, PluginInfo};
use crate::store::Store;

/// Options of one configured backend, of the types that its [`PluginInfo`] declares.
pub type Options = Map<String, Value>;

/// Opens a broker.
pub type OpenBroker = fn(&Options) -> Result<Arc<dyn Broker>, BuildError>;
/// Opens a ledger. It is handed the payload store, for outcomes that are too large to be kept in memory.
pub type OpenLedger = fn(&Options, Arc<dyn Store>) -> Result<Arc<dyn Ledger>, BuildError>;
/// Opens a payload store.
pub type OpenStore = fn(&Options) -> Result<Arc<dyn Store>, BuildError>;

/// A kind of broker.
#[derive(Clone)]
pub struct BrokerRegistration {
    /// What is known before opening.
    pub info: PluginInfo,
    /// Opens it.
    pub open: OpenBroker,
}

/// A kind of ledger.
#[derive(Clone)]
pub struct LedgerRegistration {
    /// What is known before opening.
    pub info: PluginInfo,
    /// Opens it.
    pub open: OpenLedger,
}

/// A kind of payload store.
#[derive(Clone)]
pub struct StoreRegistration {
    /// What is known before opening.
    pub info: PluginInfo,
    /// Opens it.
    pub open: OpenStore,
}

/// Opens queues of configured brokers, for plugins whose options name one.
pub trait OpenQueue: Send + Sync {
    /// A queue of somebody else's on the broker that is configured as `broker`; see [`Broker::foreign`].
    ///
    /// # Errors
    /// There is no such broker, or its options cannot be used.
    fn queue(&self, broker: &str, name: &str) -> Result<Arc<dyn Queue>, BuildError>;
}
