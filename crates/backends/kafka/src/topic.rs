//! Topics and groups as the broker has them: asking, making, comparing. Everything here waits for the broker.

use std::collections::BTreeMap;
use std::time::Instant;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::Producer as _;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use stoq_api::queue::{Part, PartState};
use stoq_api::{Fault, FaultKind, Timestamp};
use tokio::runtime::Handle;

use crate::link::{Link, Quiet, drain, mark_of, marked, patiently};
use crate::names;
use crate::options::LaneSettings;
use crate::record::published;

/// Between two looks at a topic that was just made.
const LOOK: std::time::Duration = std::time::Duration::from_millis(20);
/// How long the first records of partitions are waited for, to learn how old they are.
const PEEK: std::time::Duration = std::time::Duration::from_secs(2);

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topic {
    /// Partitions in order.
    pub(crate) partitions: Vec<i32>,
    /// Copies of the partition that has the fewest.
    replicas: usize,
    /// Every partition can be written.
    led: bool,
}

/// Offsets of a topic's partitions.
pub(crate) type Offsets = BTreeMap<i32, i64>;

/// What the broker knows of a topic; `None` if it does not exist, or this user may not see it.
///
/// # Errors
/// The broker is away.
pub(crate) fn find(link: &Link, topic: &str) -> Result<Option<Topic>, Fault> {
    let producer = link.producer()?;
    let failed = |error| link.health.fault(format!("topic {topic} cannot be looked up"), error);
    let metadata = producer.client().fetch_metadata(Some(topic), link.settings.timeout).map_err(failed)?;
    link.health.answered();
    let Some(found) = metadata.topics().iter().find(|t| t.name() == topic) else { return Ok(None) };
    match found.error() {
        None => Ok(Some(read(found))),
        Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => Ok(None),
        Some(error) => Err(failed(KafkaError::MetadataFetch(error.into()))),
    }
}

fn read(topic: &MetadataTopic) -> Topic {
    let partitions = topic.partitions();
    let mut ids: Vec<i32> = partitions.iter().map(|p| p.id()).collect();
    ids.sort_unstable();
    Topic {
        replicas: partitions.iter().map(|p| p.replicas().len()).min().unwrap_or_default(),
        led: !ids.is_empty() && partitions.iter().all(|p| p.leader() >= 0),
        partitions: ids,
    }
}

/// As [`find`], for what cannot go on without it.
///
/// # Errors
/// As for [`find`]; [`FaultKind::Misconfigured`] if it does not exist.
pub(crate) fn must_find(link: &Link, topic: &str) -> Result<Topic, Fault> {
    find(link, topic)?.ok_or_else(|| {
        let text = format!("topic {topic} does not exist, or this user may not see it: make it, or grant DESCRIBE");
        Fault::new(FaultKind::Misconfigured, text)
    })
}

/// Makes a lane's topic if it is not there, and the groups that have no offset in it: they get what is published from now
/// on.
///
/// # Errors
/// As for [`stoq_api::queue::Queue::declare`].
pub(crate) fn declare(link: &Link, topic: &str, groups: &[String]) -> Result<(), Fault> {
    if topic.len() > names::LONGEST {
        let text = format!("topic {topic} has a name of more than {} letters: shorten prefix or lane", names::LONGEST);
        return Err(Fault::new(FaultKind::Misconfigured, text));
    }
    let found = match find(link, topic)? {
        Some(found) => found,
        None => create(link, topic)?,
    };
    if let PartState::Different(how) = compare(link, topic, &found)? {
        return Err(Fault::new(FaultKind::Misconfigured, format!("topic {topic} has other settings: {how}")));
    }
    for group in groups {
        begin(link, topic, &found, group)?;
    }
    Ok(())
}

/// What [`declare`] would make.
///
/// # Errors
/// The broker is away.
pub(crate) fn inspect(link: &Link, topic: &str, groups: &[String]) -> Result<Vec<Part>, Fault> {
    let found = find(link, topic)?;
    let state = match &found {
        Some(found) => compare(link, topic, found)?,
        None => PartState::Missing,
    };
    let mut parts = vec![Part { what: format!("topic {topic}"), state }];
    for group in groups {
        let there = match &found {
            Some(found) => committed(link, topic, found, group)?.iter().any(|(_, offset)| offset.is_some()),
            None => false,
        };
        let state = if there { PartState::Present } else { PartState::Missing };
        parts.push(Part { what: format!("consumer group {group}"), state });
    }
    Ok(parts)
}

