//! What Pub/Sub or we do not take, and what a person has to mend.

use serde_json::json;
use stoq_api::FaultKind;
use stoq_api::queue::{LaneOptions, Message, Part, PartState, Prefetch};
use stoq_testkit::services::PubSub;
use stoq_testkit::wait::must_end;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::common::broker;
use super::{SUB, declared, fault, message, next, subscribe};

/// gRPC status codes.
const PERMISSION_DENIED: u32 = 7;
const RESOURCE_EXHAUSTED: u32 = 8;
const UNAUTHENTICATED: u32 = 16;

/// One request of the REST interface, made as an operator would behind our back.
async fn rest(server: &PubSub, method: &str, name: &str) {
    let mut stream = TcpStream::connect(server.host()).await.unwrap();
    let request = format!(
        "{method} /v1/projects/test-project/{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn what_is_not_there_is_for_the_operator() {
    let server = PubSub::start().await;
    let broker = broker(&server.host(), &json!({}));
    let lane = broker.lane("missing", LaneOptions::default());
    let missing = fault(lane.publish(message("m")).await);
    assert!(missing.kind == FaultKind::Misconfigured && missing.to_string().contains("stoq.missing"), "{missing}");
    lane.declare(&[]).await.unwrap();
    let lost = fault(lane.publish(message("m")).await);
    assert!(lost.kind == FaultKind::Refused && lost.to_string().contains("nothing subscribes"), "{lost}");
    let unknown = fault(lane.subscribe(SUB, Prefetch { messages: 1 }).await);
    assert!(unknown.kind == FaultKind::Misconfigured && unknown.to_string().contains("stoq.missing.main"), "{unknown}");
    assert_eq!(fault(lane.depth(SUB).await).kind, FaultKind::Refused);
}

#[tokio::test]
async fn what_is_deleted_meanwhile_is_said() {
    let server = PubSub::start().await;
    let broker = broker(&server.host(), &json!({}));
    let lane = declared(&*broker, "deleted").await;
    let mut deliveries = subscribe(&*lane, 1).await;
    lane.publish(message("m")).await.unwrap();
    next(&mut deliveries).await.ack().await.unwrap();
    // A stream goes by the name alone, so it would read what is published to a subscription of that name made anew.
    drop(deliveries);
    rest(&server, "DELETE", "subscriptions/stoq.deleted.main").await;
    let gone = fault(lane.subscribe(SUB, Prefetch { messages: 1 }).await);
    assert_eq!(gone.kind, FaultKind::Misconfigured, "{gone:?}");
    lane.declare(&[SUB]).await.unwrap();
    lane.publish(message("again")).await.unwrap();
    assert_eq!(next(&mut subscribe(&*lane, 1).await).await.message.id, "again");
    rest(&server, "DELETE", "topics/stoq.deleted").await;
    assert_eq!(fault(lane.publish(message("m")).await).kind, FaultKind::Misconfigured);
}

#[tokio::test]
async fn permissions_and_quotas_are_told_apart() {
    for (method, code, kind, says) in [
        ("Publish", PERMISSION_DENIED, FaultKind::Misconfigured, "roles/pubsub.publisher"),
        ("Publish", UNAUTHENTICATED, FaultKind::Misconfigured, "credentials are not accepted"),
        ("Publish", RESOURCE_EXHAUSTED, FaultKind::Unavailable, "stoq.roots"),
        ("ListTopicSubscriptions", PERMISSION_DENIED, FaultKind::Misconfigured, "roles/pubsub.viewer"),
    ] {
        let server = PubSub::start_failing(&[(method, code)]).await;
        let broker = broker(&server.host(), &json!({"timeout": 2.0}));
        let lane = declared(&*broker, "roots").await;
        let failed = fault(lane.publish(message("m")).await);
        assert!(failed.kind == kind && failed.to_string().contains(says), "{method} {code}: {failed:?}");
    }
    let server = PubSub::start_failing(&[("CreateTopic", PERMISSION_DENIED), ("GetTopic", UNAUTHENTICATED)]).await;
    let broker_ = broker(&server.host(), &json!({}));
    assert_eq!(fault(broker_.check().await).kind, FaultKind::Misconfigured);
    let server = PubSub::start_failing(&[("CreateTopic", PERMISSION_DENIED)]).await;
    let broker_ = broker(&server.host(), &json!({}));
    broker_.check().await.unwrap();
    let denied = fault(broker_.lane("roots", LaneOptions::default()).declare(&[SUB]).await);
    assert!(
        denied.kind == FaultKind::Misconfigured && denied.to_string().contains("roles/pubsub.editor"),
        "{denied:?}"
    );
}

#[tokio::test]
async fn reads_and_writes_without_the_right_to_look() {
    let server = PubSub::start_failing(&[("GetSubscription", PERMISSION_DENIED)]).await;
    let looking = broker(&server.host(), &json!({}));
    rest(&server, "PUT", "topics/theirs").await;
    let lane = looking.lane("sight", LaneOptions::default());
    assert_eq!(fault(lane.declare(&[SUB]).await).kind, FaultKind::Misconfigured);
    // Nothing was found out about it, so it is tried; that it is not there is then said by reading.
    let mut deliveries = lane.subscribe(SUB, Prefetch { messages: 1 }).await.unwrap();
    assert_eq!(fault(must_end("an error", deliveries.next()).await).kind, FaultKind::Misconfigured);
}

#[tokio::test]
async fn credentials_that_cannot_be_used_are_named_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let key = json!({
        "type": "service_account", "client_email": "a@b", "private_key_id": "1", "private_key": "hunter2",
        "project_id": "p", "universe_domain": "googleapis.com",
    });
    for (name, content, says) in [
        ("missing", None, "No such file"),
        ("text", Some("hunter2 is no JSON".to_owned()), "not JSON"),
        ("other", Some(r#"{"type": "hunter2"}"#.to_owned()), "service_account"),
        ("incomplete", Some(r#"{"type": "service_account"}"#.to_owned()), "service_account"),
        ("key", Some(key.to_string()), "credentials cannot be used"),
    ] {
        let file = folder.path().join(name);
        if let Some(content) = content {
            std::fs::write(&file, content).unwrap();
        }
        // Nothing listens there, and nothing is to be sent.
        let options =
            json!({"project": "p", "endpoint": "http://127.0.0.1:9", "timeout": 1.0, "credentials_file": file});
        let broker = (stoq_pubsub::registration().open)(options.as_object().unwrap()).unwrap();
        let wrong = fault(broker.check().await);
        assert_eq!(wrong.kind, FaultKind::Misconfigured, "{name}: {wrong:?}");
        let text = stoq_api::fault::chain(&wrong);
        assert!(text.contains(says) && !text.contains("hunter2"), "{name}: {text}");
    }
}

#[tokio::test]
async fn messages_up_to_the_limit_pass_and_larger_ones_are_refused() {
    let server = PubSub::start().await;
    let broker = broker(&server.host(), &json!({}));
    let lane = declared(&*broker, "large").await;
    let large: Vec<u8> = (0..9_990_000_u32).map(|n| (n % 251) as u8).collect();
    lane.publish(vec![Message::new("small", "x"), Message::new("large", large.clone())]).await.unwrap();
    let refused = fault(lane.publish(vec![Message::new("huge", vec![0; 10_000_000])]).await);
    assert!(refused.kind == FaultKind::Refused && refused.to_string().contains("10000000"), "{refused}");
    let mut deliveries = subscribe(&*lane, 2).await;
    let mut both = vec![next(&mut deliveries).await, next(&mut deliveries).await];
    both.sort_by_key(|delivery| delivery.message.body.len());
    assert!(both[1].message.body == large, "whole");
    for delivery in both {
        delivery.ack().await.unwrap();
    }
}

#[tokio::test]
async fn other_settings_are_told_and_left_alone() {
    let server = PubSub::start().await;
    let lane_with = |options| broker(&server.host(), &options).lane("settings", LaneOptions::default());
    let lane = lane_with(json!({}));
    let states = |parts: Vec<Part>| parts.into_iter().map(|part| part.state).collect::<Vec<_>>();
    assert_eq!(states(lane.inspect(&[SUB]).await.unwrap()), [PartState::Missing, PartState::Missing]);
    lane.declare(&[SUB]).await.unwrap();
    assert_eq!(
        states(lane.inspect(&[SUB, "other"]).await.unwrap()),
        [PartState::Present, PartState::Present, PartState::Missing]
    );
    for (options, says) in [
        (json!({"ack_deadline": 20.0}), "--ack-deadline=20"),
        (json!({"retention": 3_600.0}), "--message-retention-duration=3600s"),
        (json!({"exactly_once": true}), "--enable-exactly-once-delivery"),
    ] {
        let other = lane_with(options);
        let differs = fault(other.declare(&[SUB]).await);
        assert!(differs.kind == FaultKind::Misconfigured && differs.to_string().contains(says), "{differs}");
        let found = states(other.inspect(&[SUB]).await.unwrap());
        assert!(matches!(&found[1], PartState::Different(how) if how.contains(says)), "{found:?}");
    }
    lane.declare(&[SUB]).await.unwrap();
}

#[tokio::test]
async fn others_queues_are_read_and_written_but_never_made() {
    let server = PubSub::start().await;
    let broker = broker(&server.host(), &json!({}));
    for name in ["theirs", "projects/test-project/subscriptions/theirs"] {
        let intake = broker.foreign(name);
        assert_eq!(fault(intake.declare(&["any"]).await).kind, FaultKind::Misconfigured);
        assert_eq!(intake.inspect(&["any"]).await.unwrap()[0].state, PartState::Missing);
    }
    assert_eq!(fault(broker.foreign("theirs").declare(&[]).await).kind, FaultKind::Misconfigured);
    // A lane seen from outside is somebody else's topic and subscription.
    let lane = declared(&*broker, "theirs").await;
    let topic = broker.foreign("projects/test-project/topics/stoq.theirs");
    topic.declare(&[]).await.unwrap();
    let headers = vec![("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())];
    topic.publish(vec![Message { headers, ..Message::new("ignored", "body") }]).await.unwrap();
    let intake = broker.foreign("stoq.theirs.main");
    intake.declare(&["any"]).await.unwrap();
    let mut deliveries = intake.subscribe("any", Prefetch { messages: 1 }).await.unwrap();
    let delivery = next(&mut deliveries).await;
    let got = &delivery.message;
    assert!(!got.id.is_empty() && got.id != "ignored", "what Pub/Sub calls it: {}", got.id);
    assert_eq!((&got.body[..], got.header("a"), got.header("b")), (&b"body"[..], Some("1"), Some("2")));
    assert!(delivery.published.is_some() && !delivery.first);
    let id = got.id.clone();
    delivery.release().await.unwrap();
    assert_eq!(next(&mut deliveries).await.message.id, id, "the same identity when it comes again");
    lane.declare(&[SUB]).await.unwrap();
}
