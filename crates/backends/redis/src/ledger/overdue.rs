//! What concerns all scans: which are overdue, how many there are. Each bucket has its own sets, on any node.

use redis::{Cmd, Value};
use stoq_api::ledger::Overdue;
use stoq_api::{Fault, ScanId, Timestamp};
use uuid::Uuid;

use super::RedisLedger;
use super::wire::{self, strange};
use crate::keys::LAST_BUCKET;

/// A scan whose time seems to be over.
struct Candidate {
    scan: ScanId,
    /// When it ended, by which the earliest are found.
    score: u64,
    /// It stands among the frozen ones.
    frozen: bool,
}

impl RedisLedger {
    pub(super) async fn find_overdue(
        &self,
        horizon: Timestamp,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Overdue>, Fault> {
        let mut candidates = self.candidates(horizon, now, limit).await?;
        candidates.sort_unstable_by_key(|c| (c.score, c.scan));
        candidates.truncate(limit);
        self.look_up(candidates).await
    }

    async fn candidates(&self, horizon: Timestamp, now: Timestamp, limit: usize) -> Result<Vec<Candidate>, Fault> {
        let what = "look for overdue scans";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let range = |key: String, until: Vec<u8>| {
            let mut command = redis::cmd("ZRANGE");
            command.arg(key).arg("-inf").arg(until).arg("BYSCORE").arg("LIMIT").arg(0).arg(limit).arg("WITHSCORES");
            command
        };
        let mut commands = Vec::new();
        for [due, lease] in (0..=LAST_BUCKET).map(|bucket| self.keys.sets(bucket)) {
            // Open ones before the horizon, frozen ones up to now.
            commands.push(range(due, [b"(", &wire::time(horizon)[..]].concat()));
            commands.push(range(lease, wire::time(now)));
        }
        let answers = self.link.many(commands).await.map_err(|e| self.fault(what, e))?;
        let mut candidates = Vec::new();
        for (n, answer) in answers.iter().enumerate() {
            let Value::Array(members) = answer else { return Err(strange(what, answer)) };
            for pair in members.chunks_exact(2) {
                let scan = wire::bytes(&pair[0]).and_then(|id| Uuid::from_slice(id).ok()).map(ScanId);
                let (Some(scan), Some(score)) = (scan, wire::integer(&pair[1])) else {
                    return Err(strange(what, answer));
                };
                candidates.push(Candidate { scan, score, frozen: n % 2 == 1 });
            }
        }
        Ok(candidates)
    }

    /// How they stand; those that are not there any more are left out.
    async fn look_up(&self, candidates: Vec<Candidate>) -> Result<Vec<Overdue>, Fault> {
        let what = "look at overdue scans";
        let command = |candidate: &Candidate| -> Cmd {
            let mut command = redis::cmd("HMGET");
            command.arg(self.keys.state(candidate.scan)).arg("state");
            command
        };
        if candidates.is_empty() {
            return Ok(Vec::new());
        }
        let answers =
            self.link.many(candidates.iter().map(command).collect()).await.map_err(|e| self.fault(what, e))?;
        let mut overdue = Vec::with_capacity(candidates.len());
        for (candidate, answer) in candidates.iter().zip(&answers) {
            let Value::Array(values) = answer else { return Err(strange(what, answer)) };
            match &values[..] {
                [Value::Nil] => {
                    self.eval("forget a scan", &self.scripts.forget, candidate.scan, Vec::new()).await?;
                }
                [state] => {
                    // One that was frozen meanwhile has an owner.
                    if candidate.frozen == (wire::bytes(state) == Some(b"f")) {
                        overdue.push(Overdue {
                            scan_id: candidate.scan,
                            due: Timestamp(candidate.score),
                            frozen: candidate.frozen,
                        });
                    }
                }
                _ => return Err(strange(what, answer)),
            }
        }
        Ok(overdue)
    }

    pub(super) async fn count_open(&self) -> Result<u64, Fault> {
        let what = "count open scans";
        let count = |key: String| {
            let mut command = redis::cmd("ZCARD");
            command.arg(key);
            command
        };
        let commands = (0..=LAST_BUCKET).flat_map(|bucket| self.keys.sets(bucket)).map(count).collect();
        let answers = self.link.many(commands).await.map_err(|e| self.fault(what, e))?;
        answers.iter().try_fold(0, |sum, answer| {
            wire::integer(answer).map(|count| sum + count).ok_or_else(|| strange(what, answer))
        })
    }
}
