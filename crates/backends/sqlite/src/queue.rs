//! The queue trait over lanes and the writer thread.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::OptionalExtension as _;
use stoq_api::queue::{Deliveries, Delivery, Depth, Message, Part, Prefetch, Queue, Settle};
use stoq_api::{Fault, FaultKind, Timestamp};
use tokio::sync::oneshot;

use crate::lane::{Lane, Lanes, Step};
use crate::writer::{Job, Transaction, Writer};

/// One lane in the file.
pub struct SqliteQueue {
    writer: Arc<Writer>,
    lanes: Arc<Lanes>,
    name: String,
    bound: Option<u64>,
}

impl SqliteQueue {
    pub(crate) fn new(writer: Arc<Writer>, lanes: Arc<Lanes>, name: &str, bound: Option<u64>) -> Self {
        Self { writer, lanes, name: name.to_owned(), bound }
    }

    fn find(&self, subscription: &str) -> Result<Arc<Lane>, Fault> {
        self.lanes.of(&self.name).iter().find(|l| l.name == subscription).cloned().ok_or_else(|| {
            let text = format!("queue {} has no subscription {subscription}: declare it first", self.name);
            Fault::new(FaultKind::Misconfigured, text)
        })
    }
}

#[async_trait]
impl Queue for SqliteQueue {
    async fn declare(&self, subscriptions: &[&str]) -> Result<(), Fault> {
        let queue = self.name.clone();
        let names: Vec<String> = subscriptions.iter().map(|s| (*s).to_owned()).collect();
        let work = move |transaction: &mut Transaction<'_>| {
            let connection = transaction.connection;
            let mut insert =
                connection.prepare_cached("INSERT OR IGNORE INTO subscription (queue, name) VALUES (?1, ?2)")?;
            let mut select = connection.prepare_cached("SELECT n FROM subscription WHERE queue = ?1 AND name = ?2")?;
            let mut made = Vec::with_capacity(names.len());
            for name in &names {
                insert.execute((&queue, name))?;
                made.push((select.query_row((&queue, name), |row| row.get(0))?, name.clone()));
            }
            Ok(made)
        };
        let made = self.writer.call("declare a queue", work).await?;
        self.lanes.add(&self.name, made);
        Ok(())
    }

    /// Always empty: what it declares lies in this process alone, and nobody else can have made it differently.
    async fn inspect(&self, _: &[&str]) -> Result<Vec<Part>, Fault> {
        Ok(Vec::new())
    }

    async fn publish(&self, messages: Vec<Message>) -> Result<(), Fault> {
        let lanes = self.lanes.of(&self.name);
        if lanes.is_empty() {
            return Err(Fault::new(FaultKind::Refused, format!("nothing subscribes to queue {}", self.name)));
        }
        if messages.is_empty() {
            return Ok(());
        }
        if let Some(bound) = self.bound
            && let Some(full) = lanes.iter().find(|lane| lane.count() >= bound)
        {
            let text = format!("queue {} is full: {bound} messages wait for {}", self.name, full.name);
            return Err(Fault::new(FaultKind::Unavailable, text));
        }
        let headers = messages.iter().map(header_text).collect::<Result<_, _>>()?;
        let (answer, answered) = oneshot::channel();
        let last = vec![0; lanes.len()];
        self.writer.submit(Publish { lanes, messages, headers, published: Timestamp::now(), last, answer });
        answered.await.unwrap_or_else(|_| Err(crate::writer::closed()))
    }

    async fn subscribe(&self, subscription: &str, prefetch: Prefetch) -> Result<Box<dyn Deliveries>, Fault> {
        let lane = self.find(subscription)?;
        let id = lane.join(usize::try_from(prefetch.messages.max(1)).unwrap_or(usize::MAX));
        Ok(Box::new(SqliteDeliveries { writer: Arc::clone(&self.writer), lane, id }))
    }

    async fn depth(&self, subscription: &str) -> Result<Depth, Fault> {
        let lane = self.find(subscription)?;
        let work = move |transaction: &mut Transaction<'_>| {
            let waiting = lane.waiting();
            let after = "SELECT published FROM message WHERE key > ?1 AND key < ?2 ORDER BY key LIMIT 1";
            let mut select = transaction.connection.prepare_cached(after)?;
            let next = select.query_row((waiting.cursor, lane.end_of_keys()), |row| row.get(0)).optional()?;
            let mut select = transaction.connection.prepare_cached("SELECT published FROM message WHERE key = ?1")?;
            let returned = match waiting.returned {
                Some(key) => select.query_row([key], |row| row.get(0)).optional()?,
                None => None,
            };
            let oldest = [next, returned].into_iter().flatten().min().map(Timestamp);
            Ok(Depth { ready: waiting.ready, held: waiting.held, oldest })
        };
        self.writer.call("read the depth of a queue", work).await
    }
}

fn header_text(message: &Message) -> Result<Option<String>, Fault> {
    if message.headers.is_empty() {
        return Ok(None);
    }
    let text = serde_json::to_string(&message.headers);
    text.map(Some).map_err(|e| Fault::because(FaultKind::Refused, "cannot write a message's headers", e))
}

