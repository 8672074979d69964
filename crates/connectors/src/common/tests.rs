//! The frame against sinks, dead lanes and queues that fail in every way. Time is paused: waits cost nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use stoq_api::plugin::{Connector, Item, Verdict};
use stoq_api::queue::{Deliveries, Delivery, Depth, Message, Part, Prefetch, Queue, Settle};
use stoq_api::results::Stored;
use stoq_api::store::{ByteStream, Store, StoreKey};
use stoq_api::{Content, Fault, FaultKind, Timestamp};
use stoq_runtime::hold::Hold;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::frame::{Frame, Settings};
use super::options::{Backlog, OnBacklog};
use super::spill::Spill;
use super::when::{Route, When};
use super::{DeadLetters, lane};

/// What a sink says of one item at its `n`-th try, from 1.
type Judge = dyn Fn(&Item, usize) -> Result<Verdict, Fault> + Send + Sync;

/// A sink that keeps what it calls delivered.
struct Sink {
    judge: Box<Judge>,
    tries: Mutex<BTreeMap<String, usize>>,
    documents: Mutex<BTreeMap<String, usize>>,
}

#[async_trait]
impl Connector for Sink {
    async fn deliver(&self, batch: &[Item]) -> Result<Vec<Verdict>, Fault> {
        let mut verdicts = Vec::new();
        for item in batch {
            let tries = *self.tries.lock().entry(item.id.clone()).and_modify(|n| *n += 1).or_insert(1);
            let verdict = (self.judge)(item, tries)?;
            if verdict == Verdict::Delivered {
                *self.documents.lock().entry(item.id.clone()).or_default() += 1;
            }
            verdicts.push(verdict);
        }
        Ok(verdicts)
    }
}

/// A dead lane that is away for its first `away` calls.
#[derive(Default)]
struct Dead {
    away: AtomicUsize,
    buried: Mutex<Vec<(String, String)>>,
}

#[async_trait]
impl DeadLetters for Dead {
    async fn bury(&self, _: &str, item: &Item, reason: &str) -> Result<(), Fault> {
        if self.away.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok() {
            return Err(away());
        }
        self.buried.lock().push((item.id.clone(), reason.to_owned()));
        Ok(())
    }
}

/// A store of large responses that is away for its first `away` readings.
#[derive(Default)]
struct Shelf {
    away: AtomicUsize,
    objects: Mutex<BTreeMap<StoreKey, Bytes>>,
    shelf: Mutex<BTreeMap<String, Bytes>>,
}

#[async_trait]
impl Store for Shelf {
    async fn put(&self, key: &StoreKey, content: &Content) -> Result<(), Fault> {
        self.objects.lock().insert(*key, content.to_bytes().unwrap());
        Ok(())
    }

    async fn get(&self, key: &StoreKey) -> Result<ByteStream, Fault> {
        if self.away.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok() {
            return Err(away());
        }
        let object = self.objects.lock().get(key).cloned();
        let object = object.ok_or_else(|| Fault::new(FaultKind::NotFound, "no such object"))?;
        Ok(Box::pin(futures::stream::iter([Ok(object)])))
    }

    async fn keep(&self, _: &str, _: &Content) -> Result<(), Fault> {
        Ok(())
    }

    async fn shelve(&self, name: &str, content: &Content) -> Result<(), Fault> {
        if self.away.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok() {
            return Err(away());
        }
        self.shelf.lock().insert(name.to_owned(), content.to_bytes().unwrap());
        Ok(())
    }

    async fn shelved(&self, name: &str) -> Result<ByteStream, Fault> {
        let object = self.shelf.lock().get(name).cloned();
        let object = object.ok_or_else(|| Fault::new(FaultKind::NotFound, "no such object"))?;
        Ok(Box::pin(futures::stream::iter([Ok(object)])))
    }

    async fn shelf(&self, area: &str, most: usize) -> Result<Vec<String>, Fault> {
        Ok(self.shelf.lock().keys().filter(|name| name.starts_with(area)).take(most).cloned().collect())
    }

