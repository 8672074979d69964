//! What is said of a broker that is not as it should be, and how things at it are found.

use std::sync::Arc;

use serde_json::json;
use stoq_api::FaultKind;
use stoq_api::queue::{Broker, LaneOptions, Message, PartState, Prefetch, Queue};
use stoq_testkit::services::{RabbitMq as Server, RabbitMqOptions};
use stoq_testkit::wait::until;

use crate::common::{client, next, options, server, with};

const ONE: Prefetch = Prefetch { messages: 1 };

#[tokio::test]
async fn what_a_person_has_to_mend_is_told_from_what_passes() {
    let server = server().await;
    let good = options(server);
    client(&good).check().await.unwrap();
    let nowhere = stoq_testkit::services::Port::claim();
    for (changes, kind, says) in [
        (json!({"password": "wrong"}), FaultKind::Misconfigured, "password"),
        (json!({"user": "nobody"}), FaultKind::Misconfigured, "user"),
        (json!({"vhost": "not there"}), FaultKind::Misconfigured, "not there"),
        (json!({"password_file": "/not/there", "password": "guest"}), FaultKind::Misconfigured, "/not/there"),
        (
            json!({"addresses": [format!("amqps://127.0.0.1:{}", server.port())], "tls_ca_file": "/not/there"}),
            FaultKind::Misconfigured,
            "tls_ca_file",
        ),
        (json!({"addresses": [format!("amqp://127.0.0.1:{}", nowhere.number())]}), FaultKind::Unavailable, "refused"),
    ] {
        let fault = client(&with(good.clone(), changes)).check().await.unwrap_err();
        assert_eq!(fault.kind, kind, "{fault}");
        assert!(fault.context.contains(says), "{fault}");
        assert!(!fault.context.contains(server.password()), "{fault}");
    }
    let dead = format!("amqp://127.0.0.1:{}", nowhere.number());
    client(&with(good, json!({"addresses": [dead, server.address()]}))).check().await.unwrap();
}

#[tokio::test]
async fn a_password_may_stand_in_a_file_and_change() {
    let server = server().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "not yet\n").unwrap();
    let mut options = with(options(server), json!({"password_file": file.path()}));
    options.remove("password");
    let client = client(&options);
    assert_eq!(client.check().await.unwrap_err().kind, FaultKind::Misconfigured);
    std::fs::write(file.path(), format!("{}\n", server.password())).unwrap();
    until("the new password is used", || async { client.check().await.is_ok() }).await;
}

#[tokio::test]
async fn declaring_says_what_is_different_and_inspecting_changes_nothing() {
    let server = server().await;
    let options = options(server);
    let plain = client(&options);
    let lane = plain.lane("tasks", LaneOptions { bound: Some(10) });
    let states = async |queue: &Arc<dyn Queue>| -> Vec<PartState> {
        queue.inspect(&["worker"]).await.unwrap().into_iter().map(|part| part.state).collect()
    };
    assert_eq!(states(&lane).await, [PartState::Missing, PartState::Missing]);
    assert_eq!(states(&lane).await, [PartState::Missing, PartState::Missing], "inspecting made nothing");
    lane.declare(&["worker"]).await.unwrap();
    assert_eq!(states(&lane).await, [PartState::Present, PartState::Present]);

    let unbounded = plain.lane("tasks", LaneOptions::default());
    let fault = unbounded.declare(&["worker"]).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Misconfigured, "{fault}");
    let queue = format!("{}.tasks.worker", options["prefix"].as_str().unwrap());
    assert!(fault.context.contains(&queue) && fault.context.contains("x-max-length"), "{fault}");
    assert!(
        matches!(&states(&unbounded).await[..], [PartState::Present, PartState::Different(why)] if why.contains("x-max-length"))
    );
    let classic = client(&with(options, json!({"queue_type": "classic"})));
    let fault = classic.lane("tasks", LaneOptions { bound: Some(10) }).declare(&["worker"]).await.unwrap_err();
    assert!(fault.kind == FaultKind::Misconfigured && fault.context.contains("x-queue-type"), "{fault}");

    let fault = lane.subscribe("nobody", ONE).await.err().unwrap();
    assert_eq!(fault.kind, FaultKind::Misconfigured, "{fault}");
    assert!(fault.context.contains("nobody"), "{fault}");
    lane.publish(vec![Message::new("still", "fine")]).await.unwrap();
}

#[tokio::test]
async fn a_full_lane_takes_nothing_until_there_is_room() {
    let client = client(&options(server().await));
    let lane = client.lane("full", LaneOptions { bound: Some(5) });
    lane.declare(&["worker"]).await.unwrap();
    // Quorum queues notice their bound a few messages late.
    let mut taken = 0_u64;
    let fault = loop {
        match lane.publish(vec![Message::new("", "x")]).await {
            Ok(()) => taken += 1,
            Err(fault) => break fault,
        }
        assert!(taken < 1_000, "the bound is never reached");
    };
    assert!(taken >= 5 && fault.kind == FaultKind::Unavailable && fault.context.contains("full"), "{taken}: {fault}");
    let mut deliveries = lane.subscribe("worker", Prefetch { messages: 20 }).await.unwrap();
    for _ in 0..taken {
        next(&mut deliveries).await.ack().await.unwrap();
    }
    until("there is room again", || async { lane.publish(vec![Message::new("", "x")]).await.is_ok() }).await;
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_and_hurts_no_other() {
    let server = Server::start_with(RabbitMqOptions {
        lines: vec!["max_message_size = 100000".to_owned()],
        ..RabbitMqOptions::default()
    })
    .await;
    let client = client(&with(options(&server), json!({"max_message": 1_000_000})));
    let lane = client.lane("large", LaneOptions::default());
    lane.declare(&["worker"]).await.unwrap();
    let sized = |bytes: usize| vec![Message::new(bytes.to_string(), vec![1; bytes])];
    // The first is the configuration's to refuse, the second the broker's; the third knows from it.
    for bytes in [1_000_001, 100_001, 100_001] {
        let fault = lane.publish(sized(bytes)).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Refused, "{bytes}: {fault}");
    }
    lane.publish(sized(100_000)).await.unwrap();
    let mut deliveries = lane.subscribe("worker", ONE).await.unwrap();
    assert_eq!(next(&mut deliveries).await.message.body.len(), 100_000);
}

