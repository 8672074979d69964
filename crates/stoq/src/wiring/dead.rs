//! Connectors' way to the dead lane.

use async_trait::async_trait;
use stoq_api::Fault;
use stoq_api::plugin::Item;
use stoq_api::queue::Message;
use stoq_connectors::common::DeadLetters;
use stoq_engine::Lanes;
use stoq_engine::dead::{DeadKind, bury};

/// The dead lane of a run.
pub(crate) struct DeadLane(pub(crate) Lanes);

#[async_trait]
impl DeadLetters for DeadLane {
    async fn bury(&self, connector: &str, item: &Item, reason: &str) -> Result<(), Fault> {
        bury(&self.0, DeadKind::Result, connector, reason, &Message::new(item.id.clone(), item.json.clone())).await
    }
}
