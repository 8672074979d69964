//! The provider role: references become tasks on the root lane, whatever provider they come from.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use stoq_api::digest::Sha256Builder;
use stoq_api::payload::{MAX_NESTING, RequestMeta, nests_too_deep};
use stoq_api::plugin::{Provider, Reference, Refused, Root, RootBytes, Taken, Taking};
use stoq_api::queue::Message;
use stoq_api::store::StoreKey;
use stoq_api::task::ScanHead;
use stoq_api::{Budgets, Content, Fault, FaultKind, Location, PayloadId, RootRef, ScanId, Sha256, Task, Timestamp};
use stoq_runtime::metrics::{self, Component, ErrorKind, InHand, Role};
use stoq_runtime::trace::Span;
use tokio::sync::RwLock;
use tokio_util::sync::CancellationToken;

use crate::dead::{self, DeadKind};
use crate::lanes::{self, BATCH_ITEMS};
use crate::links::{Links, may_pass};

/// Batches that are being published at a time: while one is being confirmed, the next are read.
const BATCHES_IN_FLIGHT: usize = 8;
/// Batches that may be under way when one goes out that is not full. So a reference that comes alone leaves at once, and
/// where many come, those that arrive during a confirmation go together: each message costs a broker more than its bytes.
pub const EAGER_IN_FLIGHT: usize = 2;
/// Bytes in memory of the references that are being published, beyond which no more are taken.
const BYTES_IN_FLIGHT: u64 = 64 << 20;
/// Pause after a source was away.
const PAUSE: Duration = Duration::from_secs(1);

/// What every scan of one intake has in common.
#[derive(Clone, Debug)]
pub struct IntakeSettings {
    /// The configured name of the intake.
    pub source: String,
    /// Budgets of its scans.
    pub budgets: Budgets,
    /// Workers that run on its roots.
    pub start_dispatch: Vec<String>,
    /// Merged into each request's metadata.
    pub request_meta: RequestMeta,
    /// Whose payloads these are.
    pub tenant: Option<String>,
}

/// How far an intake got.
#[derive(Debug, Default)]
pub struct Progress {
    /// References whose tasks are published.
    pub taken: AtomicU64,
    /// Bytes of their roots, as far as known.
    pub bytes: AtomicU64,
    /// What was put on the dead lane instead.
    pub refused: AtomicU64,
}

/// One provider and what its scans have in common.
pub struct Intake {
    links: Arc<Links>,
    settings: IntakeSettings,
    progress: Arc<Progress>,
    balance: metrics::Source,
    meter: Component,
    /// Shared by whatever publishes; held alone by a batch that was refused, until it is taken.
    room: RwLock<()>,
}

impl Intake {
    /// An intake that publishes into the lanes of `links`.
    pub fn new(links: Arc<Links>, settings: IntakeSettings) -> Self {
        let balance = metrics::Source::new(&settings.source);
        let meter = Component::new(Role::Provider, &settings.source);
        Self { links, settings, progress: Arc::default(), balance, meter, room: RwLock::default() }
    }

    /// The configured name of its source.
    pub fn source(&self) -> &str {
        &self.settings.source
    }

