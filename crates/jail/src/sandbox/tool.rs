//! What a tool slot gives up before it becomes the tool.
//!
//! A tool is a program of somebody else: it needs its loader, its own files and a working directory, so its profile is
//! wider than a slot's. It still has no network, starts no process, and runs no second program: the one `execveat` that
//! the filter lets through is bound to a descriptor whose number lies above the limit of open files, so that nothing can
//! ever be opened there again.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

use landlock::{
    AccessFs, BitFlags, PathBeneath, RulesetCreated, RulesetCreatedAttr, make_bitflags, path_beneath_rules,
};
use rustix::process::{Resource, Rlimit};
use seccompiler::{BackendError, SeccompRule};
use serde::{Deserialize, Serialize};

use super::filter::{Calls, Filters, equal, masked, not_exec, one_of};
use super::{LANDLOCK, Mode, STACK, drop_user, end_with, landlock_rules, lower, restrict, stand_back};
use crate::sys;

/// Where the program is open until it runs. Above every limit of open files that a tool gets.
pub(crate) const PROGRAM_FD: RawFd = 1000;
/// Descriptors of a tool.
const OPEN_FILES: u64 = 256;
/// Address space for a program's own code and libraries, beside its data.
const CODE: u64 = 1 << 30;

/// How a tool is started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ToolRules {
    pub(crate) mode: Mode,
    pub(crate) landlock_min: u8,
    pub(crate) supervisor: i32,
    pub(crate) program: PathBuf,
    /// Its name and arguments.
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<String>,
    /// Files and directories that it may read.
    pub(crate) read: Vec<PathBuf>,
    /// Its working directory.
    pub(crate) scratch: PathBuf,
    /// Greatest file that it may write there; 0 forbids writing.
    pub(crate) file_bytes: u64,
    pub(crate) memory: u64,
    pub(crate) cpu_seconds: u64,
}

/// Becomes the tool. Descriptors 0 to 2 are its own already, and `control` is closed when the tool runs. Returns only if
/// that fails, with the reason.
pub(crate) fn become_tool(rules: &ToolRules, control: BorrowedFd<'_>) -> String {
    match prepare(rules, control) {
        Ok((arguments, environment)) => {
            let error = sys::exec_open(PROGRAM_FD, &arguments, &environment);
            format!("{}: {error}", rules.program.display())
        }
        Err(text) => text,
    }
}

fn prepare(rules: &ToolRules, control: BorrowedFd<'_>) -> Result<(Vec<CString>, Vec<CString>), String> {
    let texts = |texts: &[String]| texts.iter().map(|t| CString::new(&**t)).collect::<Result<Vec<_>, _>>();
    let arguments = texts(&rules.arguments).map_err(|_| "an argument holds a zero byte")?;
    let environment = texts(&rules.environment).map_err(|_| "a variable holds a zero byte")?;
    // What is opened from here on closes itself when the tool runs.
    keep_only(control)?;
    let program = open_program(rules)?;
    let scratch = std::fs::File::open(&rules.scratch).map_err(|e| format!("{}: {e}", rules.scratch.display()))?;
    rustix::process::fchdir(&scratch).map_err(|e| format!("{}: {e}", rules.scratch.display()))?;
    // Paths are opened as the user who can reach them; what they grant is decided by these rules alone.
    let landlock = paths(landlock_rules()?, rules, scratch.as_fd())?;
    limits(rules)?;
    stand_back()?;
    drop_user()?;
    // Only now: a process that changes its user while above this limit may not run a program any more.
    lower(&[(Resource::Nproc, 0)])?;
    end_with(rules.supervisor)?;
    rustix::thread::set_no_new_privs(true).map_err(|e| format!("no_new_privs: {e}"))?;
    // Without Landlock a tool could read what everybody can.
    let least = if rules.mode == Mode::Require { rules.landlock_min.max(1) } else { rules.landlock_min };
    restrict(landlock, least)?;
    let refused = |e: BackendError| e.to_string();
    let calls = allowed().map_err(refused)?;
    Filters::compile(calls, soft().map_err(refused)?)?.enforce(rules.mode)?;
    // It stays open until it runs.
    std::mem::forget(program);
    Ok((arguments, environment))
}

fn open_program(rules: &ToolRules) -> Result<OwnedFd, String> {
    let refused = |e: std::io::Error| format!("{}: {e}", rules.program.display());
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(Resource::Nofile, raised).map_err(|e| refused(e.into()))?;
    let file = std::fs::File::open(&rules.program).map_err(refused)?;
    let fd = rustix::io::fcntl_dupfd_cloexec(&file, PROGRAM_FD).map_err(|e| refused(e.into()))?;
    match fd.as_raw_fd() {
        PROGRAM_FD => Ok(fd),
        other => Err(format!("descriptor {PROGRAM_FD} is taken, got {other}")),
    }
}

