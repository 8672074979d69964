//! The system calls of a slot.
//!
//! Two filters, since a filter has one answer for what it matches: the first kills the process on any call that no
//! scanner needs; the second says "not permitted" to calls that the standard library and allocators try in passing and
//! do without. The kernel takes the sterner of the two answers.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::Mode;

/// Compiled filters, ready to be installed in a slot.
pub(crate) struct Filters {
    kill: BpfProgram,
    soft: BpfProgram,
}

/// Rules by system call; a call without rules matches always.
pub(super) type Calls = BTreeMap<i64, Vec<SeccompRule>>;

impl Filters {
    /// The filters of the calling process, a slot.
    ///
    /// # Errors
    /// This processor is not known to them.
    pub(crate) fn of_slot() -> Result<Self, String> {
        Self::compile(allowed().map_err(|e| e.to_string())?, soft().map_err(|e| e.to_string())?)
    }

    /// Filters that let `allowed` through, answer `soft` with EPERM, and kill on anything else.
    pub(super) fn compile(mut allowed: Calls, soft: Calls) -> Result<Self, String> {
        allowed.extend(soft.keys().map(|call| (*call, Vec::new())));
        let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|e| e.to_string())?;
        let compile = |calls, otherwise, matched| -> Result<BpfProgram, String> {
            let filter = SeccompFilter::new(calls, otherwise, matched, arch).map_err(|e| e.to_string())?;
            filter.try_into().map_err(|e: seccompiler::BackendError| e.to_string())
        };
        Ok(Self {
            kill: compile(allowed, SeccompAction::KillProcess, SeccompAction::Allow)?,
            soft: compile(soft, SeccompAction::Allow, SeccompAction::Errno(libc::EPERM as u32))?,
        })
    }

    /// Installs them; says whether they are in force, which they may not be only if the mode lets them.
    pub(super) fn enforce(&self, mode: Mode) -> Result<bool, String> {
        match (self.install(), mode) {
            (Ok(()), _) => Ok(true),
            (Err(error), Mode::Require) => Err(format!(
                "seccomp filters: {error}: this needs a kernel with CONFIG_SECCOMP_FILTER and a container profile that \
                 lets seccomp(2) through; jail = \"prefer\" goes without it"
            )),
            (Err(_), Mode::Prefer) => Ok(false),
        }
    }

    /// Puts the calling thread under the filters for good. The soft one comes first: the other forbids installing more.
    fn install(&self) -> Result<(), seccompiler::Error> {
        seccompiler::apply_filter(&self.soft)?;
        seccompiler::apply_filter(&self.kill)
    }
}

/// Calls that a scanner makes: its socket and pipes, memory, clocks, random numbers, the way to its end.
const PLAIN: &[i64] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_recvmsg,
    libc::SYS_close,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_sched_yield,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Calls that are answered with EPERM: a scanner does without.
const SOFT: &[i64] = &[
    libc::SYS_openat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstat,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_ioctl,
    libc::SYS_prlimit64,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_getrusage,
    libc::SYS_times,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_ppoll,
    libc::SYS_sched_getaffinity,
    libc::SYS_getcpu,
    libc::SYS_membarrier,
    libc::SYS_mlock,
    libc::SYS_mincore,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getppid,
    libc::SYS_dup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_getrlimit,
];

fn allowed() -> Result<Calls, seccompiler::BackendError> {
    let mut calls: Calls = PLAIN.iter().map(|call| (*call, Vec::new())).collect();
    // Memory is never executable and never shared: shared memory is not counted as data.
    let private = masked(3, (libc::MAP_SHARED | libc::MAP_PRIVATE) as u64, libc::MAP_PRIVATE as u64)?;
    calls.insert(libc::SYS_mmap, vec![SeccompRule::new(vec![not_exec(2)?, private])?]);
    calls.insert(libc::SYS_mprotect, vec![SeccompRule::new(vec![not_exec(2)?])?]);
    // An abort signals a thread of its own process; the supervisor may be of the same user.
    let own = equal(0, u64::from(std::process::id()))?;
    calls.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![own, equal(2, libc::SIGABRT as u64)?])?]);
    calls.insert(libc::SYS_fcntl, one_of(1, &[libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_SETFL])?);
    Ok(calls)
}

fn soft() -> Result<Calls, seccompiler::BackendError> {
    let mut calls: Calls = SOFT.iter().map(|call| (*call, Vec::new())).collect();
    calls.extend(soft_prctl()?);
    Ok(calls)
}

/// `prctl` as a soft call. Saying `no_new_privs` again is let through, since installing the next filter does it.
pub(super) fn soft_prctl() -> Result<Calls, seccompiler::BackendError> {
    let other = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, libc::PR_SET_NO_NEW_PRIVS as u64)?;
    Ok([(libc::SYS_prctl, vec![SeccompRule::new(vec![other])?])].into())
}

/// The protection in argument `index` has no PROT_EXEC.
pub(super) fn not_exec(index: u8) -> Result<SeccompCondition, seccompiler::BackendError> {
    masked(index, libc::PROT_EXEC as u64, 0)
}

pub(super) fn masked(index: u8, mask: u64, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(mask), value)
}

pub(super) fn equal(index: u8, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

pub(super) fn one_of(index: u8, values: &[libc::c_int]) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    values.iter().map(|v| SeccompRule::new(vec![equal(index, *v as u64)?])).collect()
}
