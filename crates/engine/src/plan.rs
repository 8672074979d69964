//! The plan: which plugins exist, what each needs, and who chooses them. The same for every payload of a run.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use stoq_api::scanner::Build;

use stoq_runtime::config::routes::RouteRule;

/// Everything that a slot is built from, as it goes over its configuration pipe.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    /// Plugins that run in slots, by name; their place in this list is their number in the jail.
    pub plugins: Vec<PlannedPlugin>,
    /// Workers that run outside of slots: known to the rounds, run by the engine.
    pub external: BTreeMap<String, ExternalPlugin>,
    /// Workers that run on every payload.
    pub always: Vec<String>,
    /// Dispatchers, by name; `rules` stands for the route rules.
    pub dispatchers: Vec<String>,
    /// The route rules, by name.
    pub rules: BTreeMap<String, RouteRule>,
    /// Longest chain of required workers.
    pub max_required_depth: u32,
    /// When a plugin should notice that its time is over, in milliseconds; the jail stops it some time later.
    pub plugin_deadline_ms: u64,
}

/// A plugin of the slots with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlannedPlugin {
    /// Its name in the registry.
    pub name: String,
    /// What it is built from.
    pub build: Build,
    /// Workers that the operator puts before it, beside those that it names itself.
    #[serde(default)]
    pub required_workers: BTreeSet<String>,
}

/// What the rounds must know of an external worker.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ExternalPlugin {
    /// Workers that must have run before it.
    pub required_workers: BTreeSet<String>,
}

/// What a slot's workload says of itself once it is built.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PlanReport {
    /// Rule set digests, by plugin.
    pub rulesets: BTreeMap<String, String>,
    /// What was left out while building: (plugin, sentence).
    pub warnings: Vec<(String, String)>,
}
