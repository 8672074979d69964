//! The fork server: this binary again, with the workload built and nothing else, out of which slots are forked.
//!
//! It is started with an empty environment and one socket as its standard input, on which it gets its configuration and
//! then requests for slots. It sees no payload. It is single-threaded, as it must be to fork.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use rustix::process::{Pid, WaitId, WaitIdOptions};
use serde::{Deserialize, Serialize};

use crate::sandbox::{self, Baseline, Rules};
use crate::slot::Ends;
use crate::sys::{self, Cloned};
use crate::tool;
use crate::work::{Builder, Hello, MAX_HELLO};

/// The argument that makes this binary a fork server.
pub(crate) const MARKER: &str = "__slots";
/// Greatest configuration of a workload.
pub const MAX_CONFIG: usize = 1 << 30;
/// Descriptors of one slot: its socket, its pipe of hints, its pipe of notes.
pub(crate) const SLOT_FDS: usize = 3;
/// Greatest settings.
const MAX_SETTINGS: usize = 64 << 10;

/// What the fork server is told besides the workload's configuration.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) rules: Rules,
}

/// What the fork server is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// A slot with the descriptors that come with this.
    Fork,
    /// How this process, its own child, ended.
    Wait(i32),
}

/// What it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    /// A slot, its pidfd comes with this; `own` says that it is the fork server's child and not the supervisor's.
    Forked { pid: i32, own: bool },
    /// How a process ended: its exit code, or the signal.
    Ended { code: i32, signal: i32 },
    /// The kernel said no.
    Refused { errno: i32 },
}

/// Bytes of an [`Order`] and of an [`Answered`].
pub(crate) const MESSAGE: usize = 9;

impl Order {
    pub(crate) fn encode(self) -> [u8; MESSAGE] {
        match self {
            Self::Fork => message(1, 0, 0),
            Self::Wait(pid) => message(2, pid, 0),
        }
    }

    fn decode(bytes: [u8; MESSAGE]) -> Option<Self> {
        match parts(bytes) {
            (1, _, _) => Some(Self::Fork),
            (2, pid, _) => Some(Self::Wait(pid)),
            _ => None,
        }
    }
}

impl Answered {
    fn encode(self) -> [u8; MESSAGE] {
        match self {
            Self::Forked { pid, own } => message(1, pid, i32::from(own)),
            Self::Ended { code, signal } => message(2, code, signal),
            Self::Refused { errno } => message(3, errno, 0),
        }
    }

    pub(crate) fn decode(bytes: [u8; MESSAGE]) -> Option<Self> {
        match parts(bytes) {
            (1, pid, own) => Some(Self::Forked { pid, own: own != 0 }),
            (2, code, signal) => Some(Self::Ended { code, signal }),
            (3, errno, _) => Some(Self::Refused { errno }),
            _ => None,
        }
    }
}

fn message(kind: u8, a: i32, b: i32) -> [u8; MESSAGE] {
    let [a0, a1, a2, a3] = a.to_le_bytes();
    let [b0, b1, b2, b3] = b.to_le_bytes();
    [kind, a0, a1, a2, a3, b0, b1, b2, b3]
}

fn parts([kind, a0, a1, a2, a3, b0, b1, b2, b3]: [u8; MESSAGE]) -> (u8, i32, i32) {
    (kind, i32::from_le_bytes([a0, a1, a2, a3]), i32::from_le_bytes([b0, b1, b2, b3]))
}

/// Runs the fork server, and the slots that come out of it, or a tool, if this process was started as one; else returns
/// at once.
///
/// Every binary that uses [`crate::Pool`] or [`crate::tool`] calls this first in its `main`, before it starts a thread or a runtime.
pub fn enter_if_asked(builder: Builder) {
    let asked = std::env::args_os().nth(1);
    if asked.as_deref().is_some_and(|a| a == tool::MARKER) {
        tool::become_tool();
    }
    if asked.is_none_or(|a| a != MARKER) {
        return;
    }
    let code = match serve(builder) {
        Ok(()) => 0,
        Err(_) => 1,
    };
    sys::exit_now(code)
}

fn serve(builder: Builder) -> io::Result<()> {
    let control: UnixStream = io::stdin().as_fd().try_clone_to_owned()?.into();
    let settings = read_block(&control, MAX_SETTINGS)?;
    let config = read_block(&control, MAX_CONFIG)?;
    let settings: Settings = serde_json::from_slice(&settings)?;
    sandbox::end_with(settings.rules.supervisor).map_err(io::Error::other)?;
    let built = catch_unwind(AssertUnwindSafe(|| builder(&config)))
        .unwrap_or_else(|_| Err("building the plugins panicked; the message is on standard error".into()));
    drop(config);
    let hello = match built.and_then(checked) {
        Ok(hello) => hello,
        Err(text) => return write_hello(&control, 0, text.as_bytes()),
    };
    // A slot tells its panics to the supervisor only; what they print otherwise would try to open files.
    std::panic::set_hook(Box::new(crate::slot::note_panic));
    let base = Baseline::now()?;
    write_hello(&control, 1, &hello.message)?;
    loop {
        let Some((order, fds)) = next_order(&control)? else { return Ok(()) };
        match order {
            Order::Fork => fork(&control, fds, &hello, &settings, base)?,
            Order::Wait(pid) => send(&control, wait(pid), None)?,
        }
    }
}

