//! What the conformance suite does not ask, on a real broker: logins, wrong settings, limits, other people's topics, and
//! that partitions move without a loss.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helper functions are test code, though not marked as such"
)]

mod common;
mod killed;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use common::{broker, committed, next, places};
use parking_lot::Mutex;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use serde_json::json;
use stoq_api::FaultKind;
use stoq_api::queue::{Broker, LaneOptions, Message, PartState, Prefetch};
use stoq_testkit::services::{Kafka, KafkaOptions};
use stoq_testkit::wait::{must_end, until};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// One broker for all: starting it takes longer than what is asked of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn against_a_broker() {
    let mut server = Kafka::start_with(KafkaOptions { tls: true, ..KafkaOptions::default() }).await;
    logs_in_and_says_when_it_cannot(&server).await;
    checks_certificates(&server).await;
    says_what_is_missing_and_makes_nothing_of_others(&server).await;
    notices_other_settings(&server).await;
    refuses_what_is_too_large(&server).await;
    pushes_back_at_the_bound(&server).await;
    reads_other_peoples_topics(&server).await;
    moves_partitions_without_a_loss(&server).await;
    killed::brings_back_what_a_killed_process_held(&server).await;
    killed::survives_a_process_that_stood_still(&server).await;
    waits_for_a_broker_that_is_away(&mut server).await;
}

async fn logs_in_and_says_when_it_cannot(server: &Kafka) {
    for (user, mechanism) in [("plain", "PLAIN"), ("scram", "SCRAM-SHA-256"), ("scram", "SCRAM-SHA-512")] {
        let login = json!({"servers": [server.sasl_address()], "user": user, "mechanism": mechanism,
            "password": server.password()});
        broker(server, login).check().await.unwrap();
        let wrong = json!({"servers": [server.sasl_address()], "user": user, "mechanism": mechanism,
            "password": "hunter2", "timeout": 8.0});
        let wrong = broker(server, wrong);
        let fault = wrong.check().await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Misconfigured, "{mechanism}: {fault}");
        assert!(fault.context.contains("password") && !fault.context.contains("hunter2"), "{fault}");
        let lane = wrong.lane("login", LaneOptions::default());
        assert_eq!(lane.declare(&["s"]).await.unwrap_err().kind, FaultKind::Misconfigured);
        must_end("closing what never connected", wrong.close()).await;
    }
}

async fn checks_certificates(server: &Kafka) {
    let (address, authority) = server.tls_address();
    let trusted = json!({"servers": [address], "tls": true, "tls_ca_file": authority.certificate()});
    broker(server, trusted).check().await.unwrap();
    let unknown = broker(server, json!({"servers": [address], "tls": true, "timeout": 3.0}));
    assert_eq!(unknown.check().await.unwrap_err().kind, FaultKind::Misconfigured);
    let plain = broker(server, json!({"servers": [address], "timeout": 2.0}));
    assert!(plain.check().await.is_err());
}

async fn says_what_is_missing_and_makes_nothing_of_others(server: &Kafka) {
    let broker = broker(server, json!({}));
    let foreign = broker.foreign("nobody.made.this");
    for fault in [
        foreign.declare(&["s"]).await.unwrap_err(),
        foreign.publish(vec![Message::new("", "x")]).await.unwrap_err(),
        foreign.subscribe("s", Prefetch { messages: 1 }).await.err().unwrap(),
    ] {
        assert_eq!(fault.kind, FaultKind::Misconfigured, "{fault}");
        assert!(fault.context.contains("nobody.made.this"), "{fault}");
    }
    // The broker would make topics by itself; asking must not be what makes it.
    let parts = foreign.inspect(&["s"]).await.unwrap();
    assert_eq!((parts.len(), &parts[0].state), (1, &PartState::Missing));
    let lane = broker.lane("missing", LaneOptions::default());
    let states = |parts: Vec<stoq_api::queue::Part>| parts.into_iter().map(|p| p.state).collect::<Vec<_>>();
    assert_eq!(states(lane.inspect(&["s"]).await.unwrap()), [PartState::Missing, PartState::Missing]);
    lane.declare(&["s"]).await.unwrap();
    assert_eq!(
        states(lane.inspect(&["s", "t"]).await.unwrap()),
        [PartState::Present, PartState::Present, PartState::Missing]
    );
}

