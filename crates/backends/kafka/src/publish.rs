//! Publishing: many records in flight, one answer for all of a call.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer as _};
use stoq_api::queue::Message;
use stoq_api::{Fault, FaultKind};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::link::Link;
use crate::record::{Identity, headers};

/// Between two tries while the client's memory is full of what waits to be sent.
const FULL: Duration = Duration::from_millis(5);

/// Counts the answers that one call waits for.
pub(crate) struct Batch {
    left: AtomicUsize,
    failure: Mutex<Option<KafkaError>>,
    done: Notify,
}

impl Batch {
    fn new(count: usize) -> Self {
        Self { left: AtomicUsize::new(count), failure: Mutex::default(), done: Notify::new() }
    }

    /// One record has its answer.
    pub(crate) fn settled(&self, failure: Option<KafkaError>) {
        if let Some(failure) = failure {
            self.failure.lock().get_or_insert(failure);
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_one();
        }
    }
}

/// Writes `messages` to `topic`; returns when all in-sync copies of each are written.
///
/// # Errors
/// As for [`stoq_api::queue::Queue::publish`].
pub(crate) async fn publish(
    link: &Arc<Link>,
    topic: &str,
    identity: &Identity,
    messages: &[Message],
) -> Result<(), Fault> {
    let producer = link.producer()?;
    let batch = Arc::new(Batch::new(messages.len()));
    let end = Instant::now() + link.settings.timeout;
    let failed = |error: KafkaError| {
        if producer.client().fatal_error().is_some() {
            link.discard(&producer);
        }
        explain(link, topic, error)
    };
    for message in messages {
        if message.headers.iter().any(|(name, _)| name.contains('\0')) {
            let text = format!("message {:?} for topic {topic} has a NUL in a header's name", message.id);
            return Err(Fault::new(FaultKind::Refused, text));
        }
        let record = BaseRecord::<(), [u8], _>::with_opaque_to(topic, Arc::clone(&batch));
        let mut record = record.payload(&message.body[..]).headers(headers(message, identity));
        while let Err((error, back)) = producer.send(record) {
            let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
            if !full || Instant::now() >= end {
                return Err(failed(error));
            }
            record = back;
            sleep(FULL).await;
        }
    }
    // Each record has its own time-out, which starts when it was handed over; this one only keeps a bug from waiting for
    // ever.
    if timeout(link.settings.timeout * 3, batch.done.notified()).await.is_err() {
        let text = format!("the broker did not confirm messages for topic {topic} in time");
        return Err(Fault::new(FaultKind::Unavailable, text));
    }
    let failure = batch.failure.lock().take();
    failure.map_or(Ok(()), |error| Err(failed(error)))
}

fn explain(link: &Link, topic: &str, error: KafkaError) -> Fault {
    let hint = match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => {
            ": a message is larger than max_message, or than the topic's max.message.bytes"
        }
        Some(
            RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownPartition,
        ) => ": it is gone, or this user may not see it",
        Some(RDKafkaErrorCode::TopicAuthorizationFailed) => ": this user needs WRITE on it",
        Some(RDKafkaErrorCode::ClusterAuthorizationFailed) => ": this user needs IDEMPOTENT_WRITE on the cluster",
        Some(RDKafkaErrorCode::NotEnoughReplicas | RDKafkaErrorCode::NotEnoughReplicasAfterAppend) => {
            ": too few brokers that keep copies are up"
        }
        _ => "",
    };
    link.health.fault(format!("messages cannot be published to topic {topic}{hint}"), error)
}
