//! What a slot gives up before it sees a byte of a payload.
//!
//! In this order: every descriptor but its own, resource limits, its user, new privileges, being traced, the file system
//! and the network by Landlock, and at last system calls by seccomp. Seccomp is the wall: Landlock alone leaves sockets
//! open on many kernels, and is a second one behind it.

pub(crate) mod filter;

use std::io;

use landlock::{ABI, Access, AccessFs, AccessNet, LandlockStatus, Ruleset, RulesetAttr, Scope};
use rustix::process::{DumpableBehavior, Pid, Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};
use serde::{Deserialize, Serialize};

/// The user and group of nobody on every Linux.
const NOBODY: u32 = 65_534;
/// Stack of a slot; its one thread is the main thread.
const STACK: u64 = 8 << 20;
/// Descriptors of a slot: its socket, its two pipes and a payload's file, with some to spare.
const OPEN_FILES: u64 = 16;
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
    limits(rules, base).map_err(|e| format!("resource limits: {e}"))?;
    let unprivileged = drop_user().map_err(|e| format!("changing to user {NOBODY}: {e}"))?;
    end_with(rules.supervisor)?;
    rustix::thread::set_no_new_privs(true).map_err(|e| format!("no_new_privs: {e}"))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|e| format!("not dumpable: {e}"))?;
    let landlock = landlock()?;
    if landlock < rules.landlock_min {
        return Err(format!(
            "this kernel has Landlock level {landlock}, and landlock_min asks for {}: boot a newer kernel with landlock \
             in its lsm= list, or lower landlock_min",
            rules.landlock_min
        ));
    }
    let seccomp = match (filter::Filters::of_slot()?.install(), rules.mode) {
        (Ok(()), _) => true,
        (Err(error), Mode::Require) => {
            return Err(format!(
                "seccomp filters: {error}: this needs a kernel with CONFIG_SECCOMP_FILTER and a container profile that \
                 lets seccomp(2) through; jail = \"prefer\" goes without it"
            ));
        }
        (Err(_), Mode::Prefer) => false,
    };
    Ok(Applied { landlock, seccomp, unprivileged })
}

fn limits(rules: &Rules, base: Baseline) -> rustix::io::Result<()> {
    let data = base.data.saturating_add(rules.memory);
    let space = base.space.saturating_add(rules.memory).saturating_add(MAPPED);
    for (resource, limit) in [
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
    ] {
        // A hard limit that is lower already stays: raising it takes a privilege.
        let hard = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let limit = Some(limit.min(hard));
        rustix::process::setrlimit(resource, Rlimit { current: limit, maximum: limit })?;
    }
    Ok(())
}

/// Becomes nobody where it is root; says whether it is someone else than root afterwards. Inside a user namespace without
/// such a user, or without the right to change, it stays: what root could do there is closed by the filters.
fn drop_user() -> rustix::io::Result<bool> {
    use rustix::io::Errno;
    use rustix::process::{Gid, Uid};
    if rustix::process::geteuid().is_root() {
        let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        let changed = rustix::thread::set_thread_groups(&[])
            .and_then(|()| rustix::thread::set_thread_res_gid(gid, gid, gid))
            .and_then(|()| rustix::thread::set_thread_res_uid(uid, uid, uid));
        match changed {
            Ok(()) | Err(Errno::PERM | Errno::INVAL) => {}
            Err(error) => return Err(error),
        }
    }
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
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

/// Handles every right that this kernel's Landlock knows and grants none. Returns its level.
fn landlock() -> Result<u8, String> {
    let newest = ABI::V7;
    let refused = |e: landlock::RulesetError| format!("Landlock: {e}");
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(newest))
        .and_then(|r| r.handle_access(AccessNet::from_all(newest)))
        .and_then(|r| r.scope(Scope::from_all(newest)))
        .and_then(Ruleset::create)
        .map_err(refused)?
        .restrict_self()
        .map_err(refused)?;
    Ok(match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => u8::try_from(effective_abi as i32).unwrap_or(0),
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => 0,
    })
}
