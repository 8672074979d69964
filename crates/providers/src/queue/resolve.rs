//! From a delivery to what the role takes: decoded, checked, and the bytes fetched or left where they are.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use stoq_api::fetch::Fetcher as _;
use stoq_api::plugin::{Reference, Refused, Root, RootBytes, Taken as _, Taking};
use stoq_api::queue::Message;
use stoq_api::task::{FileRef, RawPath, RemoteRef};
use stoq_api::{Content, Fault, FaultKind, PayloadMeta, Sha256, fault};
use stoq_runtime::backoff::Backoff;
use stoq_runtime::files::{self, FileRoots};

use super::config::{Config, FetchBy};
use super::held::Held;
use crate::decode::{self, Decoded, Meaning, Named, Place, Settings};
use crate::fetch::Fetch;
use crate::spool::{Spooled, spool, spool_stream};
use crate::{Context, MAX_LOGGED};

/// Messages up to this size are decoded where they arrive; more would hold up others.
const DECODE_HERE: usize = 64 << 10;
/// First and longest pause between two tries of what may pass.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(15));
/// Tries of what is away, until its message is given back, so that others have their turn.
const MAX_TRIES: u32 = 20;
/// The member of a payload's `extra_data` that says how what was fetched differs from its reference.
const MISMATCH: &str = "reference_mismatch";

/// What came of a delivery.
pub(super) enum Step {
    /// It is ready.
    Done(Box<Taking>),
    /// It takes time; gives nothing if there is nothing to take.
    Going(Pin<Box<dyn Future<Output = Option<Taking>> + Send>>),
}

/// What messages of one intake are resolved with.
pub(super) struct Resolver {
    name: String,
    settings: Settings,
    fetch: Fetch,
    by: FetchBy,
    has_root: bool,
    roots: Arc<FileRoots>,
    memory: u64,
    max_payload: u64,
    spool_dir: PathBuf,
    file_wait: Duration,
    nothing: AtomicU64,
}

/// A root on its way: ready, or what it takes.
enum Found {
    Ready(Root),
    /// A reading of this file, now or later.
    File {
        path: String,
        size: Option<u64>,
        meta: PayloadMeta,
    },
    /// A fetch by the provider.
    Remote {
        remote: RemoteRef,
        meta: PayloadMeta,
    },
}

impl Resolver {
    pub(super) fn new(config: &Config, fetch: Fetch, context: &Context) -> Self {
        Self {
            name: context.name.clone(),
            settings: Settings {
                format: config.format,
                max_message: usize::try_from(config.max_message).unwrap_or(usize::MAX),
                strip_prefix: config.strip_prefix.clone(),
            },
            fetch,
            by: config.fetch,
            has_root: !config.root.as_os_str().is_empty(),
            roots: Arc::clone(&context.roots),
            memory: context.inline_limit,
            max_payload: context.max_payload,
            spool_dir: context.data_dir.clone(),
            file_wait: Duration::from_secs_f64(config.file_wait),
            nothing: AtomicU64::new(0),
        }
    }

    /// Begins with a delivery.
    pub(super) fn begin(self: &Arc<Self>, held: Held) -> Step {
        let this = Arc::clone(self);
        let size = held.message.body.len();
        if size > DECODE_HERE && size <= self.settings.max_message {
            return Step::Going(Box::pin(async move {
                let (resolver, message) = (Arc::clone(&this), held.message.clone());
                let decoding = tokio::task::spawn_blocking(move || resolver.decode(&message));
                // A panic while decoding: the delivery goes back, and the next reader may know better.
                match this.go_on(held, decoding.await.ok()?) {
                    Step::Done(taking) => Some(*taking),
                    Step::Going(work) => work.await,
                }
            }));
        }
        let meaning = self.decode(&held.message);
        this.go_on(held, meaning)
    }

