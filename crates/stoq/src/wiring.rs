//! From configuration to parts that run: the only place that knows every kind of plugin and backend.

pub(crate) mod app;
pub(crate) mod backends;
pub(crate) mod base;
pub(crate) mod config;
pub(crate) mod dead;
pub(crate) mod gate;
pub(crate) mod holds;
pub(crate) mod open;
pub(crate) mod plan;
pub(crate) mod registry;
pub(crate) mod spool;