    async fn unshelve(&self, name: &str) -> Result<(), Fault> {
        self.shelf.lock().remove(name);
        Ok(())
    }

    async fn days(&self) -> Result<Vec<u32>, Fault> {
        Ok(Vec::new())
    }

    async fn drop_day(&self, _: u32) -> Result<(), Fault> {
        Ok(())
    }

    async fn check(&self) -> Result<(), Fault> {
        Ok(())
    }
}

fn away() -> Fault {
    Fault::new(FaultKind::Unavailable, "away")
}

/// A lane in memory with one subscription. What is dropped or released comes again.
#[derive(Default)]
struct Lane {
    ready: Mutex<VecDeque<Message>>,
    /// Ids of messages that somebody holds.
    held: Mutex<Vec<String>>,
    arrived: Notify,
}

impl Lane {
    fn publish(&self, messages: Vec<Message>) {
        self.ready.lock().extend(messages);
        self.arrived.notify_one();
    }

    fn subscribe(self: &Arc<Self>, prefetch: usize) -> Box<dyn Deliveries> {
        Box::new(Subscriber { lane: Arc::clone(self), room: Arc::new(Semaphore::new(prefetch)) })
    }

    /// Messages that wait, and messages that somebody holds.
    fn depth(&self) -> (usize, usize) {
        let ready = self.ready.lock();
        (ready.len(), self.held.lock().len())
    }

    /// Whether a message waits or is held.
    fn has(&self, id: &str) -> bool {
        let ready = self.ready.lock();
        ready.iter().any(|message| message.id == id) || self.held.lock().iter().any(|held| held == id)
    }
}

struct Subscriber {
    lane: Arc<Lane>,
    room: Arc<Semaphore>,
}

#[async_trait]
impl Deliveries for Subscriber {
    async fn next(&mut self) -> Result<Option<Delivery>, Fault> {
        let permit = Arc::clone(&self.room).acquire_owned().await.unwrap();
        loop {
            let next = {
                let mut ready = self.lane.ready.lock();
                let next = ready.pop_front();
                self.lane.held.lock().extend(next.iter().map(|message| message.id.clone()));
                next
            };
            if let Some(message) = next {
                let (lane, id) = (Arc::clone(&self.lane), message.id.clone());
                let held = Held { lane, id, message: Some(message.clone()), _permit: permit };
                return Ok(Some(Delivery::new(message, true, None, Box::new(held))));
            }
            self.lane.arrived.notified().await;
        }
    }
}

struct Held {
    lane: Arc<Lane>,
    id: String,
    message: Option<Message>,
    _permit: OwnedSemaphorePermit,
}

#[async_trait]
impl Settle for Held {
    async fn ack(mut self: Box<Self>) -> Result<(), Fault> {
        self.message = None;
        Ok(())
    }

    async fn release(self: Box<Self>) -> Result<(), Fault> {
        Ok(())
    }

    async fn extend(&self) -> Result<(), Fault> {
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut ready = self.lane.ready.lock();
        ready.extend(self.message.take());
        let mut held = self.lane.held.lock();
        let place = held.iter().position(|id| *id == self.id);
        place.into_iter().for_each(|place| drop(held.swap_remove(place)));
        drop(held);
        drop(ready);
        self.lane.arrived.notify_one();
    }
}

/// A frame over such a lane.
struct Rig {
    lane: Arc<Lane>,
    sink: Arc<Sink>,
    dead: Arc<Dead>,
    shelf: Arc<Shelf>,
    frame: Frame,
    stop: CancellationToken,
}

