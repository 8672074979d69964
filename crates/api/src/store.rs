//! The payload store: large bytes, addressed by content, outside the queue and the ledger.

use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;

use crate::content::Content;
use crate::digest::Sha256;
use crate::fault::{Fault, FaultKind};

/// A stream of bytes; an error ends it.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, Fault>> + Send>>;

/// Where an object lies: under its day, so that a day is dropped whole, and under its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreKey {
    /// `YYYYMMDD`, the day on which the scan was first seen.
    pub day: u32,
    /// The content.
    pub sha256: Sha256,
}

impl StoreKey {
    /// `20260102/ab/ab12…`, the object's path.
    pub fn path(&self) -> String {
        let digest = self.sha256.to_string();
        format!("{:08}/{}/{}", self.day, &digest[..2], digest)
    }
}

/// Keeps payloads. Every implementation passes the store suite of the test kit.
#[async_trait]
pub trait Store: Send + Sync {
    /// Puts `content` unless the key is there already. When this returns, the object is durable and whole: a crash at any
    /// moment leaves all of it or none.
    ///
    /// # Errors
    /// [`crate::FaultKind::Unavailable`] while the store is away or full; nothing is promised then.
    async fn put(&self, key: &StoreKey, content: &Content) -> Result<(), Fault>;

    /// Streams the object.
    ///
    /// # Errors
    /// [`crate::FaultKind::NotFound`] if there is none; others as for `put`. The bytes are not checked against the key:
    /// whoever reads them hashes them.
    async fn get(&self, key: &StoreKey) -> Result<ByteStream, Fault>;

    /// Keeps `content` under a free name outside any day, for people to look at: quarantined payloads.
    ///
    /// # Errors
    /// As for `put`.
    async fn keep(&self, name: &str, content: &Content) -> Result<(), Fault>;

    /// Puts `content` on the shelf: under a name of its own outside any day, such as `spill/siem/7`, until it is taken off.
    /// The first part of a name is its area. An object of that name is replaced. Durable and whole as for `put`.
    ///
    /// # Errors
    /// As for `put`; [`crate::FaultKind::Refused`] for a name that cannot be one, or where a store has no shelf.
    async fn shelve(&self, name: &str, content: &Content) -> Result<(), Fault> {
        let _ = (name, content);
        Err(no_shelf())
    }

    /// Streams an object of the shelf.
    ///
    /// # Errors
    /// As for `get` and `shelve`.
    async fn shelved(&self, name: &str) -> Result<ByteStream, Fault> {
        let _ = name;
        Err(no_shelf())
    }

    /// Names of objects on the shelf that lie below `area`, which is one or more whole parts of names: in order, the first
    /// `most` of them or some `most` of them where there are very many.
    ///
    /// # Errors
    /// As for `shelve`.
    async fn shelf(&self, area: &str, most: usize) -> Result<Vec<String>, Fault> {
        let _ = (area, most);
        Err(no_shelf())
    }

    /// Takes an object off the shelf for good. Idempotent.
    ///
    /// # Errors
    /// As for `shelve`.
    async fn unshelve(&self, name: &str) -> Result<(), Fault> {
        let _ = name;
        Err(no_shelf())
    }

    /// Days that hold objects, oldest first.
    ///
    /// # Errors
    /// As for `put`.
    async fn days(&self) -> Result<Vec<u32>, Fault>;

    /// Drops every object of a day. Idempotent.
    ///
    /// # Errors
    /// As for `put`.
    async fn drop_day(&self, day: u32) -> Result<(), Fault>;

    /// Whether it can be used now: address, credentials. Cheap, so that readiness can ask every few seconds.
    ///
    /// # Errors
    /// [`crate::FaultKind::Unavailable`] while it is away; [`crate::FaultKind::Misconfigured`] for what waiting does not
    /// mend.
    async fn check(&self) -> Result<(), Fault>;
}

fn no_shelf() -> Fault {
    Fault::new(FaultKind::Refused, "this store has no shelf")
}
