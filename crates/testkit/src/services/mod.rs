//! Real servers for tests: each on free ports of the loopback address, with its own data in a temporary directory.
//!
//! A [`Service`] is a program that is started, waited for by asking it something, killed or stopped, and started again on
//! the same data and ports. It ends with its value, and with the process that holds it even if that one is killed. A test
//! that cannot start its server fails; it is never skipped.

mod port;
mod process;
mod proxy;
mod rabbitmq;
mod service;
mod tls;

pub use port::Port;
pub use process::Process;
pub use proxy::Proxy;
pub use rabbitmq::{RabbitMq, RabbitMqOptions};
pub use service::{Place, Service};
pub use tls::{Authority, Identity};