impl Rig {
    fn new(judge: impl Fn(&Item, usize) -> Result<Verdict, Fault> + Send + Sync + 'static) -> Self {
        let lane = Arc::new(Lane::default());
        let sink = Arc::new(Sink { judge: Box::new(judge), tries: Mutex::default(), documents: Mutex::default() });
        let (dead, shelf) = (Arc::new(Dead::default()), Arc::new(Shelf::default()));
        let frame = Frame {
            name: "sink".into(),
            connector: Arc::clone(&sink) as Arc<dyn Connector>,
            store: Arc::clone(&shelf) as Arc<dyn Store>,
            dead: Arc::clone(&dead) as Arc<dyn DeadLetters>,
            settings: Settings::default(),
            route: Arc::default(),
            backlog: Backlog::default(),
            lane: None,
            hold: Hold::default(),
        };
        Self { lane, sink, dead, shelf, frame, stop: CancellationToken::new() }
    }

    fn publish(&self, ids: &[&str]) {
        for id in ids {
            self.lane.publish(lane::pack(&[item(id)]));
        }
    }

    fn start(&self) -> tokio::task::JoinHandle<Result<(), Fault>> {
        let deliveries = self.lane.subscribe(100);
        let (frame, stop) = (self.frame.clone(), self.stop.clone());
        tokio::spawn(async move { frame.run(deliveries, stop).await })
    }

    /// Runs until nothing is left in the lane, then stops.
    async fn until_empty(&self) {
        let running = self.start();
        until(|| self.lane.depth() == (0, 0)).await;
        self.stop.cancel();
        running.await.unwrap().unwrap();
    }

    fn documents(&self) -> Vec<String> {
        self.sink.documents.lock().keys().cloned().collect()
    }
}

fn item(id: &str) -> Item {
    Item { id: id.into(), json: format!("{{\"id\":\"{id}\"}}").into() }
}

/// Waits for a condition; paused time makes the waits free and the bound a matter of steps.
async fn until(mut condition: impl FnMut() -> bool) {
    for _ in 0..100_000 {
        if condition() {
            return;
        }
        tokio::time::advance(Duration::from_millis(10)).await;
        tokio::task::yield_now().await;
    }
    panic!("the condition never came true");
}

#[tokio::test(start_paused = true)]
async fn each_delivery_has_its_own_verdict() {
    let mut rig = Rig::new(|item, tries| {
        Ok(match (item.id.as_str(), tries) {
            ("bad", _) => Verdict::Rejected("never".into()),
            ("slow", 1..=5) => Verdict::Retry("not now".into()),
            _ => Verdict::Delivered,
        })
    });
    rig.frame.name = "own_verdict".into();
    rig.publish(&["a", "bad", "slow", "b"]);
    rig.until_empty().await;
    let metrics = stoq_runtime::metrics::render();
    for (series, value) in [
        ("stoq_in_total{name=\"own_verdict\",role=\"connector\"}", 4),
        ("stoq_out_total{name=\"own_verdict\",role=\"connector\"}", 4),
        ("stoq_in_flight{name=\"own_verdict\",role=\"connector\"}", 0),
        ("stoq_errors_total{kind=\"rejected\",name=\"own_verdict\",role=\"connector\"}", 1),
        ("stoq_errors_total{kind=\"unavailable\",name=\"own_verdict\",role=\"connector\"}", 5),
    ] {
        assert!(metrics.contains(&format!("{series} {value}\n")), "{series} is not {value} in {metrics}");
    }
    assert_eq!(rig.documents(), ["a", "b", "slow"]);
    assert_eq!(*rig.dead.buried.lock(), [("bad".to_owned(), "never".to_owned())]);
    let tries = rig.sink.tries.lock().clone();
    assert_eq!(tries, [("a", 1), ("b", 1), ("bad", 1), ("slow", 6)].map(|(id, n)| (id.to_owned(), n)).into());
}