fn admin(link: &Link) -> Result<AdminClient<Quiet>, Fault> {
    let unmade = |why: String| Fault::new(FaultKind::Misconfigured, format!("a kafka client cannot be made: {why}"));
    let mut config = link.settings.client().map_err(unmade)?;
    config.set("log_level", "0");
    config.create_with_context(link.quiet()).map_err(|e| unmade(e.to_string()))
}

fn create(link: &Link, topic: &str) -> Result<Topic, Fault> {
    let lane = &link.settings.lane;
    let wanted = wanted(lane);
    let mut new = NewTopic::new(topic, lane.partitions, TopicReplication::Fixed(lane.replication));
    for (name, value) in &wanted {
        new = new.set(name, value);
    }
    let limit = Some(link.settings.timeout);
    let options = AdminOptions::new().request_timeout(limit).operation_timeout(limit);
    let admin = admin(link)?;
    let failed = |error| {
        let text = format!(
            "topic {topic} cannot be made (with {} copies; a single broker needs replication = 1 and min_insync = 1)",
            lane.replication
        );
        link.health.fault(text, error)
    };
    let results = Handle::current().block_on(admin.create_topics([&new], &options)).map_err(failed)?;
    for result in results {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(failed(KafkaError::AdminOp(code))),
        }
    }
    let end = Instant::now() + link.settings.timeout;
    loop {
        if let Some(found) = find(link, topic)?.filter(|t| t.led) {
            return Ok(found);
        }
        if Instant::now() >= end {
            let text = format!("topic {topic} was made, but not all of its partitions have a leader yet");
            return Err(Fault::new(FaultKind::Unavailable, text));
        }
        std::thread::sleep(LOOK);
    }
}

/// The settings that a lane's topic is made with.
fn wanted(lane: &LaneSettings) -> Vec<(&'static str, String)> {
    vec![
        ("cleanup.policy", "delete".to_owned()),
        ("retention.ms", lane.retention.as_millis().to_string()),
        ("retention.bytes", lane.retention_bytes.map_or_else(|| "-1".to_owned(), |bytes| bytes.to_string())),
        ("min.insync.replicas", lane.min_insync.to_string()),
        ("max.message.bytes", lane.max_message.to_string()),
    ]
}

fn compare(link: &Link, topic: &str, found: &Topic) -> Result<PartState, Fault> {
    let lane = &link.settings.lane;
    let mut different = Vec::new();
    if found.partitions.len() < usize::try_from(lane.partitions).unwrap_or_default() {
        // More are no harm: somebody added them.
        different.push(format!("it has {} partitions, not {}", found.partitions.len(), lane.partitions));
    }
    if found.replicas != usize::try_from(lane.replication).unwrap_or_default() {
        different.push(format!("it has {} copies, not {}", found.replicas, lane.replication));
    }
    let admin = admin(link)?;
    let options = AdminOptions::new().request_timeout(Some(link.settings.timeout));
    let asked = [ResourceSpecifier::Topic(topic)];
    let answer = Handle::current().block_on(admin.describe_configs(&asked, &options));
    let answer = answer.map_err(|e| link.health.fault(format!("the settings of topic {topic} cannot be read"), e))?;
    // Without the right to describe settings they are taken as they are.
    for resource in answer.into_iter().flatten() {
        for (name, value) in wanted(lane) {
            let Some(has) = resource.get(name).and_then(|entry| entry.value.clone()) else { continue };
            let larger =
                name == "max.message.bytes" && has.parse().is_ok_and(|has: u64| has >= u64::from(lane.max_message));
            if has != value && !larger {
                different.push(format!("{name} is {has}, not {value}"));
            }
        }
    }
    if different.is_empty() {
        return Ok(PartState::Present);
    }
    Ok(PartState::Different(format!(
        "{}; change the topic with kafka-topics or kafka-configs, or the options here",
        different.join(", ")
    )))
}

/// Gives a group that has no offset in the topic its first one.
fn begin(link: &Link, topic: &str, found: &Topic, group: &str) -> Result<(), Fault> {
    // Asked before the offsets are: whoever else begins the same group now, and publishes then, does so later than this.
    // The other way round, this could begin behind that message.
    let ends = edges(link, topic, found, Offset::End)?;
    if committed(link, topic, found, group)?.iter().any(|(_, offset)| offset.is_some()) {
        return Ok(());
    }
    let mut list = TopicPartitionList::with_capacity(ends.len());
    for (partition, end) in &ends {
        marked(&mut list, topic, *partition, *end, Some(*end));
    }
    let probe = link.probe(group)?;
    let probe = probe.lock();
    let failure = patiently(link.settings.timeout, || probe.commit(&list, CommitMode::Sync)).err();
    drop(probe);
    let Some(error) = failure else { return Ok(()) };
    // Somebody else began it in between, and consumes already.
    if committed(link, topic, found, group)?.iter().any(|(_, offset)| offset.is_some()) {
        return Ok(());
    }
    Err(link.health.fault(format!("group {group} cannot be made; this user needs READ on group and topic"), error))
}

