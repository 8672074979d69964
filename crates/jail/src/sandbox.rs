//! What a slot gives up before it sees a byte of a payload.
//!
//! In this order: every descriptor but its own, resource limits, its turn at the processor, its user, new privileges,
//! being traced, the file system and the network by Landlock, and at last system calls by seccomp. Seccomp is the wall:
//! Landlock alone leaves sockets open on many kernels, and is a second one behind it.

pub(crate) mod filter;
pub(crate) mod tool;

use std::io;
use std::time::Duration;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, LandlockStatus, Ruleset, RulesetAttr, RulesetCreated,
    Scope,
};
use rustix::process::{DumpableBehavior, Pid, Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};
use serde::{Deserialize, Serialize};

use crate::sys;

/// The user and group of nobody on every Linux.
pub(crate) const NOBODY: u32 = 65_534;
/// Stack of a slot; its one thread is the main thread.
const STACK: u64 = 8 << 20;
/// Descriptors of a slot: its socket, its two pipes and a payload's file, with some to spare.
const OPEN_FILES: u64 = 16;
/// How far slots and tools stand behind everybody else who wants a processor, as `nice(2)` counts. Slots that keep all cores
/// busy are the normal case. Without this, each hand-over in the process that feeds them would wait for a slot's time slice
/// to end, and with it leases, acknowledgements and the few payloads of a quiet tenant.
const NICE: i32 = 10;
/// How long a slot runs before it lets another one in that waits for the same core: a batch of one tenant is not to wait
/// for the usual three milliseconds of another's.
const SLICE: Duration = Duration::from_micros(300);
/// Address space for payloads that are mapped read-only, beside [`Rules::memory`]; memory files are not counted as data.
const MAPPED: u64 = 64 << 30;

/// Whether a slot may go without what this kernel does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// No slot without seccomp, `no_new_privs` and resource limits.
    #[default]
    Require,
    /// Whatever the kernel has; what is missing is said in [`Applied`].
    Prefer,
}

/// What a slot's sandbox consists of on this kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Level (ABI) of Landlock in force; 0 if the kernel has none.
    pub landlock: u8,
    /// The seccomp filters are in force.
    pub seccomp: bool,
    /// The slot runs as a user that is not root.
    pub unprivileged: bool,
}

/// Whether this kernel has Landlock at all, so that tools, which need it, can be locked in. Restricts nobody.
pub(crate) fn has_landlock() -> bool {
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    ruleset.handle_access(AccessFs::from_all(ABI::V1)).and_then(|ruleset| ruleset.create()).is_ok()
}

/// What a sandbox is set up from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Rules {
    pub(crate) mode: Mode,
    pub(crate) landlock_min: u8,
    /// Data that a slot may have beside what it is forked with, in bytes.
    pub(crate) memory: u64,
    /// CPU seconds of its whole life: a backstop behind the supervisor's clock.
    pub(crate) cpu_seconds: u64,
    /// The supervisor: whose death ends the slot.
    pub(crate) supervisor: i32,
}

/// Address space and data of this process, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Baseline {
    pub(crate) space: u64,
    pub(crate) data: u64,
}

impl Baseline {
    /// As the kernel counts it now (`proc(5)`, statm).
    pub(crate) fn now() -> io::Result<Self> {
        let text = std::fs::read_to_string("/proc/self/statm")?;
        let field = |n| text.split_whitespace().nth(n).and_then(|f: &str| f.parse::<u64>().ok());
        let (Some(space), Some(data)) = (field(0), field(5)) else {
            return Err(io::Error::other("/proc/self/statm is not what proc(5) says"));
        };
        let page = rustix::param::page_size() as u64;
        Ok(Self { space: space * page, data: data * page })
    }
}

/// Gives everything up. Descriptors are closed by the caller, who knows which are its own.
///
/// # Errors
/// A part that `rules` ask for is not to be had; the text says which and what to do.
pub(crate) fn enter(rules: &Rules, base: Baseline) -> Result<Applied, String> {
    limits(rules, base)?;
    stand_back()?;
    let unprivileged = drop_user()?;
    end_with(rules.supervisor)?;
    rustix::thread::set_no_new_privs(true).map_err(|e| format!("no_new_privs: {e}"))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|e| format!("not dumpable: {e}"))?;
    let landlock = restrict(landlock_rules()?, rules.landlock_min)?;
    let seccomp = filter::Filters::of_slot()?.enforce(rules.mode)?;
    Ok(Applied { landlock, seccomp, unprivileged })
}