    /// How far it got; may be kept and read while it runs.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Takes references until the provider has no more or `stop` is cancelled. What is under way to a broker then is
    /// finished: published without its source being told, it would come again and be answered twice.
    ///
    /// # Errors
    /// The provider is gone for good, or the lane was away for longer than is waited.
    pub async fn run(&self, provider: &mut dyn Provider, stop: &CancellationToken) -> Result<(), Fault> {
        let mut going = FuturesUnordered::new();
        let mut held = 0;
        let mut batch = Batch::default();
        let mut end = None;
        let mut pause = false;
        loop {
            if end.is_none() {
                end = batch.fill(provider, BYTES_IN_FLIGHT.saturating_sub(held));
            }
            let full = end.is_some() || batch.takings.len() >= BATCH_ITEMS || held + batch.bytes >= BYTES_IN_FLIGHT;
            let most = if full { BATCHES_IN_FLIGHT } else { EAGER_IN_FLIGHT };
            if !batch.takings.is_empty() && going.len() < most {
                let Batch { takings, bytes } = std::mem::take(&mut batch);
                held += bytes;
                going.push(self.take(takings, stop).map(move |taken| taken.map(|()| bytes)));
                // Its publication begins before more is read.
                continue;
            }
            if going.is_empty()
                && let Some(end) = end
            {
                return end;
            }
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(done) = going.next() => match done {
                    Ok(bytes) => {
                        held -= bytes;
                        // With a lane in memory nothing is ever waited for, and others want the thread, too.
                        tokio::task::yield_now().await;
                        continue;
                    }
                    // It gave up since it was asked to end, a moment before this was.
                    Err(fault) if stop.is_cancelled() && fault.is_transient() => break,
                    Err(fault) => return Err(fault),
                },
                next = next_after(pause, provider), if !full && held < BYTES_IN_FLIGHT => next,
            };
            pause = false;
            match next {
                Ok(Some(taking)) => batch.push(taking),
                Ok(None) => end = Some(Ok(())),
                Err(fault) if fault.is_transient() => {
                    tracing::warn!(error = %stoq_api::fault::chain(&fault), "the source is away; trying again");
                    self.meter.failed(ErrorKind::Fault(fault.kind), 1);
                    pause = true;
                }
                Err(fault) => end = Some(Err(fault)),
            }
        }
        // On one machine the lane may stay full until this has ended. What was not told to its source as taken comes again.
        while !self.links.settings.coupled
            && let Some(done) = going.next().await
        {
            match done {
                Err(fault) if !fault.is_transient() => return Err(fault),
                _ => {}
            }
        }
        Ok(())
    }

    /// Publishes the tasks of references, then tells their sources.
    async fn take(&self, takings: Vec<Taking>, stop: &CancellationToken) -> Result<(), Fault> {
        let in_hand = self.meter.begin(takings.len() as u64);
        let taken = self.take_in_hand(takings, &in_hand, stop).await;
        if let Err(fault) = &taken {
            in_hand.failed(ErrorKind::Fault(fault.kind), 1);
        }
        taken
    }

    async fn take_in_hand(
        &self,
        takings: Vec<Taking>,
        in_hand: &InHand,
        stop: &CancellationToken,
    ) -> Result<(), Fault> {
        let mut tasks = Vec::with_capacity(takings.len());
        let mut takens = Vec::with_capacity(takings.len());
        let mut bytes = 0;
        for taking in takings {
            let reference = match taking {
                Taking::Reference(reference) if too_deep(&reference) => {
                    self.refuse(without_message(reference), in_hand, stop).await?;
                    continue;
                }
                Taking::Reference(reference) => reference,
                Taking::Refused(refused) => {
                    self.refuse(refused, in_hand, stop).await?;
                    continue;
                }
            };
            let (new, taken, span) = self.tasks(reference, stop).await?;
            bytes += new.iter().map(|task| task.size).sum::<u64>();
            tasks.extend(new);
            takens.push((taken, span));
        }
        self.publish(tasks, stop).await?;
        for (taken, span) in takens {
            taken.taken().await?;
            drop(span);
            self.balance.taken();
            in_hand.done(1);
            self.progress.taken.fetch_add(1, Ordering::Relaxed);
        }
        self.progress.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Publishes tasks together. A full or absent lane stops the intake for as long as it lasts: that is how overload
    /// reaches the source. Meanwhile one batch asks for all, since what a broker refuses it has received all the same.
    async fn publish(&self, tasks: Vec<Task>, stop: &CancellationToken) -> Result<(), Fault> {
        let lane = &self.links.lanes.of(self.settings.tenant.as_deref()).roots;
        let parcels = lanes::pack(tasks);
        let publish = || lane.publish_parcels(parcels.clone());
        let with_others = self.room.read().await;
        match publish().await {
            Err(fault) if may_pass(&fault) && !stop.is_cancelled() => {}
            done => return done,
        }
        drop(with_others);
        let _alone = self.room.write().await;
        self.links.insistently("publish tasks", stop, publish).await
    }

    /// Puts what cannot be scanned on the dead lane, then tells its source.
    async fn refuse(&self, refused: Refused, in_hand: &InHand, stop: &CancellationToken) -> Result<(), Fault> {
        let Refused { original, reason, taken } = refused;
        let (links, source) = (&self.links, &self.settings.source);
        let bury = || dead::bury(&links.lanes, DeadKind::Reference, source, &reason, &original);
        match links.insistently("write a dead letter", stop, bury).await {
            Err(fault) if fault.kind == FaultKind::Refused && !original.body.is_empty() => {
                // Brokers take messages up to a size, and a message from one may be too large for another.
                tracing::warn!(error = %stoq_api::fault::chain(&fault), "a dead letter's body goes into the store");
                let name = format!("reference-{}", Sha256::of(&original.body));
                let content = Content::Bytes(original.body.clone());
                links.insistently("keep a dead letter", stop, || links.store.keep(&name, &content)).await?;
                let bury = || dead::bury_kept(&links.lanes, DeadKind::Reference, source, &reason, &original, &name);
                links.insistently("write a dead letter", stop, bury).await?;
            }
            other => other?,
        }
        taken.taken().await?;
        self.balance.dead();
        in_hand.failed(ErrorKind::Rejected, 1);
        self.progress.refused.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn tasks(
        &self,
        reference: Reference,
        stop: &CancellationToken,
    ) -> Result<(Vec<Task>, Box<dyn Taken>, Option<Span>), Fault> {
        let Reference { identity, roots, request_meta, taken } = reference;
        let mut digests = Vec::with_capacity(roots.len());
        for root in &roots {
            digests.push(digest(root).await?);
        }
        let body = body(&digests);
        let scan_id = ScanId::derive(&self.settings.source, &identity, &body);
        let span = Span::root(scan_id, &self.settings.source);
        let first_seen = Timestamp::now();
        let mut parts = Vec::with_capacity(roots.len());
        for (ordinal, (root, digest)) in (0_u32..).zip(roots.into_iter().zip(digests)) {
            parts.push(self.root(PayloadId::root(scan_id, ordinal), root, digest, first_seen, stop).await?);
        }
        let head = Arc::new(ScanHead {
            source: self.settings.source.clone(),
            first_seen,
            roots: parts.iter().map(|(root, _)| root.clone()).collect(),
            budgets: self.settings.budgets,
            request_meta: merge(&self.settings.request_meta, request_meta),
            start_dispatch: self.settings.start_dispatch.clone(),
            tenant: self.settings.tenant.clone(),
            allowed_plugins: None,
            replay_of: None,
            trace: span.as_ref().map(Span::traceparent),
        });
        if head.roots.len() > 1 {
            let ledger = &self.links.ledger;
            let open = || ledger.open(scan_id, &head, Timestamp::now());
            self.links.insistently("open a scan", stop, open).await?;
        }
        let tasks = parts
            .into_iter()
            .map(|(root, inline)| Task {
                scan_id,
                payload_id: root.id,
                scan: Arc::clone(&head),
                parent: None,
                ancestors: Vec::new(),
                depth: 0,
                sha256: root.sha256,
                size: root.size,
                location: root.location,
                payload_meta: root.payload_meta,
                inline,
            })
            .collect();
        Ok((tasks, taken, span))
    }

    async fn root(
        &self,
        id: PayloadId,
        root: Root,
        digest: Option<Sha256>,
        seen: Timestamp,
        stop: &CancellationToken,
    ) -> Result<(RootRef, bytes::Bytes), Fault> {
        let mut inline = bytes::Bytes::new();
        let (sha256, size, location) = match root.bytes {
            RootBytes::File(file) => (None, file.size, Location::File(file)),
            RootBytes::Remote(remote) => (None, remote.size.unwrap_or(0), Location::Remote(remote)),
            RootBytes::Unreadable { reason, size } => (None, size, Location::Unreadable { reason }),
            RootBytes::Content(content) => {
                let Some(sha256) = digest else {
                    return Err(Fault::new(FaultKind::Corrupt, "a payload was not hashed before its task was made"));
                };
                let size = content.len();
                let location = if size <= self.links.settings.inline_limit {
                    inline = content.to_bytes().map_err(unreadable)?;
                    Location::Inline
                } else {
                    let key = StoreKey { day: seen.day(), sha256 };
                    let store = &self.links.store;
                    self.links.insistently("store a payload", stop, || store.put(&key, &content)).await?;
                    Location::Store { day: key.day, sha256 }
                };
                (Some(sha256), size, location)
            }
        };
        Ok((RootRef { id, sha256, size, location, payload_meta: root.meta }, inline))
    }
}

/// Whether a reference's metadata could not be read back from a lane; its own decoder should have said so.
fn too_deep(reference: &Reference) -> bool {
    let metas = reference.roots.iter().map(|root| &root.meta.extra_data);
    metas.chain([&reference.request_meta.extra_data]).any(nests_too_deep)
}

/// A dead letter for a reference that came with no message of its own: its metadata, and its bytes where there is one root
/// and they were read.
fn without_message(reference: Reference) -> Refused {
    let Reference { identity, roots, request_meta, taken } = reference;
    let mut original = Message::new(String::from_utf8_lossy(&identity), Vec::new());
    match roots.as_slice() {
        [Root { bytes: RootBytes::Content(Content::Bytes(bytes)), .. }] => original.body = bytes.clone(),
        _ => {
            let metas: Vec<_> = roots.iter().map(|root| &root.meta).collect();
            original.body = serde_json::to_vec(&(request_meta, metas)).unwrap_or_default().into();
        }
    }
    Refused { original, reason: format!("its metadata is nested deeper than {MAX_NESTING} levels"), taken }
}

/// The provider's next reference, after a pause if its source was just away. Safe to cancel.
async fn next_after(pause: bool, provider: &mut dyn Provider) -> Result<Option<Taking>, Fault> {
    if pause {
        tokio::time::sleep(PAUSE).await;
    }
    provider.next().await
}

/// References that go out together.
#[derive(Default)]
struct Batch {
    takings: Vec<Taking>,
    /// Of their roots in memory.
    bytes: u64,
}

impl Batch {
    fn push(&mut self, taking: Taking) {
        self.bytes += resident(&taking);
        self.takings.push(taking);
    }

    /// Adds what is ready now, if there is something already; nothing is waited for. Says how the provider ended, if it
    /// did.
    fn fill(&mut self, provider: &mut dyn Provider, room: u64) -> Option<Result<(), Fault>> {
        while !self.takings.is_empty() && self.takings.len() < BATCH_ITEMS && self.bytes < room {
            match provider.next().now_or_never() {
                Some(Ok(Some(taking))) => self.push(taking),
                Some(Ok(None)) => return Some(Ok(())),
                // It says so again when asked again.
                Some(Err(fault)) if fault.is_transient() => break,
                Some(Err(fault)) => return Some(Err(fault)),
                None => break,
            }
        }
        None
    }
}

/// Bytes of what was taken that are in memory.
fn resident(taking: &Taking) -> u64 {
    let of = |root: &Root| match &root.bytes {
        RootBytes::Content(Content::Bytes(bytes)) => bytes.len() as u64,
        RootBytes::Content(_) | RootBytes::File(_) | RootBytes::Remote(_) | RootBytes::Unreadable { .. } => 0,
    };
    match taking {
        Taking::Reference(reference) => reference.roots.iter().map(of).sum(),
        Taking::Refused(refused) => refused.original.body.len() as u64,
    }
}

/// What stands for the message's body in the scan id: the digests of the roots whose bytes the provider has read.
fn body(digests: &[Option<Sha256>]) -> Sha256 {
    match digests {
        [Some(one)] => *one,
        several => {
            let mut builder = Sha256Builder::default();
            several.iter().flatten().for_each(|digest| builder.update(digest.as_bytes()));
            builder.finish()
        }
    }
}

async fn digest(root: &Root) -> Result<Option<Sha256>, Fault> {
    match &root.bytes {
        RootBytes::Content(Content::Bytes(bytes)) => Ok(Some(Sha256::of(bytes))),
        RootBytes::Content(content) => {
            let content = content.clone();
            let digest = tokio::task::spawn_blocking(move || content.sha256()).await;
            let digest = digest.map_err(|e| Fault::because(FaultKind::Unavailable, "hashing a payload failed", e))?;
            digest.map(Some).map_err(unreadable)
        }
        RootBytes::File(_) | RootBytes::Remote(_) | RootBytes::Unreadable { .. } => Ok(None),
    }
}

fn unreadable(error: std::io::Error) -> Fault {
    Fault::because(FaultKind::Unavailable, "a payload cannot be read from its spool file", error)
}

/// The run's own metadata under the reference's: what the reference says wins.
fn merge(run: &RequestMeta, reference: RequestMeta) -> RequestMeta {
    let mut extra_data = run.extra_data.clone();
    extra_data.extend(reference.extra_data);
    RequestMeta {
        archive_payloads: run.archive_payloads && reference.archive_payloads,
        source: reference.source.or_else(|| run.source.clone()),
        extra_data,
    }
}
