//! A queue in memory: each subscription is a list of what waits and a map of what is held.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use stoq_api::queue::{Deliveries, Delivery, Depth, Message, Parcel, Part, Prefetch, Queue, Settle};
use stoq_api::{Content, Fault, FaultKind, Timestamp};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::spool::Spool;

/// One lane in memory.
pub struct MemoryQueue {
    name: String,
    capacity: Option<usize>,
    subscriptions: Mutex<Arc<[Arc<Subscription>]>>,
    room: Arc<Notify>,
    overflow: Option<(Arc<Path>, usize)>,
}

struct Subscription {
    name: String,
    lists: Mutex<Lists>,
    /// One permit per wake-up: a receiver that takes a message passes the wake-up on while more wait.
    arrived: Notify,
    room: Arc<Notify>,
}

#[derive(Default)]
struct Lists {
    ready: VecDeque<Entry>,
    held: HashMap<u64, Held>,
    next_token: u64,
    /// Bytes of bodies that wait in memory.
    bytes: usize,
    /// Where further ones go, and how many stay.
    overflow: Option<(Spool, usize)>,
}

struct Entry {
    said: Said,
    /// The message's body, if that is in a file.
    file: Option<Content>,
    first: bool,
    published: Timestamp,
}

/// What was published, in the form in which it came.
#[derive(Clone)]
enum Said {
    Message(Message),
    Parcel(Arc<dyn Parcel>),
}

impl Said {
    /// What it holds in memory.
    fn bytes(&self) -> usize {
        match self {
            Self::Message(message) => message.body.len(),
            Self::Parcel(parcel) => parcel.size(),
        }
    }

    fn into_message(self) -> Result<Message, Fault> {
        match self {
            Self::Message(message) => Ok(message),
            Self::Parcel(parcel) => parcel.write(),
        }
    }
}

struct Held {
    entry: Entry,
    receiver: u64,
}

impl MemoryQueue {
    /// An unbounded queue.
    pub fn new(name: impl Into<String>) -> Self {
        Self::with_capacity(name.into(), None)
    }

    /// An unbounded queue that puts bodies of waiting messages into files in `dir` once `held` bytes of them are in memory.
    pub fn spooling(name: impl Into<String>, dir: &Path, held: usize) -> Self {
        Self { overflow: Some((dir.into(), held)), ..Self::new(name) }
    }

    /// A queue in which `publish` waits while any subscription has `capacity` messages or more, held ones included. One
    /// call's messages go in together, so that the bound can be passed by one call per publisher.
    pub fn bounded(name: impl Into<String>, capacity: usize) -> Self {
        Self::with_capacity(name.into(), Some(capacity.max(1)))
    }

    fn with_capacity(name: String, capacity: Option<usize>) -> Self {
        Self { name, capacity, subscriptions: Mutex::new(Arc::from([])), room: Arc::default(), overflow: None }
    }

    fn find(&self, subscription: &str) -> Result<Arc<Subscription>, Fault> {
        let all = Arc::clone(&self.subscriptions.lock());
        all.iter().find(|s| s.name == subscription).cloned().ok_or_else(|| {
            let text = format!("queue {} has no subscription {subscription}: declare it first", self.name);
            Fault::new(FaultKind::Misconfigured, text)
        })
    }

    fn unheard(&self) -> Fault {
        Fault::new(FaultKind::Refused, format!("nothing subscribes to queue {}", self.name))
    }

    async fn wait_for_room(&self, subscriptions: &[Arc<Subscription>]) {
        let Some(capacity) = self.capacity else { return };
        loop {
            let freed = self.room.notified();
            tokio::pin!(freed);
            // Registered before the look, so that room made in between is not missed.
            freed.as_mut().enable();
            if subscriptions.iter().all(|s| s.lists.lock().len() < capacity) {
                return;
            }
            freed.await;
        }
    }
}

impl Lists {
    fn len(&self) -> usize {
        self.ready.len() + self.held.len()
    }