async fn notices_other_settings(server: &Kafka) {
    broker(server, json!({})).lane("settings", LaneOptions::default()).declare(&["s"]).await.unwrap();
    let other = broker(server, json!({"partitions": 9, "retention": 3600.0}));
    let lane = other.lane("settings", LaneOptions::default());
    let fault = lane.declare(&["s"]).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Misconfigured, "{fault}");
    assert!(fault.context.contains("partitions") && fault.context.contains("retention.ms"), "{fault}");
    let parts = lane.inspect(&["s"]).await.unwrap();
    assert!(matches!(parts[0].state, PartState::Different(_)), "{parts:?}");
    // One broker keeps no three copies.
    let safe = broker(server, json!({"replication": 3, "min_insync": 2}));
    let fault = safe.lane("copies", LaneOptions::default()).declare(&["s"]).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Misconfigured, "{fault}");
    assert!(fault.context.contains("replication = 1"), "{fault}");
}

async fn refuses_what_is_too_large(server: &Kafka) {
    let narrow = broker(server, json!({"max_message": 100_000}));
    let lane = narrow.lane("large", LaneOptions::default());
    lane.declare(&["s"]).await.unwrap();
    let fault = lane.publish(vec![Message::new("l", vec![1; 200_000])]).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Refused, "{fault}");
    // The client's own limit is above that of this topic: the broker refuses.
    let wide = broker(server, json!({}));
    let fault = wide.foreign("t.large").publish(vec![Message::new("l", vec![1; 200_000])]).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Refused, "{fault}");
    let nul = Message { headers: vec![("a\0b".into(), String::new())], ..Message::new("n", "x") };
    assert_eq!(lane.publish(vec![nul]).await.unwrap_err().kind, FaultKind::Refused);
    lane.publish(vec![Message::new("s", vec![1; 50_000])]).await.unwrap();
    assert_eq!(lane.depth("s").await.unwrap().ready, 1);
}

async fn pushes_back_at_the_bound(server: &Kafka) {
    let broker = broker(server, json!({}));
    let lane = broker.lane("bound", LaneOptions { bound: Some(50) });
    lane.declare(&["fast", "slow"]).await.unwrap();
    let messages = || (0..10).map(|n| Message::new(n.to_string(), "x")).collect::<Vec<_>>();
    until("the lane is full", || async {
        match lane.publish(messages()).await {
            Ok(()) => false,
            Err(fault) => {
                assert_eq!(fault.kind, FaultKind::Unavailable, "{fault}");
                true
            }
        }
    })
    .await;
    let mut fast = lane.subscribe("fast", Prefetch { messages: 10 }).await.unwrap();
    let waiting = lane.depth("fast").await.unwrap().ready;
    for _ in 0..waiting {
        next(&mut fast).await.ack().await.unwrap();
    }
    until("one subscription is empty", || async { lane.depth("fast").await.unwrap().ready == 0 }).await;
    assert!(lane.publish(messages()).await.is_err(), "the slow one decides");
    let mut slow = lane.subscribe("slow", Prefetch { messages: 10 }).await.unwrap();
    for _ in 0..waiting {
        next(&mut slow).await.ack().await.unwrap();
    }
    until("there is room", || async { lane.publish(messages()).await.is_ok() }).await;
}

