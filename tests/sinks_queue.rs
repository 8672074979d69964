//! Responses and payloads on queues of somebody else's, on each real broker.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on is to stop")]

#[path = "support/fleet.rs"]
mod fleet;
mod support;

use std::sync::Arc;

use serde_json::{Value, json};
use stoq_api::backend::OpenQueue;
use stoq_api::plugin::{Archiver, Connector, Item, Verdict};
use stoq_api::queue::{Deliveries, LaneOptions, Message, Prefetch, Queue};
use stoq_api::scanner::BuildError;
use stoq_api::{Content, FaultKind, RequestMeta, Response};
use stoq_connectors::Context;
use stoq_testkit::wait::must_end;

use fleet::{Broker, Kind};

/// What other people's queues begin with.
const THEIRS: &str = "theirs";

/// One broker, whatever it is called.
struct Any(Arc<dyn stoq_api::queue::Broker>);

impl OpenQueue for Any {
    fn queue(&self, _: &str, name: &str) -> Result<Arc<dyn Queue>, BuildError> {
        Ok(self.0.foreign(name))
    }
}

fn response() -> Response {
    let id = uuid::Uuid::from_u128(7);
    serde_json::from_value(json!({
        "results": [{
            "size": 3, "payload_id": uuid::Uuid::from_u128(8), "payload_meta": { "extra_data": { "filename": "a" } },
            "plugins_run": { "workers": [], "archivers": [] }, "extracted_from": [], "extracted_by": [], "workers": {},
            "archivers": {}, "sha256": null, "depth": 0, "runs": [], "not_run": [], "findings": []
        }],
        "request_meta": { "archive_payloads": true, "source": "web", "extra_data": {} },
        "errors": [], "time": "2026-11-04T05:06:07.000001", "decorators": {}, "scan_id": id, "complete": true,
        "findings": [], "engine": { "version": "0", "rulesets": {} }, "tenant": "acme"
    }))
    .unwrap()
}

fn item(padding: usize) -> Item {
    let mut response = response();
    response.request_meta.extra_data.insert("padding".to_owned(), "x".repeat(padding).into());
    Item { id: response.scan_id.to_string(), json: serde_json::to_vec(&response).unwrap().into() }
}

/// How one writes to the topic or exchange behind a lane of the name.
fn writable(broker: &Broker, name: &str) -> String {
    match broker {
        Broker::RabbitMq(_) => format!("{THEIRS}.{name}/"),
        Broker::Kafka(_) | Broker::PubSub(_) => format!("{THEIRS}.{name}"),
    }
}

async fn next(deliveries: &mut Box<dyn Deliveries>) -> Message {
    let delivery = must_end("a message", deliveries.next()).await.unwrap().unwrap();
    let message = delivery.message.clone();
    delivery.ack().await.unwrap();
    message
}

fn connector(queues: &Arc<dyn OpenQueue>, kind: &str, queue: &str) -> Arc<dyn Connector> {
    let registration = stoq_connectors::registry().into_iter().find(|r| r.info.name == kind).unwrap();
    let options = json!({ "broker": "theirs", "queue": queue });
    let context = Context { name: "out".to_owned(), queues: Arc::clone(queues) };
    (registration.build)(options.as_object().unwrap(), &context).unwrap()
}

fn archiver(queues: &Arc<dyn OpenQueue>, queue: &str, more: &[(&str, Value)]) -> Arc<dyn Archiver> {
    let registration = stoq_stores::archivers::registry().into_iter().find(|r| r.info.name == "queue").unwrap();
    let mut options = json!({ "broker": "theirs", "topic": queue });
    more.iter().for_each(|(name, value)| options[*name] = value.clone());
    (registration.build)(options.as_object().unwrap(), &**queues).unwrap()
}

async fn publishes(kind: Kind, alias: &str) {
    let broker = Broker::start(kind).await;
    let client = broker.client(THEIRS);
    let queues: Arc<dyn OpenQueue> = Arc::new(Any(Arc::clone(&client)));

    let gone = connector(&queues, "queue", &writable(&broker, "gone"));
    assert_eq!(gone.check().await.unwrap_err().kind, FaultKind::Misconfigured);
    let fault = gone.deliver(&[item(0)]).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Misconfigured, "{}", stoq_api::fault::chain(&fault));

    let lane = client.lane("out", LaneOptions::default());
    lane.declare(&["main"]).await.unwrap();
    let mut deliveries = lane.subscribe("main", Prefetch { messages: 1 }).await.unwrap();
    let out = connector(&queues, alias, &writable(&broker, "out"));
    out.check().await.unwrap();
    assert_eq!(out.deliver(&[item(0)]).await.unwrap(), [Verdict::Delivered]);
    let message = next(&mut deliveries).await;
    assert_eq!(message.body, item(0).json);
    assert_eq!(message.header("stoq-scan-id"), Some(item(0).id.as_str()));
    assert_eq!(
        (message.header("stoq-tenant"), message.header("stoq-document-id")),
        (Some("acme"), Some(item(0).id.as_str()))
    );

    // Larger than the broker takes, beside one that is not.
    let verdicts = out.deliver(&[item(40 << 20), item(1)]).await.unwrap();
    assert!(matches!(&verdicts[..], [Verdict::Rejected(_), Verdict::Delivered]), "{verdicts:?}");
    assert_eq!(next(&mut deliveries).await.body, item(1).json);

    let payload: Content = b"payload".to_vec().into();
    let kept = archiver(&queues, &writable(&broker, "out"), &[]);
    let said = kept.archive(&payload, &response().results[0], &RequestMeta::default()).await.unwrap().unwrap();
    assert_eq!(said.value(), json!({ "msg_id": uuid::Uuid::from_u128(8) }));
    let body: Value = serde_json::from_slice(&next(&mut deliveries).await.body).unwrap();
    let expected = json!({
        "_is_payload": true, "_content": "cGF5bG9hZA==", "_payload_meta": { "filename": "a" },
        "_request_meta": { "archive_payloads": true, "source": null, "extra_data": {} },
    });
    assert_eq!(body, expected);
    let raw = archiver(&queues, &writable(&broker, "out"), &[("format", json!("raw")), ("max_message", json!(7))]);
    raw.archive(&payload, &response().results[0], &RequestMeta::default()).await.unwrap();
    let message = next(&mut deliveries).await;
    assert_eq!((&message.body[..], message.header("meta")), (&b"payload"[..], Some(r#"{"filename":"a"}"#)));
    let large: Content = b"payload+".to_vec().into();
    let fault = raw.archive(&large, &response().results[0], &RequestMeta::default()).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Refused, "{fault}");
    assert_eq!(raw.get(&said.value()).await.err().unwrap().kind, FaultKind::Refused);
    drop(deliveries);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq() {
    publishes(Kind::RabbitMq, "rabbitmq").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka() {
    publishes(Kind::Kafka, "kafka").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pubsub() {
    publishes(Kind::PubSub, "pubsub").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_passes_by_itself() {
    let mut broker = Broker::start(Kind::RabbitMq).await;
    let client = broker.client(THEIRS);
    client.lane("out", LaneOptions::default()).declare(&["main"]).await.unwrap();
    let queues: Arc<dyn OpenQueue> = Arc::new(Any(Arc::clone(&client)));
    let out = connector(&queues, "queue", &writable(&broker, "out"));
    assert_eq!(out.deliver(&[item(0)]).await.unwrap(), [Verdict::Delivered]);
    broker.kill();
    let fault = must_end("a delivery", out.deliver(&[item(0)])).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unavailable, "{fault}");
    client.close().await;
}
