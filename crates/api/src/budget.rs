//! What one scan may cost, over its whole tree and the whole fleet.
//!
//! Depth travels with the task; payloads, bytes and expansion are charged by the ledger when children are admitted. A
//! spent budget is a finding in the response, never a failure.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Limits of one scan. They are fixed when the scan begins and travel with each of its tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budgets {
    /// Greatest depth of a payload that is still scanned; a root has depth 0. Deeper ones are recorded, not scanned.
    pub max_depth: u16,
    /// Payloads of the tree, roots not counted.
    pub max_payloads: u64,
    /// Bytes of all extracted payloads together.
    pub max_bytes: u64,
    /// Extracted bytes per byte of the roots.
    pub max_expansion: u64,
    /// Extracted bytes that are always allowed, whatever the expansion: small roots may expand a lot harmlessly.
    pub expansion_floor: u64,
    /// From the first ledger operation until the scan is given up as partial, in seconds.
    pub max_seconds: u64,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            max_depth: 10,
            max_payloads: 20_000,
            max_bytes: 2 << 30,
            max_expansion: 1_000,
            expansion_floor: 64 << 20,
            max_seconds: 3_600,
        }
    }
}

impl Budgets {
    /// The extracted bytes allowed for roots of `root_bytes` together: the lesser of the byte and the expansion budget.
    pub fn bytes_allowed(&self, root_bytes: u64) -> u64 {
        self.max_bytes.min(root_bytes.saturating_mul(self.max_expansion).max(self.expansion_floor))
    }

    /// Which budget a total of `payloads` and `bytes` extracted from `root_bytes` breaks, if any.
    pub fn broken_by(&self, payloads: u64, bytes: u64, root_bytes: u64) -> Option<SpentKind> {
        if payloads > self.max_payloads {
            Some(SpentKind::Payloads)
        } else if bytes > self.max_bytes {
            Some(SpentKind::Bytes)
        } else if bytes > self.bytes_allowed(root_bytes) {
            Some(SpentKind::Expansion)
        } else {
            None
        }
    }

    /// Time from the first ledger operation until the scan is given up as partial.
    pub fn deadline(&self) -> Duration {
        Duration::from_secs(self.max_seconds)
    }
}

/// Which budget or limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpentKind {
    /// [`Budgets::max_depth`].
    Depth,
    /// [`Budgets::max_payloads`].
    Payloads,
    /// [`Budgets::max_bytes`].
    Bytes,
    /// [`Budgets::max_expansion`].
    Expansion,
    /// [`Budgets::max_seconds`].
    Time,
}

impl fmt::Display for SpentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Depth => "depth",
            Self::Payloads => "payloads",
            Self::Bytes => "bytes",
            Self::Expansion => "expansion",
            Self::Time => "time",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_budget_breaks_on_its_own() {
        let b =
            Budgets { max_payloads: 2, max_bytes: 100, max_expansion: 3, expansion_floor: 10, ..Budgets::default() };
        assert_eq!(b.broken_by(2, 10, 1), None);
        assert_eq!(b.broken_by(3, 10, 1), Some(SpentKind::Payloads));
        assert_eq!(b.broken_by(1, 11, 1), Some(SpentKind::Expansion));
        assert_eq!(b.broken_by(1, 60, 20), None);
        assert_eq!(b.broken_by(1, 101, 1_000), Some(SpentKind::Bytes));
    }
}
