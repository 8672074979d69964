//! A running tool: its pipes, and the clock on it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::pipe::PipeFlags;
use rustix::process::Pid;
use stoq_api::Content;

use super::helper::{MARKER, MAX_RULES};
use super::scratch::Scratch;
use super::{ToolLimits, ToolProfile, ToolStop};
use crate::error::JailError;
use crate::job::StopReason;
use crate::sandbox::tool::ToolRules;
use crate::server::{read_block, send_with, write_block};
use crate::spawn::Keeper;
use crate::sys;

/// A tool locks itself in within this.
const START_TIME: Duration = Duration::from_secs(20);
/// Time between two looks at clocks and working directory.
const TICK: Duration = Duration::from_millis(20);
/// Bytes read at a time.
const CHUNK: usize = 64 << 10;
/// Reads after which a pipe of the kernel's usual size is empty.
const PIPE_READS: usize = 2;
/// CPU time of a process's whole life, as a multiple of what it may use for one payload.
pub(super) const LIFETIME_FACTOR: u32 = 32;

/// A process that has become the tool. Dropping it kills it.
pub(super) struct Process {
    child: Child,
    stdin: Option<File>,
    stdout: File,
    stderr: File,
    pub(super) scratch: Scratch,
}

/// What it printed.
#[derive(Default)]
pub(super) struct Printed {
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

/// When a process is asked for an answer no longer.
pub(super) struct Deadline {
    wall: Instant,
    cpu: Duration,
}

impl Process {
    /// Starts the tool and waits until it is locked in and runs: over `content`, or to be told what over.
    pub(super) fn start(profile: &ToolProfile, keeper: &Keeper, content: Option<&Content>) -> Result<Self, ToolStop> {
        let scratch =
            Scratch::new(&profile.scratch_dir).map_err(ToolStop::unavailable("a tool's working directory"))?;
        if let Some(content) = content {
            scratch.fill(content).map_err(ToolStop::unavailable("a tool's input"))?;
        }
        let pipes = || -> io::Result<_> {
            Ok((
                rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?,
                rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?,
                rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?,
                UnixStream::pair()?,
            ))
        };
        let (stdin, stdout, stderr, (control, theirs)) = pipes().map_err(ToolStop::unavailable("a tool's pipes"))?;
        let ours = |fd: OwnedFd| -> io::Result<File> {
            rustix::fs::fcntl_setfl(&fd, OFlags::NONBLOCK)?;
            Ok(fd.into())
        };
        let files = || -> io::Result<_> { Ok((ours(stdin.1)?, ours(stdout.0)?, ours(stderr.0)?)) };
        let (ends, their_ends) = (files(), [stdin.0.as_fd(), stdout.1.as_fd(), stderr.1.as_fd()]);
        let (stdin, stdout, stderr) = ends.map_err(ToolStop::unavailable("a tool's pipes"))?;
        let child = keeper.spawn(MARKER, theirs.into()).map_err(ToolStop::unavailable("a tool's process"))?;
        // Without a conversation it reads an end of file.
        let stdin = content.is_none().then_some(stdin);
        let process = Self { child, stdin, stdout, stderr, scratch };
        let rules = rules(profile, &process.scratch);
        let told = tell(&control, &rules, &their_ends).map_err(ToolStop::unavailable("a tool"))?;
        match told {
            None => Ok(process),
            Some(text) => Err(ToolStop::Unavailable(JailError::Sandbox(text))),
        }
    }

    /// Writes to its standard input, which holds any request whole while it has read the one before.
    pub(super) fn write(&mut self, text: &[u8]) -> io::Result<()> {
        self.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.write_all(text)
    }

    /// CPU time that it has used in its life.
    pub(super) fn cpu(&self) -> Duration {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).and_then(sys::cpu_time).unwrap_or_default()
    }

    pub(super) fn deadline(&self, limits: &ToolLimits) -> Deadline {
        Deadline { wall: Instant::now() + limits.wall, cpu: self.cpu() + limits.cpu }
    }

    /// Whether something is left on standard output that nobody asked for. What is left on standard error is thrown away:
    /// it is of an earlier payload.
    pub(super) fn has_said_more(&mut self) -> bool {
        self.drain_errors(&mut Vec::new(), 0);
        let mut said = Vec::new();
        read_some(&mut self.stdout, &mut said, 1);
        !said.is_empty()
    }

    /// Reads standard error until there is no more for now, at most as much as a pipe holds.
    fn drain_errors(&mut self, into: &mut Vec<u8>, most: usize) {
        for _ in 0..PIPE_READS {
            read_some(&mut self.stderr, into, most);
        }
    }

