//! Deliveries gathered into a batch.

use std::collections::VecDeque;

use stoq_api::Timestamp;
use stoq_api::plugin::Item;
use stoq_api::queue::{Delivery, Message};
use stoq_api::results::Stored;
use stoq_runtime::trace::{self, Span, TRACEPARENT};
use tokio::time::Instant;

use super::ages::{Age, Ages};
use super::frame::Settings;
use super::lane;

/// Deliveries and the items in them that have no verdict yet.
#[derive(Default)]
pub(super) struct Batch {
    /// Held until each of its items is decided; `None` once settled.
    pub(super) held: Vec<Option<Held>>,
    /// What is undecided.
    pub(super) pending: VecDeque<Pending>,
    bytes: usize,
    since: Option<Instant>,
}

/// A delivery, and since when it waits.
pub(super) struct Held {
    pub(super) delivery: Delivery,
    _age: Age,
}

/// One item without verdict.
pub(super) struct Pending {
    /// Its delivery's place in [`Batch::held`].
    pub(super) delivery: usize,
    /// The item.
    pub(super) item: Item,
    /// Where its response lies, until it was read from there.
    pub(super) stored: Option<Stored>,
    /// The connector's conditions let it pass.
    pub(super) chosen: bool,
    /// Refused for good, and not yet in the dead lane.
    pub(super) rejected: Option<String>,
    /// What is told of it in its scan's trace; ends with it.
    pub(super) span: Option<Span>,
}

impl Batch {
    /// Adds all items of a delivery. A message that cannot be read is one item, refused.
    pub(super) fn add(&mut self, delivery: Delivery, connector: &str, ages: &Ages) {
        let place = self.held.len();
        let stored = Stored::of(&delivery.message);
        let (items, rejected) = match stored.clone().and_then(|_| lane::unpack(&delivery.message)) {
            Ok(items) => (items, None),
            Err(reason) => {
                let item = Item { id: delivery.message.id.clone(), json: delivery.message.body.clone() };
                (vec![item], Some(format!("not a message of the result lane: {reason}")))
            }
        };
        let stored = stored.ok().flatten();
        self.bytes += delivery.message.body.len();
        self.bytes += stored.map_or(0, |stored| usize::try_from(stored.len).unwrap_or(usize::MAX));
        self.since.get_or_insert_with(Instant::now);
        for item in items {
            let span = span(&delivery.message, &item.id, connector);
            let rejected = rejected.clone();
            self.pending.push_back(Pending { delivery: place, item, stored, chosen: false, rejected, span });
        }
        let age = ages.hold(delivery.published.unwrap_or_else(Timestamp::now));
        self.held.push(Some(Held { delivery, _age: age }));
    }

    /// Nothing was added.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// No more fits.
    pub(super) fn is_full(&self, settings: &Settings) -> bool {
        self.pending.len() >= settings.batch_items || self.bytes >= settings.batch_bytes
    }

    /// When it goes out, full or not.
    pub(super) fn due(&self, settings: &Settings) -> Option<Instant> {
        self.since.map(|since| since + settings.linger)
    }
}

/// The span of one response, if its scan is traced. The header of a message of several responses names all that are.
fn span(message: &Message, id: &str, connector: &str) -> Option<Span> {
    let mut contexts = message.header(TRACEPARENT)?.split(',');
    let mut span = Span::of(contexts.find(|context| trace::is_of(context, id)), "deliver response")?;
    span.attribute("stoq.scan_id", id.to_owned());
    span.attribute("stoq.connector", connector.to_owned());
    Some(span)
}
