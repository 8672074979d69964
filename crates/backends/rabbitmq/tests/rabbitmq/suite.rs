//! The queue suite on a real server, which is crashed, and by clients that are.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use stoq_api::queue::{Broker, LaneOptions, Queue};
use stoq_rabbitmq::RabbitMq;
use stoq_testkit::services::{Proxy, RabbitMq as Server};
use stoq_testkit::{QueueHarness, queue_suite};

use crate::common;

/// What `reopen` ends.
enum End {
    Server,
    Client(Proxy),
}

struct Harness {
    server: Server,
    end: End,
    options: Map<String, Value>,
    clients: Vec<RabbitMq>,
}

impl Harness {
    async fn start(end_client: bool, changes: Value) -> Self {
        let server = Server::start().await;
        let end = if end_client { End::Client(Proxy::start(server.port()).await) } else { End::Server };
        let options = common::with(common::options(&server), changes);
        let mut this = Self { server, end, options, clients: Vec::new() };
        this.connect();
        this
    }

    fn connect(&mut self) {
        if let End::Client(proxy) = &self.end {
            self.options.insert("addresses".into(), json!([format!("amqp://{}", proxy.address())]));
        }
        self.clients.push(common::client(&self.options));
    }

    /// Waits until the server has taken what was acknowledged: the protocol answers an acknowledgement with nothing.
    async fn settled(&self) {
        let mut before = String::new();
        loop {
            let columns = ["list_queues", "name", "messages_ready", "messages_unacknowledged"];
            let now = self.server.ctl(&columns).await;
            if now == before {
                return;
            }
            before = now;
        }
    }
}

#[async_trait]
impl QueueHarness for Harness {
    async fn queue(&mut self, name: &str) -> Arc<dyn Queue> {
        self.clients.last().unwrap().lane(name, LaneOptions::default())
    }

    async fn reopen(&mut self) -> bool {
        self.settled().await;
        match &mut self.end {
            End::Server => {
                self.server.kill();
                self.server.restart().await;
            }
            End::Client(proxy) => {
                proxy.cut();
                *proxy = Proxy::start(self.server.port()).await;
            }
        }
        self.connect();
        true
    }

    fn quiet(&self) -> Duration {
        Duration::from_millis(500)
    }

    /// Version 3.10 may not find the leader of a quorum queue again that it made just before it was killed.
    fn writes_late(&self) -> bool {
        true
    }

    fn knows_held(&self) -> bool {
        false
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quorum_queues_of_a_server_that_crashes() {
    queue_suite(&mut Harness::start(false, json!({})).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quorum_queues_of_clients_that_crash() {
    queue_suite(&mut Harness::start(true, json!({})).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn classic_queues_of_a_server_that_crashes() {
    queue_suite(&mut Harness::start(false, json!({"queue_type": "classic"})).await).await;
}