    /// Reads what it prints until `enough` or until it has closed both pipes; says whether it was enough.
    pub(super) fn read(
        &mut self,
        printed: &mut Printed,
        limits: &ToolLimits,
        deadline: &Deadline,
        enough: impl Fn(&[u8]) -> bool,
    ) -> Result<bool, ToolStop> {
        let (mut out_open, mut err_open) = (true, true);
        let mut ticked = Instant::now();
        while out_open || err_open {
            wait(&self.stdout, &self.stderr, out_open, err_open);
            out_open = out_open && read_some(&mut self.stdout, &mut printed.stdout, limits.stdout + 1);
            err_open = err_open && read_some(&mut self.stderr, &mut printed.stderr, limits.stderr);
            if enough(&printed.stdout) {
                // What it complained about before it said that it is ready is there by now, and belongs to this payload.
                self.drain_errors(&mut printed.stderr, limits.stderr);
                return Ok(true);
            }
            if printed.stdout.len() > limits.stdout {
                return Err(ToolStop::over(
                    StopReason::Budget,
                    format!("it printed more than {} bytes", limits.stdout),
                ));
            }
            if ticked.elapsed() >= TICK {
                self.tick(limits, deadline)?;
                ticked = Instant::now();
            }
        }
        Ok(false)
    }

    /// Waits for its end, within the deadline.
    pub(super) fn wait(&mut self, limits: &ToolLimits, deadline: &Deadline) -> Result<ExitStatus, ToolStop> {
        loop {
            match self.child.try_wait().map_err(ToolStop::unavailable("a tool"))? {
                Some(status) => return Ok(status),
                None => self.tick(limits, deadline)?,
            }
            // It has closed its pipes, so it is all but gone; nothing else tells when.
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn tick(&self, limits: &ToolLimits, deadline: &Deadline) -> Result<(), ToolStop> {
        if Instant::now() > deadline.wall {
            return Err(ToolStop::over(StopReason::Time, format!("more than {:?} of time", limits.wall)));
        }
        if self.cpu() > deadline.cpu {
            return Err(ToolStop::over(StopReason::Time, format!("more than {:?} of CPU time", limits.cpu)));
        }
        if limits.scratch_bytes > 0 && self.scratch.is_over(limits) {
            return Err(Self::over(limits));
        }
        Ok(())
    }

    /// It has written too much.
    pub(super) fn over(limits: &ToolLimits) -> ToolStop {
        let detail = format!("it left more than {} bytes or {} files", limits.scratch_bytes, limits.scratch_files);
        ToolStop::over(StopReason::Budget, detail)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both only fail if it is gone and reaped already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What a signal that ended a tool means; `None` for an exit by itself.
pub(super) fn killed(status: ExitStatus) -> Option<ToolStop> {
    let signal = status.signal()?;
    let (reason, detail) = match signal {
        libc::SIGSYS => (StopReason::Policy, "a system call that no tool needs".to_owned()),
        libc::SIGXFSZ => (StopReason::Budget, "it wrote a file that is too large".to_owned()),
        libc::SIGXCPU => (StopReason::Time, "the CPU time of its whole life".to_owned()),
        libc::SIGKILL => (StopReason::Memory, "killed from outside: this machine's memory is short".to_owned()),
        other => (StopReason::Crash, format!("signal {other}")),
    };
    Some(ToolStop::over(reason, detail))
}

fn rules(profile: &ToolProfile, scratch: &Scratch) -> ToolRules {
    ToolRules {
        mode: profile.mode,
        landlock_min: profile.landlock_min,
        supervisor: i32::try_from(std::process::id()).unwrap_or(0),
        program: profile.program.clone(),
        arguments: profile.arguments.clone(),
        environment: profile.environment.clone(),
        read: profile.read.clone(),
        scratch: scratch.path().to_owned(),
        file_bytes: profile.limits.scratch_bytes,
        memory: profile.limits.memory,
        cpu_seconds: (profile.limits.cpu * LIFETIME_FACTOR).as_secs().max(1),
    }
}

/// Tells the helper what to become. `None` when it has: its end of the socket closes as the tool begins.
fn tell(control: &UnixStream, rules: &ToolRules, fds: &[std::os::fd::BorrowedFd<'_>]) -> io::Result<Option<String>> {
    control.set_read_timeout(Some(START_TIME))?;
    control.set_write_timeout(Some(START_TIME))?;
    send_with(control, &[1], fds)?;
    write_block(control, &serde_json::to_vec(rules)?)?;
    match read_block(control, MAX_RULES) {
        Ok(text) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// Waits for something to read, at most a tick.
fn wait(stdout: &File, stderr: &File, out_open: bool, err_open: bool) {
    let mut fds = Vec::with_capacity(2);
    if out_open {
        fds.push(PollFd::new(stdout, PollFlags::IN));
    }
    if err_open {
        fds.push(PollFd::new(stderr, PollFlags::IN));
    }
    // Interrupted or not, the pipes are looked at next.
    poll(&mut fds, Timespec::try_from(TICK).ok().as_ref()).ok();
}

/// Reads once; keeps at most `most` bytes in `into` and throws the rest away. False at the end.
fn read_some(from: &mut File, into: &mut Vec<u8>, most: usize) -> bool {
    let mut chunk = [0; CHUNK];
    match from.read(&mut chunk) {
        Ok(0) => false,
        Ok(n) => {
            let room = most.saturating_sub(into.len());
            into.extend(&chunk[..n.min(room)]);
            true
        }
        Err(error) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
    }
}
