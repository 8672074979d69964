//! A slot's thread: takes batches, runs them, and finds out which plugin it was when a slot dies.
//!
//! What a slot says of who ran is a hint from hostile code. So a death settles nothing by itself: everything that the
//! slot answered for the batch is thrown away and its items are scanned again one by one, each in a fresh slot and with
//! all plugins. Only a plugin that is running when a slot dies *again*, alone with that one payload, is taken off it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Shared;
use super::queue::{Batch, Job, Taken};
use super::slot::{Death, Slot, Terms};
use crate::job::{Answer, JobItem, StopReason, Stopped, Tenant};
use crate::memfd::Sealed;
use crate::protocol::request::{Body, Outgoing};
use crate::protocol::{MAX_EXCLUDED, MAX_HEADER, MAX_INLINE};

/// Deaths on one item after which it is given up: two for each of the plugins that may be bad on it, and one.
pub const MAX_DEATHS: usize = 9;
/// How long a thread waits for work before it looks after its slot.
const IDLE: Duration = Duration::from_secs(1);
/// Tries to get a slot, and the wait after the first; it doubles.
const START_TRIES: u32 = 6;
const START_WAIT: Duration = Duration::from_millis(50);
/// A slot is replaced when it has used this much of its whole CPU time, so that the kernel's limit never strikes an
/// honest one: an item cannot use the rest.
const CPU_SHARE: u32 = 2;
/// Slots that a thread keeps for later, of so many tenants: a new process for each change of tenants costs more than the
/// batch that it is for. Those that were used last stay.
const KEPT: usize = 4;

/// The thread's state.
pub(super) struct Worker {
    shared: Arc<Shared>,
    /// Whose batch it is at.
    tenant: Tenant,
    /// At most one for each tenant; what was used last is at the end.
    kept: Vec<Kept>,
}

