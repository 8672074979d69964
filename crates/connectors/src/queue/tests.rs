//! What becomes of a batch, whatever the broker says of it. Real brokers are in `tests/sinks_queue.rs`.

use parking_lot::Mutex;
use serde_json::json;
use stoq_api::backend::OpenQueue;
use stoq_api::queue::{Deliveries, Depth, Part, Prefetch};

use super::*;

/// A queue that refuses bodies above so many bytes, or everything with a fault of one kind.
#[derive(Default)]
struct Script {
    most: usize,
    fails: Mutex<Option<FaultKind>>,
    published: Mutex<Vec<Message>>,
    missing: bool,
}

#[async_trait]
impl Queue for Script {
    async fn declare(&self, _: &[&str]) -> Result<(), Fault> {
        unreachable!("a queue of somebody else's")
    }

    async fn inspect(&self, _: &[&str]) -> Result<Vec<Part>, Fault> {
        let state = if self.missing { PartState::Missing } else { PartState::Present };
        Ok(vec![Part { what: "topic t".to_owned(), state }])
    }

    async fn publish(&self, messages: Vec<Message>) -> Result<(), Fault> {
        if let Some(kind) = *self.fails.lock() {
            return Err(Fault::new(kind, "as scripted"));
        }
        if messages.iter().any(|message| message.body.len() > self.most) {
            return Err(Fault::new(FaultKind::Refused, "too large"));
        }
        self.published.lock().extend(messages);
        Ok(())
    }

    async fn subscribe(&self, _: &str, _: Prefetch) -> Result<Box<dyn Deliveries>, Fault> {
        unreachable!("nobody reads it here")
    }

    async fn depth(&self, _: &str) -> Result<Depth, Fault> {
        unreachable!("nobody reads it here")
    }
}

struct One(Arc<Script>);

impl OpenQueue for One {
    fn queue(&self, broker: &str, name: &str) -> Result<Arc<dyn Queue>, BuildError> {
        assert_eq!((broker, name), ("main", "out"));
        Ok(self.0.clone())
    }
}

fn connector(script: &Arc<Script>, more: Value) -> Result<Arc<dyn Connector>, BuildError> {
    let mut options = json!({ "broker": "main", "queue": "out" });
    options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    options.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    build(options.as_object().unwrap(), &Context { name: "out".to_owned(), queues: Arc::new(One(Arc::clone(script))) })
}

fn item(n: u128, padding: usize) -> Item {
    let payload = json!({
        "size": 3, "payload_id": uuid::Uuid::from_u128(n + 1000),
        "payload_meta": { "should_archive": true, "should_scan": true, "extra_data": { "filename": "a", "path": "ours" },
            "dispatch_to": [] },
        "plugins_run": { "workers": [], "archivers": ["filedir", "silent"] }, "extracted_from": [], "extracted_by": [],
        "workers": {}, "archivers": { "filedir": { "path": "/kept/a" }, "silent": null }, "sha256": null, "depth": 0,
        "runs": [], "not_run": [], "findings": []
    });
    let text = json!({
        "results": [payload], "request_meta": { "archive_payloads": true, "source": "web", "extra_data": {} },
        "errors": [], "time": "2026-11-04T05:06:07.000001", "decorators": { "padding": "x".repeat(padding) },
        "scan_id": uuid::Uuid::from_u128(n), "complete": true, "findings": [],
        "engine": { "version": "0", "rulesets": {} }, "tenant": "acme"
    });
    Item { id: uuid::Uuid::from_u128(n).to_string(), json: text.to_string().into() }
}

