//! Readiness as things around a process come and go.

use std::sync::atomic::{AtomicU8, Ordering};

use async_trait::async_trait;
use stoq_api::queue::{LaneOptions, Queue};
use stoq_engine::{Lanes, Settings, TenantLanes};
use stoq_memory::{MemoryLedger, MemoryQueue, MemoryStore};

use super::*;

/// A broker that is there, is away, or never answers.
#[derive(Default)]
struct Moody(AtomicU8);

#[async_trait]
impl Broker for Moody {
    fn lane(&self, name: &str, _: LaneOptions) -> Arc<dyn Queue> {
        Arc::new(MemoryQueue::new(name))
    }

    fn foreign(&self, name: &str) -> Arc<dyn Queue> {
        Arc::new(MemoryQueue::new(name))
    }

    async fn check(&self) -> Result<(), Fault> {
        match self.0.load(Ordering::Relaxed) {
            0 => Ok(()),
            1 => Err(Fault::new(FaultKind::Unavailable, "connection refused")),
            _ => std::future::pending().await,
        }
    }

    async fn close(&self) {}
}

fn surroundings(broker: &Arc<Moody>) -> Surroundings {
    let queue = |name| -> Arc<dyn Queue> { Arc::new(MemoryQueue::new(name)) };
    let plain = TenantLanes::plain(queue("children"), queue("roots"));
    let lanes = Lanes::new(plain, [], queue("results"), queue("dead"));
    let ledger = Arc::new(MemoryLedger::new());
    let links = Links::new(lanes, ledger, Arc::new(MemoryStore::default()), Settings::default());
    let broker: Arc<dyn Broker> = broker.clone();
    Surroundings {
        health: Health::default(),
        links: Arc::new(links),
        brokers: vec![("main".to_owned(), broker)],
        subscriptions: vec!["out".to_owned()],
        sinks: Vec::new(),
        delivered: Arc::default(),
        blocking: Arc::default(),
        gate: Gate::new(),
        holds: Holds::default(),
    }
}

/// A sink that is there, or away.
struct Shy(AtomicU8);

#[async_trait]
impl Connector for Shy {
    async fn deliver(&self, _: &[stoq_api::plugin::Item]) -> Result<Vec<stoq_api::plugin::Verdict>, Fault> {
        Ok(Vec::new())
    }

    async fn check(&self) -> Result<(), Fault> {
        match self.0.load(Ordering::Relaxed) {
            0 => Ok(()),
            _ => Err(Fault::new(FaultKind::Unavailable, "no route")),
        }
    }
}

#[tokio::test]
async fn a_sink_that_is_away_is_named_and_no_reason_to_be_unready() {
    let mut around = surroundings(&Arc::default());
    let sinks = [Arc::new(Shy(AtomicU8::new(1))), Arc::new(Shy(AtomicU8::new(1)))];
    let named = ["a", "b"].into_iter().zip(&sinks);
    around.sinks = named.map(|(name, sink)| (name.to_owned(), Arc::clone(sink) as Arc<dyn Connector>)).collect();
    around.check().await;
    let answer = around.health.ready();
    assert!(!answer.ok && answer.text.contains("sinks: none could be used"), "{answer:?}");
    sinks[0].0.store(0, Ordering::Relaxed);
    around.check().await;
    let answer = around.health.ready();
    assert!(answer.ok && answer.text.contains("connector b: no route"), "{answer:?}");
    sinks[0].0.store(1, Ordering::Relaxed);
    around.check().await;
    let answer = around.health.ready();
    assert!(answer.ok && answer.text.contains("connector a: no route"), "one was there since the start: {answer:?}");
}

/// Waits until readiness is `ok`, and returns what is said.
async fn ready(health: &Health, ok: bool) -> String {
    loop {
        let answer = health.ready();
        if answer.ok == ok {
            return answer.text;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn not_ready_while_something_is_away() {
    let broker = Arc::new(Moody::default());
    let around = surroundings(&broker);
    around.links.lanes.declare(&["out"]).await.unwrap();
    let (shutdown, started) = (Shutdown::new(), Arc::new(tokio::sync::Notify::new()));
    around.health.says(PROCESS, Some("starting".to_owned()));
    let watch = tokio::spawn(run(around.clone(), shutdown.clone(), Arc::clone(&started)));
    tokio::time::sleep(CHECK_EVERY * 3).await;
    assert!(ready(&around.health, false).await.contains("process: starting"));
    around.health.says(PROCESS, None);
    started.notify_one();
    assert!(ready(&around.health, true).await.contains("broker main: ok"));
    for (mood, said) in [(1, "broker main: connection refused"), (2, "broker main: no answer within 5 s")] {
        broker.0.store(mood, Ordering::Relaxed);
        let text = ready(&around.health, false).await;
        assert!(text.contains(said) && text.contains("ledger: ok"), "{text}");
        broker.0.store(0, Ordering::Relaxed);
        ready(&around.health, true).await;
    }
    around.links.seen.note_newer(Timestamp::now());
    assert!(ready(&around.health, false).await.contains("version: tasks wait that only a newer version reads"));
    shutdown.drain();
    watch.await.unwrap();
    assert!(around.health.ready().text.contains("process: ending"));
}

#[tokio::test]
async fn the_gate_is_shut_while_a_connector_that_blocks_is_behind() {
    let around = surroundings(&Arc::default());
    let limits = Backlog { messages: Some(2), ..Backlog::default() };
    *around.blocking.lock() = vec![("out".to_owned(), limits, false)];
    let results = &around.links.lanes.results;
    results.declare(&["out"]).await.unwrap();
    let roots = around.gate.before(Arc::new(MemoryQueue::new("roots")));
    roots.declare(&["w"]).await.unwrap();
    let mut taken = roots.subscribe("w", stoq_api::queue::Prefetch { messages: 1 }).await.unwrap();
    let message = |id: &str| stoq_api::queue::Message::new(id, "");
    roots.publish(vec![message("root")]).await.unwrap();
    results.publish(vec![message("a"), message("b"), message("c")]).await.unwrap();
    around.block().await;
    let mut next = tokio_test_poll(taken.next());
    assert!(next.as_mut().await.is_none(), "three wait where two may");
    drop(next);
    let mut delivered = results.subscribe("out", stoq_api::queue::Prefetch { messages: 10 }).await.unwrap();
    for left in [2, 1] {
        delivered.next().await.unwrap().unwrap().ack().await.unwrap();
        around.block().await;
        let mut next = tokio_test_poll(taken.next());
        assert_eq!(next.as_mut().await.is_some(), left == 1, "open again at half of the limit");
    }
}

/// What a future gives within a moment, if it does.
fn tokio_test_poll<'a, T: 'a>(
    future: impl Future<Output = T> + Send + 'a,
) -> std::pin::Pin<Box<dyn Future<Output = Option<T>> + Send + 'a>> {
    Box::pin(async { timeout(Duration::from_millis(200), future).await.ok() })
}