struct Publish {
    lanes: Arc<[Arc<Lane>]>,
    messages: Vec<Message>,
    headers: Vec<Option<String>>,
    published: Timestamp,
    /// The key of the last message in each lane.
    last: Vec<i64>,
    answer: oneshot::Sender<Result<(), Fault>>,
}

impl Job for Publish {
    fn what(&self) -> &'static str {
        "publish"
    }

    fn run(&mut self, transaction: &mut Transaction<'_>) -> rusqlite::Result<()> {
        let mut insert = transaction
            .connection
            .prepare_cached("INSERT INTO message (key, published, id, headers, body) VALUES (?1, ?2, ?3, ?4, ?5)")?;
        for (lane, last) in self.lanes.iter().zip(&mut self.last) {
            for (message, headers) in self.messages.iter().zip(&self.headers) {
                *last = lane.new_key();
                insert.execute((*last, self.published.0, &message.id, headers, &message.body[..]))?;
            }
            transaction.count(lane, i64::try_from(self.messages.len()).unwrap_or(i64::MAX));
        }
        Ok(())
    }

    fn finish(self: Box<Self>, done: Result<(), Fault>) {
        if done.is_ok() {
            for (lane, last) in self.lanes.iter().zip(&self.last) {
                lane.published(self.messages.len() as u64, *last);
            }
        }
        // The publisher may have stopped waiting.
        drop(self.answer.send(done));
    }
}

struct SqliteDeliveries {
    writer: Arc<Writer>,
    lane: Arc<Lane>,
    id: u64,
}

#[async_trait]
impl Deliveries for SqliteDeliveries {
    async fn next(&mut self) -> Result<Option<Delivery>, Fault> {
        loop {
            let changed = self.lane.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so that what happens in between is not missed.
            changed.as_mut().enable();
            match self.lane.step(self.id) {
                Step::Take(fetched) => {
                    let hold = Hold {
                        writer: Arc::clone(&self.writer),
                        lane: Arc::clone(&self.lane),
                        key: Some(fetched.key),
                        receiver: self.id,
                    };
                    let (message, published) = (fetched.message, Some(fetched.published));
                    return Ok(Some(Delivery::new(message, fetched.first, published, Box::new(hold))));
                }
                Step::Fail(fault) => return Err(fault),
                Step::End => return Ok(None),
                Step::Fetch(fetch) => self.writer.fetch(fetch),
                Step::Wait => {}
            }
            changed.await;
        }
    }
}

impl Drop for SqliteDeliveries {
    fn drop(&mut self) {
        self.lane.leave(self.id);
    }
}

struct Hold {
    writer: Arc<Writer>,
    lane: Arc<Lane>,
    /// Until there is a verdict.
    key: Option<i64>,
    receiver: u64,
}

impl Hold {
    fn taken_back(&self) -> Fault {
        let text = format!("subscription {} has taken this message back: its subscriber is gone", self.lane.name);
        Fault::new(FaultKind::Unavailable, text)
    }
}

#[async_trait]
impl Settle for Hold {
    async fn ack(mut self: Box<Self>) -> Result<(), Fault> {
        let Some(key) = self.key.take() else { return Ok(()) };
        if !self.lane.begin_ack(key, self.receiver) {
            return Err(self.taken_back());
        }
        let (answer, answered) = oneshot::channel();
        self.writer.submit(Ack { lane: Arc::clone(&self.lane), key, answer });
        answered.await.unwrap_or_else(|_| Err(crate::writer::closed()))
    }

    async fn release(mut self: Box<Self>) -> Result<(), Fault> {
        match self.key.take() {
            Some(key) if !self.lane.give_back(key, self.receiver) => Err(self.taken_back()),
            _ => Ok(()),
        }
    }

    async fn extend(&self) -> Result<(), Fault> {
        let held = self.key.is_some_and(|key| self.lane.holds(key, self.receiver));
        if held { Ok(()) } else { Err(self.taken_back()) }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            // `false` means that the subscriber is gone and has given the message back already.
            self.lane.give_back(key, self.receiver);
        }
    }
}

struct Ack {
    lane: Arc<Lane>,
    key: i64,
    answer: oneshot::Sender<Result<(), Fault>>,
}

impl Job for Ack {
    fn what(&self) -> &'static str {
        "acknowledge"
    }

    fn run(&mut self, transaction: &mut Transaction<'_>) -> rusqlite::Result<()> {
        let mut delete = transaction.connection.prepare_cached("DELETE FROM message WHERE key = ?1")?;
        let deleted = delete.execute([self.key])?;
        transaction.count(&self.lane, -i64::try_from(deleted).unwrap_or(0));
        Ok(())
    }

    fn finish(self: Box<Self>, done: Result<(), Fault>) {
        self.lane.end_ack(self.key, done.is_ok());
        // The worker may have stopped waiting.
        drop(self.answer.send(done));
    }
}