async fn reads_other_peoples_topics(server: &Kafka) {
    let owner = broker(server, json!({"prefix": "theirs", "partitions": 2}));
    owner.lane("eve", LaneOptions::default()).declare(&[]).await.unwrap();
    let producer: ThreadedProducer<rdkafka::producer::DefaultProducerContext> =
        ClientConfig::new().set("bootstrap.servers", server.address()).create().unwrap();
    let headers = OwnedHeaders::new()
        .insert(Header { key: "sensor", value: Some("s1") })
        .insert(Header { key: "raw", value: Some(&[0xff, b'a'][..]) });
    let record =
        BaseRecord::<str, str>::to("theirs.eve").key("k").payload("{}").partition(1).timestamp(1_767_400_000_000);
    producer.send(record.headers(headers)).map_err(|(e, _)| e).unwrap();
    producer.flush(Duration::from_secs(30)).unwrap();
    let ours = broker(server, json!({}));
    let intake = ours.foreign("theirs.eve");
    intake.declare(&["providers"]).await.unwrap();
    let mut deliveries = intake.subscribe("providers", Prefetch { messages: 4 }).await.unwrap();
    let delivery = next(&mut deliveries).await;
    let text = delivery.message.id.clone();
    let id: Vec<&str> = text.split('/').collect();
    assert_eq!(id[1..], ["theirs.eve", "1", "0", "1767400000000"]);
    assert!(!id[0].is_empty(), "the cluster's id");
    assert_eq!(&delivery.message.body[..], b"{}");
    assert_eq!(delivery.message.header("sensor"), Some("s1"));
    assert_eq!(delivery.message.header("raw"), Some("\u{fffd}a"));
    delivery.ack().await.unwrap();
    // What we publish there has our headers and no name of ours.
    let message = Message { headers: vec![("a".into(), "b".into())], ..Message::new("ours", "2") };
    intake.publish(vec![message]).await.unwrap();
    let delivery = next(&mut deliveries).await;
    assert!(delivery.message.id.starts_with(id[0]));
    assert_eq!(delivery.message.headers, [("a".to_owned(), "b".to_owned())]);
    delivery.ack().await.unwrap();
    ours.close().await;
    let topic = (0..2).map(|partition| committed(server, "t.theirs.eve", "theirs.eve", partition)).sum::<i64>();
    assert_eq!(topic, 2, "both are committed, under a group of our own");
}

/// How many messages are moved about, and how many are held at once.
const MOVED: usize = 4_000;
const HELD: u32 = 1_000;

/// What the consumers have done so far.
#[derive(Default)]
struct Done {
    /// Those whose verdict was begun: only these may lie below a committed offset.
    begun: Mutex<BTreeSet<String>>,
    /// Those whose verdict was accepted.
    acknowledged: Mutex<BTreeSet<String>>,
}

async fn moves_partitions_without_a_loss(server: &Kafka) {
    let publisher = broker(server, json!({"partitions": 6}));
    let lane = publisher.lane("moved", LaneOptions::default());
    lane.declare(&["s"]).await.unwrap();
    lane.publish((0..MOVED).map(|n| Message::new(n.to_string(), "x")).collect()).await.unwrap();
    let places = places(server, "t.moved", MOVED).await;
    let done = Arc::new(Done::default());
    let (stop, _) = watch::channel(false);
    let mut consumers = JoinSet::new();
    // Consumers come one after the other, the first two go in the middle of their work, one of them without a word.
    let mut lives = Vec::new();
    for (life, at) in [(0, 0), (1, MOVED / 8), (2, MOVED / 4)] {
        until("work goes on", || async { done.acknowledged.lock().len() >= at }).await;
        let client = broker(server, json!({"partitions": 6}));
        lives.push(Arc::clone(&client));
        consumers.spawn(consume(client, Arc::clone(&done), stop.subscribe(), life));
        check_committed(server, &places, &done).await;
    }
    until("work goes on", || async { done.acknowledged.lock().len() >= MOVED / 2 }).await;
    lives[0].close().await;
    check_committed(server, &places, &done).await;
    until("all are acknowledged", || async {
        check_committed(server, &places, &done).await;
        done.acknowledged.lock().len() == MOVED
    })
    .await;
    until("nothing is left", || async { lane.depth("s").await.unwrap().ready == 0 }).await;
    stop.send(true).unwrap();
    must_end("the consumers", consumers.join_all()).await;
    check_committed(server, &places, &done).await;
}

/// Holds up to a thousand at once, and gives verdicts in another order than that of delivery.
async fn consume(client: Arc<dyn Broker>, done: Arc<Done>, mut stop: watch::Receiver<bool>, life: usize) {
    let lane = client.lane("moved", LaneOptions::default());
    let mut deliveries = lane.subscribe("s", Prefetch { messages: HELD }).await.unwrap();
    let mut held = Vec::new();
    let mut turn = life;
    loop {
        let delivery = tokio::select! {
            delivery = deliveries.next() => delivery.unwrap(),
            _ = stop.changed() => None,
            () = tokio::time::sleep(Duration::from_millis(20)), if !held.is_empty() => {
                settle(&mut held, &done, &mut turn).await;
                continue;
            }
        };
        let Some(delivery) = delivery else { return };
        held.push(delivery);
        if held.len() > HELD as usize * 9 / 10 {
            settle(&mut held, &done, &mut turn).await;
        }
    }
}

