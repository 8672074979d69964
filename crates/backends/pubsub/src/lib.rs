//! Lanes and intakes on Google Cloud Pub/Sub.
//!
//! A lane is a topic and each of its subscriptions a subscription of that topic; an intake is somebody else's
//! subscription. Pub/Sub delivers at least once, says nothing of how often it delivered something before, and nothing of
//! how much waits; what follows from that stands in docs/queues.md and at [`queue`] and [`deliveries`].
#![forbid(unsafe_code)]

mod broker;
mod clients;
mod config;
mod deliveries;
mod fault;
mod names;
mod queue;
mod settings;
mod wire;

use std::sync::Arc;

use stoq_api::backend::{BrokerRegistration, Options};
use stoq_api::queue::Broker;
use stoq_api::scanner::{BuildError, PluginInfo, PluginKind};

use crate::broker::PubSub;
use crate::config::{Config, OPTIONS};

/// The entry in the list of brokers.
pub fn registration() -> BrokerRegistration {
    BrokerRegistration {
        info: PluginInfo {
            name: "pubsub",
            description: "Google Cloud Pub/Sub: topics and subscriptions",
            kinds: &[PluginKind::Queue],
            options: OPTIONS,
            required_workers: &[],
        },
        open,
    }
}

fn open(options: &Options) -> Result<Arc<dyn Broker>, BuildError> {
    Ok(Arc::new(PubSub::new(Config::read(options)?)))
}
