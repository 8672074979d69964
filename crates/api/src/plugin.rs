//! Plugins that live outside a slot, because they need files, a network or time: providers, archivers, decorators,
//! connectors, and workers that drive a tool.

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;

use crate::content::Content;
use crate::fault::Fault;
use crate::json::Json;
use crate::payload::{PayloadMeta, RequestMeta};
use crate::queue::{Message, Part};
use crate::response::{PayloadResults, Response};
use crate::task::{FileRef, RemoteRef};

/// Brings references. Pulled by the provider role, which owns permits, ids and publishing; the plugin only finds and reads.
#[async_trait]
pub trait Provider: Send {
    /// What comes next; waits for it as long as it takes. `None` when there will be no more. Safe to cancel.
    ///
    /// # Errors
    /// The source is away (call again after a while) or gone for good.
    async fn next(&mut self) -> Result<Option<Taking>, Fault>;
}

/// What a provider took from its source.
pub enum Taking {
    /// Something to scan.
    Reference(Reference),
    /// Something that names nothing that can be scanned, and never will: it belongs on the dead lane.
    Refused(Refused),
}

impl From<Reference> for Taking {
    fn from(reference: Reference) -> Self {
        Self::Reference(reference)
    }
}

/// A message that is no reference, or not one that is allowed.
pub struct Refused {
    /// The message as it came.
    pub original: Message,
    /// Why, for a person.
    pub reason: String,
    /// Tells the source, once the message is safe on the dead lane.
    pub taken: Box<dyn Taken>,
}

/// One reference: what to scan, and the right to say that it was taken.
pub struct Reference {
    /// What the source says of the message, for the scan id: a broker's message id, or path, size, time and inode.
    pub identity: Vec<u8>,
    /// The payloads, at least one.
    pub roots: Vec<Root>,
    /// The request's metadata; the run's own is merged in.
    pub request_meta: RequestMeta,
    /// Tells the source.
    pub taken: Box<dyn Taken>,
}

/// One root of a reference.
pub struct Root {
    /// Its bytes, or where workers find them.
    pub bytes: RootBytes,
    /// How to treat it.
    pub meta: PayloadMeta,
}

/// A root's bytes.
pub enum RootBytes {
    /// Read already.
    Content(Content),
    /// Left where they are: a file beneath a root that workers share.
    File(FileRef),
    /// Left where they are: behind a network, where workers fetch them.
    Remote(RemoteRef),
    /// They cannot be had, and asking again will not help; the scan says so.
    Unreadable {
        /// Why, for a person.
        reason: String,
        /// Size in bytes, as far as known.
        size: u64,
    },
}

/// Tells a source that a reference is safe: its task was published and confirmed. Dropped without a call, it is not.
#[async_trait]
pub trait Taken: Send {
    /// The reference is taken.
    async fn taken(self: Box<Self>) -> Result<(), Fault>;
}

/// A source that need not be told.
pub struct NotTold;

#[async_trait]
impl Taken for NotTold {
    async fn taken(self: Box<Self>) -> Result<(), Fault> {
        Ok(())
    }
}

/// Keeps payloads for good (destination) or brings them back (source).
#[async_trait]
pub trait Archiver: Send + Sync {
    /// Keeps one payload. What it returns stands in the response under `archivers`, and is what `get` takes.
    ///
    /// # Errors
    /// Transient ones are tried again; others become an error of the payload.
    async fn archive(
        &self,
        content: &Content,
        results: &PayloadResults,
        request: &RequestMeta,
    ) -> Result<Option<Json>, Fault>;

    /// Brings back what `archive` kept.
    ///
    /// # Errors
    /// [`crate::FaultKind::Refused`] if the task names anything outside of what this archiver is configured for.
    async fn get(&self, task: &Value) -> Result<(Content, PayloadMeta), Fault>;
}

/// Adds to a finished response. Pure with regard to the response: the same response gives the same answer.
#[async_trait]
pub trait Decorator: Send + Sync {
    /// What to put under `decorators`.
    ///
    /// # Errors
    /// The sentence becomes an error of the response.
    async fn decorate(&self, response: &Response) -> Result<Option<Value>, String>;
}

/// A response on its way to a sink.
#[derive(Clone, Debug)]
pub struct Item {
    /// The scan's id and so the document's.
    pub id: String,
    /// The response as JSON text, compact.
    pub json: Bytes,
}

/// What a sink said of one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is safe there.
    Delivered,
    /// Not now.
    Retry(String),
    /// Never: the item goes to the dead lane with the reason.
    Rejected(String),
}

/// Takes responses away.
#[async_trait]
pub trait Connector: Send + Sync {
    /// Delivers a batch and says what became of each item, in order. Delivering an item twice must leave one document.
    ///
    /// # Errors
    /// The sink as a whole cannot be used now; no item has a verdict.
    async fn deliver(&self, batch: &[Item]) -> Result<Vec<Verdict>, Fault>;

    /// Whether the sink can be used: address, TLS, credentials. Cheap, so that readiness can ask every few seconds. A
    /// sink that cannot be away, such as standard output, has nothing to ask.
    ///
    /// # Errors
    /// [`crate::FaultKind::Unavailable`] while it is away; [`crate::FaultKind::Misconfigured`] for what waiting does not
    /// mend, such as a wrong password.
    async fn check(&self) -> Result<(), Fault> {
        Ok(())
    }

    /// What the sink needs before its first delivery, such as index templates, and what of it was there. With `make`,
    /// what is missing is made; what is there with other settings is told and never changed. Idempotent.
    ///
    /// # Errors
    /// As for [`Connector::check`].
    async fn setup(&self, make: bool) -> Result<Vec<Part>, Fault> {
        let _ = make;
        Ok(Vec::new())
    }
}

/// A worker that runs beside the slots: it drives a tool slot, a foreign interpreter or a remote service.
#[async_trait]
pub trait ExternalWorker: Send + Sync {
    /// Scans one payload of a tenant, or of none. What the tool said is hostile and was bounded by whoever ran it. What
    /// has seen payloads of one tenant must not be used for another's.
    async fn scan(&self, content: &Content, meta: &PayloadMeta, tenant: Option<&str>) -> ExternalOutput;
}

/// What an [`ExternalWorker`] answers.
#[derive(Debug, Default)]
pub struct ExternalOutput {
    /// Stored under the worker's name.
    pub results: Option<Json>,
    /// Errors, as plain sentences.
    pub errors: Vec<String>,
    /// Findings.
    pub findings: Vec<crate::finding::Finding>,
    /// Children, with how to treat them.
    pub children: Vec<(Content, PayloadMeta)>,
    /// Workers to run on the same payload.
    pub dispatch_to: Vec<String>,
    /// How it ended; `None` means that it answered.
    pub status: Option<crate::outcome::RunStatus>,
}