#[tokio::test(start_paused = true)]
async fn a_large_response_is_read_from_the_store() {
    let seen: Arc<Mutex<BTreeMap<String, Bytes>>> = Arc::default();
    let kept = Arc::clone(&seen);
    let rig = Rig::new(move |item, _| {
        kept.lock().insert(item.id.clone(), item.json.clone());
        Ok(Verdict::Delivered)
    });
    let large = Bytes::from(vec![b'7'; 3 << 20]);
    let (stored, content) = Stored::place(&large, Timestamp::now());
    rig.shelf.put(&stored.key, &content).await.unwrap();
    let elsewhere = Stored { key: StoreKey { day: 20_000_101, ..stored.key }, ..stored };
    let another = Stored { len: stored.len - 1, ..stored };
    rig.shelf.away.store(3, SeqCst);
    rig.lane.publish(vec![stored.message("large"), elsewhere.message("gone"), another.message("another")]);
    rig.publish(&["small"]);
    rig.until_empty().await;
    assert_eq!(rig.documents(), ["large", "small"], "an absent store is waited for");
    assert_eq!(seen.lock()["large"], large);
    let mut buried = rig.dead.buried.lock().clone();
    buried.sort();
    assert!(buried[0].0 == "another" && buried[0].1.contains("holds something else"), "{buried:?}");
    assert!(buried[1].0 == "gone" && buried[1].1.contains("no such object"), "{buried:?}");
}

#[tokio::test(start_paused = true)]
async fn an_item_that_waits_holds_up_only_its_own_delivery() {
    let rig =
        Rig::new(|item, _| Ok(if item.id == "slow" { Verdict::Retry("not now".into()) } else { Verdict::Delivered }));
    rig.publish(&["a", "slow", "b"]);
    rig.lane.publish(lane::pack(&[item("c"), item("slow"), item("d")]));
    let running = rig.start();
    until(|| rig.lane.depth() == (0, 2)).await;
    assert_eq!(rig.documents(), ["a", "b", "c", "d"]);
    rig.stop.cancel();
    running.await.unwrap().unwrap();
    assert_eq!(rig.lane.depth(), (2, 0), "what was not delivered is given back");
}