/// Gives a third of what is held a verdict, the youngest first; one in ten is given back.
async fn settle(held: &mut Vec<stoq_api::queue::Delivery>, done: &Done, turn: &mut usize) {
    for _ in 0..held.len().div_ceil(3) {
        let Some(delivery) = held.pop() else { return };
        *turn += 1;
        if turn.is_multiple_of(10) {
            delivery.release().await.ok();
            continue;
        }
        let id = delivery.message.id.clone();
        done.begun.lock().insert(id.clone());
        if delivery.ack().await.is_ok() {
            done.acknowledged.lock().insert(id);
        }
    }
}

/// Nothing that lies below a committed offset is without a verdict.
async fn check_committed(server: &Kafka, places: &BTreeMap<String, (i32, i64)>, done: &Done) {
    let address = server.address();
    let offsets = tokio::task::spawn_blocking(move || common::all_committed(&address, "t.moved.s", "t.moved", 6));
    // First the offsets, then the verdicts: those only ever become more.
    let offsets = offsets.await.unwrap();
    let begun = done.begun.lock();
    for (id, (partition, offset)) in places {
        let below = offsets.get(partition).is_some_and(|committed| offset < committed);
        assert!(!below || begun.contains(id), "{id} at {partition}/{offset} is committed and has no verdict");
    }
}

async fn waits_for_a_broker_that_is_away(server: &mut Kafka) {
    let client = broker(server, json!({"timeout": 2.0}));
    let lane = client.lane("away", LaneOptions::default());
    broker(server, json!({})).lane("away", LaneOptions::default()).declare(&["s"]).await.unwrap();
    server.kill();
    let early = broker(server, json!({"timeout": 2.0}));
    assert_eq!(early.check().await.unwrap_err().kind, FaultKind::Unavailable);
    let early_lane = early.lane("away", LaneOptions::default());
    assert_eq!(early_lane.declare(&["s"]).await.unwrap_err().kind, FaultKind::Unavailable);
    let subscribed = early_lane.subscribe("s", Prefetch { messages: 1 }).await;
    assert_eq!(subscribed.err().unwrap().kind, FaultKind::Unavailable);
    assert_eq!(lane.publish(vec![Message::new("a", "x")]).await.unwrap_err().kind, FaultKind::Unavailable);
    server.restart().await;
    until("the broker is used again", || async { early.check().await.is_ok() }).await;
    until("the lane is used again", || async { lane.publish(vec![Message::new("b", "x")]).await.is_ok() }).await;
    // Its groups are known a little later than its topics.
    let mut deliveries = must_end("the subscription", async {
        loop {
            match early_lane.subscribe("s", Prefetch { messages: 2 }).await {
                Ok(deliveries) => return deliveries,
                Err(fault) => assert_eq!(fault.kind, FaultKind::Unavailable, "{fault}"),
            }
        }
    })
    .await;
    let mut delivery = next(&mut deliveries).await;
    if delivery.message.id == "a" {
        // An error says that it may have been published.
        delivery.ack().await.unwrap();
        delivery = next(&mut deliveries).await;
    }
    assert_eq!(delivery.message.id, "b");
    // A consumer that was there before finds its broker again, and says in between that it is away.
    server.kill();
    let fault = must_end("word of it", async {
        loop {
            match deliveries.next().await {
                // Published, although nobody heard so, and then once more.
                Ok(Some(again)) => assert_eq!(again.message.id, "b"),
                Ok(None) => panic!("the queue is not shut down"),
                Err(fault) => return fault,
            }
        }
    })
    .await;
    assert_eq!(fault.kind, FaultKind::Unavailable, "{fault}");
    server.restart().await;
    until("the lane is used again", || async { lane.publish(vec![Message::new("c", "x")]).await.is_ok() }).await;
    let after = must_end("the next message", async {
        loop {
            match deliveries.next().await {
                Ok(Some(next)) if next.message.id == "b" => next.ack().await.unwrap_or_default(),
                Ok(Some(next)) => return next,
                Ok(None) => panic!("the queue is not shut down"),
                Err(_) => {}
            }
        }
    })
    .await;
    assert_eq!(after.message.id, "c");
}
