//! Connectors' way to the dead lane.

use std::sync::Arc;

use async_trait::async_trait;
use stoq_api::plugin::Item;
use stoq_api::queue::Message;
use stoq_api::results::Stored;
use stoq_api::{Fault, Timestamp};
use stoq_connectors::common::DeadLetters;
use stoq_engine::Links;
use stoq_engine::dead::{DeadKind, bury};

/// The dead lane of a run.
pub(crate) struct DeadLane(pub(crate) Arc<Links>);

#[async_trait]
impl DeadLetters for DeadLane {
    async fn bury(&self, connector: &str, item: &Item, reason: &str) -> Result<(), Fault> {
        let links = &self.0;
        let is_large = !links.settings.coupled && item.json.len() as u64 > links.settings.inline_limit;
        let original = if is_large {
            let (stored, content) = Stored::place(&item.json, Timestamp::now());
            links.store.put(&stored.key, &content).await?;
            stored.message(&item.id)
        } else {
            Message::new(item.id.clone(), item.json.clone())
        };
        bury(&links.lanes, DeadKind::Result, connector, reason, &original).await
    }
}
