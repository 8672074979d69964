//! What the engine hands to the jail and what it gets back.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stoq_api::scanner::Remaining;
use stoq_api::{Content, PackedMeta, Sha256};

/// One payload to be scanned in a slot.
#[derive(Clone, Debug)]
pub struct JobItem {
    /// What the workload is told, opaque here.
    pub header: Bytes,
    /// The payload.
    pub content: Content,
    /// What the scan's budgets leave for its children.
    pub remaining: Remaining,
    /// Whose payload it is. A process that has seen one tenant's payloads never sees another's.
    pub tenant: Tenant,
}

/// A tenant's name; `None` for payloads that are nobody's in particular.
pub type Tenant = Option<Arc<str>>;

/// Who shares the slots, and in which parts while several want more than there is.
#[derive(Clone, Debug)]
pub struct Sharing {
    /// The weight of items without a tenant, and of those of tenants that are not named here.
    pub plain: u32,
    /// The weight of each tenant, by name.
    pub tenants: Vec<(Arc<str>, u32)>,
}

impl Default for Sharing {
    fn default() -> Self {
        Self { plain: 1, tenants: Vec::new() }
    }
}

impl Sharing {
    /// Further slots that may be at work for a moment, beside `slots`: a tenant that has had less than its share so far
    /// need not wait until a long item of another one ends.
    pub(crate) fn further(&self, slots: usize) -> usize {
        self.tenants.len().min((slots / 4).max(1))
    }
}

/// What came back for one item, in full: after a death nothing of a slot's earlier answers is used.
#[derive(Debug, Default)]
pub struct Answer {
    /// The workload's report; `None` if every try ended in a death or nothing was left to run.
    pub report: Option<Bytes>,
    /// Children in the order of emission. Their bytes are in memory up to a limit for each item, then in a spool file.
    pub children: Vec<Child>,
    /// Plugins that were taken off this item, or a budget that ended it.
    pub stopped: Vec<Stopped>,
}

/// A child as received: digest and size are computed over what came, never what was claimed.
#[derive(Clone, Debug)]
pub struct Child {
    /// The plugin that emitted it, by number.
    pub plugin: u16,
    /// Its metadata.
    pub meta: PackedMeta,
    /// Its bytes.
    pub content: Content,
    /// Their digest.
    pub sha256: Sha256,
}

/// A plugin that was stopped on an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// The plugin by number, as far as the slot said which one ran.
    pub plugin: Option<u16>,
    /// Why.
    pub reason: StopReason,
    /// For a person: the limit, the signal, the exit code.
    pub detail: String,
}

/// Why a plugin was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// Its wall clock or CPU time was over.
    Time,
    /// It asked for more memory than it may have.
    Memory,
    /// It made a system call that no scanner needs.
    Policy,
    /// It crashed: an abort, a stack overflow, a bad access.
    Crash,
    /// It answered something that is not an answer.
    Protocol,
    /// It emitted more than the scan's budgets leave.
    Budget,
    /// The surroundings failed, not a plugin: no process could be started, or a file could not be read or written. It
    /// says nothing of the payload, and trying again later may succeed.
    Unavailable,
}

impl StopReason {
    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Memory => "memory",
            Self::Policy => "policy",
            Self::Crash => "crash",
            Self::Protocol => "protocol",
            Self::Budget => "budget",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Limits of one slot. Every one is enforced by the supervisor or the kernel, not by the plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Wall clock of one plugin on one item.
    pub plugin_wall: Duration,
    /// CPU time of one plugin on one item.
    pub plugin_cpu: Duration,
    /// Address space for data in a slot, in bytes.
    pub memory: u64,
    /// Greatest report of one item, in bytes.
    pub report: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            plugin_wall: Duration::from_secs(120),
            plugin_cpu: Duration::from_secs(60),
            memory: 512 << 20,
            report: 8 << 20,
        }
    }
}

/// Runs jobs: a pool of jailed slots, or plain threads where the operator switched the jail off.
#[async_trait]
pub trait Runner: Send + Sync {
    /// Runs all items, in one request to a slot where they are small, and answers each, in order. Never fails: whatever
    /// happens to a slot is said in the answers.
    async fn run(&self, items: Vec<JobItem>) -> Vec<Answer>;

    /// What the workload said of itself when it was built.
    fn hello(&self) -> Bytes;
}
