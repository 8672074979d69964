//! Lanes and intakes on Apache Kafka.
//!
//! A lane is the topic `<prefix>.<lane>`, a subscription of it the consumer group `<prefix>.<lane>.<subscription>`. Kafka
//! knows neither single acknowledgements nor giving back: a group has one committed offset a partition. What makes that
//! the queue of the api crate is in [`group`]: verdicts come in any order, and only the offset below which all have come
//! is committed; what is given back is delivered again from this process's memory.
#![forbid(unsafe_code)]

mod broker;
mod fault;
mod group;
mod link;
mod names;
mod options;
mod publish;
mod queue;
mod record;
mod topic;

use stoq_api::backend::BrokerRegistration;

/// Kafka as a kind of broker.
pub fn registration() -> BrokerRegistration {
    BrokerRegistration { info: options::INFO, open: broker::open }
}
