//! Configuration, units, secrets, logs, shutdown and metrics shared by all roles.
#![forbid(unsafe_code)]

pub mod files;
