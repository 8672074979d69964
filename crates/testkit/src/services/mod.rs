//! Real servers for tests: each on free ports of the loopback address, with its own data in a temporary directory.
//!
//! A [`Service`] is a program that is started, waited for by asking it something, killed or stopped, and started again on
//! the same data and ports. It ends with its value, and with the process that holds it even if that one is killed. A test
//! that cannot start its server fails; it is never skipped.

#[cfg(feature = "buckets")]
mod azurite;
mod cached;
pub mod cores;
#[cfg(feature = "buckets")]
mod gcs;
#[cfg(feature = "hec")]
pub mod hec;
mod http;
mod kafka;
mod past;
mod peer;
mod port;
mod process;
mod proxy;
mod pubsub;
mod rabbitmq;
mod redis;
mod search;
mod service;
mod tls;
#[cfg(feature = "buckets")]
mod versitygw;

#[cfg(feature = "buckets")]
pub use azurite::Azurite;
pub use cached::cached;
#[cfg(feature = "buckets")]
pub use gcs::GcsServer;
pub use kafka::{Kafka, KafkaOptions};
pub use past::Moment;
pub use peer::{Ends, client_of};
pub use port::Port;
pub use process::Process;
pub use proxy::Proxy;
pub use pubsub::PubSub;
pub use rabbitmq::{RabbitMq, RabbitMqOptions};
pub use redis::{Redis, RedisCluster, RedisOptions};
pub use search::{Search, SearchOptions};
pub use service::{Place, Service};
pub use tls::{Authority, Identity};
#[cfg(feature = "buckets")]
pub use versitygw::VersityGw;