#[tokio::test(start_paused = true)]
async fn batches_that_wait_for_another_try_let_others_pass() {
    let mut rig = Rig::new(|item, _| {
        Ok(if item.id.starts_with("slow") { Verdict::Retry("not now".into()) } else { Verdict::Delivered })
    });
    rig.frame.settings = Settings { batch_items: 1, concurrency: 1, ..Settings::default() };
    rig.publish(&["slow1", "slow2", "slow3", "a", "b"]);
    let running = rig.start();
    until(|| rig.lane.depth() == (0, 3)).await;
    assert_eq!(rig.documents(), ["a", "b"]);
    rig.stop.cancel();
    running.await.unwrap().unwrap();
    assert_eq!(rig.lane.depth(), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn an_outage_delays_and_loses_nothing() {
    let rig = Rig::new(|_, tries| if tries < 20 { Err(away()) } else { Ok(Verdict::Delivered) });
    rig.publish(&["a", "b"]);
    rig.until_empty().await;
    assert_eq!(rig.documents(), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_refused_is_acknowledged_before_it_is_buried() {
    let rig = Rig::new(|_, _| Ok(Verdict::Rejected("never".into())));
    rig.dead.away.store(usize::MAX, SeqCst);
    rig.publish(&["a"]);
    let running = rig.start();
    until(|| rig.dead.away.load(SeqCst) < usize::MAX - 3).await;
    assert_eq!(rig.lane.depth(), (0, 1));
    rig.dead.away.store(0, SeqCst);
    until(|| rig.lane.depth() == (0, 0)).await;
    rig.stop.cancel();
    running.await.unwrap().unwrap();
    assert_eq!(rig.dead.buried.lock().len(), 1);
    assert_eq!(rig.sink.tries.lock()["a"], 1, "a refused item is not offered again");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_none_of_ours_is_buried_whole() {
    let rig = Rig::new(|_, _| Ok(Verdict::Delivered));
    let mut message = Message::new("odd", "body");
    message.headers.push((lane::BATCH_HEADER.into(), "2".into()));
    rig.lane.publish(vec![message]);
    rig.publish(&["a"]);
    rig.until_empty().await;
    assert_eq!(rig.documents(), ["a"]);
    let buried = rig.dead.buried.lock().clone();
    assert!(buried.len() == 1 && buried[0].0 == "odd" && buried[0].1.starts_with("not a message"), "{buried:?}");
}

#[tokio::test(start_paused = true)]
async fn a_panic_hurts_only_the_item_that_made_it() {
    let rig = Rig::new(|item, _| {
        assert_ne!(item.id, "bomb");
        Ok(Verdict::Delivered)
    });
    rig.publish(&["a", "bomb", "b"]);
    rig.until_empty().await;
    assert_eq!(rig.documents(), ["a", "b"]);
    assert_eq!(*rig.dead.buried.lock(), [("bomb".to_owned(), "the connector panicked over it".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_needs_an_operator_pauses_its_connector_and_loses_nothing() {
    let rig = Rig::new(|_, tries| {
        if tries <= 4 { Err(Fault::new(FaultKind::Misconfigured, "wrong password")) } else { Ok(Verdict::Delivered) }
    });
    rig.publish(&["a", "b"]);
    let since = tokio::time::Instant::now();
    rig.until_empty().await;
    assert_eq!(rig.documents(), ["a", "b"]);
    assert!(since.elapsed() >= Duration::from_secs(4 * 5), "it is asked rarely");
    assert_eq!(rig.dead.buried.lock().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_paused_connector_ends_at_once_and_gives_back() {
    let rig = Rig::new(|_, _| Err(Fault::new(FaultKind::Misconfigured, "wrong password")));
    rig.publish(&["a", "b"]);
    let running = rig.start();
    until(|| !rig.sink.tries.lock().is_empty()).await;
    rig.stop.cancel();
    running.await.unwrap().unwrap();
    assert_eq!(rig.lane.depth(), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_connector_that_is_held_back_asks_nobody_and_takes_one_batch_at_most() {
    let mut rig = Rig::new(|_, _| Ok(Verdict::Delivered));
    rig.frame.settings.batch_items = 3;
    let hold = rig.frame.hold.clone();
    hold.set(true);
    rig.publish(&["a", "b", "c", "d", "e"]);
    let running = rig.start();
    until(|| rig.lane.depth().1 == 3).await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!((rig.lane.depth(), rig.sink.tries.lock().len()), ((2, 3), 0));
    hold.set(false);
    until(|| rig.lane.depth() == (0, 0)).await;
    assert_eq!(rig.documents(), ["a", "b", "c", "d", "e"]);

    hold.set(true);
    rig.publish(&["f"]);
    until(|| rig.lane.depth().1 == 1).await;
    rig.stop.cancel();
    running.await.unwrap().unwrap();
    assert_eq!((rig.lane.depth(), rig.documents().len()), ((1, 0), 5), "at the end it is given back");
}

/// Retries that wait, and a batch that waits for its turn behind others, are held back, too.
#[tokio::test(start_paused = true)]
async fn being_held_back_reaches_what_waits_already() {
    let hold = Hold::default();
    let from_now_on = hold.clone();
    let mut rig = Rig::new(move |item, tries| {
        if item.id == "a" && tries == 1 {
            from_now_on.set(true);
        }
        if tries < 3 { Err(away()) } else { Ok(Verdict::Delivered) }
    });
    rig.frame.hold = hold.clone();
    (rig.frame.settings.batch_items, rig.frame.settings.concurrency) = (1, 1);
    rig.publish(&["a", "b", "c"]);
    let running = rig.start();
    until(|| hold.is_on()).await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let tries: usize = rig.sink.tries.lock().values().sum();
    assert_eq!(tries, 1, "nothing is asked any more");
    hold.set(false);
    until(|| rig.lane.depth() == (0, 0)).await;
    assert_eq!(rig.documents(), ["a", "b", "c"]);
    rig.stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn where_nothing_lasts_a_sink_that_needs_an_operator_ends_the_run() {
    let mut rig = Rig::new(|_, _| Err(Fault::new(FaultKind::Misconfigured, "wrong password")));
    rig.frame.settings.pauses = false;
    rig.publish(&["a", "b"]);
    let error = rig.start().await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "wrong password");
    assert_eq!(rig.lane.depth(), (2, 0));
    assert!(!rig.stop.is_cancelled(), "other connectors go on");
}

#[tokio::test(start_paused = true)]
async fn only_what_conditions_choose_reaches_the_sink() {
    let mut rig = Rig::new(|item, tries| {
        let wait = item.id == "bad" && tries == 1;
        Ok(if wait { Verdict::Retry("not now".into()) } else { Verdict::Delivered })
    });
    let when = serde_json::json!({ "errors": true });
    let when = When::compile(&serde_json::from_value(when).unwrap()).unwrap();
    rig.frame.route = Arc::new(Route::new(Some(when), None));
    rig.frame.name = "choosy".into();
    let with = |id: &str, json: &str| Item { id: id.to_owned(), json: json.to_owned().into() };
    let (bad, good) = (r#"{"errors":[{}]}"#, r#"{"errors":[]}"#);
    rig.lane.publish(lane::pack(&[with("good", good), with("bad", bad)]));
    rig.lane.publish(lane::pack(&[with("fine", good)]));
    let (stored, content) = Stored::place(&Bytes::from_static(bad.as_bytes()), Timestamp::now());
    rig.shelf.put(&stored.key, &content).await.unwrap();
    rig.lane.publish(vec![stored.message("large")]);
    rig.until_empty().await;
    assert_eq!(rig.documents(), ["bad", "large"]);
    let metrics = stoq_runtime::metrics::render();
    for (decision, count) in [("passed", 2), ("skipped", 2), ("sampled", 0)] {
        let series = format!("stoq_connector_routed_total{{decision=\"{decision}\",name=\"choosy\"}} {count}");
        assert!(metrics.contains(&series), "{series} in {metrics}");
    }
}

/// Never answers.
struct Hung;

#[async_trait]
impl Connector for Hung {
    async fn deliver(&self, _: &[Item]) -> Result<Vec<Verdict>, Fault> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_hung_sink_pushes_back_and_does_not_stop_the_end() {
    let mut rig = Rig::new(|_, _| Ok(Verdict::Delivered));
    rig.frame.connector = Arc::new(Hung);
    rig.frame.settings = Settings { batch_items: 1, concurrency: 2, ..Settings::default() };
    rig.publish(&["a", "b", "c", "d", "e"]);
    let deliveries = rig.lane.subscribe(3);
    let (frame, stop) = (rig.frame.clone(), rig.stop.clone());
    let running = tokio::spawn(async move { frame.run(deliveries, stop).await });
    until(|| rig.lane.depth() == (2, 3)).await;
    rig.stop.cancel();
    running.await.unwrap().unwrap();
    assert_eq!(rig.lane.depth(), (5, 0));
}

/// A subscription with a script, last line first: a delivery, and where to note what is done with it, or a failure.
struct Flaky {
    script: Vec<Result<Arc<Log>, FaultKind>>,
    ends: bool,
}

#[derive(Default)]
struct Log {
    extended: AtomicUsize,
    acknowledged: AtomicUsize,
}

struct Logged(Arc<Log>);

#[async_trait]
impl Settle for Logged {
    async fn ack(self: Box<Self>) -> Result<(), Fault> {
        self.0.acknowledged.fetch_add(1, SeqCst);
        Err(away())
    }

    async fn release(self: Box<Self>) -> Result<(), Fault> {
        Ok(())
    }

    async fn extend(&self) -> Result<(), Fault> {
        self.0.extended.fetch_add(1, SeqCst);
        Err(away())
    }
}

#[async_trait]
impl Deliveries for Flaky {
    async fn next(&mut self) -> Result<Option<Delivery>, Fault> {
        match self.script.pop() {
            None if self.ends => Ok(None),
            None => std::future::pending().await,
            Some(Err(kind)) => Err(Fault::new(kind, "the broker failed")),
            Some(Ok(log)) => Ok(Some(Delivery::new(Message::new("a", "{}"), true, None, Box::new(Logged(log))))),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_away_is_asked_again_and_its_end_is_waited_for() {
    let rig = Rig::new(|_, tries| if tries < 10 { Err(away()) } else { Ok(Verdict::Delivered) });
    let log = Arc::new(Log::default());
    let script = vec![Ok(Arc::clone(&log)), Err(FaultKind::Unavailable), Err(FaultKind::Unavailable)];
    let flaky = Box::new(Flaky { script, ends: true });
    rig.frame.run(flaky, rig.stop.clone()).await.unwrap();
    assert_eq!(rig.documents(), ["a"]);
    assert_eq!(log.acknowledged.load(SeqCst), 1);

    let flaky = Box::new(Flaky { script: vec![Err(FaultKind::Misconfigured)], ends: true });
    assert_eq!(rig.frame.run(flaky, rig.stop.clone()).await.unwrap_err().kind, FaultKind::Misconfigured);
}

#[tokio::test(start_paused = true)]
async fn more_time_is_asked_for_while_a_sink_thinks() {
    let mut rig = Rig::new(|_, _| Ok(Verdict::Delivered));
    rig.frame.connector = Arc::new(Hung);
    rig.frame.settings = Settings { batch_items: 1, concurrency: 1, ..Settings::default() };
    // One is with the sink, another waits for its turn.
    let logs = [Arc::new(Log::default()), Arc::new(Log::default())];
    let flaky = Box::new(Flaky { script: logs.iter().cloned().map(Ok).collect(), ends: false });
    let (frame, stop) = (rig.frame.clone(), rig.stop.clone());
    let running = tokio::spawn(async move { frame.run(flaky, stop).await });
    until(|| logs.iter().all(|log| log.extended.load(SeqCst) >= 3)).await;
    rig.stop.cancel();
    running.await.unwrap().unwrap();
    assert!(logs.iter().all(|log| log.acknowledged.load(SeqCst) == 0));
}

/// A real connector behind the frame: every response delivered twice, in two runs, leaves one document.
#[tokio::test]
async fn delivered_twice_leaves_one_document() {
    let dir = tempfile::tempdir().unwrap();
    let registration = crate::registry().into_iter().find(|r| r.info.name == "filedir").unwrap();
    let options = serde_json::json!({ "results_dir": dir.path() });
    let mut rig = Rig::new(|_, _| Ok(Verdict::Delivered));
    rig.frame.connector = (registration.build)(options.as_object().unwrap(), &crate::testing::context()).unwrap();
    for _ in 0..2 {
        rig.publish(&["a", "b", "a"]);
        let deliveries = rig.lane.subscribe(100);
        let stop = CancellationToken::new();
        let running = tokio::spawn({
            let (frame, stop) = (rig.frame.clone(), stop.clone());
            async move { frame.run(deliveries, stop).await }
        });
        while rig.lane.depth() != (0, 0) {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        running.await.unwrap().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}

/// The rig's lane as a queue that tells how much waits.
#[async_trait]
impl Queue for Lane {
    async fn declare(&self, _: &[&str]) -> Result<(), Fault> {
        Ok(())
    }

    async fn inspect(&self, _: &[&str]) -> Result<Vec<Part>, Fault> {
        Ok(Vec::new())
    }

    async fn publish(&self, messages: Vec<Message>) -> Result<(), Fault> {
        self.ready.lock().extend(messages);
        self.arrived.notify_one();
        Ok(())
    }

    async fn subscribe(&self, _: &str, _: Prefetch) -> Result<Box<dyn Deliveries>, Fault> {
        Err(away())
    }

    async fn depth(&self, _: &str) -> Result<Depth, Fault> {
        let ready = self.ready.lock().len() as u64;
        Ok(Depth { ready, held: self.held.lock().len() as u64, oldest: None })
    }
}

fn spilling(rig: &mut Rig, messages: u64) {
    let backlog = Backlog { messages: Some(messages), age: None, then: OnBacklog::Spill, unspill: true };
    rig.frame.backlog = backlog;
    rig.frame.lane = Some(Arc::clone(&rig.lane) as Arc<dyn Queue>);
    rig.frame.settings.batch_items = 3;
}

#[tokio::test(start_paused = true)]
async fn a_connector_that_falls_behind_spills_and_takes_all_back_by_itself() {
    let works = Arc::new(AtomicUsize::new(0));
    let sees = Arc::clone(&works);
    let mut rig = Rig::new(move |_, _| if sees.load(SeqCst) == 0 { Err(away()) } else { Ok(Verdict::Delivered) });
    spilling(&mut rig, 10);
    // The store is away for a while, too.
    rig.shelf.away.store(5, SeqCst);
    let ids: Vec<String> = (0..40).map(|n| format!("r{n:02}")).collect();
    let large = Bytes::from(vec![b'7'; 1 << 20]);
    let (stored, content) = Stored::place(&large, Timestamp::now());
    rig.shelf.put(&stored.key, &content).await.unwrap();
    rig.lane.publish(vec![stored.message("large")]);
    rig.publish(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    let running = rig.start();
    until(|| rig.lane.depth().0 + rig.lane.depth().1 <= 5).await;
    let store = Arc::clone(&rig.frame.store);
    let spilled = Spill::new(&store, "sink").count().await.unwrap();
    assert!(spilled.messages >= 36, "{spilled:?}");
    assert!(rig.documents().is_empty());
    // Days of the store may go: what was spilled does not lie there. It is another matter if the large one is among the few
    // that the connector still tries to deliver.
    if !rig.lane.has("large") {
        rig.shelf.objects.lock().clear();
    }
    works.store(1, SeqCst);
    until(|| rig.documents().len() == 41).await;
    until(|| rig.lane.depth() == (0, 0) && rig.shelf.shelf.lock().is_empty()).await;
    rig.stop.cancel();
    running.await.unwrap().unwrap();
    assert!(rig.documents().contains(&"large".to_owned()));
    assert_eq!(rig.dead.buried.lock().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_spilled_stays_until_all_of_it_is_delivered() {
    let mut rig = Rig::new(|item, tries| match item.id.as_str() {
        "slow" if tries < 3 => Ok(Verdict::Retry("not now".into())),
        "bad" => Ok(Verdict::Rejected("never".into())),
        _ => Ok(Verdict::Delivered),
    });
    spilling(&mut rig, 0);
    rig.frame.backlog.unspill = false;
    let held: Vec<Delivery> = ["a", "slow", "bad"]
        .map(|id| Delivery::new(lane::pack(&[item(id)]).remove(0), true, None, Box::new(Logged(Arc::default()))))
        .into();
    let spill = Spill::new(&rig.frame.store, "sink");
    spill.put(&held.iter().collect::<Vec<_>>()).await.unwrap();
    let before = rig.shelf.shelf.lock().clone();
    // A run that ends early leaves the object, and what is damaged stays for people to look at.
    let stop = CancellationToken::new();
    stop.cancel();
    rig.frame.return_spilled(stop).await.unwrap();
    assert_eq!(*rig.shelf.shelf.lock(), before);
    let name = before.keys().next().unwrap().clone();
    rig.shelf.shelf.lock().insert(format!("{name}0"), Bytes::from_static(b"damaged"));
    rig.frame.return_spilled(CancellationToken::new()).await.unwrap();
    assert_eq!(rig.documents(), ["a", "slow"]);
    assert_eq!(*rig.dead.buried.lock(), [("bad".to_owned(), "never".to_owned())]);
    assert_eq!(rig.shelf.shelf.lock().keys().cloned().collect::<Vec<_>>(), [format!("{name}0")]);
}