/// The offset that a group has committed in each partition.
///
/// # Errors
/// The broker is away, or does not let this user see the group.
pub(crate) fn committed(
    link: &Link,
    topic: &str,
    found: &Topic,
    group: &str,
) -> Result<BTreeMap<i32, Option<i64>>, Fault> {
    let failed = |error| link.health.fault(format!("the offsets of group {group} cannot be read"), error);
    let probe = link.probe(group)?;
    let probe = probe.lock();
    drain(&probe);
    let limit = link.settings.timeout;
    let ask = || {
        let answer = probe.committed_offsets(list(topic, found), limit)?;
        answer.elements().iter().try_for_each(|element| element.error())?;
        Ok(answer)
    };
    let answer = patiently(limit, ask).map_err(failed)?;
    link.health.answered();
    Ok(answer.elements().iter().map(|element| (element.partition(), mark_of(element).0)).collect())
}

/// The first or next offset of each partition.
///
/// # Errors
/// The broker is away.
pub(crate) fn edges(link: &Link, topic: &str, found: &Topic, edge: Offset) -> Result<Offsets, Fault> {
    let failed = |error| link.health.fault(format!("the offsets of topic {topic} cannot be read"), error);
    let probe = link.probe(topic)?;
    let probe = probe.lock();
    drain(&probe);
    let mut asked = list(topic, found);
    asked.set_all_offsets(edge).map_err(failed)?;
    let limit = link.settings.timeout;
    let ask = || {
        let answer = probe.offsets_for_times(asked.clone(), limit)?;
        answer.elements().iter().try_for_each(|element| element.error())?;
        Ok(answer)
    };
    let answer = patiently(limit, ask).map_err(failed)?;
    let mut offsets = BTreeMap::new();
    for element in answer.elements() {
        if let Offset::Offset(offset) = element.offset() {
            offsets.insert(element.partition(), offset);
        }
    }
    Ok(offsets)
}

fn list(topic: &str, found: &Topic) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(found.partitions.len());
    for partition in &found.partitions {
        list.add_partition(topic, *partition);
    }
    list
}

/// When the oldest of the records at these offsets was published, as far as it is told in time.
///
/// # Errors
/// The client cannot be made, or takes no such offset.
pub(crate) fn oldest(link: &Link, topic: &str, group: &str, offsets: &Offsets) -> Result<Option<Timestamp>, Fault> {
    let failed = |error| link.health.fault(format!("topic {topic} cannot be looked into"), error);
    let mut missing = offsets.clone();
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for (partition, offset) in offsets {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset)).map_err(failed)?;
    }
    let probe = link.probe(group)?;
    let probe = probe.lock();
    probe.assign(&list).map_err(failed)?;
    let end = Instant::now() + PEEK.min(link.settings.timeout);
    let mut oldest = None;
    while !missing.is_empty() && Instant::now() < end {
        let Some(Ok(record)) = probe.poll(LOOK) else { continue };
        let record: &rdkafka::message::BorrowedMessage<'_> = &record;
        if missing.remove(&rdkafka::Message::partition(record)).is_some() {
            let stamp = published(rdkafka::Message::timestamp(record));
            oldest = [oldest, stamp].into_iter().flatten().min();
        }
    }
    probe.unassign().map_err(failed)?;
    Ok(oldest)
}

/// The groups that begin with a lane's name: its subscriptions, as far as this user may see them.
///
/// # Errors
/// The broker is away.
pub(crate) fn subscriptions(link: &Link, topic: &str) -> Result<Vec<String>, Fault> {
    let producer = link.producer()?;
    let failed = |error| link.health.fault("the broker's consumer groups cannot be listed", error);
    let groups = producer.client().fetch_group_list(None, link.settings.timeout).map_err(failed)?;
    let prefix = format!("{topic}.");
    let ours = groups.groups().iter().map(|g| g.name()).filter(|name| name.starts_with(&prefix));
    Ok(ours.map(str::to_owned).collect())
}
