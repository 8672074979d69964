//! The few system calls that no crate here wraps.

use std::ffi::CString;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::process::Pid;

/// Which side of a clone this is.
pub(crate) enum Cloned {
    /// The new process.
    Slot,
    /// The caller, with the new process and a descriptor of it.
    Server(Pid, OwnedFd),
}

/// Forks a process that becomes a child of the *caller's parent*, with a pidfd.
///
/// The caller must be single-threaded: the child gets only the calling thread, so a lock that another thread held would
/// stay locked for ever.
pub(crate) fn clone_sibling() -> io::Result<Cloned> {
    clone_with(libc::CLONE_PIDFD | libc::CLONE_PARENT)
}

/// As [`clone_sibling`], for kernels and sandboxes that refuse it: the process is the caller's own child.
pub(crate) fn clone_child() -> io::Result<Cloned> {
    clone_with(libc::CLONE_PIDFD | libc::SIGCHLD)
}

fn clone_with(flags: libc::c_int) -> io::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    // The last two arguments change places between architectures; both are zero.
    // SAFETY: without CLONE_VM and with a null stack this is fork(2): the child runs on a copy of everything. The caller
    // is single-threaded (see above), and the one pointer is valid for the kernel to store the pidfd.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, &raw mut pidfd, 0_usize, 0_usize) };
    match pid {
        0 => Ok(Cloned::Slot),
        -1 => Err(io::Error::last_os_error()),
        pid => {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
            // SAFETY: CLONE_PIDFD made the kernel open this descriptor for us alone.
            Ok(Cloned::Server(pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
        }
    }
}

/// Closes every descriptor from `first` to `last`, whoever owns it.
///
/// Only for a process that will neither use nor drop an owner of any of them: the slot after its fork, which never
/// returns to the frames that own them.
pub(crate) fn close_range(first: RawFd, last: RawFd) -> io::Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: takes no pointers; see above for the owners.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes this thread an ordinary one of this niceness, with time slices of this length: sched_setattr(2). Kernels before 6.12
/// take no notice of the length.
pub(crate) fn schedule(nice: i32, slice: Duration) -> io::Result<()> {
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER as u32,
        sched_flags: 0,
        sched_nice: nice,
        sched_priority: 0,
        sched_runtime: u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX),
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel reads as many bytes from the one pointer as the structure says it has.
    match unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Larger allocations are mapped one by one.
#[cfg(target_env = "gnu")]
const MAPPED_BYTES: libc::c_int = 1 << 20;
/// More free memory than this at the end of a heap is given back.
#[cfg(target_env = "gnu")]
const TRIMMED_BYTES: libc::c_int = 4 << 20;

/// Has the allocator give back what few large scans needed for a while. glibc raises both limits with each large allocation that
/// is freed, up to 32 and 64 MiB, and what was taken from its heaps after that stays there: as much again as was in use, for
/// an archive of 40,000 members (mallopt(3)). Does nothing where the allocator is another.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call only sets parameters of the allocator, under its own lock. What it refuses stays as it was.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, TRIMMED_BYTES);
    }
}

/// Has the allocator give back at once what lies free between what is in use: for the moment after something large, of which
/// many small pieces were freed. Takes a few milliseconds, and does nothing where the allocator is another.
pub fn trim_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call only gives pages back that no allocation uses, under the allocator's own locks (malloc_trim(3)).
    unsafe {
        libc::malloc_trim(0);
    }
}

/// CPU time that process `pid` has used in all; `None` if it is gone. The caller holds the process unreaped, so that its
/// number cannot belong to another.
pub(crate) fn cpu_time(pid: Pid) -> Option<Duration> {
    let mut clock: libc::clockid_t = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both calls only write to the locals whose addresses they get.
    let ok = unsafe {
        libc::clock_getcpuclockid(pid.as_raw_pid(), &raw mut clock) == 0
            && libc::clock_gettime(clock, &raw mut time) == 0
    };
    ok.then(|| Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0)))
}

/// Becomes the program that is open at descriptor `fd`. Returns only if that fails, with the reason.
pub(crate) fn exec_open(fd: RawFd, arguments: &[CString], environment: &[CString]) -> io::Error {
    let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
        texts.iter().map(|t| t.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: both arrays end with a null pointer and point to texts that end with a zero byte and outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd,
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// Ends the process at once: no destructors, no exit handlers, nothing flushed.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process; nothing of it can be observed in a broken state.
    unsafe { libc::_exit(code) }
}
