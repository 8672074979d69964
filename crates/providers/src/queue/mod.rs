//! `queue`: references from a queue of other people's producers, on whichever broker.
//!
//! A message is decoded in the one format of the intake, what it names is checked against the intake's rules, and it is
//! acknowledged once its task, or its dead letter, is safe. Messages that need no input or output pass straight through;
//! others are resolved beside each other, so that a slow file or host holds up only itself. At most `prefetch` messages are
//! held, which is what bounds everything here.

mod config;
mod held;
mod resolve;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value};
use stoq_api::fetch::Fetcher;
use stoq_api::plugin::{Provider, Taking};
use stoq_api::queue::{Deliveries, Delivery, Prefetch, Queue};
use stoq_api::scanner::{BuildError, PluginInfo, PluginKind};
use stoq_api::{Fault, fault};
use tokio::task::JoinSet;

use self::config::{Config, OPTIONS};
use self::held::Keeper;
use self::resolve::{Resolver, Step};
use crate::fetch::Fetch;
use crate::{Context, ProviderRegistration, config_of};

/// How queues that know several readers call us. Brokers read somebody else's queue under a name of their own making.
const SUBSCRIPTION: &str = "stoq";

/// The provider's entry in the registry.
pub(crate) fn registration() -> ProviderRegistration {
    ProviderRegistration {
        info: PluginInfo {
            name: "queue",
            description: "Takes references, or payloads, from a queue of somebody else's",
            kinds: &[PluginKind::Provider],
            options: &OPTIONS,
            required_workers: &[],
        },
        build,
        fetcher: Some(fetcher),
    }
}

fn build(options: &Map<String, Value>, context: &Context) -> Result<Box<dyn Provider>, BuildError> {
    let config = config_of::<Config>(options)?.validate()?;
    let queue = context.open.queue(&config.broker, &config.queue)?;
    Ok(Box::new(Intake::new(config, queue, context)?))
}

/// What fetches for workers, under the rules of the intake.
fn fetcher(options: &Map<String, Value>, context: &Context) -> Result<Arc<dyn Fetcher>, BuildError> {
    let config = config_of::<Config>(options)?.validate()?;
    add_root(&config, context)?;
    Ok(Arc::new(fetch(&config, context)?))
}

/// Makes the intake's root known to those who open files, under the intake's own name.
fn add_root(config: &Config, context: &Context) -> Result<(), BuildError> {
    if config.root.as_os_str().is_empty() {
        return Ok(());
    }
    context.roots.add(&context.name, &config.root).map_err(|e| BuildError(format!("root: {}", fault::chain(&e))))
}

fn fetch(config: &Config, context: &Context) -> Result<Fetch, BuildError> {
    let mut archivers = std::collections::BTreeMap::new();
    for name in &config.allow_archivers {
        let archiver = context.open.archiver(name).map_err(|e| BuildError(format!("allow_archivers: {e}")))?;
        archivers.insert(name.clone(), archiver);
    }
    if !config.allow_buckets.is_empty() && config.store.is_empty() {
        return Err(BuildError("store is not set: name the [stores.NAME] that allow_buckets lie in".to_owned()));
    }
    let reader = match config.store.as_str() {
        "" => None,
        store => Some(context.open.buckets(store).map_err(|e| BuildError(format!("store: {e}")))?),
    };
    #[cfg(not(feature = "http"))]
    if !(config.allow_hosts.is_empty() && config.allow_private.is_empty()) {
        return Err(BuildError("allow_hosts: this build of stoq fetches no URLs".to_owned()));
    }
    Ok(Fetch {
        archivers,
        buckets: config.allow_buckets.iter().cloned().collect(),
        reader,
        #[cfg(feature = "http")]
        web: crate::fetch::Web::new(
            crate::fetch::Hosts::read(&config.allow_hosts, &config.allow_private)?,
            Arc::new(crate::fetch::System),
        )?,
    })
}

/// The provider.
struct Intake {
    queue: Arc<dyn Queue>,
    prefetch: Prefetch,
    deliveries: Option<Box<dyn Deliveries>>,
    ended: bool,
    resolver: Arc<Resolver>,
    working: JoinSet<Option<Taking>>,
    keeper: Keeper,
}

impl Intake {
    fn new(config: Config, queue: Arc<dyn Queue>, context: &Context) -> Result<Self, BuildError> {
        add_root(&config, context)?;
        let fetch = fetch(&config, context)?;
        Ok(Self {
            queue,
            prefetch: Prefetch { messages: config.prefetch()? },
            deliveries: None,
            ended: false,
            resolver: Arc::new(Resolver::new(&config, fetch, context)),
            working: JoinSet::new(),
            keeper: Keeper::default(),
        })
    }

    /// Takes a delivery on; whatever needs time goes on beside.
    fn begin(&mut self, delivery: Delivery) -> Option<Taking> {
        let held = self.keeper.hold(delivery);
        match self.resolver.begin(held) {
            Step::Done(taking) => Some(*taking),
            Step::Going(work) => {
                self.working.spawn(work);
                None
            }
        }
    }
}

#[async_trait]
impl Provider for Intake {
    async fn next(&mut self) -> Result<Option<Taking>, Fault> {
        loop {
            let deliveries = match &mut self.deliveries {
                Some(deliveries) => deliveries,
                none => none.insert(self.queue.subscribe(SUBSCRIPTION, self.prefetch).await?),
            };
            if self.ended && self.working.is_empty() {
                return Ok(None);
            }
            tokio::select! {
                Some(done) = self.working.join_next() => match done {
                    Ok(Some(taking)) => return Ok(Some(taking)),
                    Ok(None) => {}
                    // The delivery was given back when its work went away.
                    Err(error) => tracing::error!(%error, "a reference could not be resolved inside stoq"),
                },
                next = deliveries.next(), if !self.ended => match next? {
                    None => self.ended = true,
                    Some(delivery) => {
                        if let Some(taking) = self.begin(delivery) {
                            return Ok(Some(taking));
                        }
                    }
                },
            }
        }
    }
}
