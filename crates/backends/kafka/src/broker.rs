//! A configured Kafka.

use std::sync::Arc;

use async_trait::async_trait;
use rdkafka::producer::Producer as _;
use stoq_api::Fault;
use stoq_api::backend::Options;
use stoq_api::queue::{Broker, LaneOptions, Queue};
use stoq_api::scanner::BuildError;

use crate::link::Link;
use crate::options::Settings;
use crate::queue::KafkaQueue;

/// Opens a broker; connects to nothing.
///
/// # Errors
/// An option's value cannot be used.
pub(crate) fn open(options: &Options) -> Result<Arc<dyn Broker>, BuildError> {
    let link = Arc::new(Link::new(Settings::new(options)?));
    Ok(Arc::new(Kafka { link }))
}

struct Kafka {
    link: Arc<Link>,
}

#[async_trait]
impl Broker for Kafka {
    fn lane(&self, name: &str, options: LaneOptions) -> Arc<dyn Queue> {
        Arc::new(KafkaQueue::lane(Arc::clone(&self.link), name, options))
    }

    fn foreign(&self, name: &str) -> Arc<dyn Queue> {
        Arc::new(KafkaQueue::foreign(Arc::clone(&self.link), name))
    }

    async fn check(&self) -> Result<(), Fault> {
        let ask = |link: &Link| {
            let servers = &link.settings.servers;
            let failed = |error| link.health.fault(format!("kafka at {servers} cannot be used"), error);
            let producer = link.producer()?;
            // The list of brokers; asking for one topic that nobody has would be no smaller.
            producer.client().fetch_metadata(None, link.settings.timeout).map_err(failed)?;
            link.health.answered();
            Ok(())
        };
        self.link.ask(ask).await
    }

    async fn close(&self) {
        self.link.close(self.link.settings.timeout).await;
    }
}