/// A slot that waits for its tenant's next batch.
struct Kept {
    tenant: Tenant,
    slot: Slot,
    generation: u64,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, tenant: None, kept: Vec::new() }
    }

    pub(super) fn run(mut self) {
        self.prepare_slot();
        loop {
            match self.shared.queue.take(IDLE) {
                Taken::Batch(Batch { jobs, tenant, turn }) => {
                    let (started, items) = (Instant::now(), jobs.len());
                    self.tenant = tenant;
                    // A bug of ours over one batch must not cost the pool a thread: its callers are told that there is no
                    // answer when their jobs are dropped, and the panic hook has said where.
                    if catch_unwind(AssertUnwindSafe(|| self.batch(jobs))).is_err() {
                        self.drop_slot();
                    }
                    self.shared.queue.ended(turn, items, started.elapsed());
                }
                Taken::Nothing => self.look_after(),
                Taken::Closed => return,
            }
        }
    }

    /// Has a slot ready before it is needed.
    fn prepare_slot(&mut self) {
        match self.shared.fork() {
            Ok((slot, generation)) => self.keep(slot, generation),
            Err(error) => tracing::warn!(%error, "cannot prepare a slot"),
        }
    }

    /// Looks after what is kept. A slot is ready for whoever was here last.
    fn look_after(&mut self) {
        let current = self.shared.generation();
        self.kept.retain_mut(|kept| {
            let rests = kept.slot.rests();
            if !rests {
                tracing::warn!("a slot was busy or gone while nothing was asked of it; it is replaced");
            }
            rests && kept.generation == current
        });
        if self.kept.is_empty() {
            self.prepare_slot();
        }
    }

    /// Keeps a slot for the tenant that this thread is at.
    fn keep(&mut self, slot: Slot, generation: u64) {
        if self.kept.len() == KEPT {
            self.kept.remove(0);
        }
        self.kept.push(Kept { tenant: self.tenant.clone(), slot, generation });
    }

    /// The slot that is kept for the tenant that this thread is at, if there is one.
    fn take_slot(&mut self) -> Option<(Slot, u64)> {
        let place = self.kept.iter().position(|kept| kept.tenant == self.tenant)?;
        let Kept { slot, generation, .. } = self.kept.remove(place);
        Some((slot, generation))
    }

    fn drop_slot(&mut self) {
        drop(self.take_slot());
    }

    fn batch(&mut self, jobs: Vec<Job>) {
        let mut waiting = Vec::with_capacity(jobs.len());
        let mut items = Vec::with_capacity(jobs.len());
        for job in jobs.into_iter().filter(|job| !job.is_cancelled()) {
            match outgoing(&job.item) {
                Ok(item) => {
                    items.push(item);
                    waiting.push(job);
                }
                Err(detail) => job.answer(given_up(Vec::new(), None, StopReason::Unavailable, detail)),
            }
        }
        if items.is_empty() {
            return;
        }
        match self.attempt(&items, false) {
            Ok(answers) => waiting.into_iter().zip(answers).for_each(|(job, answer)| job.answer(answer)),
            Err(death) => self.one_by_one(waiting, items, &death),
        }
    }

    /// The one that seems to be guilty goes last, so that the others need not wait for it to run into its limit again.
    fn one_by_one(&mut self, waiting: Vec<Job>, items: Vec<Outgoing>, death: &Death) {
        let Stopped { plugin, reason, detail } = &death.stopped;
        tracing::info!(?reason, plugin, detail, items = items.len(), "a slot ended; its payloads are scanned again");
        let mut again: Vec<_> = waiting.into_iter().zip(items).collect();
        if let Some(suspect) = death.item.filter(|s| *s < again.len()) {
            let suspect = again.remove(suspect);
            again.push(suspect);
        }
        for (job, item) in again {
            if !job.is_cancelled() {
                let answer = self.alone(item);
                job.answer(answer);
            }
        }
    }

    fn alone(&mut self, item: Outgoing) -> Answer {
        let mut items = [item];
        let mut stopped = Vec::new();
        for _ in 1..MAX_DEATHS {
            match self.attempt(&items, true) {
                Ok(answers) => {
                    // The next item gets a fresh slot as well: this one has seen a payload that may have killed another.
                    self.drop_slot();
                    return Answer { stopped, ..answers.into_iter().next().unwrap_or_default() };
                }
                Err(Death { stopped: last, .. }) => {
                    let excluded = &mut items[0].excluded;
                    let ours = last.reason == StopReason::Unavailable;
                    match last.plugin.filter(|p| !ours && !excluded.contains(p) && excluded.len() < MAX_EXCLUDED) {
                        Some(plugin) => {
                            tracing::warn!(plugin, reason = ?last.reason, detail = last.detail, "a plugin was stopped");
                            excluded.push(plugin);
                            stopped.push(last);
                        }
                        None => return given_up(stopped, last.plugin.filter(|_| !ours), last.reason, last.detail),
                    }
                }
            }
        }
        given_up(stopped, None, StopReason::Crash, format!("given up after {MAX_DEATHS} slots ended on it"))
    }

    /// Runs `items` in this thread's slot; `alone`, in one that has seen no payload and says exactly who is at work.
    fn attempt(&mut self, items: &[Outgoing], alone: bool) -> Result<Vec<Answer>, Death> {
        let current = self.shared.generation();
        let usable = |(slot, generation): &(Slot, u64)| *generation == current && !(alone && slot.payloads > 0);
        let (slot, generation) = match self.take_slot().filter(usable) {
            Some(slot) => slot,
            None => self.start_slot()?,
        };
        let terms = Terms {
            limits: &self.shared.config.limits,
            spool_dir: &self.shared.config.spool_dir,
            closing: &self.shared.closing,
        };
        let (slot, answers) = slot.run(items, alone, &terms)?;
        let worn = slot.cpu().is_none_or(|cpu| cpu > self.shared.lifetime_cpu() / CPU_SHARE);
        if slot.payloads < self.shared.config.recycle_after && !worn {
            self.keep(slot, generation);
        }
        Ok(answers)
    }

    fn start_slot(&self) -> Result<(Slot, u64), Death> {
        let mut wait = START_WAIT;
        let mut tries = 0;
        loop {
            let error = match self.shared.fork() {
                Ok(slot) => return Ok(slot),
                Err(error) => stoq_api::fault::chain(&error),
            };
            tries += 1;
            tracing::warn!(error, tries, "cannot start a slot");
            if tries == START_TRIES || self.shared.closing.load(Ordering::Relaxed) {
                let detail = format!("no slot could be started: {error}");
                return Err(Death {
                    item: None,
                    stopped: Stopped { plugin: None, reason: StopReason::Unavailable, detail },
                });
            }
            std::thread::sleep(wait);
            wait *= 2;
        }
    }
}

fn given_up(mut stopped: Vec<Stopped>, plugin: Option<u16>, reason: StopReason, detail: String) -> Answer {
    stopped.push(Stopped { plugin, reason, detail });
    Answer { report: None, children: Vec::new(), stopped }
}

/// The form in which a slot gets an item; the text says why it cannot have it.
fn outgoing(item: &JobItem) -> Result<Outgoing, String> {
    if item.header.len() > MAX_HEADER {
        return Err(format!("its header has {} bytes, at most {MAX_HEADER} are taken", item.header.len()));
    }
    let body = match item.content.len() <= MAX_INLINE as u64 {
        true => item.content.to_bytes().map(Body::Inline),
        false => Sealed::of(&item.content).map(Body::File),
    };
    let body = body.map_err(|e| format!("its content cannot be read: {e}"))?;
    Ok(Outgoing { header: item.header.clone(), body, remaining: item.remaining, excluded: Vec::new() })
}
