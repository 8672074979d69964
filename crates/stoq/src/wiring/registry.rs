//! Everything that can be named in a configuration.

use stoq_api::backend::{BrokerRegistration, LedgerRegistration, StoreRegistration};
use stoq_api::scanner::{PluginInfo, PluginKind};
use stoq_connectors::common::options::OPTIONS;

/// Dispatchers that live in the engine.
const RULES: PluginInfo = PluginInfo {
    name: stoq_engine::rules::NAME,
    description: "Chooses workers by routes.rules: media type, name, size, source, results of workers",
    kinds: &[PluginKind::Dispatcher],
    options: &[],
    required_workers: &[],
};

/// All built-in plugins of all kinds. One name may stand for several roles, in several entries.
pub(crate) fn all() -> Vec<PluginInfo> {
    let mut all = vec![RULES];
    all.extend(stoq_scanners::registry().into_iter().map(|r| r.info));
    all.extend(stoq_providers::registry().into_iter().map(|r| r.info));
    all.extend(connectors());
    all.extend(stoq_connectors::decorators().into_iter().map(|r| r.info));
    all.extend(stoq_stores::archivers::registry().into_iter().map(|r| r.info));
    all.extend(brokers().into_iter().map(|r| r.info));
    all.extend(ledgers().into_iter().map(|r| r.info));
    all.extend(stores().into_iter().map(|r| r.info));
    all
}

/// Kinds of connectors, and the options that all of them have: what a kind states itself comes first and so counts.
fn connectors() -> impl Iterator<Item = PluginInfo> {
    stoq_connectors::registry().into_iter().flat_map(|r| {
        let common = PluginInfo { options: OPTIONS, kinds: &[PluginKind::Connector], ..r.info.clone() };
        [r.info, common]
    })
}

/// Kinds of brokers in this build.
pub(crate) fn brokers() -> Vec<BrokerRegistration> {
    vec![
        #[cfg(feature = "kafka")]
        stoq_kafka::registration(),
        #[cfg(feature = "pubsub")]
        stoq_pubsub::registration(),
        #[cfg(feature = "rabbitmq")]
        stoq_rabbitmq::registration(),
    ]
}

/// Kinds of ledgers in this build.
pub(crate) fn ledgers() -> Vec<LedgerRegistration> {
    vec![
        #[cfg(feature = "redis")]
        stoq_redis::registration(),
    ]
}

/// Kinds of payload stores in this build.
pub(crate) fn stores() -> Vec<StoreRegistration> {
    stoq_stores::registry()
}