#[tokio::test]
async fn each_response_is_judged_for_itself() {
    let script = Arc::new(Script { most: 2_000, ..Script::default() });
    let connector = connector(&script, json!({})).unwrap();
    let batch = [item(1, 0), item(2, 3_000), item(3, 0), Item { id: "4".into(), json: "{}".into() }];
    let verdicts = connector.deliver(&batch).await.unwrap();
    assert!(
        matches!(
            &verdicts[..],
            [Verdict::Delivered, Verdict::Rejected(size), Verdict::Delivered, Verdict::Rejected(_)] if size.contains("too large")
        ),
        "{verdicts:?}"
    );
    let published = script.published.lock();
    assert_eq!(published.iter().map(|m| m.id.clone()).collect::<Vec<_>>(), [batch[0].id.clone(), batch[2].id.clone()]);
    assert_eq!(published[0].body, batch[0].json);
    assert_eq!(published[0].header(SCAN), Some(batch[0].id.as_str()));
    assert_eq!((published[0].header(TENANT), published[0].header(MODEL)), (Some("acme"), Some("response")));
}

#[tokio::test]
async fn what_the_broker_says_of_itself_is_passed_on() {
    for kind in [FaultKind::Unavailable, FaultKind::Misconfigured] {
        let script = Arc::new(Script { most: 2_000, fails: Mutex::new(Some(kind)), ..Script::default() });
        let connector = connector(&script, json!({})).unwrap();
        assert_eq!(connector.deliver(&[item(1, 0)]).await.unwrap_err().kind, kind);
        connector.check().await.unwrap();
    }
    let script = Arc::new(Script { missing: true, ..Script::default() });
    let connector = connector(&script, json!({})).unwrap();
    let fault = connector.check().await.unwrap_err();
    assert!(fault.kind == FaultKind::Misconfigured && fault.context.contains("topic t"), "{fault}");
    for make in [false, true] {
        let parts = connector.setup(make).await.unwrap();
        assert!(matches!(&parts[0].state, PartState::Different(why) if why.contains("owner")), "{parts:?}");
    }
}

#[tokio::test]
async fn tasks_for_archivers_are_as_stoq_wrote_them() {
    let script = Arc::new(Script { most: 2_000, ..Script::default() });
    let connector = connector(&script, json!({ "publish_archive": true, "topic": "out", "queue": null })).unwrap();
    assert_eq!(connector.deliver(&[item(1, 0)]).await.unwrap(), [Verdict::Delivered]);
    let published = script.published.lock();
    let [message] = &published[..] else { panic!("{published:?}") };
    let expected = json!({ "filedir": {
        "request_meta": { "archive_payloads": true, "source": "web", "extra_data": {} },
        "filename": "a", "path": "/kept/a"
    } });
    assert_eq!(serde_json::from_slice::<Value>(&message.body).unwrap(), expected);
    assert_eq!(message.header(MODEL), Some("archive"));
}

#[tokio::test]
async fn under_stoqs_own_name_its_default_holds() {
    let build = |name: &str, more: Value| {
        let script = Arc::new(Script { most: 2_000, ..Script::default() });
        let context = Context { name: "out".to_owned(), queues: Arc::new(One(Arc::clone(&script))) };
        let registration = registrations().into_iter().find(|one| one.info.name == name).unwrap();
        let mut options = json!({ "broker": "main", "topic": "out" });
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        (script, (registration.build)(options.as_object().unwrap(), &context).unwrap())
    };
    for (name, more, model) in [
        ("kafka-queue", json!({}), "archive"),
        ("kafka-queue", json!({ "publish_archive": false }), "response"),
        ("kafka", json!({}), "response"),
        ("kafka", json!({ "publish_archive": true }), "archive"),
    ] {
        let (script, connector) = build(name, more);
        assert_eq!(connector.deliver(&[item(1, 0)]).await.unwrap(), [Verdict::Delivered]);
        assert_eq!(script.published.lock()[0].header(MODEL), Some(model), "{name}");
    }
}

#[test]
fn options_that_cannot_work_are_refused() {
    let script = Arc::new(Script::default());
    for (more, said) in [
        (json!({ "broker": "" }), "`broker` is missing"),
        (json!({ "queue": "" }), "`queue` is missing"),
        (json!({ "topic": "out" }), "both set"),
        (json!({ "model": "xml" }), "xml"),
        (json!({ "servers": "x" }), "servers"),
    ] {
        let error = connector(&script, more).err().unwrap().0;
        assert!(error.contains(said), "{error}");
    }
}
