//! What connects the roles: lanes, ledger and store. Providers and connectors need nothing else of a worker's
//! surroundings.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use stoq_api::ledger::Ledger;
use stoq_api::store::Store;
use stoq_api::{Fault, FaultKind};
use stoq_runtime::backoff::Backoff;
use tokio_util::sync::CancellationToken;

use crate::lanes::{Lanes, Seen};

/// Lanes, ledger, store and what an operator may change about their use.
pub struct Links {
    /// Queues of our own.
    pub lanes: Lanes,
    /// Open scans.
    pub ledger: Arc<dyn Ledger>,
    /// Large bytes.
    pub store: Arc<dyn Store>,
    /// Figures.
    pub settings: Settings,
    /// How far the task lanes got, as far as this process saw.
    pub seen: Seen,
}

/// Figures of the engine that an operator may change.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Payloads up to this many bytes travel inside their tasks.
    pub inline_limit: u64,
    /// Bytes of children that one payload's task may send inline together; the rest goes into the store.
    pub inline_total: u64,
    /// Payloads above this many bytes are not scanned, and their response says so.
    pub max_payload: u64,
    /// Messages that a worker handles at a time.
    pub concurrency: usize,
    /// Deliveries of one payload until it is given up.
    pub max_attempts: u32,
    /// How long a worker holds a delivery while something around it is away.
    pub hold_max: Duration,
    /// How long a closed scan is remembered: longer than any redelivery takes.
    pub tombstone: Duration,
    /// How long a sweeper has to publish what it froze.
    pub lease: Duration,
    /// How often a sweeper looks.
    pub sweep_interval: Duration,
    /// Lanes and ledger are one thing that lives and dies together, so no scan can be lost by the ledger alone, and roots
    /// need not be kept for making it anew.
    pub coupled: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            inline_limit: 64 << 10,
            inline_total: 4 << 20,
            max_payload: 256 << 20,
            concurrency: 8,
            max_attempts: 5,
            hold_max: Duration::from_secs(600),
            tombstone: Duration::from_secs(86_400),
            lease: Duration::from_secs(60),
            sweep_interval: Duration::from_secs(15),
            coupled: false,
        }
    }
}

/// Longest pause after the first failure of the surroundings; it doubles with each.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(5);

impl Links {
    /// Links whose lanes nobody has taken from yet.
    pub fn new(lanes: Lanes, ledger: Arc<dyn Ledger>, store: Arc<dyn Store>, settings: Settings) -> Self {
        let seen = Seen::new(&lanes);
        Self { lanes, ledger, store, settings, seen }
    }

    /// Repeats `operation` while what it needs is away, for [`Settings::hold_max`] in all. Every operation on lanes,
    /// ledger and store is idempotent, so repeating one whose answer was lost is harmless.
    ///
    /// # Errors
    /// The last failure, once time is over or the failure is not of the kind that passes.
    pub async fn patiently<T, F>(&self, what: &str, mut operation: impl FnMut() -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let give_up = tokio::time::Instant::now() + self.settings.hold_max;
        let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
        loop {
            match operation().await {
                Err(fault) if may_pass(&fault) && tokio::time::Instant::now() < give_up => {
                    tracing::warn!(error = %stoq_api::fault::chain(&fault), what, "trying again");
                    tokio::time::sleep(backoff.next_wait()).await;
                }
                other => return other,
            }
        }
    }

    /// Repeats `operation` while what it needs is away, for as long as that lasts, or until `stop`: for what holds up a
    /// source and nothing else. What is under way when `stop` comes is finished, and nothing is tried again.
    ///
    /// # Errors
    /// The last failure, once `stop` has come or the failure is not of the kind that passes; one that somebody has to mend
    /// passes within [`Settings::hold_max`] or never.
    pub async fn insistently<T, F>(
        &self,
        what: &str,
        stop: &CancellationToken,
        mut operation: impl FnMut() -> F,
    ) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let mut give_up = tokio::time::Instant::now() + self.settings.hold_max;
        let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
        loop {
            let fault = match operation().await {
                Err(fault) if may_pass(&fault) => fault,
                other => return other,
            };
            let now = tokio::time::Instant::now();
            if fault.is_transient() {
                give_up = now + self.settings.hold_max;
            }
            if stop.is_cancelled() || now >= give_up {
                return Err(fault);
            }
            tracing::warn!(error = %stoq_api::fault::chain(&fault), what, "trying again");
            tokio::select! {
                () = stop.cancelled() => return Err(fault),
                () = tokio::time::sleep(backoff.next_wait()) => {}
            }
        }
    }
}

/// Whether the same may go well later. What was fine at the start and is misconfigured now, a key that was changed say,
/// somebody will mend.
pub(crate) fn may_pass(fault: &Fault) -> bool {
    matches!(fault.kind, FaultKind::Unavailable | FaultKind::Misconfigured)
}
