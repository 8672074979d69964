//! `queue`: documents of responses as messages of somebody else's queue or topic, on whichever broker is configured.
//!
//! A document counts as delivered once the broker has confirmed it. Publishing twice makes two messages of one id, since no
//! broker here knows better: whoever reads them tells them by the header with the scan's id, or by the message's.

mod archived;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Map, Value};
use stoq_api::plugin::{Connector, Item, Verdict};
use stoq_api::queue::{Message, Part, PartState, Queue};
use stoq_api::scanner::{BuildError, OptionInfo, OptionKind, PluginInfo, PluginKind};
use stoq_api::{Fault, FaultKind, fault};

use crate::common::verdicts::Tally;
use crate::model::{Document, Model};
use crate::{Build, ConnectorRegistration, Context, config_of};

/// Header with the document's id: brokers need not carry a message's own.
const ID: &str = "stoq-document-id";
/// Header with the scan's id.
const SCAN: &str = "stoq-scan-id";
/// Header with the tenant, where there is one.
const TENANT: &str = "stoq-tenant";
/// Header that says what the body is: the model's name, or `archive`.
const MODEL: &str = "stoq-model";

/// Who is to make what is missing.
const OWNER: &str = "its owner has to make it";

const fn option(name: &'static str, kind: OptionKind, default: &'static str, help: &'static str) -> OptionInfo {
    OptionInfo { name, kind, default, help }
}

const OPTIONS: [OptionInfo; 5] = options("false");
/// stoQ's own name published what archivers said unless told otherwise.
const STOQ_OPTIONS: [OptionInfo; 5] = options("true");

const fn options(publish_archive: &'static str) -> [OptionInfo; 5] {
    [
        option("broker", OptionKind::Text, "", "the broker, as [queues.NAME] calls it"),
        option("queue", OptionKind::Text, "", "the queue, EXCHANGE/ROUTING-KEY or topic to write to"),
        option("topic", OptionKind::Text, "", "the same, in the words of Kafka and Pub/Sub"),
        option("model", OptionKind::Text, "\"response\"", "what a message is: response, payload, plugin or ecs"),
        option(
            "publish_archive",
            OptionKind::Bool,
            publish_archive,
            "instead of documents, a task for a source archiver for each payload and archiver: {\"ARCHIVER\": {…}}",
        ),
    ]
}

