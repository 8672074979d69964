//! Messages of the result lane that wait in the payload store instead, and their way back.
//!
//! An object of the shelf holds whole messages, with responses that lay in the store for a while only written out, so that
//! no clean-up of the store reaches them. Its name is `spill/<connector>/<time>-<messages>-<sha256>`; a name of a connector
//! is written with hexadecimal escapes where it has other characters than letters, digits and `-`. An object is put there
//! before its messages are acknowledged, and taken off after all of them were delivered: a crash in between makes
//! messages come twice, as everywhere.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use stoq_api::queue::{Deliveries, Delivery, Message, Settle};
use stoq_api::results::{MAX_STORED, STORED_HEADER, Stored};
use stoq_api::store::Store;
use stoq_api::{Content, Fault, FaultKind, Sha256, Timestamp, fault};
use stoq_runtime::metrics;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::settle::read;

/// The area of the shelf.
pub const AREA: &str = "spill";
/// Objects of one connector that are looked at in one go.
pub const MAX_OBJECTS: usize = 100_000;
/// First bytes of an object.
const MAGIC: &[u8] = b"stoq-spill 1\n";
/// Bytes of messages after which an object is full.
const FULL: usize = 16 << 20;
/// Bytes of one object that are read: a full one and the largest response.
const MAX_OBJECT: u64 = MAX_STORED + (FULL as u64) * 4;

/// One connector's part of the shelf.
#[derive(Clone)]
pub struct Spill {
    store: Arc<dyn Store>,
    area: String,
    meter: metrics::Connector,
}

/// What lies there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spilled {
    /// Objects.
    pub objects: usize,
    /// Messages in them.
    pub messages: u64,
}

#[derive(Serialize, Deserialize)]
struct Head {
    id: String,
    headers: Vec<(String, String)>,
    published: Option<u64>,
}

impl Spill {
    /// That of the connector with this configured name.
    pub fn new(store: &Arc<dyn Store>, connector: &str) -> Self {
        let area = format!("{AREA}/{}", escaped(connector));
        Self { store: Arc::clone(store), area, meter: metrics::Connector::new(connector) }
    }

    /// Counts what lies there.
    ///
    /// # Errors
    /// The store is away.
    pub async fn count(&self) -> Result<Spilled, Fault> {
        let names = self.store.shelf(&self.area, MAX_OBJECTS).await?;
        let messages = names.iter().filter_map(|name| name.rsplit('/').next()?.split('-').nth(1)?.parse::<u64>().ok());
        Ok(Spilled { objects: names.len(), messages: messages.sum() })
    }

    /// Whether anything lies there.
    ///
    /// # Errors
    /// The store is away.
    pub async fn is_empty(&self) -> Result<bool, Fault> {
        Ok(self.store.shelf(&self.area, 1).await?.is_empty())
    }

    /// Puts messages there. When this returns, they are durable.
    ///
    /// # Errors
    /// The store is away; some of them may be there already.
    pub async fn put(&self, deliveries: &[&Delivery]) -> Result<(), Fault> {
        let mut body = BytesMut::new();
        let mut messages = 0;
        for delivery in deliveries {
            let message = self.written_out(&delivery.message).await?;
            let head = Head { id: message.id, headers: message.headers, published: delivery.published.map(|at| at.0) };
            let head = serde_json::to_vec(&head)
                .map_err(|e| Fault::because(FaultKind::Corrupt, "a message cannot be written", e))?;
            for part in [&head[..], &message.body] {
                // No message is as large as 4 GiB: responses are bounded by far less.
                body.put_u32_le(u32::try_from(part.len()).unwrap_or(u32::MAX));
                body.put_slice(part);
            }
            messages += 1;
            if body.len() >= FULL {
                self.put_object(body.split().freeze(), messages).await?;
                messages = 0;
            }
        }
        if messages > 0 {
            self.put_object(body.freeze(), messages).await?;
        }
        Ok(())
    }

    async fn put_object(&self, frames: Bytes, messages: u64) -> Result<(), Fault> {
        let bytes = Bytes::from([MAGIC, &frames].concat());
        let name = format!("{}/{:020}-{messages}-{}", self.area, Timestamp::now().0, Sha256::of(&bytes));
        self.store.shelve(&name, &Content::Bytes(bytes)).await?;
        self.meter.spilled(messages);
        Ok(())
    }

    /// The message with its response in it, wherever that lay.
    async fn written_out(&self, message: &Message) -> Result<Message, Fault> {
        let mut message = message.clone();
        let Ok(Some(stored)) = Stored::of(&message) else { return Ok(message) };
        match read(&*self.store, &stored).await {
            Ok(json) => {
                message.body = json;
                message.headers.retain(|(name, _)| name != STORED_HEADER);
            }
            // It is not there any more: the connector says so when the message comes back.
            Err(e) if matches!(e.kind, FaultKind::NotFound | FaultKind::Corrupt) => {}
            Err(e) => return Err(e),
        }
        Ok(message)
    }

