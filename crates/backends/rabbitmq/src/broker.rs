//! The broker as a whole: two connections, and the queues that use them.

use std::sync::Arc;

use async_trait::async_trait;
use stoq_api::backend::Options;
use stoq_api::queue::{Broker, LaneOptions, Queue};
use stoq_api::scanner::BuildError;
use stoq_api::{Fault, FaultKind};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Settings;
use crate::consume::FAREWELL;
use crate::link::Link;
use crate::queue::{Kind, RabbitQueue};

/// RabbitMQ, or a cluster of it. Opening it does no input or output.
pub struct RabbitMq {
    shared: Arc<Shared>,
}

/// What all queues of a broker use.
pub(crate) struct Shared {
    pub(crate) settings: Arc<Settings>,
    pub(crate) publish: Link,
    pub(crate) consume: Link,
    /// Ends subscribers, who still tell the broker their last verdicts then.
    pub(crate) closed: CancellationToken,
    /// What has to be done before the connections may be closed.
    pub(crate) tasks: TaskTracker,
}

impl RabbitMq {
    /// Reads the options.
    ///
    /// # Errors
    /// One of them is unknown or cannot be used; the text names it.
    pub fn open(options: &Options) -> Result<Self, BuildError> {
        let settings = Arc::new(Settings::read(options)?);
        let shared = Shared {
            publish: Link::new(Arc::clone(&settings), "publish"),
            consume: Link::new(Arc::clone(&settings), "consume"),
            settings,
            closed: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    fn queue(&self, name: &str, kind: Kind) -> Arc<dyn Queue> {
        Arc::new(RabbitQueue::new(Arc::clone(&self.shared), name, kind))
    }
}

#[async_trait]
impl Broker for RabbitMq {
    fn lane(&self, name: &str, options: LaneOptions) -> Arc<dyn Queue> {
        self.queue(name, Kind::Lane(options))
    }

    fn foreign(&self, name: &str) -> Arc<dyn Queue> {
        self.queue(name, Kind::Foreign)
    }

    async fn check(&self) -> Result<(), Fault> {
        let publish = self.shared.publish.live().await?;
        self.shared.consume.live().await?;
        if publish.is_blocked() {
            return Err(blocked());
        }
        Ok(())
    }

    async fn close(&self) {
        self.shared.closed.cancel();
        self.shared.tasks.close();
        let _all_ended = timeout(FAREWELL, self.shared.tasks.wait()).await;
        self.shared.consume.close().await;
        self.shared.publish.close().await;
    }
}

/// The broker takes nothing at the moment.
pub(crate) fn blocked() -> Fault {
    let text = "rabbitmq takes no messages at the moment: its memory or disk alarm is on";
    Fault::new(FaultKind::Unavailable, text)
}