    fn decode(&self, message: &Message) -> Result<Meaning, String> {
        decode::decode(message, &self.settings).map_err(|refusal| refusal.0)
    }

    fn go_on(self: Arc<Self>, held: Held, meaning: Result<Meaning, String>) -> Step {
        let decoded = match meaning {
            Ok(Meaning::Reference(decoded)) => decoded,
            Ok(Meaning::Nothing(what)) => {
                self.say_nothing(&held, &what);
                return Step::Going(Box::pin(async move {
                    Box::new(held).taken().await.ok();
                    None
                }));
            }
            Err(reason) => return Step::Done(Box::new(refuse(held, reason))),
        };
        let Decoded { roots, request_meta } = decoded;
        let found = match roots.into_iter().map(|root| self.find(root)).collect::<Result<Vec<_>, _>>() {
            Ok(found) => found,
            Err(reason) => return Step::Done(Box::new(refuse(held, reason))),
        };
        let take = |held: Held, roots| {
            let identity = identity(&held.message);
            Taking::Reference(Reference { identity, roots, request_meta, taken: Box::new(held) })
        };
        if found.iter().all(|found| matches!(found, Found::Ready(_))) {
            let ready = found.into_iter().filter_map(|found| match found {
                Found::Ready(root) => Some(root),
                _ => None,
            });
            return Step::Done(Box::new(take(held, ready.collect())));
        }
        Step::Going(Box::pin(async move {
            let mut roots = Vec::with_capacity(found.len());
            for found in found {
                match self.finish(found).await {
                    Ok(root) => roots.push(root),
                    Err(fault) if fault.is_transient() => {
                        let error = fault::chain(&fault);
                        tracing::warn!(
                            source = self.name,
                            id = held.message.id,
                            error,
                            "given back; it will come again"
                        );
                        return None;
                    }
                    Err(fault) => return Some(refuse(held, fault::chain(&fault))),
                }
            }
            Some(take(held, roots))
        }))
    }

    /// What a message names, checked against the rules.
    fn find(&self, root: Named) -> Result<Found, String> {
        let Named { place, meta } = root;
        Ok(match place {
            Place::Content(bytes) => Found::Ready(Root { bytes: RootBytes::Content(Content::Bytes(bytes)), meta }),
            Place::File { .. } if !self.has_root => {
                return Err("it names a file, and this intake has no root".to_owned());
            }
            Place::File { path, size } => Found::File { path, size, meta },
            Place::Remote { place, size } => {
                self.fetch.check(&place).map_err(|fault| fault::chain(&fault))?;
                let remote = RemoteRef { via: self.name.clone(), place, size };
                match self.by {
                    FetchBy::Worker => Found::Ready(Root { bytes: RootBytes::Remote(remote), meta }),
                    FetchBy::Provider => Found::Remote { remote, meta },
                }
            }
        })
    }

    async fn finish(self: &Arc<Self>, found: Found) -> Result<Root, Fault> {
        match found {
            Found::Ready(root) => Ok(root),
            Found::File { path, size, meta } => {
                let gone = tokio::time::Instant::now() + self.file_wait;
                let read = patiently(gone, || {
                    let (this, path) = (Arc::clone(self), path.clone());
                    async move {
                        let reading = tokio::task::spawn_blocking(move || this.file(&path, size)).await;
                        reading.map_err(|e| Fault::because(FaultKind::Unavailable, "reading a file stopped", e))?
                    }
                });
                read.await.map(|(bytes, mismatch)| root(bytes, meta, mismatch))
            }
            Found::Remote { remote, meta } => {
                // What is not there when its reference comes is not waited for: no server shows a half-made object.
                let fetched = patiently(tokio::time::Instant::now(), || self.remote(&remote));
                fetched.await.map(|(bytes, mismatch)| root(bytes, meta, mismatch))
            }
        }
    }

