//! The ledger trait over the scripts.

mod blob;
mod overdue;
mod wire;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _};
use redis::{RedisResult, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;
use stoq_api::ledger::{
    ATTEMPTS_KEPT, Admitted, ChildRecord, Claim, FINISH_LEASE, FrozenScan, Kept, Ledger, MAX_ADMIT, Overdue, Settled,
};
use stoq_api::store::Store;
use stoq_api::task::ScanHead;
use stoq_api::{Fault, FaultKind, Outcome, PayloadId, ScanId, Timestamp};

use self::blob::Blob;
use self::wire::{Settlement, Stored, strange};
use crate::config::Config;
use crate::fault;
use crate::keys::Keys;
use crate::link::Link;
use crate::script::{Script, Scripts};

/// Outcomes in one answer: with the largest that are kept inline, 4 MiB.
const READ_AT_ONCE: usize = 64;
/// Outcomes fetched from the store at the same time.
const FETCH_AT_ONCE: usize = 8;
/// A frozen scan of more bytes than this is decoded beside the runtime.
const DECODE_INLINE: usize = 64 << 10;
/// How often a settlement is told where to put a large outcome: the scan may end and begin anew in between.
const PLACE_TRIES: usize = 3;
/// A tombstone outlives its time by this much, for clocks that differ; whether its time is over says its content.
const SLACK: Duration = Duration::from_secs(600);

/// The ledger in Redis.
pub(crate) struct RedisLedger {
    pub(crate) link: Link,
    pub(crate) keys: Keys,
    pub(crate) scripts: Scripts,
    pub(crate) place: String,
    pub(crate) cluster: bool,
    pub(crate) looked: AtomicBool,
    store: Arc<dyn Store>,
    inline: usize,
    keep: Duration,
}

impl RedisLedger {
    pub(crate) fn new(config: Config, store: Arc<dyn Store>) -> Self {
        Self {
            keys: Keys::new(&config.prefix),
            scripts: Scripts::new(),
            place: config.place(),
            cluster: config.cluster,
            looked: AtomicBool::new(false),
            store,
            inline: config.outcome_inline,
            keep: config.keep,
            link: Link::new(config),
        }
    }

    /// Runs a script on a scan.
    async fn eval(&self, what: &str, script: &Script, scan: ScanId, arguments: Vec<Vec<u8>>) -> Result<Value, Fault> {
        self.try_eval(script, scan, arguments).await.map_err(|e| self.fault(what, e))
    }

    async fn try_eval(&self, script: &Script, scan: ScanId, mut arguments: Vec<Vec<u8>>) -> RedisResult<Value> {
        arguments.insert(0, wire::scan(scan));
        self.link.eval(script, &self.keys.of(scan), &arguments).await
    }

    pub(crate) fn fault(&self, what: &str, error: redis::RedisError) -> Fault {
        fault::of(what, &self.place, error)
    }

    /// What opens a scan; nothing without a head. At most `inline` bytes of it are kept in the ledger.
    async fn description(&self, head: Option<&ScanHead>, inline: usize) -> Result<Vec<Vec<u8>>, Fault> {
        let Some(head) = head else { return Ok(Vec::new()) };
        let stored = Blob::place(to_json(head)?, inline, head.first_seen.day(), &*self.store).await?;
        Ok(wire::description(head, &stored, self.keep))
    }

    /// An outcome as the ledger keeps it; nothing if it has to go to the store and nobody knows yet under which day.
    async fn outcome(
        &self,
        scan: ScanId,
        head: Option<&ScanHead>,
        json: Vec<u8>,
        inline: usize,
    ) -> Result<Vec<u8>, Fault> {
        let day = match head {
            _ if json.len() <= inline => Some(0),
            Some(head) => Some(head.first_seen.day()),
            None => self.day(scan).await?,
        };
        match day {
            Some(day) => Blob::place(json, inline, day, &*self.store).await.map(|blob| blob.to_bytes()),
            None => Ok(Vec::new()),
        }
    }

    /// The day of a scan that is open or frozen.
    async fn day(&self, scan: ScanId) -> Result<Option<u32>, Fault> {
        let what = "read a scan's day";
        let mut command = redis::cmd("HGET");
        command.arg(self.keys.state(scan)).arg("day");
        let answer = self.link.run(&command).await.map_err(|e| self.fault(what, e))?;
        if matches!(answer, Value::Nil) {
            return Ok(None);
        }
        let day = wire::integer(&answer).and_then(|day| u32::try_from(day).ok());
        day.map(Some).ok_or_else(|| strange(what, &answer))
    }

    /// One settlement. When the server's memory is full it goes on without keeping anything large there: only what is
    /// settled ends, and gives memory back.
    async fn settle_once(
        &self,
        scan: ScanId,
        head: Option<&ScanHead>,
        outcome: &Outcome,
        children: &[PayloadId],
        now: Timestamp,
    ) -> Result<Settlement, Fault> {
        let what = "settle a payload";
        let json = to_json(outcome)?;
        let mut full = false;
        loop {
            let inline = if full { 0 } else { self.inline };
            let mut arguments = vec![
                wire::time(now),
                wire::payload(outcome.payload_id),
                self.outcome(scan, head, json.clone(), inline).await?,
                wire::payloads(children.iter().copied()),
                wire::time(now.after(FINISH_LEASE)),
                if full { b"1".to_vec() } else { Vec::new() },
            ];
            arguments.extend(self.description(head, inline).await?);
            match self.try_eval(&self.scripts.settle, scan, arguments).await {
                Ok(answer) => return wire::settled(&answer).ok_or_else(|| strange(what, &answer)),
                Err(error) if fault::is_full(&error) && !full => full = true,
                Err(error) => return Err(self.fault(what, error)),
            }
        }
    }

    /// The outcomes of a frozen scan that has many; nothing if it was closed meanwhile.
    async fn outcomes(&self, scan: ScanId, settled: &[PayloadId]) -> Result<Option<Vec<Vec<u8>>>, Fault> {
        let what = "read a frozen scan";
        let mut outcomes = Vec::with_capacity(settled.len());
        for chunk in settled.chunks(READ_AT_ONCE) {
            let mut command = redis::cmd("HMGET");
            command.arg(self.keys.outcomes(scan)).arg(chunk.iter().map(|id| wire::payload(*id)).collect::<Vec<_>>());
            let answer = self.link.run(&command).await.map_err(|e| self.fault(what, e))?;
            let Value::Array(values) = answer else { return Err(strange(what, &answer)) };
            outcomes.extend(values.into_iter().map_while(wire::into_bytes));
        }
        if outcomes.len() == settled.len() {
            return Ok(Some(outcomes));
        }
        // A frozen scan does not change, so it must have been closed.
        match self.day(scan).await? {
            None => Ok(None),
            Some(_) => Err(Fault::new(FaultKind::Corrupt, format!("Redis at {} lost outcomes of {scan}", self.place))),
        }
    }

    async fn assemble(&self, scan_id: ScanId, stored: Stored, outcomes: Vec<Vec<u8>>) -> Result<FrozenScan, Fault> {
        let head = self.json(stored.head).await?;
        let outcomes = futures::stream::iter(outcomes).map(|kept| self.json(kept)).buffered(FETCH_AT_ONCE);
        let outcomes: Vec<bytes::Bytes> = outcomes.try_collect().await?;
        let bytes = head.len() + outcomes.iter().map(|o| o.len()).sum::<usize>();
        let decode = move || {
            Ok(FrozenScan {
                scan_id,
                head: from_json(&head)?,
                completeness: stored.completeness,
                outcomes: outcomes.into_iter().map(Kept::of_text).collect::<Result<_, _>>()?,
                missing: stored.missing,
            })
        };
        if bytes <= DECODE_INLINE {
            return decode();
        }
        let decoded = tokio::task::spawn_blocking(decode).await;
        decoded.map_err(|e| Fault::because(FaultKind::Unavailable, "cannot read a frozen scan", e))?
    }

    async fn json(&self, kept: Vec<u8>) -> Result<bytes::Bytes, Fault> {
        match Blob::from_bytes(kept) {
            Some(blob) => blob.read(&*self.store).await,
            None => Err(unreadable()),
        }
    }
}

#[async_trait]
impl Ledger for RedisLedger {
    async fn open(&self, scan: ScanId, head: &ScanHead, now: Timestamp) -> Result<(), Fault> {
        let mut arguments = vec![wire::time(now)];
        arguments.extend(self.description(Some(head), self.inline).await?);
        self.eval("open a scan", &self.scripts.open, scan, arguments).await.map(drop)
    }

    async fn admit(
        &self,
        scan: ScanId,
        head: Option<&ScanHead>,
        parent: PayloadId,
        children: &[ChildRecord],
        now: Timestamp,
    ) -> Result<Admitted, Fault> {
        let what = "admit children";
        if children.len() > MAX_ADMIT {
            let text = format!("{} children in one admission, at most {MAX_ADMIT} are taken", children.len());
            return Err(Fault::new(FaultKind::Refused, text));
        }
        let mut arguments = vec![wire::time(now), wire::payload(parent), wire::children(children)];
        arguments.extend(self.description(head, self.inline).await?);
        let answer = self.eval(what, &self.scripts.admit, scan, arguments).await?;
        wire::admitted(&answer, children.len()).ok_or_else(|| strange(what, &answer))
    }

    async fn settle(
        &self,
        scan: ScanId,
        head: Option<&ScanHead>,
        outcome: &Outcome,
        children: &[PayloadId],
        now: Timestamp,
    ) -> Result<Settled, Fault> {
        for _ in 0..PLACE_TRIES {
            match self.settle_once(scan, head, outcome, children, now).await? {
                Settlement::Done(settled) => return Ok(settled),
                Settlement::WhereIsIt => {}
            }
        }
        Err(Fault::new(FaultKind::Unavailable, format!("cannot settle a payload of {scan}: it ends and begins again")))
    }

    async fn begin(&self, scan: ScanId, payload: PayloadId, now: Timestamp) -> Result<u32, Fault> {
        let what = "count an attempt";
        let arguments = vec![wire::time(now), wire::payload(payload), wire::ttl(ATTEMPTS_KEPT)];
        let answer = self.eval(what, &self.scripts.begin, scan, arguments).await?;
        let count = wire::integer(&answer).ok_or_else(|| strange(what, &answer))?;
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    async fn survived(&self, scan: ScanId, payload: PayloadId) -> Result<(), Fault> {
        let arguments = vec![wire::payload(payload)];
        self.eval("take back an attempt", &self.scripts.survived, scan, arguments).await.map(drop)
    }

    async fn spent(&self, scan: ScanId) -> Result<Option<(u64, u64)>, Fault> {
        let what = "read a scan's budgets";
        let mut command = redis::cmd("HMGET");
        command.arg(self.keys.state(scan)).arg("n").arg("bytes");
        let answer = self.link.run(&command).await.map_err(|e| self.fault(what, e))?;
        match &answer {
            Value::Array(values) => match &values[..] {
                [Value::Nil, Value::Nil] => Ok(None),
                [n, bytes] => match (wire::integer(n), wire::integer(bytes)) {
                    (Some(n), Some(bytes)) => Ok(Some((n, bytes))),
                    _ => Err(strange(what, &answer)),
                },
                _ => Err(strange(what, &answer)),
            },
            _ => Err(strange(what, &answer)),
        }
    }

    async fn head(&self, scan: ScanId) -> Result<Option<ScanHead>, Fault> {
        let what = "read a scan's head";
        let mut command = redis::cmd("HGET");
        command.arg(self.keys.outcomes(scan)).arg("head");
        let answer = self.link.run(&command).await.map_err(|e| self.fault(what, e))?;
        match answer {
            Value::Nil => Ok(None),
            kept => {
                let kept = wire::into_bytes(kept).ok_or_else(unreadable)?;
                from_json(&self.json(kept).await?).map(Some)
            }
        }
    }

    async fn frozen(&self, scan: ScanId) -> Result<Option<FrozenScan>, Fault> {
        let what = "read a frozen scan";
        let arguments = vec![READ_AT_ONCE.to_string().into_bytes()];
        let answer = self.eval(what, &self.scripts.frozen, scan, arguments).await?;
        let stored = wire::frozen(answer).ok_or_else(unreadable)?;
        let Some(mut stored) = stored else { return Ok(None) };
        let outcomes = match stored.outcomes.take() {
            Some(outcomes) => Some(outcomes),
            None => self.outcomes(scan, &stored.settled).await?,
        };
        match outcomes {
            Some(outcomes) => self.assemble(scan, stored, outcomes).await.map(Some),
            None => Ok(None),
        }
    }

    async fn close(&self, scan: ScanId, keep: Duration, now: Timestamp) -> Result<(), Fault> {
        let arguments = vec![wire::time(now.after(keep)), wire::ttl(keep.saturating_add(SLACK))];
        self.eval("close a scan", &self.scripts.close, scan, arguments).await.map(drop)
    }

    async fn overdue(&self, horizon: Timestamp, now: Timestamp, limit: usize) -> Result<Vec<Overdue>, Fault> {
        self.find_overdue(horizon, now, limit).await
    }

    async fn freeze(&self, scan: ScanId, lease: Duration, now: Timestamp) -> Result<Claim, Fault> {
        let what = "freeze a scan";
        let arguments = vec![wire::time(now), wire::time(now.after(lease))];
        let answer = self.eval(what, &self.scripts.freeze, scan, arguments).await?;
        wire::claim(&answer).ok_or_else(|| strange(what, &answer))
    }

    async fn open_scans(&self) -> Result<u64, Fault> {
        self.count_open().await
    }

    async fn check(&self) -> Result<(), Fault> {
        self.look().await
    }
}

fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>, Fault> {
    serde_json::to_vec(value).map_err(|e| Fault::because(FaultKind::Refused, "cannot write as JSON", e))
}

fn from_json<T: DeserializeOwned>(data: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(data).map_err(|e| Fault::because(FaultKind::Corrupt, UNREADABLE, e))
}

const UNREADABLE: &str = "the ledger holds what this version of stoq cannot read";

fn unreadable() -> Fault {
    Fault::new(FaultKind::Corrupt, UNREADABLE)
}
