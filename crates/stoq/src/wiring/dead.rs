//! Connectors' way to the dead lane.

use std::sync::Arc;

use async_trait::async_trait;
use stoq_api::Fault;
use stoq_api::plugin::Item;
use stoq_api::queue::Message;
use stoq_connectors::common::DeadLetters;
use stoq_engine::Links;
use stoq_engine::dead::{DeadKind, bury, bury_response};

/// The dead lane of a run.
pub(crate) struct DeadLane(pub(crate) Arc<Links>);

#[async_trait]
impl DeadLetters for DeadLane {
    async fn bury(&self, connector: &str, item: &Item, reason: &str) -> Result<(), Fault> {
        let links = &self.0;
        let is_large = !links.settings.coupled && item.json.len() as u64 > links.settings.inline_limit;
        if is_large {
            return bury_response(links, connector, reason, item).await;
        }
        let original = Message::new(item.id.clone(), item.json.clone());
        bury(&links.lanes, DeadKind::Result, connector, reason, &original).await
    }
}
