//! How bytes behind a network are fetched, by a provider or a worker alike.

use async_trait::async_trait;

use crate::content::Content;
use crate::fault::Fault;
use crate::store::ByteStream;
use crate::task::RemoteRef;

/// Fetches for one intake, by the rules of that intake: hosts, buckets and archivers that its references may name. It
/// trusts no reference, whoever passed it on.
#[async_trait]
pub trait Fetcher: Send + Sync {
    /// Starts to fetch. Neither the size that a server announces nor the one that it sends is limited here: whoever reads
    /// counts, and stops by dropping.
    ///
    /// # Errors
    /// [`crate::FaultKind::Unavailable`] while what holds the bytes is away; others if asking again will not help:
    /// [`crate::FaultKind::Refused`] for what the rules do not allow, [`crate::FaultKind::NotFound`].
    async fn fetch(&self, reference: &RemoteRef) -> Result<Fetching, Fault>;
}

/// Bytes on their way.
pub struct Fetching {
    /// The bytes.
    pub bytes: FetchedBytes,
    /// Their number, where it was announced.
    pub size: Option<u64>,
    /// How what is there differs from what the reference says of it, for a person.
    pub mismatch: Option<String>,
}

/// How fetched bytes come.
pub enum FetchedBytes {
    /// Piece by piece. An error ends it: what came before it is not the whole.
    Stream(ByteStream),
    /// Whole. A file among them may be changed by others, so it is copied before it is used.
    Whole(Content),
}

/// Reads objects of buckets that others write to.
#[async_trait]
pub trait Buckets: Send + Sync {
    /// Starts to read an object.
    ///
    /// # Errors
    /// As for [`Fetcher::fetch`]; [`crate::FaultKind::Misconfigured`] where the credentials do not do.
    async fn get(&self, object: ObjectName<'_>) -> Result<Fetching, Fault>;
}

/// An object of a bucket, as [`crate::task::Place::Object`] names it.
#[derive(Clone, Copy, Debug)]
pub struct ObjectName<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// The object's name in it.
    pub key: &'a str,
    /// Its version or generation; without one, whatever is there now.
    pub version: Option<&'a str>,
    /// What its entity tag should be; another one is a mismatch.
    pub etag: Option<&'a str>,
}
