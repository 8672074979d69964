//! The supervisor's end of a fork server.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use crate::error::JailError;
use crate::sandbox::Rules;
use crate::server::{
    Answered, MARKER, MAX_CONFIG, MESSAGE, Order, Settings, read_block, receive, send_with, write_block,
};
use crate::work::MAX_HELLO;

/// Building a workload must end within this: thousands of rules take seconds.
const BUILD_TIME: Duration = Duration::from_secs(300);
/// A fork server answers an order within this.
const ORDER_TIME: Duration = Duration::from_secs(30);

/// The thread that starts fork servers and lives as long as anyone needs one or a slot of one.
///
/// The kernel binds "die with your parent" to the parent's *thread*: were a fork server started from a thread that ends
/// (one of a runtime, say), it and its slots would end with it.
#[derive(Clone, Debug)]
pub(crate) struct Keeper(Sender<Spawn>);

/// A wish for a process: this binary with that argument, that socket as its standard input, and whom to tell.
type Spawn = (&'static str, OwnedFd, Sender<io::Result<Child>>);

impl Keeper {
    pub(crate) fn start() -> io::Result<Self> {
        let (orders, inbox) = channel();
        thread::Builder::new().name("jail-keeper".into()).spawn(move || keep(&inbox))?;
        Ok(Self(orders))
    }

    /// Runs this binary again with `marker` as its argument and `control` as its standard input.
    pub(crate) fn spawn(&self, marker: &'static str, control: OwnedFd) -> io::Result<Child> {
        let gone = |_| io::Error::other("the thread that starts processes is gone");
        let (reply, answer) = channel();
        self.0.send((marker, control, reply)).map_err(|_| gone(()))?;
        answer.recv().map_err(|_| gone(()))?
    }
}

fn keep(inbox: &Receiver<Spawn>) {
    for (marker, control, reply) in inbox {
        // The path is a link to this very program even if its file was replaced or removed since.
        let child = Command::new("/proc/self/exe")
            .arg(marker)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(control))
            .stdout(Stdio::null())
            .spawn();
        // Whoever asked has given up otherwise; dropping its socket then ends the process.
        reply.send(child).ok();
    }
}

/// A fork server that has built its workload.
#[derive(Debug)]
pub(crate) struct ForkServer {
    control: Mutex<UnixStream>,
    process: Mutex<Child>,
    hello: Bytes,
    /// Slots need it as long as the server does; see [`Keeper`].
    _keeper: Keeper,
}

/// A slot's process, and the supervisor's ends of its socket and pipes.
#[derive(Debug)]
pub(crate) struct Forked {
    pub(crate) socket: UnixStream,
    pub(crate) hints: File,
    pub(crate) notes: File,
    pub(crate) process: Process,
}

/// A slot's process. Dropping it kills and reaps it.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    /// The process is the server's own child, and only the server can tell how it ended.
    told_by: Option<Arc<ForkServer>>,
    reaped: bool,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Exit(i32),
    Signal(i32),
    /// It is gone, and nobody can say how.
    Unknown,
}

impl ForkServer {
    /// Starts one and waits until it has built its workload.
    pub(crate) fn start(keeper: &Keeper, rules: &Rules, config: &[u8]) -> Result<Arc<Self>, JailError> {
        if config.len() > MAX_CONFIG {
            return Err(JailError::Build(format!(
                "the plugins' configuration with its files has {} bytes, at most {MAX_CONFIG}",
                config.len()
            )));
        }
        let (control, theirs) = UnixStream::pair().map_err(JailError::start("a socket for the fork server"))?;
        let process = keeper.spawn(MARKER, theirs.into()).map_err(JailError::start("/proc/self/exe as fork server"))?;
        let mut server = Self {
            control: Mutex::new(control),
            process: Mutex::new(process),
            hello: Bytes::new(),
            _keeper: keeper.clone(),
        };
        server.hello = server.introduce(rules, config)?;
        Ok(Arc::new(server))
    }

