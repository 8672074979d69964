//! Attempts at work that came again: how often a payload's worker died.
//!
//! Brokers tell only that a message came before, and one death makes many messages come again, several of one payload
//! among them. So an attempt is counted when it begins and taken back when it is survived: what the ledger holds are deaths,
//! and those who are still at it.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use stoq_api::{Fault, FaultKind, Location, PayloadId, ScanId, Task, Timestamp};

use crate::surroundings::Surroundings;

/// How often the count is asked for again before a payload is given up, since others may be at copies of its task just
/// now, and the pause in between.
const LOOKS: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

/// What this process has counted and not taken back.
#[derive(Default)]
pub(crate) struct Counted(Mutex<BTreeMap<(ScanId, PayloadId), u32>>);

impl Counted {
    /// Takes back everything: the process ends in good order.
    pub(crate) async fn take_back(&self, around: &Surroundings) {
        let all = std::mem::take(&mut *self.0.lock());
        for ((scan, payload), count) in all {
            for _ in 0..count {
                forgive(around, scan, payload).await;
            }
        }
    }

    fn add(&self, scan: ScanId, payload: PayloadId) {
        *self.0.lock().entry((scan, payload)).or_default() += 1;
    }

    /// Whether it was there.
    fn remove(&self, scan: ScanId, payload: PayloadId) -> bool {
        let mut all = self.0.lock();
        let Some(count) = all.get_mut(&(scan, payload)) else { return false };
        *count -= 1;
        if *count == 0 {
            all.remove(&(scan, payload));
        }
        true
    }
}

/// The attempt of one delivery, as far as it is counted.
pub(crate) struct Attempts<'a> {
    around: &'a Surroundings,
    counted: &'a Counted,
    scan: ScanId,
    payload: PayloadId,
    /// A place that a reference names may be away for good.
    remote: bool,
    begun: Vec<PayloadId>,
}

impl<'a> Attempts<'a> {
    pub(crate) fn of(around: &'a Surroundings, counted: &'a Counted, task: &Task) -> Self {
        let remote = matches!(task.location, Location::Remote(_));
        Self { around, counted, scan: task.scan_id, payload: task.payload_id, remote, begun: Vec::new() }
    }

    /// Counts this attempt as `counted`. How many there are; 0 if the scan is closed.
    pub(crate) async fn count(&mut self, counted: PayloadId) -> Result<u32, Fault> {
        let (ledger, now) = (&self.around.ledger, Timestamp::now());
        let count = self.around.patiently("count an attempt", || ledger.begin(self.scan, counted, now)).await?;
        if count > 0 {
            self.begun.push(counted);
            self.counted.add(self.scan, counted);
            let alone = counted != self.payload;
            tracing::info!(scan = %self.scan, payload = %self.payload, count, alone, "working on a payload again");
        }
        Ok(count)
    }

    /// Counts this attempt as one alone. More than `most` only if that is so for a while.
    pub(crate) async fn count_alone(&mut self, most: u32) -> Result<u32, Fault> {
        let alone = self.payload.alone();
        let mut count = self.count(alone).await?;
        for _ in 1..LOOKS {
            if count <= most {
                break;
            }
            self.forget(alone).await;
            tokio::time::sleep(PAUSE).await;
            count = self.count(alone).await?;
        }
        Ok(count)
    }

    /// This process is still there, so the attempts say nothing against the payload; unless they ended with what is no
    /// fault of the surroundings and would come again and again.
    pub(crate) async fn survived(mut self, done: &Result<(), Fault>) {
        let own_fault = done.as_ref().is_err_and(|fault| self.remote || fault.kind != FaultKind::Unavailable);
        for payload in std::mem::take(&mut self.begun) {
            if self.counted.remove(self.scan, payload) && !own_fault {
                forgive(self.around, self.scan, payload).await;
            }
        }
    }

    /// The payload was given up: what is counted stays.
    pub(crate) fn keep(&mut self) {
        for payload in std::mem::take(&mut self.begun) {
            self.counted.remove(self.scan, payload);
        }
    }

    async fn forget(&mut self, payload: PayloadId) {
        self.begun.retain(|begun| *begun != payload);
        if self.counted.remove(self.scan, payload) {
            forgive(self.around, self.scan, payload).await;
        }
    }
}

/// That this process began with a message whose queue does not tell whether anybody did before. It is counted by the
/// ledger among the attempts at the scan of the message's first task, and taken back when the message is done; so what is
/// counted are those who died of it, gave it up, or are still at it.
pub(crate) struct Claim {
    scan: ScanId,
    message: PayloadId,
    /// Nobody else has begun with it and not ended.
    pub(crate) first: bool,
}

impl Claim {
    /// Begins with the message that `key` tells from all others. One of a closed scan is not said to come first.
    pub(crate) async fn begin(around: &Surroundings, scan: ScanId, key: &str) -> Result<Self, Fault> {
        let (message, now) = (PayloadId::of_message(key), Timestamp::now());
        let begin = || around.ledger.begin(scan, message, now);
        let first = around.patiently("note who begins with a message", begin).await? == 1;
        Ok(Self { scan, message, first })
    }

    /// The message is done, and only its acknowledgement is left. If that is lost, whoever gets the message again may take
    /// it for new: all that it says is settled.
    pub(crate) async fn end(self, around: &Surroundings) {
        forgive(around, self.scan, self.message).await;
    }
}

/// Once only: a ledger that is away just now forgets nothing that matters, it counts one too many.
async fn forgive(around: &Surroundings, scan: ScanId, payload: PayloadId) {
    if let Err(fault) = around.ledger.survived(scan, payload).await {
        tracing::warn!(%scan, %payload, error = %stoq_api::fault::chain(&fault), "an attempt could not be taken back");
    }
}
