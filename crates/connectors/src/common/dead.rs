//! The way to the dead lane, as connectors see it.

use async_trait::async_trait;
use stoq_api::Fault;
use stoq_api::plugin::Item;

/// Takes what a sink refused for good.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Keeps `item`, which `connector` cannot deliver because of `reason`. When this returns, it is durable, and its
    /// delivery may be acknowledged. Burying an item twice is harmless.
    ///
    /// # Errors
    /// The dead lane is away; the frame holds the delivery and tries again.
    async fn bury(&self, connector: &str, item: &Item, reason: &str) -> Result<(), Fault>;
}
