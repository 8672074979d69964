//! Connectors of one lane do not slow one another down: in virtual time, in which only waiting takes any, one delivers at the
//! same rate whatever becomes of the other.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on is to stop")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use stoq_api::plugin::{Connector, Item, Verdict};
use stoq_api::queue::{Prefetch, Queue};
use stoq_api::results::pack;
use stoq_api::{Fault, FaultKind};
use stoq_connectors::common::options::Backlog;
use stoq_connectors::common::{DeadLetters, Frame, Settings};
use stoq_memory::{MemoryQueue, MemoryStore};
use stoq_runtime::hold::Hold;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Responses that are delivered.
const RESPONSES: usize = 5_000;
/// What the sink that works takes for a batch.
const SERVICE: Duration = Duration::from_millis(20);
/// Least part of the rate that is kept.
const KEPT: f64 = 0.99;
/// A fleet that delivers nothing for so long has stopped.
const SLOWEST: Duration = Duration::from_secs(3_600);

/// What becomes of a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Works,
    Away,
    NeverAnswers,
    NeedsAPerson,
    RefusesAll,
    Panics,
}

struct Sink {
    mood: Mood,
    taken: Mutex<usize>,
}

#[async_trait]
impl Connector for Sink {
    async fn deliver(&self, batch: &[Item]) -> Result<Vec<Verdict>, Fault> {
        let all = |verdict: Verdict| Ok(vec![verdict; batch.len()]);
        match self.mood {
            Mood::Works => {
                sleep(SERVICE).await;
                *self.taken.lock() += batch.len();
                all(Verdict::Delivered)
            }
            Mood::Away => Err(Fault::new(FaultKind::Unavailable, "refused")),
            Mood::NeedsAPerson => Err(Fault::new(FaultKind::Misconfigured, "wrong password")),
            Mood::NeverAnswers => std::future::pending().await,
            Mood::RefusesAll => all(Verdict::Rejected("never".to_owned())),
            Mood::Panics => panic!("by design"),
        }
    }

    async fn check(&self) -> Result<(), Fault> {
        Ok(())
    }
}

/// A dead lane that remembers whose letters it got.
#[derive(Default)]
struct Dead(Mutex<Vec<String>>);

#[async_trait]
impl DeadLetters for Dead {
    async fn bury(&self, connector: &str, _: &Item, _: &str) -> Result<(), Fault> {
        self.0.lock().push(connector.to_owned());
        Ok(())
    }
}

/// How long the sink that works takes for everything beside another one in this mood.
async fn beside(mood: Mood) -> Duration {
    let lane = MemoryQueue::new("results");
    lane.declare(&["steady", "other"]).await.unwrap();
    let (dead, stop) = (Arc::new(Dead::default()), CancellationToken::new());
    let steady = Arc::new(Sink { mood: Mood::Works, taken: Mutex::default() });
    let other = Arc::new(Sink { mood, taken: Mutex::default() });
    let mut running = Vec::new();
    for (name, sink) in [("steady", &steady), ("other", &other)] {
        let frame = Frame {
            name: name.into(),
            connector: Arc::clone(sink) as Arc<dyn Connector>,
            store: Arc::new(MemoryStore::new()),
            dead: Arc::clone(&dead) as Arc<dyn DeadLetters>,
            settings: Settings { grace: Duration::ZERO, ..Settings::default() },
            route: Arc::default(),
            backlog: Backlog::default(),
            lane: None,
            hold: Hold::default(),
        };
        let source = lane.subscribe(name, Prefetch { messages: frame.settings.prefetch }).await.unwrap();
        let stop = stop.clone();
        running.push(tokio::spawn(async move { frame.run(source, stop).await }));
    }
    let item = |n: usize| Item { id: format!("{n}"), json: format!("{{\"n\":{n}}}").into() };
    let started = Instant::now();
    // As workers publish them: one after the other, a few at a time.
    for first in (0..RESPONSES).step_by(10) {
        lane.publish(pack(&(first..first + 10).map(item).collect::<Vec<_>>())).await.unwrap();
    }
    while *steady.taken.lock() < RESPONSES {
        assert!(started.elapsed() < SLOWEST, "{} of {RESPONSES} beside one that {mood:?}", *steady.taken.lock());
        sleep(Duration::from_millis(1)).await;
    }
    let took = started.elapsed();
    assert_eq!(*steady.taken.lock(), RESPONSES, "nothing of the other one came here");
    assert!(dead.0.lock().iter().all(|connector| connector == "other"));
    stop.cancel();
    for one in running {
        one.await.unwrap().unwrap();
    }
    took
}

#[tokio::test(start_paused = true)]
async fn one_keeps_its_full_rate_whatever_becomes_of_the_other() {
    let usual = beside(Mood::Works).await;
    assert!(usual >= SERVICE * 10, "{usual:?} is too short to compare anything with");
    for mood in [Mood::Away, Mood::NeverAnswers, Mood::NeedsAPerson, Mood::RefusesAll, Mood::Panics] {
        let took = beside(mood).await;
        let kept = usual.as_secs_f64() / took.as_secs_f64();
        assert!(kept >= KEPT, "{took:?} beside one that {mood:?}, {usual:?} else: {kept:.2} of the rate");
    }
}