/// The connector's entries in the registry: one, and stoQ's names for it.
pub(crate) fn registrations() -> [ConnectorRegistration; 5] {
    let registration = |(name, description, options, build)| ConnectorRegistration {
        info: PluginInfo { name, description, kinds: &[PluginKind::Connector], options, required_workers: &[] },
        build,
    };
    let ours: (&'static [OptionInfo], Build) = (&OPTIONS, build);
    [
        ("queue", "Publishes responses to a queue or topic of somebody else's", ours.0, ours.1),
        ("kafka", "The same as queue, to a topic of Kafka", ours.0, ours.1),
        ("kafka-queue", "The same as kafka, with stoQ's default: what archivers said", &STOQ_OPTIONS, build_stoq),
        ("pubsub", "The same as queue, to a topic of Google Pub/Sub", ours.0, ours.1),
        ("rabbitmq", "The same as queue, to an exchange or queue of RabbitMQ", ours.0, ours.1),
    ]
    .map(registration)
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
    #[serde(default = "model")]
    model: Model,
    publish_archive: Option<bool>,
}

fn model() -> Model {
    Model::Response
}

fn build(options: &Map<String, Value>, context: &Context) -> Result<Arc<dyn Connector>, BuildError> {
    publisher(options, context, false)
}

fn build_stoq(options: &Map<String, Value>, context: &Context) -> Result<Arc<dyn Connector>, BuildError> {
    publisher(options, context, true)
}

fn publisher(
    options: &Map<String, Value>,
    context: &Context,
    archived: bool,
) -> Result<Arc<dyn Connector>, BuildError> {
    let config: Config = config_of(options)?;
    if config.broker.is_empty() {
        return Err(BuildError("`broker` is missing: name one that is configured as [queues.NAME.KIND]".to_owned()));
    }
    let name = match (config.queue.as_str(), config.topic.as_str()) {
        ("", "") => return Err(BuildError("`queue` is missing: name the queue or topic to write to".to_owned())),
        (name, "") | ("", name) => name,
        _ => return Err(BuildError("`queue` and `topic` are both set: leave one out".to_owned())),
    };
    let queue = context.queues.queue(&config.broker, name)?;
    let content =
        if config.publish_archive.unwrap_or(archived) { Content::Archived } else { Content::Documents(config.model) };
    Ok(Arc::new(Publisher { place: format!("{name} on broker {}", config.broker), queue, content }))
}

/// What messages hold.
#[derive(Clone, Copy)]
enum Content {
    Documents(Model),
    /// What archivers said of payloads, as tasks for them.
    Archived,
}

impl Content {
    /// The messages for a response.
    fn messages(self, item: &Item) -> Result<Vec<Message>, String> {
        match self {
            Self::Archived => archived::messages(item),
            Self::Documents(model) => {
                let message = |document: Result<Document, String>| {
                    document.map(|Document { id, tenant, json, .. }| {
                        let mut message = Message::new(id, json);
                        message.headers = headers(&message.id, &item.id, tenant, model.name());
                        message
                    })
                };
                model.documents(item)?.map(message).collect()
            }
        }
    }
}

fn headers(id: &str, scan: &str, tenant: Option<String>, model: &str) -> Vec<(String, String)> {
    let mut headers: Vec<_> =
        [(ID, id), (SCAN, scan), (MODEL, model)].map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    headers.extend(tenant.map(|tenant| (TENANT.to_owned(), tenant)));
    headers
}

struct Publisher {
    queue: Arc<dyn Queue>,
    /// What the queue is called in messages for people.
    place: String,
    content: Content,
}

impl Publisher {
    /// Publishes one by one what was refused together, so that only those are refused that are.
    async fn apart(&self, messages: Vec<(usize, Message)>, tally: &mut Tally) -> Result<(), Fault> {
        for (item, message) in messages {
            let (id, bytes) = (message.id.clone(), message.body.len());
            match self.queue.publish(vec![message]).await {
                Ok(()) => tally.delivered(item),
                Err(e) if e.kind == FaultKind::Refused => {
                    tally.rejected(item, format!("message {id} of {bytes} bytes: {}", fault::chain(&e)));
                }
                Err(e) if e.is_transient() => tally.retry(item, || fault::chain(&e)),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Connector for Publisher {
    async fn deliver(&self, batch: &[Item]) -> Result<Vec<Verdict>, Fault> {
        let mut tally = Tally::new(batch.len());
        let mut all = Vec::new();
        for (place, item) in batch.iter().enumerate() {
            match self.content.messages(item) {
                Ok(messages) => {
                    messages.iter().for_each(|_| tally.made(place));
                    all.extend(messages.into_iter().map(|message| (place, message)));
                }
                Err(reason) => tally.rejected(place, reason),
            }
        }
        let together: Vec<Message> = all.iter().map(|(_, message)| message.clone()).collect();
        if !together.is_empty() {
            match self.queue.publish(together).await {
                Ok(()) => all.iter().for_each(|(item, _)| tally.delivered(*item)),
                Err(e) if e.kind == FaultKind::Refused => self.apart(all, &mut tally).await?,
                Err(e) => return Err(e),
            }
        }
        Ok(tally.verdicts())
    }

    async fn check(&self) -> Result<(), Fault> {
        let missing = self.queue.inspect(&[]).await?.into_iter().find(|part| part.state == PartState::Missing);
        match missing {
            None => Ok(()),
            Some(part) => {
                let text = format!("there is no {}, which {} needs: {OWNER}", part.what, self.place);
                Err(Fault::new(FaultKind::Misconfigured, text))
            }
        }
    }

    /// Says what is there, and makes nothing: it is somebody else's.
    async fn setup(&self, _make: bool) -> Result<Vec<Part>, Fault> {
        let told = |part: Part| match part.state {
            PartState::Missing => Part { state: PartState::Different(format!("it is not there: {OWNER}")), ..part },
            _ => part,
        };
        Ok(self.queue.inspect(&[]).await?.into_iter().map(told).collect())
    }
}
