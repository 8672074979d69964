//! What intakes name in their options, opened for them.

use std::sync::Arc;

use stoq_api::backend::OpenQueue;
use stoq_api::fetch::Buckets;
use stoq_api::plugin::Archiver;
use stoq_api::queue::Queue;
use stoq_api::scanner::{BuildError, PluginKind};
use stoq_providers::Open;
use stoq_runtime::config::Settings;

use super::backends::Brokers;

/// Opens by the names of a configuration.
pub(crate) struct Opener {
    brokers: Arc<Brokers>,
    settings: Settings,
    /// What is opened is written to only.
    sinks: bool,
}

impl Opener {
    /// Opens what `settings` configure, with brokers out of `brokers`.
    pub(crate) fn new(brokers: &Arc<Brokers>, settings: &Settings) -> Self {
        Self { brokers: Arc::clone(brokers), settings: settings.clone(), sinks: false }
    }

    /// The same for connectors and archivers: nobody waits at the start for a broker that only they use.
    pub(crate) fn for_sinks(brokers: &Arc<Brokers>, settings: &Settings) -> Self {
        Self { sinks: true, ..Self::new(brokers, settings) }
    }
}

impl OpenQueue for Opener {
    fn queue(&self, broker: &str, name: &str) -> Result<Arc<dyn Queue>, BuildError> {
        let opened = if self.sinks { self.brokers.open_for_sink(broker) } else { self.brokers.open(broker) };
        let broker = opened.map_err(|e| BuildError(e.to_string()))?;
        Ok(broker.foreign(name))
    }
}

impl Open for Opener {
    fn archiver(&self, name: &str) -> Result<Arc<dyn Archiver>, BuildError> {
        let source = self.settings.archive.sources.iter().any(|source| source == name);
        let component = self.settings.component(PluginKind::Archiver, name).filter(|_| source);
        let component = component.ok_or_else(|| BuildError(format!("{name:?} is not one of archive.sources")))?;
        let registered = stoq_stores::archivers::registry().into_iter().find(|r| r.info.name == component.kind);
        let registered =
            registered.ok_or_else(|| BuildError(format!("this build has no archiver {:?}", component.kind)))?;
        (registered.build)(&component.options.0, self).map_err(|e| BuildError(format!("{name}: {e}")))
    }

    fn buckets(&self, store: &str) -> Result<Arc<dyn Buckets>, BuildError> {
        let component = self.settings.component(PluginKind::Store, store);
        let component = component.ok_or_else(|| BuildError(format!("no store is called {store:?}")))?;
        stoq_stores::buckets(&component.kind, &component.options.0).map_err(|e| BuildError(format!("{store}: {e}")))
    }
}