    /// A message that waits from now on, in memory or in a file.
    fn entry(&mut self, mut said: Said, published: Timestamp) -> Result<Entry, Fault> {
        let mut file = None;
        if let Some((spool, held)) = &mut self.overflow
            && self.bytes + said.bytes() > *held
        {
            let message = said.into_message()?;
            file = Some(spool.put(&message.body)?);
            said = Said::Message(Message { body: Bytes::new(), ..message });
        }
        self.bytes += said.bytes();
        Ok(Entry { said, file, first: true, published })
    }

    /// A message waits again.
    fn again(&mut self, entry: Entry) {
        self.bytes += entry.said.bytes();
        self.ready.push_back(Entry { first: false, ..entry });
    }
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn declare(&self, subscriptions: &[&str]) -> Result<(), Fault> {
        let mut all = self.subscriptions.lock();
        let mut next: Vec<_> = all.to_vec();
        let overflow = || self.overflow.clone().map(|(dir, held)| (Spool::new(dir), held));
        for name in subscriptions {
            if !next.iter().any(|s| s.name == *name) {
                next.push(Arc::new(Subscription {
                    name: (*name).to_owned(),
                    lists: Mutex::new(Lists { overflow: overflow(), ..Lists::default() }),
                    arrived: Notify::new(),
                    room: Arc::clone(&self.room),
                }));
            }
        }
        *all = next.into();
        Ok(())
    }

    /// Always empty: what it declares lies in this process alone, and nobody else can have made it differently.
    async fn inspect(&self, _: &[&str]) -> Result<Vec<Part>, Fault> {
        Ok(Vec::new())
    }

    async fn publish(&self, messages: Vec<Message>) -> Result<(), Fault> {
        let all = Arc::clone(&self.subscriptions.lock());
        let Some((last, others)) = all.split_last() else {
            return Err(self.unheard());
        };
        self.wait_for_room(&all).await;
        let published = Timestamp::now();
        for subscription in others {
            subscription.push(messages.iter().cloned().map(Said::Message), published)?;
        }
        last.push(messages.into_iter().map(Said::Message), published)
    }

    async fn publish_parcels(&self, parcels: Vec<Arc<dyn Parcel>>) -> Result<(), Fault> {
        let all = Arc::clone(&self.subscriptions.lock());
        if all.is_empty() {
            return Err(self.unheard());
        }
        self.wait_for_room(&all).await;
        let published = Timestamp::now();
        for subscription in all.iter() {
            subscription.push(parcels.iter().cloned().map(Said::Parcel), published)?;
        }
        Ok(())
    }

    async fn subscribe(&self, subscription: &str, prefetch: Prefetch) -> Result<Box<dyn Deliveries>, Fault> {
        let subscription = self.find(subscription)?;
        let id = subscription.lists.lock().token();
        let permits = usize::try_from(prefetch.messages.max(1)).unwrap_or(Semaphore::MAX_PERMITS);
        Ok(Box::new(Receiver { subscription, id, permits: Arc::new(Semaphore::new(permits)) }))
    }

    async fn depth(&self, subscription: &str) -> Result<Depth, Fault> {
        let subscription = self.find(subscription)?;
        let lists = subscription.lists.lock();
        Ok(Depth {
            ready: lists.ready.len() as u64,
            held: lists.held.len() as u64,
            // Messages that were given back stand behind younger ones, so the front need not be the oldest.
            oldest: lists.ready.iter().map(|e| e.published).min(),
        })
    }
}

impl Lists {
    fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }
}

impl Subscription {
    fn push(&self, all: impl Iterator<Item = Said>, published: Timestamp) -> Result<(), Fault> {
        let mut lists = self.lists.lock();
        let before = lists.bytes;
        let entries: Result<Vec<Entry>, Fault> = all.map(|said| lists.entry(said, published)).collect();
        match entries {
            Ok(entries) => lists.ready.extend(entries),
            Err(fault) => {
                lists.bytes = before;
                return Err(fault);
            }
        }
        drop(lists);
        self.arrived.notify_one();
        Ok(())
    }