    fn introduce(&self, rules: &Rules, config: &[u8]) -> Result<Bytes, JailError> {
        let mut control = self.control.lock();
        let settings = serde_json::to_vec(&Settings { rules: rules.clone() })
            .map_err(|e| JailError::start("the fork server's settings")(e.into()))?;
        let exchange = |control: &mut UnixStream| -> io::Result<(u8, Vec<u8>)> {
            control.set_read_timeout(Some(BUILD_TIME))?;
            control.set_write_timeout(Some(ORDER_TIME))?;
            write_block(control, &settings)?;
            write_block(control, config)?;
            let mut good = [0];
            control.read_exact(&mut good)?;
            let text = read_block(control, MAX_HELLO)?;
            control.set_read_timeout(Some(ORDER_TIME))?;
            Ok((good[0], text))
        };
        match exchange(&mut control) {
            Ok((1, hello)) => Ok(hello.into()),
            Ok((_, text)) => Err(JailError::Build(String::from_utf8_lossy(&text).into_owned())),
            Err(source) => Err(JailError::Server { source, end: self.autopsy() }),
        }
    }

    /// How the server ended, for a message, once it does not answer any more.
    fn autopsy(&self) -> String {
        let mut process = self.process.lock();
        // It may still be on its way out; killing what has ended changes nothing of its status.
        process.kill().ok();
        process.wait().map_or_else(|e| e.to_string(), |status| status.to_string())
    }

    pub(crate) fn hello(&self) -> &Bytes {
        &self.hello
    }

    /// Forks a slot.
    pub(crate) fn fork(self: &Arc<Self>) -> io::Result<Forked> {
        let (socket, their_socket) = UnixStream::pair()?;
        let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
        let (hints, their_hints) = rustix::pipe::pipe_with(flags)?;
        let (notes, their_notes) = rustix::pipe::pipe_with(flags)?;
        let fds = [their_socket.as_fd(), their_hints.as_fd(), their_notes.as_fd()];
        let process = match self.ask(Order::Fork, &fds)? {
            (Answered::Forked { pid, own }, Some(pidfd)) => {
                let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
                Process { pid, pidfd, told_by: own.then(|| Arc::clone(self)), reaped: false }
            }
            (Answered::Refused { errno }, _) => return Err(io::Error::from_raw_os_error(errno)),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        Ok(Forked { socket, hints: hints.into(), notes: notes.into(), process })
    }

    fn ask(&self, order: Order, fds: &[std::os::fd::BorrowedFd<'_>]) -> io::Result<(Answered, Option<OwnedFd>)> {
        let mut control = self.control.lock();
        send_with(&*control, &order.encode(), fds)?;
        let mut bytes = [0; MESSAGE];
        let (read, fds) = receive(&*control, &mut bytes)?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the fork server is gone"));
        }
        control.read_exact(&mut bytes[read..])?;
        let answer = Answered::decode(bytes).ok_or(io::ErrorKind::InvalidData)?;
        Ok((answer, fds.into_iter().next()))
    }
}

impl Drop for ForkServer {
    fn drop(&mut self) {
        let process = self.process.get_mut();
        // Both only fail if it is gone already.
        process.kill().ok();
        process.wait().ok();
    }
}

impl Process {
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits until the process has ended, at most `time`; says whether it has.
    pub(crate) fn ended_within(&self, time: Duration) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let time = Timespec::try_from(time).ok();
        rustix::io::retry_on_intr(|| poll(&mut fds, time.as_ref())).is_ok_and(|n| n > 0)
    }

    /// Kills the process and tells how it ended: by our signal, or before that on its own.
    pub(crate) fn kill(mut self) -> End {
        self.end()
    }

    fn end(&mut self) -> End {
        if std::mem::replace(&mut self.reaped, true) {
            return End::Unknown;
        }
        // It may have ended already, which is fine.
        rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL).ok();
        if let Some(server) = &self.told_by {
            return match server.ask(Order::Wait(self.pid.as_raw_pid()), &[]) {
                Ok((Answered::Ended { signal: 0, code }, _)) => End::Exit(code),
                Ok((Answered::Ended { signal, .. }, _)) => End::Signal(signal),
                _ => End::Unknown,
            };
        }
        let wait = || rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
        match rustix::io::retry_on_intr(wait) {
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => End::Exit(code),
                (None, Some(signal)) => End::Signal(signal),
                (None, None) => End::Unknown,
            },
            _ => End::Unknown,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
