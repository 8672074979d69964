//! The clients of one configured broker, made when they are first needed.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, TopicPartitionList};
use stoq_api::{Fault, FaultKind};

use crate::fault::Health;
use crate::group::Group;
use crate::options::Settings;
use crate::publish::Batch;

/// What the metadata of a committed offset begins with; the lease follows.
const LEASE: &str = "stoq:1:";
/// Events of an idle client that are thrown away in a row.
const STALE_EVENTS: usize = 64;

/// Between two questions to a coordinator or leader that does not know yet that it is one.
const COORDINATOR: Duration = Duration::from_millis(50);

/// A client that publishes and asks about topics.
pub(crate) type Producer = ThreadedProducer<Quiet>;
/// A client that asks about a group and never joins it.
pub(crate) type Probe = Mutex<BaseConsumer<Quiet>>;

/// The consumers of this process, by topic and group. One that is about to end may stand beside its successor.
type Groups = HashMap<(String, String), Vec<Weak<Group>>>;

/// Everything that lanes and intakes of one broker share.
pub(crate) struct Link {
    pub(crate) settings: Settings,
    pub(crate) health: Arc<Health>,
    producer: Mutex<Option<Arc<Producer>>>,
    probes: Mutex<HashMap<String, Arc<Probe>>>,
    groups: Mutex<Groups>,
}

impl Link {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            health: Arc::default(),
            producer: Mutex::default(),
            probes: Mutex::default(),
            groups: Mutex::default(),
        }
    }

    /// The callbacks of a client.
    pub(crate) fn quiet(&self) -> Quiet {
        Quiet { health: Arc::clone(&self.health) }
    }

    /// The producer.
    ///
    /// # Errors
    /// [`FaultKind::Misconfigured`]: it cannot be made from this configuration.
    pub(crate) fn producer(&self) -> Result<Arc<Producer>, Fault> {
        let mut producer = self.producer.lock();
        if let Some(producer) = &*producer {
            return Ok(Arc::clone(producer));
        }
        let config = self.settings.producer().map_err(misconfigured)?;
        let made: Producer = config.create_with_context(self.quiet()).map_err(|e| misconfigured(e.to_string()))?;
        Ok(Arc::clone(producer.insert(Arc::new(made))))
    }

    /// Throws a producer away that has failed for good, as an idempotent one does when the brokers lost count.
    pub(crate) fn discard(&self, broken: &Arc<Producer>) {
        let mut producer = self.producer.lock();
        if producer.as_ref().is_some_and(|p| Arc::ptr_eq(p, broken)) {
            *producer = None;
        }
    }

    /// A client that asks about `group`.
    ///
    /// # Errors
    /// As for [`Link::producer`].
    pub(crate) fn probe(&self, group: &str) -> Result<Arc<Probe>, Fault> {
        let mut probes = self.probes.lock();
        if let Some(probe) = probes.get(group) {
            return Ok(Arc::clone(probe));
        }
        let mut config = self.settings.consumer(group).map_err(misconfigured)?;
        // Nobody serves its log between two questions.
        config.set("log_level", "0").set("max.partition.fetch.bytes", "65536");
        let made: BaseConsumer<Quiet> =
            config.create_with_context(self.quiet()).map_err(|e| misconfigured(e.to_string()))?;
        let probe = Arc::new(Mutex::new(made));
        probes.insert(group.to_owned(), Arc::clone(&probe));
        Ok(probe)
    }

    /// The consumers of this process, by topic and group.
    pub(crate) fn groups(&self) -> MutexGuard<'_, Groups> {
        let mut groups = self.groups.lock();
        groups.retain(|_, all| {
            all.retain(|group| group.strong_count() > 0);
            !all.is_empty()
        });
        groups
    }

    /// Runs what waits for brokers, on a thread where that disturbs nobody.
    ///
    /// # Errors
    /// Those of `ask`; [`FaultKind::Unavailable`] if the process ends.
    pub(crate) async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        ask: impl FnOnce(&Self) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let link = Arc::clone(self);
        match tokio::task::spawn_blocking(move || ask(&link)).await {
            Ok(answer) => answer,
            Err(error) => Err(Fault::because(FaultKind::Unavailable, "a question to kafka was cut off", error)),
        }
    }

    /// Gives back what subscribers hold, sends what waits to be sent, and ends all clients.
    pub(crate) async fn close(self: &Arc<Self>, limit: Duration) {
        let groups: Vec<Arc<Group>> = self.groups().values().flatten().filter_map(Weak::upgrade).collect();
        for group in &groups {
            group.stop();
        }
        let left = futures::future::join_all(groups.iter().map(|group| group.ended()));
        if tokio::time::timeout(limit, left).await.is_err() {
            tracing::warn!("kafka did not answer; messages that were finished last may come again");
        }
        let producer = self.producer.lock().take();
        let probes = std::mem::take(&mut *self.probes.lock());
        let closed = tokio::task::spawn_blocking(move || {
            if let Some(producer) = producer
                && let Err(error) = producer.flush(limit)
            {
                tracing::debug!(%error, "not everything was sent");
            }
            drop(probes);
        });
        // Only the end of the runtime keeps it from being run to the end.
        closed.await.ok();
    }
}

