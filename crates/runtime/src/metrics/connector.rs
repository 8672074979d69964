//! What only connectors have.

use std::time::Duration;

#[cfg(test)]
use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
};

use super::{FAMILIES, counter, gauge, gauge_of_seconds, register};

/// Responses in a batch.
const ITEMS: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 1_000.0, 5_000.0];

pub(super) struct Families {
    batch: HistogramVec,
    oldest: GaugeVec,
    paused: IntGaugeVec,
    behind: IntGaugeVec,
    routed: IntCounterVec,
    spilled: IntCounterVec,
    returned: IntCounterVec,
}

impl Families {
    pub(super) fn new(registry: &Registry) -> Self {
        let name: &[&str] = &["name"];
        Self {
            batch: items(registry, "stoq_connector_batch_items", "responses that a connector was offered at a time"),
            oldest: gauge_of_seconds(
                registry,
                "stoq_connector_oldest_seconds",
                "age of the oldest message that a connector holds undelivered",
                name,
            ),
            paused: gauge(registry, "stoq_connector_paused", "1 while a connector waits for an operator", name),
            behind: gauge(registry, "stoq_connector_behind", "1 while more waits for a connector than it may", name),
            routed: counter(
                registry,
                "stoq_connector_routed_total",
                "responses by what a connector's conditions said",
                &["name", "decision"],
            ),
            spilled: counter(
                registry,
                "stoq_connector_spilled_total",
                "messages that were moved from a connector's lane into the payload store",
                name,
            ),
            returned: counter(registry, "stoq_connector_returned_total", "spilled messages that were delivered", name),
        }
    }

    /// All of them.
    #[cfg(test)]
    pub(super) fn all(&self) -> [&dyn Collector; 7] {
        [&self.batch, &self.oldest, &self.paused, &self.behind, &self.routed, &self.spilled, &self.returned]
    }
}

#[expect(clippy::expect_used, reason = "names are literals of this file, all of them made in one test")]
fn items(registry: &Registry, name: &str, help: &str) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(ITEMS.to_vec());
    let family = HistogramVec::new(options, &["name"]).expect("a valid name");
    register(registry, family.clone());
    family
}

/// The series of one connector, beside those of its [`Component`](super::Component).
#[derive(Clone, Debug)]
pub struct Connector {
    batch: Histogram,
    oldest: Gauge,
    paused: IntGauge,
    behind: IntGauge,
    passed: IntCounter,
    sampled: IntCounter,
    skipped: IntCounter,
    spilled: IntCounter,
    returned: IntCounter,
}

impl Connector {
    /// The series of the connector with this configured name.
    pub fn new(name: &str) -> Self {
        let (f, labels) = (&FAMILIES.connectors, [name]);
        let routed = |decision: &str| f.routed.with_label_values(&[name, decision]);
        Self {
            batch: f.batch.with_label_values(&labels),
            oldest: f.oldest.with_label_values(&labels),
            paused: f.paused.with_label_values(&labels),
            behind: f.behind.with_label_values(&labels),
            passed: routed("passed"),
            sampled: routed("sampled"),
            skipped: routed("skipped"),
            spilled: f.spilled.with_label_values(&labels),
            returned: f.returned.with_label_values(&labels),
        }
    }

    /// The sink is offered a batch.
    pub fn offered(&self, items: usize) {
        self.batch.observe(f64::from(u32::try_from(items).unwrap_or(u32::MAX)));
    }

    /// The age of the oldest message held.
    pub fn oldest(&self, age: Option<Duration>) {
        self.oldest.set(age.unwrap_or_default().as_secs_f64());
    }

    /// It waits for an operator, or does not any more.
    pub fn paused(&self, paused: bool) {
        self.paused.set(i64::from(paused));
    }

    /// More waits for it than may, or does not any more.
    pub fn behind(&self, behind: bool) {
        self.behind.set(i64::from(behind));
    }

    /// What conditions said of responses.
    pub fn routed(&self, passed: u64, sampled: u64, skipped: u64) {
        self.passed.inc_by(passed);
        self.sampled.inc_by(sampled);
        self.skipped.inc_by(skipped);
    }

    /// Messages went to the store.
    pub fn spilled(&self, messages: u64) {
        self.spilled.inc_by(messages);
    }

    /// Messages that had gone to the store were delivered.
    pub fn returned(&self, messages: u64) {
        self.returned.inc_by(messages);
    }
}
