//! Whether the servers are what a ledger needs.

use std::sync::atomic::Ordering;

use redis::Value;
use stoq_api::{Fault, FaultKind};

use crate::ledger::RedisLedger;

/// What `INFO` says of a server.
#[derive(Debug, PartialEq, Eq)]
struct About<'a> {
    text: &'a str,
}

impl<'a> About<'a> {
    fn get(&self, field: &str) -> Option<&'a str> {
        self.text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
    }

    /// What makes it unfit, and whether that passes.
    fn unfit(&self, cluster: bool) -> Option<(FaultKind, String)> {
        if self.get("loading") == Some("1") {
            return Some((FaultKind::Unavailable, "it is still loading its data".to_owned()));
        }
        if self.get("role") == Some("slave") {
            return Some((FaultKind::Unavailable, "it is a replica, to which nothing can be written".to_owned()));
        }
        if self.get("cluster_enabled") == Some("1") && !cluster {
            return Some((FaultKind::Misconfigured, "it is a node of a cluster: set `cluster = true`".to_owned()));
        }
        let policy = self.get("maxmemory_policy").unwrap_or("noeviction");
        (policy != "noeviction").then(|| {
            let text = format!(
                "its maxmemory-policy is {policy}, by which it throws away scans when memory is short: set it to noeviction"
            );
            (FaultKind::Misconfigured, text)
        })
    }
}

impl RedisLedger {
    /// [`stoq_api::ledger::Ledger::check`].
    pub(crate) async fn look(&self) -> Result<(), Fault> {
        let what = "use the ledger";
        let servers = self.link.everywhere(&redis::cmd("INFO")).await.map_err(|e| self.fault(what, e))?;
        let mut lossy = false;
        for answer in servers {
            let text = redis::from_redis_value::<String>(answer).map_err(|e| self.fault(what, e.into()))?;
            let about = About { text: &text };
            if let Some((kind, says)) = about.unfit(self.cluster) {
                return Err(Fault::new(kind, format!("cannot {what} in Redis at {}: {says}", self.place)));
            }
            lossy |= about.get("aof_enabled") == Some("0");
        }
        if self.looked.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.probe().await?;
        if !self.looked.swap(true, Ordering::Relaxed) {
            self.warn_of_loss(lossy).await;
        }
        Ok(())
    }

    /// Tries every command that scripts use: a script that is stopped half-way leaves half an operation behind.
    async fn probe(&self) -> Result<(), Fault> {
        let answer = self.link.eval(&self.scripts.probe, &self.keys.probe(), &[]).await;
        answer.map(drop).map_err(|e| self.fault("use the ledger", e))
    }

    /// Says once if answers of the ledger can be lost: that is allowed, and somebody should know.
    async fn warn_of_loss(&self, no_file: bool) {
        let mut command = redis::cmd("CONFIG");
        command.arg("GET").arg("appendfsync");
        let (place, advice) = (
            &self.place,
            "set `appendonly yes` and `appendfsync always`, or accept scans that come \
                                             late, partial or twice after a crash of Redis",
        );
        if no_file {
            tracing::warn!(%place, "Redis keeps no append-only file, so a crash loses open scans: {advice}");
            return;
        }
        match self.link.everywhere(&command).await {
            Ok(answers) if answers.iter().all(says_always) => {}
            Ok(_) => tracing::warn!(%place, "Redis may lose its last operations in a crash: {advice}"),
            Err(error) => {
                tracing::info!(%place, %error, "cannot see whether Redis may lose its last operations (CONFIG GET)");
            }
        }
    }
}

fn says_always(answer: &Value) -> bool {
    match answer {
        Value::Array(pair) => matches!(pair.get(1), Some(Value::BulkString(value)) if value == b"always"),
        Value::Map(pairs) => pairs.iter().any(|(_, v)| matches!(v, Value::BulkString(value) if value == b"always")),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfit_servers() {
        let kind = |text: &str, cluster| About { text }.unfit(cluster).map(|(kind, _)| kind);
        assert_eq!(
            kind("# Memory\r\nmaxmemory_policy:noeviction\r\nrole:master\r\ncluster_enabled:0\r\n", false),
            None
        );
        assert_eq!(kind("maxmemory_policy:allkeys-lru\r\n", false), Some(FaultKind::Misconfigured));
        assert_eq!(kind("role:slave\r\n", false), Some(FaultKind::Unavailable));
        assert_eq!(kind("loading:1\r\n", false), Some(FaultKind::Unavailable));
        assert_eq!(kind("cluster_enabled:1\r\n", false), Some(FaultKind::Misconfigured));
        assert_eq!(kind("cluster_enabled:1\r\n", true), None);
        assert_eq!(kind("", false), None, "a server that says little is believed");
    }
}