fn misconfigured(why: String) -> Fault {
    Fault::new(FaultKind::Misconfigured, format!("a kafka client cannot be made: {why}"))
}

/// Asks a group's coordinator or a partition's leader, again while it is only just getting to know that it is one.
///
/// # Errors
/// Those of `ask`; what passes by itself only after `limit`.
pub(crate) fn patiently<T>(limit: Duration, mut ask: impl FnMut() -> KafkaResult<T>) -> KafkaResult<T> {
    let end = Instant::now() + limit;
    loop {
        let answer = ask();
        let code = answer.as_ref().err().and_then(KafkaError::rdkafka_error_code);
        let passes = matches!(
            code,
            Some(
                RDKafkaErrorCode::NotCoordinator
                    | RDKafkaErrorCode::CoordinatorNotAvailable
                    | RDKafkaErrorCode::CoordinatorLoadInProgress
                    | RDKafkaErrorCode::WaitingForCoordinator
                    | RDKafkaErrorCode::NotLeaderForPartition
                    | RDKafkaErrorCode::LeaderNotAvailable
            )
        );
        if !passes || Instant::now() >= end {
            return answer;
        }
        std::thread::sleep(COORDINATOR);
    }
}

/// Serves the events that came while nobody asked this client anything, so that they do not pile up.
pub(crate) fn drain(client: &BaseConsumer<Quiet>) {
    for _ in 0..STALE_EVENTS {
        if client.poll(Duration::ZERO).is_none() {
            return;
        }
    }
}

/// Callbacks that note what is worth it, and show little.
pub(crate) struct Quiet {
    health: Arc<Health>,
}

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(code) = error.rdkafka_error_code() {
            self.health.note(code, reason);
        }
    }
}

impl ConsumerContext for Quiet {}

impl ProducerContext for Quiet {
    type DeliveryOpaque = Arc<Batch>;

    fn delivery(&self, result: &DeliveryResult<'_>, batch: Arc<Batch>) {
        if result.is_ok() {
            self.health.answered();
        }
        batch.settled(result.as_ref().err().map(|(error, _)| error.clone()));
    }
}

/// A line of the client's log. While brokers are away it writes several a second, which say nothing that the faults do
/// not say; so they are for those who look for them.
pub(crate) fn log_line(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(facility, message, "librdkafka");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => {
            tracing::debug!(facility, message, "librdkafka");
        }
        RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => tracing::trace!(facility, message, "librdkafka"),
    }
}

/// Adds an offset to be committed, with the lease that goes with it.
pub(crate) fn marked(list: &mut TopicPartitionList, topic: &str, partition: i32, offset: i64, lease: Option<i64>) {
    let mut element = list.add_partition(topic, partition);
    if element.set_offset(Offset::Offset(offset)).is_err() {
        // Only for offsets below zero, which no record has.
        tracing::error!(partition, offset, "an impossible offset is not committed");
        return;
    }
    if let Some(lease) = lease {
        element.set_metadata(format!("{LEASE}{lease}"));
    }
}

/// The committed offset and the lease of an answer.
pub(crate) fn mark_of(element: &TopicPartitionListElem<'_>) -> (Option<i64>, Option<i64>) {
    let Offset::Offset(offset) = element.offset() else { return (None, None) };
    let lease = element.metadata().strip_prefix(LEASE).and_then(|lease| lease.parse().ok());
    (Some(offset), lease.filter(|lease| *lease >= offset))
}
