//! The server or the network away for a while, and readers that die.

use std::collections::BTreeSet;
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;
use stoq_api::FaultKind;
use stoq_api::queue::{LaneOptions, Message, Prefetch};
use stoq_testkit::services::{Proxy, PubSub};
use stoq_testkit::wait::{must_end, until};
use tokio::time::timeout;

use super::common::broker;
use super::{SUB, declared, fault, message, next, subscribe};

/// Longer than the deadline of ten seconds with which the tests' subscriptions are made.
const BEYOND_DEADLINE: Duration = Duration::from_secs(13);
const HOST: &str = "STOQ_TEST_PUBSUB_HOST";

#[tokio::test]
async fn a_server_that_is_away_at_the_start_is_unavailable_until_it_is_there() {
    let mut server = PubSub::start().await;
    server.kill();
    let broker = broker(&server.host(), &json!({"timeout": 1.0}));
    let queue = broker.lane("late", LaneOptions::default());
    assert_eq!(fault(broker.check().await).kind, FaultKind::Unavailable);
    assert_eq!(fault(queue.declare(&[SUB]).await).kind, FaultKind::Unavailable);
    assert_eq!(fault(queue.inspect(&[SUB]).await).kind, FaultKind::Unavailable);
    assert_eq!(fault(queue.publish(message("m")).await).kind, FaultKind::Unavailable);
    assert_eq!(fault(queue.subscribe(SUB, Prefetch { messages: 1 }).await).kind, FaultKind::Unavailable);
    server.restart().await;
    until("the server is found", || async { broker.check().await.is_ok() }).await;
    queue.declare(&[SUB]).await.unwrap();
    queue.publish(message("m")).await.unwrap();
    assert_eq!(next(&mut subscribe(&*queue, 1).await).await.message.id, "m");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goes_on_after_the_network_was_cut_or_stalled() {
    let server = PubSub::start().await;
    let line = Proxy::start(server.port()).await;
    let broker = broker(&line.address().to_string(), &json!({"timeout": 2.0}));
    let queue = declared(&*broker, "interrupted").await;
    let mut deliveries = subscribe(&*queue, 10).await;
    queue.publish(message("before")).await.unwrap();
    next(&mut deliveries).await.ack().await.unwrap();
    for (n, away) in [Proxy::cut as fn(&Proxy), Proxy::stall].into_iter().enumerate() {
        away(&line);
        let unavailable = fault(queue.publish(message("meanwhile")).await);
        assert_eq!(unavailable.kind, FaultKind::Unavailable, "{unavailable:?}");
        assert_eq!(fault(broker.check().await).kind, FaultKind::Unavailable);
        line.heal();
        let after = format!("after {n}");
        until("publishing works again", || async { queue.publish(message(&after)).await.is_ok() }).await;
        // The reader finds back by itself. What could not be published may have been all the same.
        loop {
            let delivery = next(&mut deliveries).await;
            let found = delivery.message.id == after;
            delivery.ack().await.unwrap();
            if found {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loses_nothing_to_connections_that_are_reset() {
    const COUNT: usize = 200;
    let server = PubSub::start().await;
    let line = Proxy::start(server.port()).await;
    let broker = broker(&line.address().to_string(), &json!({}));
    let queue = declared(&*broker, "reset").await;
    let mut deliveries = subscribe(&*queue, 20).await;
    let publishing = {
        let queue = std::sync::Arc::clone(&queue);
        tokio::spawn(async move {
            for n in 0..COUNT / 10 {
                let batch = || (0..10).map(|m| Message::new(format!("{n}/{m}"), "")).collect();
                until("a batch is published", || async { queue.publish(batch()).await.is_ok() }).await;
            }
        })
    };
    let mut got = BTreeSet::new();
    let mut resets = 0;
    while got.len() < COUNT {
        let delivery = next(&mut deliveries).await;
        if got.insert(delivery.message.id.clone()) && got.len() % 50 == 0 {
            line.reset();
            resets += 1;
        }
        delivery.ack().await.ok();
    }
    publishing.await.unwrap();
    assert_eq!(resets, COUNT / 50);
}

#[tokio::test]
async fn keeps_what_is_held_beyond_the_deadline() {
    let server = PubSub::start().await;
    let broker = broker(&server.host(), &json!({}));
    let queue = declared(&*broker, "kept").await;
    queue.publish(message("m")).await.unwrap();
    let mut deliveries = subscribe(&*queue, 2).await;
    let held = next(&mut deliveries).await;
    let mut other = subscribe(&*queue, 2).await;
    assert!(timeout(BEYOND_DEADLINE, other.next()).await.is_err(), "the lease is extended");
    held.extend().await.unwrap();
    held.ack().await.unwrap();
    assert!(timeout(BEYOND_DEADLINE, other.next()).await.is_err(), "and the message is gone");
}

#[tokio::test]
async fn closing_gives_back_what_is_held_and_ends_readers() {
    let server = PubSub::start().await;
    let broker_ = broker(&server.host(), &json!({}));
    let queue = declared(&*broker_, "closed").await;
    queue.publish(vec![Message::new("acked", ""), Message::new("held", "")]).await.unwrap();
    let mut deliveries = subscribe(&*queue, 2).await;
    let mut both = vec![next(&mut deliveries).await, next(&mut deliveries).await];
    both.sort_by(|a, b| a.message.id.cmp(&b.message.id));
    let held = both.remove(1);
    both.remove(0).ack().await.unwrap();
    must_end("closing", broker_.close()).await;
    assert!(must_end("the end", deliveries.next()).await.unwrap().is_none());
    assert_eq!(fault(held.ack().await).kind, FaultKind::Unavailable, "it is not acknowledged any more");
    let again = broker(&server.host(), &json!({}));
    let mut deliveries = subscribe(&*again.lane("closed", LaneOptions::default()), 2).await;
    let delivery = next(&mut deliveries).await;
    assert_eq!(delivery.message.id, "held");
    delivery.ack().await.unwrap();
    assert!(timeout(BEYOND_DEADLINE, deliveries.next()).await.is_err(), "the other one was acknowledged");
}

/// The reader that the next test kills: says what it holds, and holds it.
async fn hold(host: &str) {
    let broker = broker(host, &json!({}));
    let mut deliveries = subscribe(&*broker.lane("killed", LaneOptions::default()), 5).await;
    let mut held = Vec::new();
    for _ in 0..5 {
        let delivery = next(&mut deliveries).await;
        // Past the harness, which keeps what tests print.
        std::io::stderr().write_all(format!("holds {}\n", delivery.message.id).as_bytes()).unwrap();
        held.push(delivery);
    }
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn what_a_killed_process_held_comes_again() {
    if let Ok(host) = env::var(HOST) {
        return hold(&host).await;
    }
    let server = PubSub::start().await;
    let broker = broker(&server.host(), &json!({}));
    let queue = declared(&*broker, "killed").await;
    queue.publish((0..5).map(|n| Message::new(n.to_string(), "")).collect()).await.unwrap();
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "network::what_a_killed_process_held_comes_again"])
        .env(HOST, server.host())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let held: BTreeSet<String> = lines.filter_map(|l| l.strip_prefix("holds ").map(str::to_owned)).take(5).collect();
    assert_eq!(held.len(), 5);
    child.kill().unwrap();
    child.wait().unwrap();
    let mut deliveries = subscribe(&*queue, 5).await;
    let mut again = BTreeSet::new();
    while again.len() < 5 {
        let delivery = next(&mut deliveries).await;
        assert!(!delivery.first);
        again.insert(delivery.message.id.clone());
        delivery.ack().await.unwrap();
    }
    assert_eq!(again, held);
}
