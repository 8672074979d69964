//! The configuration: defaults, files, environment and flags, one over the other, with the place of every value.
//!
//! Each source becomes a tree of values with places (`tree`) and is checked on its own against the keys that exist
//! (`schema`, `check`) *before* the layers are merged: after merging nobody knows any more which line said what. All
//! mistakes of all sources come back at once. Merging itself is the `config` crate's.
//!
//! Which options a plugin, provider, connector or archiver has is not known here: the caller hands in a list of
//! [`PluginInfo`](stoq_api::scanner::PluginInfo), so a new kind needs no change in this crate.

mod build;
mod check;
mod coerce;
mod env;
pub mod flags;
mod ini;
mod load;
mod reference;
mod registry;
pub mod responses;
pub mod routes;
mod schema;
mod settings;
mod show;
mod stoq_cfg;
mod tenants;
mod toml;
mod tree;

pub use build::build;
pub use load::{Loaded, Sources, load};
pub use reference::reference;
pub use schema::DEFAULT_TENANT;
pub use settings::*;
pub use show::effective;
pub use tree::Origins;

#[cfg(test)]
mod tests;