/// What a fork server cannot live with, said before anyone relies on it.
fn checked(hello: Hello) -> Result<Hello, String> {
    if hello.message.len() > MAX_HELLO {
        return Err(format!("the plugins' own description has {} bytes, at most {MAX_HELLO}", hello.message.len()));
    }
    match std::fs::read_dir("/proc/self/task").map(Iterator::count) {
        Ok(1) => Ok(hello),
        Ok(n) => {
            Err(format!("building the plugins left {n} threads, and only a single-threaded process can be forked"))
        }
        Err(error) => Err(format!("/proc/self/task: {error}: mount /proc")),
    }
}

fn fork(control: &UnixStream, fds: Vec<OwnedFd>, hello: &Hello, settings: &Settings, base: Baseline) -> io::Result<()> {
    let Ok([socket, hints, notes]) = <[OwnedFd; SLOT_FDS]>::try_from(fds) else {
        return send(control, Answered::Refused { errno: libc::EBADF }, None);
    };
    let (cloned, own) = match sys::clone_sibling() {
        Ok(cloned) => (Ok(cloned), false),
        // Sandboxes around us may refuse a sibling; then the slot is our child and we tell how it ended.
        Err(_) => (sys::clone_child(), true),
    };
    match cloned {
        Ok(Cloned::Slot) => {
            let rules = match own {
                true => Rules { supervisor: std::os::unix::process::parent_id() as i32, ..settings.rules.clone() },
                false => settings.rules.clone(),
            };
            crate::slot::run(Ends { socket, hints, notes }, &*hello.workload, &rules, base)
        }
        Ok(Cloned::Server(pid, pidfd)) => {
            send(control, Answered::Forked { pid: pid.as_raw_pid(), own }, Some(pidfd.as_fd()))
        }
        Err(error) => send(control, Answered::Refused { errno: error.raw_os_error().unwrap_or(0) }, None),
    }
}

/// How a child of ours ended. It is dead or about to be: whoever asks has killed it or seen its end.
fn wait(pid: i32) -> Answered {
    let Some(pid) = Pid::from_raw(pid) else { return Answered::Refused { errno: libc::EINVAL } };
    match rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED) {
        Ok(Some(status)) => Answered::Ended {
            code: status.exit_status().unwrap_or(0),
            signal: status.terminating_signal().unwrap_or(0),
        },
        Ok(None) => Answered::Refused { errno: libc::ECHILD },
        Err(errno) => Answered::Refused { errno: errno.raw_os_error() },
    }
}

fn next_order(control: &UnixStream) -> io::Result<Option<(Order, Vec<OwnedFd>)>> {
    let mut bytes = [0; MESSAGE];
    let (read, fds) = receive(control, &mut bytes)?;
    if read == 0 {
        return Ok(None);
    }
    let mut control = control;
    control.read_exact(&mut bytes[read..])?;
    Ok(Order::decode(bytes).map(|order| (order, fds)))
}

fn send(control: &UnixStream, answer: Answered, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    send_with(control, &answer.encode(), fd.as_slice())
}

/// Sends all of `bytes`, descriptors with the first of them.
pub(crate) fn send_with(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SLOT_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    let mut sent = rustix::net::sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    while sent < bytes.len() {
        sent += rustix::net::send(&socket, &bytes[sent..], SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

/// Reads what is there, at most `bytes`, and the descriptors that come with it.
pub(crate) fn receive(socket: impl AsFd, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SLOT_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let into = &mut [IoSliceMut::new(bytes)];
    let got = rustix::io::retry_on_intr(|| rustix::net::recvmsg(&socket, into, &mut control, RecvFlags::CMSG_CLOEXEC))?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    Ok((got.bytes, fds))
}

/// A block: a `u32` length and the bytes.
pub(crate) fn write_block(mut socket: &UnixStream, bytes: &[u8]) -> io::Result<()> {
    let len = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    socket.write_all(&len.to_le_bytes())?;
    socket.write_all(bytes)
}

/// Reads a block of at most `most` bytes.
pub(crate) fn read_block(mut socket: &UnixStream, most: usize) -> io::Result<Vec<u8>> {
    let mut len = [0; 4];
    socket.read_exact(&mut len)?;
    let len = u32::from_le_bytes(len) as usize;
    if len > most {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = vec![0; len];
    socket.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn write_hello(mut control: &UnixStream, good: u8, text: &[u8]) -> io::Result<()> {
    control.write_all(&[good])?;
    write_block(control, text)
}