#[tokio::test]
async fn somebody_elses_queue_is_used_as_it_is() {
    let server = server().await;
    let client = client(&with(
        options(server),
        json!({"prefix": format!("x{}", uuid::Uuid::new_v4().simple()), "queue_type": "classic"}),
    ));
    // A lane of one subscription is as good a queue of somebody else's as any, and reached by its full name.
    let owner = client.lane("carved/files", LaneOptions::default());
    let queue = client.foreign("nobody made this one");
    assert_eq!(queue.inspect(&["any"]).await.unwrap()[0].state, PartState::Missing);
    assert_eq!(queue.declare(&["any"]).await.unwrap_err().kind, FaultKind::Misconfigured);
    assert_eq!(queue.inspect(&["any"]).await.unwrap()[0].state, PartState::Missing, "it made nothing");
    assert_eq!(queue.publish(vec![Message::new("", "")]).await.unwrap_err().kind, FaultKind::Misconfigured);

    owner.declare(&["in"]).await.unwrap();
    let parts = owner.inspect(&["in"]).await.unwrap();
    let name = |at: usize| parts[at].what.rsplit(' ').next().unwrap().to_owned();
    let (exchange, queue) = (name(0), name(1));
    let foreign = client.foreign(&queue);
    foreign.declare(&["any"]).await.unwrap();
    let headers = vec![("source".to_owned(), "zeek".to_owned())];
    let message = Message { headers, ..Message::new("", "body") };
    // The name has a slash: it has to be said that it is no exchange's.
    client.foreign(&format!("/{queue}")).publish(vec![message.clone()]).await.unwrap();
    let mut deliveries = foreign.subscribe("any", ONE).await.unwrap();
    let delivery = next(&mut deliveries).await;
    assert!(delivery.message == message && delivery.first && delivery.published.is_some());
    delivery.ack().await.unwrap();
    assert!(exchange.contains('/'), "an exchange with a slash cannot be named so that it is told from a key");
}

#[tokio::test]
async fn speaks_tls_to_whom_it_trusts() {
    let settings = RabbitMqOptions { tls: true, client_certificates: true, ..RabbitMqOptions::default() };
    let server = Server::start_with(settings).await;
    let (address, authority) = server.tls_address();
    let me = authority.client("stoq");
    let good = with(
        options(&server),
        json!({
            "addresses": [address],
            "tls_ca_file": authority.certificate(),
            "tls_client_cert_file": me.certificate,
            "tls_client_key_file": me.key,
        }),
    );
    let trusted = client(&good);
    trusted.check().await.unwrap();
    let lane = trusted.lane("private", LaneOptions::default());
    lane.declare(&["worker"]).await.unwrap();
    lane.publish(vec![Message::new("large", vec![7; 3 << 20])]).await.unwrap();
    let mut deliveries = lane.subscribe("worker", ONE).await.unwrap();
    let delivery = next(&mut deliveries).await;
    assert_eq!(delivery.message.body.len(), 3 << 20);
    delivery.ack().await.unwrap();

    let stranger = stoq_testkit::services::Authority::new();
    let other = stranger.client("stoq");
    let by_number = address.replace("localhost", "127.0.0.1");
    client(&with(good.clone(), json!({"addresses": [by_number]}))).check().await.unwrap();
    for changes in [
        json!({"tls_ca_file": stranger.certificate()}),
        json!({"tls_ca_file": me.key}),
        json!({"addresses": [server.address().replace("amqp:", "amqps:")]}),
    ] {
        let fault = client(&with(good.clone(), changes)).check().await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Misconfigured, "{fault}");
    }
    let untrusted = json!({"tls_client_cert_file": other.certificate, "tls_client_key_file": other.key});
    assert!(
        client(&with(good, untrusted)).check().await.is_err(),
        "the broker trusts only its own authority's clients"
    );
}

#[tokio::test]
async fn a_user_with_the_least_permissions_can_work_but_not_declare() {
    let server = server().await;
    let owner_options = options(server);
    let prefix = owner_options["prefix"].as_str().unwrap().to_owned();
    let owner = client(&owner_options);
    owner.lane("results", LaneOptions::default()).declare(&["sink"]).await.unwrap();
    let pattern = format!("^{prefix}\\..*$");
    server.add_user("/", &prefix, "pw", ["^$", &pattern, &pattern]).await;
    let limited = client(&with(owner_options, json!({"user": prefix, "password": "pw"})));
    let lane = limited.lane("results", LaneOptions::default());
    lane.publish(vec![Message::new("m", "")]).await.unwrap();
    let mut deliveries = lane.subscribe("sink", ONE).await.unwrap();
    next(&mut deliveries).await.ack().await.unwrap();
    assert_eq!(lane.depth("sink").await.unwrap().ready, 0);
    let states = lane.inspect(&["sink"]).await.unwrap();
    assert!(states.iter().all(|part| part.state == PartState::Present), "{states:?}");
    let fault = lane.declare(&["sink"]).await.unwrap_err();
    assert!(fault.kind == FaultKind::Misconfigured && fault.context.contains("permissions"), "{fault}");
}
