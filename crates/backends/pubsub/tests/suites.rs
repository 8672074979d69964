//! The conformance suite, on Google's own fake.
//!
//! Two promises cannot be kept on Pub/Sub at all, and the harness says so: nobody tells which delivery is the first, nor
//! what waits. A third holds only with exactly-once delivery: that an acknowledgement has arrived when it returns.
#![expect(clippy::unwrap_used, reason = "harness functions are test code, though they are not marked as such")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use common::broker;
use serde_json::json;
use stoq_api::queue::{Broker, LaneOptions, Queue};
use stoq_testkit::services::{Proxy, PubSub};
use stoq_testkit::{QueueHarness, queue_suite};

struct Served {
    server: PubSub,
    /// Between the present client and the server. What is behind an old one never speaks again.
    lines: Vec<Proxy>,
    client: Option<Arc<dyn Broker>>,
    exactly_once: bool,
}

impl Served {
    async fn new(server: PubSub, exactly_once: bool) -> Self {
        let mut this = Self { server, lines: Vec::new(), client: None, exactly_once };
        this.connect().await;
        this
    }

    async fn connect(&mut self) {
        let line = Proxy::start(self.server.port()).await;
        let host = line.address().to_string();
        self.client = Some(broker(&host, &json!({"exactly_once": self.exactly_once, "timeout": 10.0})));
        self.lines.push(line);
    }
}

#[async_trait]
impl QueueHarness for Served {
    async fn queue(&mut self, name: &str) -> Arc<dyn Queue> {
        self.client.as_ref().unwrap().lane(name, LaneOptions::default())
    }

    async fn reopen(&mut self) -> bool {
        if self.exactly_once {
            self.lines.last().unwrap().cut();
        } else {
            // Otherwise a cut would lose acknowledgements that were just sent.
            self.client.take().unwrap().close().await;
        }
        self.connect().await;
        true
    }

    fn quiet(&self) -> Duration {
        Duration::from_millis(500)
    }

    fn tells_first(&self) -> bool {
        false
    }

    fn tells_depth(&self) -> bool {
        false
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue() {
    queue_suite(&mut Served::new(PubSub::start().await, false).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_with_exactly_once_delivery() {
    queue_suite(&mut Served::new(PubSub::start().await, true).await).await;
}
