//! What every role of stoq stands on: configuration with places, units, secrets, logs, shutdown and metrics.
//!
//! Nothing here knows a queue, a plugin or a sink. Whatever has options is described by a list of
//! [`PluginInfo`](stoq_api::scanner::PluginInfo) that the binary hands in, so that a new kind needs no change here.
#![forbid(unsafe_code)]

pub mod backoff;
pub mod config;
pub mod escape;
pub mod fail;
pub mod files;
#[doc(hidden)]
pub mod fuzzing;
pub mod health;
pub mod hold;
pub mod logs;
pub mod matcher;
pub mod metrics;
pub mod secret;
pub mod shares;
pub mod shutdown;
pub mod trace;
pub mod units;
