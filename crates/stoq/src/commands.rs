//! The commands, one file each.

mod archived;
pub(crate) mod cancel;
pub(crate) mod check;
pub(crate) mod config;
pub(crate) mod connector;
pub(crate) mod dead;
pub(crate) mod gc;
pub(crate) mod list;
pub(crate) mod pause;
pub(crate) mod run;
pub(crate) mod scan;
pub(crate) mod setup;
mod show;
pub(crate) mod status;