/// Lets the processes that feed this one go first, and slots take short turns. Whoever starts it may have asked for more
/// already.
fn stand_back() -> Result<(), String> {
    let now = rustix::process::getpriority_process(None).map_err(|e| format!("priority: {e}"))?;
    let nice = now.max(NICE);
    // Sandboxes with a kernel of their own know the older call only, and turns as long as ever are no harm.
    sys::schedule(nice, SLICE)
        .or_else(|_| rustix::process::setpriority_process(None, nice))
        .map_err(|e| format!("priority {nice}: {e}"))
}

fn limits(rules: &Rules, base: Baseline) -> Result<(), String> {
    let data = base.data.saturating_add(rules.memory);
    let space = base.space.saturating_add(rules.memory).saturating_add(MAPPED);
    lower(&[
        (Resource::Core, 0),
        (Resource::Fsize, 0),
        (Resource::Nproc, 0),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
        (Resource::Nofile, OPEN_FILES),
        (Resource::Stack, STACK),
        (Resource::Data, data),
        (Resource::As, space),
        (Resource::Cpu, rules.cpu_seconds),
    ])
}

/// Lowers soft and hard limits of this process.
fn lower(limits: &[(Resource, u64)]) -> Result<(), String> {
    for (resource, limit) in limits {
        // A hard limit that is lower already stays: raising it takes a privilege.
        let hard = rustix::process::getrlimit(*resource).maximum.unwrap_or(u64::MAX);
        let limit = (*limit).min(hard);
        // At the hard limit of CPU time comes a SIGKILL, which tells nothing; a second before it a SIGXCPU, which does.
        let most = if *resource == Resource::Cpu { limit.saturating_add(1).min(hard) } else { limit };
        rustix::process::setrlimit(*resource, Rlimit { current: Some(limit), maximum: Some(most) })
            .map_err(|e| format!("resource limit {resource:?}: {e}"))?;
    }
    Ok(())
}

/// Becomes nobody where it is root; says whether it is someone else than root afterwards. Inside a user namespace without
/// such a user, or without the right to change, it stays: what root could do there is closed by the filters.
fn drop_user() -> Result<bool, String> {
    use rustix::io::Errno;
    use rustix::process::{Gid, Uid};
    if rustix::process::geteuid().is_root() {
        let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        let changed = rustix::thread::set_thread_groups(&[])
            .and_then(|()| rustix::thread::set_thread_res_gid(gid, gid, gid))
            .and_then(|()| rustix::thread::set_thread_res_uid(uid, uid, uid));
        match changed {
            Ok(()) | Err(Errno::PERM | Errno::INVAL) => {}
            Err(error) => return Err(format!("changing to user {NOBODY}: {error}")),
        }
    }
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .map_err(|e| format!("giving up capabilities: {e}"))?;
    Ok(!rustix::process::geteuid().is_root())
}

/// Dies when the supervisor's thread that started the fork server does, and now if that happened already. Changing the
/// user clears this wish, so it comes after it.
pub(crate) fn end_with(supervisor: i32) -> Result<(), String> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| format!("parent death signal: {e}"))?;
    match rustix::process::getppid().map(Pid::as_raw_pid) {
        Some(parent) if parent == supervisor => Ok(()),
        _ => Err("the supervisor is gone".into()),
    }
}

/// The newest level of Landlock that is asked for; the kernel gives what it has of it.
const LANDLOCK: ABI = ABI::V10;

/// Handles every right that this kernel's Landlock knows and grants none.
fn landlock_rules() -> Result<RulesetCreated, String> {
    Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))
        .and_then(|r| r.handle_access(AccessNet::from_all(LANDLOCK)))
        .and_then(|r| r.scope(Scope::from_all(LANDLOCK)))
        .and_then(Ruleset::create)
        .map_err(|e| format!("Landlock: {e}"))
}

/// Puts the process under Landlock. Returns its level.
fn restrict(rules: RulesetCreated, least: u8) -> Result<u8, String> {
    let status = rules.restrict_self().map_err(|e| format!("Landlock: {e}"))?;
    let level = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => u8::try_from(effective_abi as i32).unwrap_or(0),
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => 0,
    };
    if level < least {
        return Err(format!(
            "this kernel has Landlock level {level}, and at least {least} is asked for: boot a newer kernel with landlock \
             in its lsm= list, or lower landlock_min"
        ));
    }
    Ok(level)
}
