//! Counters of a worker, looked up by name once and kept: a payload meets many of them.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::RwLock;
use stoq_api::Run;
use stoq_runtime::metrics::{Component, InHand, Role, Source};

/// Sources whose names tasks may bring in. Names come from configurations of the fleet, and tasks are trusted; a bound
/// all the same, beyond which sources share one name.
const MAX_SOURCES: usize = 1_000;
/// The name that sources beyond [`MAX_SOURCES`] share.
const OTHERS: &str = "(others)";

/// The longest run that is believed.
const LONGEST: Duration = Duration::from_secs(3_600);

/// What a worker counts.
#[derive(Debug, Default)]
pub struct Meters {
    components: RwLock<BTreeMap<Role, BTreeMap<String, Component>>>,
    sources: RwLock<BTreeMap<String, Source>>,
}

impl Meters {
    /// A component begins with one item. Names are configured ones.
    pub fn begin(&self, role: Role, name: &str) -> InHand {
        self.with(role, name, |component| component.begin(1))
    }

    /// Plugins ran on a payload. Names are those of configured plugins: whatever else a slot claims was left out before.
    pub fn ran(&self, runs: &[Run]) {
        for run in runs {
            // A slot may claim any time; one lie must not spoil the sum for good.
            let took = Duration::from_micros(run.micros).min(LONGEST);
            self.with(Role::Plugin, &run.plugin, |component| component.ran(run.status, took));
        }
    }

    /// Shows a source before its first response: of a counter that begins at one, nobody sees the first step.
    pub fn expect(&self, source: &str) {
        self.of_source(source, |_| ());
    }

    /// A response was published.
    pub fn answered(&self, source: &str, complete: bool) {
        self.of_source(source, |counters| counters.answered(complete));
    }

    fn of_source(&self, source: &str, count: impl FnOnce(&Source)) {
        if let Some(known) = self.sources.read().get(source) {
            return count(known);
        }
        let mut sources = self.sources.write();
        let name = if sources.len() < MAX_SOURCES { source } else { OTHERS };
        count(sources.entry(name.to_owned()).or_insert_with(|| Source::new(name)));
    }

    fn with<T>(&self, role: Role, name: &str, count: impl FnOnce(&Component) -> T) -> T {
        if let Some(known) = self.components.read().get(&role).and_then(|all| all.get(name)) {
            return count(known);
        }
        let mut components = self.components.write();
        let all = components.entry(role).or_default();
        count(all.entry(name.to_owned()).or_insert_with(|| Component::new(role, name)))
    }
}
