//! Queues on RabbitMQ.
//!
//! A lane is a fanout exchange with one durable queue for each subscription, a quorum queue unless the configuration asks
//! for a classic one. Publishing is confirmed by the broker, persistent and mandatory; consuming acknowledges by hand. Both have
//! a connection of their own, since a broker that is short of memory or disk stops reading from connections that publish.
//!
//! Connections are made when they are needed and made again after they were lost, by this crate and not by the client
//! library: its own recovery leaves confirms pending for as long as the broker is away, and tells nobody that the
//! deliveries at hand were given back.
#![forbid(unsafe_code)]

mod broker;
mod config;
mod consume;
mod fault;
mod link;
mod message;
mod publish;
mod queue;
mod settle;
mod tags;
mod topology;

use std::sync::Arc;

use stoq_api::backend::{BrokerRegistration, Options};
use stoq_api::queue::Broker;
use stoq_api::scanner::BuildError;

pub use broker::RabbitMq;

/// RabbitMQ as a kind of broker.
pub fn registration() -> BrokerRegistration {
    BrokerRegistration { info: config::info(), open }
}

fn open(options: &Options) -> Result<Arc<dyn Broker>, BuildError> {
    Ok(Arc::new(RabbitMq::open(options)?))
}
