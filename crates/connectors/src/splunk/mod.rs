//! `splunk`: documents as events over Splunk's HTTP Event Collector.
//!
//! Splunk answers a request before its events are on a disk. With indexer acknowledgement, which is the default here, a
//! response counts as delivered once an indexer says that it wrote all of its events; without, once Splunk took them.
//! Splunk keeps whatever it is sent, so what is sent again is there again: at least once. Every event carries its
//! document's id as `stoq_id`, by which searches see one of each.
//!
//! [Acknowledgement](https://help.splunk.com/splunk-enterprise/get-data-in/collect-http-event-data/about-http-event-collector-indexer-acknowledgment)
//! numbers requests per *channel*, from 0, and an indexer that was killed has forgotten its channels and begins again. A
//! number is therefore believed only while it is the only one that is open on its channel, and a channel on which
//! anything went wrong is never used again: no number can be taken for that of an earlier life.

mod channel;
mod client;
mod config;
mod deliver;
mod encode;
mod names;
pub(crate) mod reply;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value};
use stoq_api::Fault;
use stoq_api::plugin::{Connector, Item, Verdict};
use stoq_api::scanner::{BuildError, PluginInfo, PluginKind};

use self::client::Collector;
use self::config::{Config, Validated};
use crate::{ConnectorRegistration, Context, config_of};

/// The connector's entry in the registry.
pub(crate) fn registration() -> ConnectorRegistration {
    ConnectorRegistration {
        info: PluginInfo {
            name: "splunk",
            description: "Sends documents to Splunk's HTTP Event Collector",
            kinds: &[PluginKind::Connector],
            options: &config::OPTIONS,
            required_workers: &[],
        },
        build,
    }
}

fn build(options: &Map<String, Value>, _: &Context) -> Result<Arc<dyn Connector>, BuildError> {
    let config = Arc::new(config_of::<Config>(options)?.validate()?);
    let collector = Collector::new(&config)?;
    Ok(Arc::new(Splunk { config, collector }))
}

/// One set of collectors and how to speak to it.
struct Splunk {
    config: Arc<Validated>,
    collector: Collector,
}

#[async_trait]
impl Connector for Splunk {
    async fn deliver(&self, batch: &[Item]) -> Result<Vec<Verdict>, Fault> {
        deliver::batch(&self.config, &self.collector, batch).await
    }

    async fn check(&self) -> Result<(), Fault> {
        self.collector.check().await
    }
}