    /// What lies there now as deliveries, oldest first, `prefetch` of them held at a time; ends after the last.
    ///
    /// # Errors
    /// The store is away.
    pub async fn deliveries(&self, prefetch: u32) -> Result<Box<dyn Deliveries>, Fault> {
        let names = self.store.shelf(&self.area, MAX_OBJECTS).await?;
        let room = Arc::new(Semaphore::new(usize::try_from(prefetch).unwrap_or(1).max(1)));
        Ok(Box::new(Returning { spill: self.clone(), names: names.into(), ready: VecDeque::new(), room }))
    }

    async fn read(&self, name: &str) -> Result<Vec<(Message, Option<Timestamp>)>, Fault> {
        let corrupt = |why: &str| Fault::new(FaultKind::Corrupt, format!("{name} in the payload store {why}"));
        let mut bytes = BytesMut::new();
        let mut stream = self.store.shelved(name).await?;
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk?);
            if bytes.len() as u64 > MAX_OBJECT {
                return Err(corrupt("is larger than anything that was ever spilled"));
            }
        }
        let mut bytes = bytes.freeze();
        if name.rsplit('-').next() != Some(&Sha256::of(&bytes).to_string()) {
            return Err(corrupt("holds something else than it was made with"));
        }
        if !bytes.starts_with(MAGIC) {
            return Err(corrupt("was written by another version"));
        }
        bytes.advance(MAGIC.len());
        let mut messages = Vec::new();
        while !bytes.is_empty() {
            let (head, body) = (part(&mut bytes), part(&mut bytes));
            let head = head.and_then(|head| serde_json::from_slice::<Head>(&head).ok());
            let (Some(Head { id, headers, published }), Some(body)) = (head, body) else {
                return Err(corrupt("cannot be read"));
            };
            messages.push((Message { id, body, headers }, published.map(Timestamp)));
        }
        Ok(messages)
    }
}

fn part(bytes: &mut Bytes) -> Option<Bytes> {
    let len = usize::try_from(bytes.try_get_u32_le().ok()?).ok()?;
    (len <= bytes.len()).then(|| bytes.split_to(len))
}

/// A configured name as one plain part of a name on the shelf.
pub fn escaped(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' {
            out.push(char::from(byte));
        } else {
            // Writing to a `String` cannot fail.
            write!(out, "_{byte:02x}").ok();
        }
    }
    out
}

/// Spilled messages on their way back.
struct Returning {
    spill: Spill,
    names: VecDeque<String>,
    ready: VecDeque<(Message, Option<Timestamp>, Arc<Object>)>,
    room: Arc<Semaphore>,
}

/// An object of which some messages are not delivered yet.
struct Object {
    spill: Spill,
    name: String,
    left: AtomicUsize,
}

#[async_trait]
impl Deliveries for Returning {
    async fn next(&mut self) -> Result<Option<Delivery>, Fault> {
        let Ok(permit) = Arc::clone(&self.room).acquire_owned().await else { return Ok(None) };
        while self.ready.is_empty() {
            let Some(name) = self.names.front() else { return Ok(None) };
            match self.spill.read(name).await {
                Ok(messages) => {
                    let (spill, left) = (self.spill.clone(), AtomicUsize::new(messages.len()));
                    let object = Arc::new(Object { spill, name: name.clone(), left });
                    self.ready.extend(messages.into_iter().map(|(m, at)| (m, at, Arc::clone(&object))));
                }
                // Another process delivered it meanwhile.
                Err(e) if e.kind == FaultKind::NotFound => {}
                Err(e) if e.kind == FaultKind::Corrupt => {
                    tracing::error!(error = fault::chain(&e), "left where it is; look at it and remove it by hand");
                }
                Err(e) => return Err(e),
            }
            self.names.pop_front();
        }
        Ok(self.ready.pop_front().map(|(message, published, object)| {
            Delivery::new(message, false, published, Box::new(Back { object, _permit: permit }))
        }))
    }
}

/// The right to settle one of them. Given back, it stays in its object, which comes again with the next listing.
struct Back {
    object: Arc<Object>,
    _permit: OwnedSemaphorePermit,
}

#[async_trait]
impl Settle for Back {
    async fn ack(self: Box<Self>) -> Result<(), Fault> {
        self.object.spill.meter.returned(1);
        if self.object.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.object.spill.store.unshelve(&self.object.name).await?;
        }
        Ok(())
    }

    async fn release(self: Box<Self>) -> Result<(), Fault> {
        Ok(())
    }

    async fn extend(&self) -> Result<(), Fault> {
        Ok(())
    }
}
