//! The broker: one project, one set of connections.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use google_cloud_gax::error::rpc::Code;
use stoq_api::queue::{Broker, LaneOptions, Queue};
use stoq_api::{Fault, FaultKind};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clients::{Clients, Lazy};
use crate::config::Config;
use crate::queue::PubSubQueue;
use crate::{fault, names};

/// How long closing waits for verdicts that are on their way. What does not arrive comes again.
const CLOSING: Duration = Duration::from_secs(10);

/// A project's topics and subscriptions.
pub(crate) struct PubSub {
    shared: Arc<Shared>,
}

/// What all queues of a broker share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    clients: Lazy,
    /// Ends all readers.
    pub(crate) stop: CancellationToken,
    /// Readers, until their verdicts are sent.
    pub(crate) readers: TaskTracker,
}

impl Shared {
    pub(crate) async fn clients(&self) -> Result<&Clients, Fault> {
        self.clients.get(&self.config).await
    }

    /// `name` as messages show it: with where it is.
    pub(crate) fn at(&self, name: &str) -> String {
        format!("{name} at {}", self.config.place())
    }
}

impl PubSub {
    pub(crate) fn new(config: Config) -> Self {
        let (stop, readers) = (CancellationToken::new(), TaskTracker::new());
        Self { shared: Arc::new(Shared { config, clients: Lazy::default(), stop, readers }) }
    }
}

#[async_trait]
impl Broker for PubSub {
    fn lane(&self, name: &str, options: LaneOptions) -> Arc<dyn Queue> {
        if let Some(bound) = options.bound {
            tracing::debug!(lane = name, bound, "Pub/Sub does not tell what waits, so this bound cannot be kept");
        }
        let name = format!("{}.{name}", self.shared.config.prefix);
        Arc::new(PubSubQueue::lane(Arc::clone(&self.shared), &name))
    }

    fn foreign(&self, name: &str) -> Arc<dyn Queue> {
        Arc::new(PubSubQueue::foreign(Arc::clone(&self.shared), name))
    }

    /// Asks for a topic that need not exist: whoever answers that it is not there has accepted the credentials.
    async fn check(&self) -> Result<(), Fault> {
        let config = &self.shared.config;
        let name = names::lane_topic(&config.project, "stoq.check")?;
        let Err(error) = self.shared.clients().await?.topics.get_topic().set_topic(name).send().await else {
            return Ok(());
        };
        match fault::code(&error) {
            // Pub/Sub says so, too, of a project that is not there or not ours.
            Some(Code::NotFound) if error.to_string().contains("project not found") => {
                let text = format!("project {}: there is none, or the credentials do not belong to it", config.project);
                Err(Fault::because(FaultKind::Misconfigured, text, error))
            }
            // Reading and writing need no right to look at topics.
            Some(Code::NotFound | Code::PermissionDenied) => Ok(()),
            _ => Err(fault::of(&format!("reach Pub/Sub at {}", config.place()), "roles/pubsub.viewer", error)),
        }
    }

    async fn close(&self) {
        self.shared.stop.cancel();
        self.shared.readers.close();
        if tokio::time::timeout(CLOSING, self.shared.readers.wait()).await.is_err() {
            tracing::warn!("Pub/Sub did not take the last verdicts in time; those messages come again");
        }
    }
}