/// Closes every descriptor above 2 but this one.
fn keep_only(keep: BorrowedFd<'_>) -> Result<(), String> {
    let keep = keep.as_raw_fd();
    sys::close_range(3, keep - 1)
        .and_then(|()| sys::close_range(keep + 1, RawFd::MAX))
        .map_err(|e| format!("closing descriptors: {e}"))
}

fn limits(rules: &ToolRules) -> Result<(), String> {
    lower(&[
        (Resource::Core, 0),
        (Resource::Fsize, rules.file_bytes),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
        (Resource::Nofile, OPEN_FILES),
        (Resource::Stack, STACK),
        (Resource::Data, rules.memory),
        (Resource::As, rules.memory.saturating_add(CODE)),
        (Resource::Cpu, rules.cpu_seconds),
    ])
}

fn paths(ruleset: RulesetCreated, rules: &ToolRules, scratch: BorrowedFd<'_>) -> Result<RulesetCreated, String> {
    let read = AccessFs::from_read(LANDLOCK);
    let mut own: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    if rules.file_bytes > 0 {
        own |= make_bitflags!(AccessFs::{WriteFile | Truncate | MakeReg | MakeDir | RemoveFile | RemoveDir});
    }
    ruleset
        .add_rules(path_beneath_rules(rules.read.iter().chain([&rules.program]), read))
        .and_then(|r| r.add_rules(path_beneath_rules(["/dev/null"], make_bitflags!(AccessFs::{ReadFile | WriteFile}))))
        .and_then(|r| r.add_rule(PathBeneath::new(scratch, own)))
        .map_err(|e| format!("Landlock: {e}"))
}

/// What a program does besides computing: its files, its memory, its clocks.
const PLAIN: &[i64] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_openat,
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_fadvise64,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_unlinkat,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_set_tid_address,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_times,
    libc::SYS_getrusage,
    libc::SYS_getrandom,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_uname,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_arch_prctl,
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
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_dup2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_select,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
];

/// What a program tries in passing, and what an unpacker does to files that nobody needs: owners, times, links.
const SOFT: &[i64] = &[
    libc::SYS_ioctl,
    libc::SYS_prlimit64,
    libc::SYS_sysinfo,
    libc::SYS_getcpu,
    libc::SYS_membarrier,
    libc::SYS_mlock,
    libc::SYS_umask,
    libc::SYS_statfs,
    libc::SYS_chdir,
    libc::SYS_fchdir,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_renameat2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_renameat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utime,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utimes,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_symlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_link,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_getrlimit,
];

fn soft() -> Result<Calls, BackendError> {
    let mut calls: Calls = SOFT.iter().map(|call| (*call, Vec::new())).collect();
    calls.extend(super::filter::soft_prctl()?);
    Ok(calls)
}

fn allowed() -> Result<Calls, BackendError> {
    let mut calls: Calls = PLAIN.iter().map(|call| (*call, Vec::new())).collect();
    let private = masked(3, (libc::MAP_SHARED | libc::MAP_PRIVATE) as u64, libc::MAP_PRIVATE as u64)?;
    let of_a_file = masked(3, libc::MAP_ANONYMOUS as u64, 0)?;
    // Libraries are mapped executable from files; memory without a file is neither executable nor shared.
    let mappings = vec![SeccompRule::new(vec![not_exec(2)?, private])?, SeccompRule::new(vec![of_a_file])?];
    calls.insert(libc::SYS_mmap, mappings);
    calls.insert(libc::SYS_mprotect, vec![SeccompRule::new(vec![not_exec(2)?])?]);
    let own = equal(0, u64::from(std::process::id()))?;
    calls.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![own, equal(2, libc::SIGABRT as u64)?])?]);
    let plain = [libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_SETFL, libc::F_DUPFD, libc::F_DUPFD_CLOEXEC];
    calls.insert(libc::SYS_fcntl, one_of(1, &plain)?);
    // Relative to the working directory only, which never changes: a path's length bounds how deep directories nest.
    calls.insert(libc::SYS_mkdirat, vec![SeccompRule::new(vec![equal(0, u64::from(libc::AT_FDCWD as u32))?])?]);
    let program = vec![equal(0, PROGRAM_FD as u64)?, equal(4, libc::AT_EMPTY_PATH as u64)?];
    calls.insert(libc::SYS_execveat, vec![SeccompRule::new(program)?]);
    Ok(calls)
}
