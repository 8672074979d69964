//! `queue`: payloads as messages of somebody else's queue or topic. There is no way back: whoever wants a payload again reads
//! the queue with a provider.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use stoq_api::backend::OpenQueue;
use stoq_api::plugin::Archiver;
use stoq_api::queue::{Message, Queue};
use stoq_api::response::PayloadResults;
use stoq_api::scanner::{BuildError, OptionInfo, OptionKind, PluginInfo, PluginKind};
use stoq_api::{Content, Fault, FaultKind, Json, PayloadMeta, RequestMeta};

use super::{ArchiverRegistration, config_of};

/// Header with the digest of a raw payload.
const SHA256: &str = "stoq-sha256";
/// Header with what is known of a raw payload: its `extra_data`, as JSON.
const META: &str = "meta";
/// Longest such header; Pub/Sub takes no longer one. A longer one is left out.
const META_MAX: usize = 1_024;

const fn option(name: &'static str, kind: OptionKind, default: &'static str, help: &'static str) -> OptionInfo {
    OptionInfo { name, kind, default, help }
}

const OPTIONS: &[OptionInfo] = &[
    option("broker", OptionKind::Text, "", "the broker, as [queues.NAME] calls it"),
    option("queue", OptionKind::Text, "", "the queue, EXCHANGE/ROUTING-KEY or topic to write to"),
    option("topic", OptionKind::Text, "", "the same, in the words of Kafka and Pub/Sub"),
    option("format", OptionKind::Text, "\"stoq_payload\"", "stoq_payload: JSON with base64, as stoQ wrote it; or raw"),
    option("max_message", OptionKind::Size, "8388608", "the largest message that is made"),
];

/// The archiver's entries in the registry: one, and stoQ's names for it.
pub(crate) fn registrations() -> [ArchiverRegistration; 5] {
    [
        ("queue", "Publishes payloads to a queue or topic of somebody else's"),
        ("kafka", "The same as queue, to a topic of Kafka"),
        ("kafka-queue", "The same as kafka, under stoQ's name"),
        ("pubsub", "The same as queue, to a topic of Google Pub/Sub"),
        ("rabbitmq", "The same as queue, to an exchange or queue of RabbitMQ"),
    ]
    .map(|(name, description)| ArchiverRegistration {
        info: PluginInfo { name, description, kinds: &[PluginKind::Archiver], options: OPTIONS, required_workers: &[] },
        build,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    broker: String,
    #[serde(default)]
    queue: String,
    #[serde(default)]
    topic: String,
    #[serde(default)]
    format: Format,
    #[serde(default = "max_message")]
    max_message: u64,
}

/// What a message is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Format {
    /// What stoQ's own archivers wrote, and its providers read.
    #[default]
    StoqPayload,
    /// The payload, with what is known of it in headers.
    Raw,
}

fn max_message() -> u64 {
    8 << 20
}

fn build(options: &Map<String, Value>, queues: &dyn OpenQueue) -> Result<Arc<dyn Archiver>, BuildError> {
    let config: Config = config_of(options)?;
    if config.broker.is_empty() {
        return Err(BuildError("`broker` is missing: name one that is configured as [queues.NAME.KIND]".to_owned()));
    }
    let name = match (config.queue.as_str(), config.topic.as_str()) {
        ("", "") => return Err(BuildError("`queue` is missing: name the queue or topic to write to".to_owned())),
        (name, "") | ("", name) => name,
        _ => return Err(BuildError("`queue` and `topic` are both set: leave one out".to_owned())),
    };
    let queue = queues.queue(&config.broker, name)?;
    Ok(Arc::new(QueueArchiver { queue, format: config.format, max_message: config.max_message }))
}

struct QueueArchiver {
    queue: Arc<dyn Queue>,
    format: Format,
    max_message: u64,
}

impl QueueArchiver {
    fn too_large(&self, bytes: u64) -> Fault {
        let text = format!("queue: a message of {bytes} bytes is larger than max_message = {}", self.max_message);
        Fault::new(FaultKind::Refused, text)
    }
}

#[async_trait]
impl Archiver for QueueArchiver {
    async fn archive(
        &self,
        content: &Content,
        results: &PayloadResults,
        request: &RequestMeta,
    ) -> Result<Option<Json>, Fault> {
        if content.len() > self.max_message {
            return Err(self.too_large(content.len()));
        }
        let content = content.clone();
        let read = tokio::task::spawn_blocking(move || content.to_bytes()).await.map_err(std::io::Error::other);
        let bytes = read.flatten().map_err(|e| Fault::because(FaultKind::Unavailable, "cannot read a payload", e))?;
        let id = results.payload_id.to_string();
        let extra_data = &results.payload_meta.extra_data;
        let message = match self.format {
            Format::StoqPayload => {
                let body = json!({
                    "_is_payload": true, "_content": STANDARD.encode(&bytes), "_payload_meta": extra_data,
                    "_request_meta": request,
                });
                Message::new(id.clone(), body.to_string())
            }
            Format::Raw => {
                let mut message = Message::new(id.clone(), bytes);
                message.headers.extend(results.sha256.map(|digest| (SHA256.to_owned(), digest.to_string())));
                let meta = Value::Object(extra_data.clone()).to_string();
                if meta.len() <= META_MAX {
                    message.headers.push((META.to_owned(), meta));
                }
                message
            }
        };
        if message.body.len() as u64 > self.max_message {
            return Err(self.too_large(message.body.len() as u64));
        }
        self.queue.publish(vec![message]).await?;
        Ok(Some(Json::of(&json!({ "msg_id": id }))))
    }

    async fn get(&self, _task: &Value) -> Result<(Content, PayloadMeta), Fault> {
        let text = "a queue brings no payload back by name: read it with a provider of the kind queue";
        Err(Fault::new(FaultKind::Refused, text))
    }
}
