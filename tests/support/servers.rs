//! RabbitMQ, Redis and S3 as the shipped configurations expect them, and these configurations with their addresses.
#![allow(dead_code, reason = "each test is a program of its own and uses a part of this")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use stoq_api::queue::{LaneOptions, Queue};
use stoq_testkit::services::{RabbitMq, Redis, VersityGw};

use crate::support::text;

/// The user of all servers, and everybody's password.
pub(crate) const USER: &str = "stoq";
pub(crate) const PASSWORD: &str = "loopback-only";
/// The virtual host of lanes, and of other people's queues.
const LANES: &str = "stoq";
const SENSORS: &str = "sensors";
/// Who reads those.
const READER: &str = "stoq-intake";
const BUCKET: &str = "stoq";

/// The servers.
pub(crate) struct Servers {
    pub(crate) broker: RabbitMq,
    redis: Redis,
    store: VersityGw,
}

impl Servers {
    /// Starts them, with virtual hosts, users, passwords and bucket.
    pub(crate) async fn start() -> Self {
        let (broker, redis, store) = tokio::join!(RabbitMq::start(), Redis::start(), VersityGw::start());
        assert_eq!((broker.user(), broker.password()), (USER, PASSWORD));
        broker.ctl(&["add_vhost", LANES]).await;
        broker.add_user(SENSORS, READER, PASSWORD, ["^$", "^$", ".*"]).await;
        for vhost in [LANES, SENSORS] {
            broker.ctl(&["set_permissions", "-p", vhost, USER, ".*", ".*", ".*"]).await;
        }
        redis.cli(&["config", "set", "requirepass", PASSWORD]).await;
        store.make_bucket(BUCKET);
        Self { broker, redis, store }
    }

    /// The process groups of broker, ledger and store.
    pub(crate) fn groups(&mut self) -> [(&'static str, u32); 3] {
        let [broker, redis, store] = [self.broker.service(), self.redis.service(), &mut self.store.service];
        [("RabbitMQ", broker.process().id()), ("Redis", redis.process().id()), ("S3", store.process().id())]
    }

    /// The address of the lanes, with user and password, as others than stoq take it.
    pub(crate) fn lanes(&self) -> String {
        format!("amqp://{USER}:{PASSWORD}@127.0.0.1:{}/{LANES}", self.broker.port())
    }

    /// A queue of other people, `NAME.intake.main` there, ready to be published to.
    pub(crate) async fn intake(&self, vhost: &str, name: &str) -> Arc<dyn Queue> {
        let options = json!({
            "addresses": [self.broker.address()], "vhost": vhost, "user": USER, "password": PASSWORD, "prefix": name,
        });
        let Value::Object(options) = options else { panic!("options are an object") };
        let broker = (stoq_rabbitmq::registration().open)(&options).unwrap();
        let queue = broker.lane("intake", LaneOptions::default());
        queue.declare(&["main"]).await.unwrap();
        queue
    }

    /// A shipped configuration with these servers in place of those that it names.
    pub(crate) fn adapt(&self, configuration: &str) -> String {
        let changes = [
            ("amqp://rabbitmq:5672", self.broker.address()),
            ("redis://redis:6379", self.redis.address()),
            ("http://minio:9000", self.store.endpoint()),
            ("access_key_id = \"stoq\"", format!("access_key_id = \"{}\"", VersityGw::ACCESS_KEY)),
        ];
        changes.iter().fold(configuration.to_owned(), |text, (old, new)| replaced(&text, old, new))
    }

    /// The secrets that these configurations read, in files of `folder`.
    pub(crate) fn secrets(&self, folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        let all =
            [("rabbitmq", PASSWORD), ("rabbitmq-intake", PASSWORD), ("redis", PASSWORD), ("s3", VersityGw::SECRET_KEY)];
        for (name, secret) in all {
            fs::write(folder.join(name), secret).unwrap_or_else(|e| panic!("{}: {e}", text(folder)));
        }
    }
}

/// A text with `new` instead of `old`, which has to be there.
pub(crate) fn replaced(text: &str, old: &str, new: &str) -> String {
    assert!(text.contains(old), "there is no {old} in:\n{text}");
    text.replace(old, new)
}