    /// The file at `path` as it is now; blocks.
    fn file(&self, path: &str, size: Option<u64>) -> Result<(RootBytes, Option<String>), Fault> {
        let raw = RawPath::Text(path.to_owned());
        if self.by == FetchBy::Worker {
            let state = files::state_beneath(self.roots.open_root(&self.name)?, Path::new(path))?;
            let file = FileRef {
                root: self.name.clone(),
                path: raw,
                // What the reference says counts: whoever fetches tells how it differs.
                size: size.unwrap_or(state.size),
                mtime_ns: state.mtime_ns,
                inode: state.inode,
            };
            return Ok((RootBytes::File(file), None));
        }
        let open = self.roots.open(&self.name, &raw)?;
        let spooled = spool(&open.file, self.memory, self.max_payload, &self.spool_dir)?;
        Ok(self.spooled(spooled, size, None))
    }

    async fn remote(&self, remote: &RemoteRef) -> Result<(RootBytes, Option<String>), Fault> {
        let fetching = self.fetch.fetch(remote).await?;
        let mismatch = fetching.mismatch.clone();
        let spooled = spool_stream(fetching, self.memory, self.max_payload, &self.spool_dir).await?;
        Ok(self.spooled(spooled, remote.size, mismatch))
    }

    fn spooled(&self, spooled: Spooled, size: Option<u64>, mismatch: Option<String>) -> (RootBytes, Option<String>) {
        match spooled {
            Spooled::Whole(content) => {
                let len = content.len();
                let other = size.filter(|size| *size != len);
                let mismatch = mismatch.or(other.map(|size| format!("{len} bytes are there instead of {size}")));
                (RootBytes::Content(content), mismatch)
            }
            Spooled::TooLarge { read } => {
                let max = self.max_payload;
                let reason = format!("the payload has {read} bytes or more, max_payload allows {max}");
                (RootBytes::Unreadable { reason, size: read }, mismatch)
            }
        }
    }

    /// Events of other kinds are many where they come at all, and must not fill the log.
    fn say_nothing(&self, held: &Held, what: &str) {
        let count = self.nothing.fetch_add(1, Relaxed) + 1;
        if count <= MAX_LOGGED || count.is_power_of_two() {
            tracing::debug!(source = self.name, id = held.message.id, what, count, "names nothing to scan");
        }
    }
}

fn root(bytes: RootBytes, mut meta: PayloadMeta, mismatch: Option<String>) -> Root {
    if let Some(mismatch) = mismatch {
        meta.extra_data.insert(MISMATCH.to_owned(), mismatch.into());
    }
    Root { bytes, meta }
}

fn refuse(held: Held, reason: String) -> Taking {
    Taking::Refused(Refused { original: held.message.clone(), reason, taken: Box::new(held) })
}

/// What the broker says identifies the message, and what it says itself: producers repeat ids. Where the broker knows
/// none, one that is new each time.
fn identity(message: &Message) -> Vec<u8> {
    let mut identity =
        if message.id.is_empty() { uuid::Uuid::new_v4().as_bytes().to_vec() } else { message.id.as_bytes().to_vec() };
    identity.extend_from_slice(Sha256::of(&message.body).as_bytes());
    identity
}

/// Repeats `operation` while what it needs is away, and until `gone` while it finds nothing.
async fn patiently<T, F>(gone: tokio::time::Instant, mut operation: impl FnMut() -> F) -> Result<T, Fault>
where
    F: Future<Output = Result<T, Fault>>,
{
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
    let mut tries = 0;
    loop {
        let fault = match operation().await {
            Ok(done) => return Ok(done),
            Err(fault) => fault,
        };
        tries += 1;
        let again = match fault.kind {
            FaultKind::Unavailable => tries < MAX_TRIES,
            FaultKind::NotFound => tokio::time::Instant::now() < gone,
            _ => false,
        };
        if !again {
            return Err(fault);
        }
        tokio::time::sleep(backoff.next_wait()).await;
    }
}
