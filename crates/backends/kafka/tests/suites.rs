//! The conformance suite, on a real broker.
#![expect(clippy::unwrap_used, reason = "harness functions are test code, though they are not marked as such")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use stoq_api::queue::{Broker, LaneOptions, Queue};
use stoq_testkit::services::Kafka;
use stoq_testkit::{QueueHarness, queue_suite};

struct Harness {
    server: Kafka,
    broker: Arc<dyn Broker>,
    partitions: u32,
}

fn client(server: &Kafka, partitions: u32) -> Arc<dyn Broker> {
    let Value::Object(options) = json!({
        "servers": [server.address()], "prefix": format!("suite{partitions}"), "partitions": partitions,
        "replication": 1, "min_insync": 1,
        // Nothing here waits for either to pass; on a machine that is busy with other tests the defaults might.
        "timeout": 60.0, "session_timeout": 45.0,
    }) else {
        panic!("options are a table");
    };
    (stoq_kafka::registration().open)(&options).unwrap()
}

impl Harness {
    async fn new(partitions: u32) -> Self {
        let server = Kafka::start().await;
        let broker = client(&server, partitions);
        Self { server, broker, partitions }
    }
}

#[async_trait]
impl QueueHarness for Harness {
    async fn queue(&mut self, name: &str) -> Arc<dyn Queue> {
        self.broker.lane(name, LaneOptions::default())
    }

    /// The client leaves in good order, since no broker promises that the last verdicts of one that does not are known;
    /// `killed.rs` looks at that. The broker is killed.
    async fn reopen(&mut self) -> bool {
        self.broker.close().await;
        self.server.kill();
        self.server.restart().await;
        self.broker = client(&self.server, self.partitions);
        true
    }

    /// Long enough for a consumer to join its group and to read what there is.
    fn quiet(&self) -> Duration {
        Duration::from_secs(2)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_partitions() {
    queue_suite(&mut Harness::new(6).await).await;
}

#[tokio::test]
async fn one_partition() {
    queue_suite(&mut Harness::new(1).await).await;
}
