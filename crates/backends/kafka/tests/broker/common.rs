//! What the tests on a broker share: clients of ours, and a look at the broker by a client that is not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};
use stoq_api::queue::{Broker, Deliveries, Delivery};
use stoq_testkit::services::Kafka;
use stoq_testkit::wait::must_end;

/// How long one question to the broker may take.
const ANSWER: Duration = Duration::from_secs(30);

/// A client with the options of a single broker, and `more`.
pub(crate) fn broker(server: &Kafka, more: Value) -> Arc<dyn Broker> {
    broker_at(&server.address(), more)
}

pub(crate) fn broker_at(address: &str, more: Value) -> Arc<dyn Broker> {
    let Value::Object(mut options) = json!({
        "servers": [address], "prefix": "t", "partitions": 3, "replication": 1, "min_insync": 1,
    }) else {
        panic!("options are a table");
    };
    let Value::Object(more) = more else { panic!("options are a table") };
    options.extend(more);
    (stoq_kafka::registration().open)(&options).unwrap()
}

pub(crate) async fn next(deliveries: &mut Box<dyn Deliveries>) -> Delivery {
    must_end("a delivery", deliveries.next()).await.unwrap().expect("the queue is not shut down")
}

fn bare(address: &str, group: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("group.id", group).set("enable.auto.commit", "false");
    config.create().unwrap()
}

/// What the broker itself says that a group has committed.
pub(crate) fn all_committed(address: &str, group: &str, topic: &str, partitions: i32) -> BTreeMap<i32, i64> {
    let mut asked = TopicPartitionList::new();
    for partition in 0..partitions {
        asked.add_partition(topic, partition);
    }
    let answer = bare(address, group).committed_offsets(asked, ANSWER).unwrap();
    let offsets = answer.elements().into_iter().filter_map(|element| match element.offset() {
        Offset::Offset(offset) => Some((element.partition(), offset)),
        _ => None,
    });
    offsets.collect()
}

pub(crate) fn committed(server: &Kafka, group: &str, topic: &str, partition: i32) -> i64 {
    all_committed(&server.address(), group, topic, partition + 1).get(&partition).copied().unwrap_or_default()
}

/// Where each of `count` messages of a lane lies, by id.
pub(crate) async fn places(server: &Kafka, topic: &'static str, count: usize) -> BTreeMap<String, (i32, i64)> {
    let address = server.address();
    let read = tokio::task::spawn_blocking(move || {
        let consumer = bare(&address, "reader");
        let metadata = consumer.fetch_metadata(Some(topic), ANSWER).unwrap();
        let mut list = TopicPartitionList::new();
        for partition in metadata.topics()[0].partitions() {
            list.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
        }
        consumer.assign(&list).unwrap();
        let mut places = BTreeMap::new();
        while places.len() < count {
            let Some(message) = consumer.poll(ANSWER) else { continue };
            let message = message.unwrap();
            let id = message.headers().unwrap().iter().find(|h| h.key == "stoq-id").unwrap().value.unwrap();
            places.insert(String::from_utf8(id.to_vec()).unwrap(), (message.partition(), message.offset()));
        }
        places
    });
    must_end("the topic's messages", read).await.unwrap()
}