    /// Takes the next message, if one waits, and wakes another receiver if more do.
    fn take(&self, receiver: u64) -> Result<Option<(u64, Said, bool, Timestamp)>, Fault> {
        let mut lists = self.lists.lock();
        let Some(front) = lists.ready.front() else { return Ok(None) };
        let mut said = front.said.clone();
        if let (Some(file), Said::Message(message)) = (&front.file, &mut said) {
            message.body = file.to_bytes().map_err(|e| {
                Fault::because(FaultKind::Unavailable, "a waiting message cannot be read from its file", e)
            })?;
        }
        let Some(entry) = lists.ready.pop_front() else { return Ok(None) };
        lists.bytes -= entry.said.bytes();
        let (first, published) = (entry.first, entry.published);
        let token = lists.token();
        lists.held.insert(token, Held { entry, receiver });
        if !lists.ready.is_empty() {
            self.arrived.notify_one();
        }
        Ok(Some((token, said, first, published)))
    }

    fn remove(&self, token: u64) -> Result<(), Fault> {
        let removed = self.lists.lock().held.remove(&token);
        self.room.notify_waiters();
        removed.map(drop).ok_or_else(|| self.taken_back())
    }

    fn give_back(&self, token: u64) -> Result<(), Fault> {
        let mut lists = self.lists.lock();
        let held = lists.held.remove(&token).ok_or_else(|| self.taken_back())?;
        lists.again(held.entry);
        drop(lists);
        self.arrived.notify_one();
        Ok(())
    }

    fn taken_back(&self) -> Fault {
        let text = format!("subscription {} has taken this message back: its subscriber is gone", self.name);
        Fault::new(FaultKind::Unavailable, text)
    }
}

struct Receiver {
    subscription: Arc<Subscription>,
    id: u64,
    permits: Arc<Semaphore>,
}

#[async_trait]
impl Deliveries for Receiver {
    async fn next(&mut self) -> Result<Option<Delivery>, Fault> {
        // The semaphore is never closed; were it, the queue would be at its end.
        let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else { return Ok(None) };
        loop {
            let arrived = self.subscription.arrived.notified();
            if let Some((token, said, first, published)) = self.subscription.take(self.id)? {
                let hold = Hold { subscription: Arc::clone(&self.subscription), token: Some(token), _permit: permit };
                let (message, parcel) = match said {
                    Said::Message(message) => (message, None),
                    Said::Parcel(parcel) => (Message::default(), Some(parcel)),
                };
                let delivery = Delivery::new(message, first, Some(published), Box::new(hold));
                return Ok(Some(delivery.with_parcel(parcel)));
            }
            arrived.await;
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let mut lists = self.subscription.lists.lock();
        let mine: Vec<u64> = lists.held.iter().filter(|(_, h)| h.receiver == self.id).map(|(t, _)| *t).collect();
        for token in mine {
            if let Some(held) = lists.held.remove(&token) {
                lists.again(held.entry);
            }
        }
        drop(lists);
        self.subscription.arrived.notify_one();
    }
}

struct Hold {
    subscription: Arc<Subscription>,
    token: Option<u64>,
    /// Given back after the verdict, so that the subscriber never holds more than its prefetch.
    _permit: OwnedSemaphorePermit,
}

#[async_trait]
impl Settle for Hold {
    async fn ack(mut self: Box<Self>) -> Result<(), Fault> {
        self.token.take().map_or(Ok(()), |token| self.subscription.remove(token))
    }

    async fn release(mut self: Box<Self>) -> Result<(), Fault> {
        self.token.take().map_or(Ok(()), |token| self.subscription.give_back(token))
    }

    async fn extend(&self) -> Result<(), Fault> {
        let held = self.token.is_some_and(|token| self.subscription.lists.lock().held.contains_key(&token));
        if held { Ok(()) } else { Err(self.subscription.taken_back()) }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(token) = self.token.take() {
            // Only a subscriber that is gone makes this fail, and it has given the message back already.
            drop(self.subscription.give_back(token));
        }
    }
}
