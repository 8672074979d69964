//! What processes use: CPU time and memory, with everything that they started.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::support::processes;

/// Ticks of the clock in /proc, a second; Linux shows no other number to programs.
const TICKS: f64 = 100.0;
/// Bytes of a page.
const PAGE: u64 = 4096;

/// A process with its descendants.
fn family(root: u32) -> Vec<u32> {
    let all = processes();
    let mut family = vec![root];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(all.iter().filter(|process| process.parent == parent).map(|process| process.id));
        next += 1;
    }
    family
}

/// Seconds of CPU time so far, of a process and its descendants, those that it has waited for included.
pub(crate) fn cpu(root: u32) -> f64 {
    let of = |id: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let fields: Vec<u64> =
            stat.rsplit_once(')')?.1.split_whitespace().skip(11).take(4).filter_map(|f| f.parse().ok()).collect();
        Some(fields.iter().sum::<u64>() as f64 / TICKS)
    };
    family(root).iter().filter_map(of).sum()
}

/// Seconds of CPU time of this process alone.
pub(crate) fn own() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS
}

/// Bytes in memory of a process and its descendants; pages that they share count more than once.
pub(crate) fn memory(root: u32) -> u64 {
    let of = |id: &u32| {
        let statm = std::fs::read_to_string(format!("/proc/{id}/statm")).ok()?;
        statm.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    family(root).iter().filter_map(of).sum::<u64>() * PAGE
}

/// What a run took.
pub(crate) struct Run {
    pub(crate) references: usize,
    pub(crate) payloads: usize,
    pub(crate) time: Duration,
    /// Seconds of CPU time by process.
    pub(crate) cpu: BTreeMap<&'static str, f64>,
}

impl Run {
    /// Payloads a second.
    pub(crate) fn rate(&self) -> f64 {
        self.payloads as f64 / self.time.as_secs_f64()
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = |seconds: f64| seconds * 1e6 / self.payloads as f64;
        write!(f, "CPU µs a payload: {:.0} in all", micros(self.cpu.values().sum()))?;
        self.cpu.iter().try_for_each(|(name, seconds)| write!(f, ", {name} {:.0}", micros(*seconds)))
    }
}
