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
    }
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
