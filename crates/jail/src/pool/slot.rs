//! One slot as its supervisor sees it.

use std::fs::File;
use std::io::{self, IoSlice, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendFlags};
use stoq_runtime::metrics;

use super::collect::{Collector, Refusal};
use super::watch::Watch;
use crate::job::{Answer, Limits, StopReason, Stopped};
use crate::protocol::reply::{Decoder, Reply};
use crate::protocol::request::{Body, Outgoing, Request};
use crate::sandbox::Applied;
use crate::server::send_with;
use crate::spawn::{End, Forked, Process};
use crate::sys;

/// A slot has locked itself in within this.
const START_TIME: Duration = Duration::from_secs(20);
/// How long a process that has closed its socket may take to be gone.
const END_TIME: Duration = Duration::from_secs(2);
/// CPU time that a slot may use while nothing is asked of it; more is a slot that somebody else has taken over.
const IDLE_CPU: Duration = Duration::from_millis(50);
/// What may be on its way to a slot: a usual batch, so that whoever sends it need not wait for the slot in between.
const SEND_BUFFER: usize = 1 << 20;
/// Bytes of a slot's last words that are read.
const MAX_NOTES: usize = 1024;

/// A locked-in process that waits for batches.
pub(super) struct Slot {
    socket: UnixStream,
    hints: File,
    notes: File,
    process: Process,
    decoder: Decoder,
    request: Request,
    /// Payloads that it has seen.
    pub(super) payloads: u32,
    idle_cpu: Option<Duration>,
}

/// What a batch is run under.
pub(super) struct Terms<'a> {
    pub(super) limits: &'a Limits,
    pub(super) spool_dir: &'a Path,
    /// Give up: nobody waits any more.
    pub(super) closing: &'a AtomicBool,
}

/// A batch whose slot is no more.
#[derive(Debug)]
pub(super) struct Death {
    /// Index of the item that was being scanned, as far as the slot said.
    pub(super) item: Option<usize>,
    /// Whom to blame, and for what.
    pub(super) stopped: Stopped,
}

/// Why the supervisor ends an exchange.
enum Cause {
    /// The slot is over a limit or breaks the protocol.
    Refused(Refusal),
    /// The socket is closed: the slot ends, or pretends to.
    Closed,
}

impl From<Refusal> for Cause {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Slot {
    /// Waits until a forked process says that its sandbox stands.
    ///
    /// # Errors
    /// It does not; the text says why.
    pub(super) fn ready(forked: Forked, limits: &Limits) -> Result<(Self, Applied), String> {
        let Forked { socket, hints, notes, process } = forked;
        let decoder = Decoder::new(limits.report);
        let mut slot =
            Self { socket, hints, notes, process, decoder, request: Request::default(), payloads: 0, idle_cpu: None };
        // Less is no error: then a batch is sent in more pieces.
        rustix::net::sockopt::set_socket_send_buffer_size(&slot.socket, SEND_BUFFER).ok();
        let tick = Watch::interval(limits);
        let timeouts =
            slot.socket.set_read_timeout(Some(tick)).and_then(|()| slot.socket.set_write_timeout(Some(tick)));
        timeouts.map_err(|e| e.to_string())?;
        let started = Instant::now();
        loop {
            match slot.decoder.next() {
                Ok(Some(Reply::Ready { landlock, seccomp, unprivileged })) => {
                    return Ok((slot, Applied { landlock, seccomp, unprivileged }));
                }
                Ok(Some(Reply::Failed(text))) => return Err(String::from_utf8_lossy(text).into_owned()),
                Ok(Some(other)) => return Err(format!("it began with {other:?}")),
                Ok(None) if started.elapsed() > START_TIME => return Err("it does not start".into()),
                Ok(None) => {}
                Err(violation) => return Err(violation.to_string()),
            }
            match read(&mut slot.socket, &mut slot.decoder) {
                Ok(0) => return Err(format!("it ended: {:?}", slot.process.kill())),
                Ok(_) => {}
                Err(error) if is_tick(&error) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// CPU time that it has used in its life.
    pub(super) fn cpu(&self) -> Option<Duration> {
        sys::cpu_time(self.process.pid())
    }

    /// Whether it is still there and at rest, for a slot that was not asked anything since the last call or batch.
    pub(super) fn rests(&mut self) -> bool {
        let now = self.cpu();
        let before = self.idle_cpu.or(now);
        self.idle_cpu = before;
        matches!((before, now), (Some(before), Some(now)) if now.saturating_sub(before) <= IDLE_CPU)
    }

    /// Has `items` scanned. A slot that fails at it is dead afterwards.
    pub(super) fn run(
        mut self,
        items: &[Outgoing],
        careful: bool,
        terms: &Terms<'_>,
    ) -> Result<(Self, Vec<Answer>), Death> {
        self.request.lay_out(items, careful);
        let mut watch = Watch::new(terms.limits, items);
        let mut collector = Collector::new(items, terms.spool_dir);
        match self.exchange(items, &mut watch, &mut collector, terms) {
            Ok(()) => {
                // Hints of this batch must not be taken for the next one's.
                watch.read(&mut self.hints);
                self.decoder.relax();
                self.payloads = self.payloads.saturating_add(items.len() as u32);
                self.idle_cpu = None;
                Ok((self, collector.into_answers()))
            }
            Err(cause) => {
                watch.read(&mut self.hints);
                Err(self.bury(cause, &watch, collector.current()))
            }
        }
    }

    fn exchange(
        &mut self,
        items: &[Outgoing],
        watch: &mut Watch<'_>,
        to: &mut Collector<'_>,
        terms: &Terms<'_>,
    ) -> Result<(), Cause> {
        self.send(items, watch, terms)?;
        loop {
            while let Some(reply) = self.decoder.next().map_err(|e| protocol(e.to_string()))? {
                if to.take(reply)? {
                    return match self.decoder.is_empty() {
                        true => Ok(()),
                        false => Err(protocol("more after the end".into()).into()),
                    };
                }
            }
            match read(&mut self.socket, &mut self.decoder) {
                Ok(0) => return Err(Cause::Closed),
                // A slot that never stops talking gives no tick by itself.
                Ok(_) if !watch.is_due() => {}
                Ok(_) => self.tick(watch, terms)?,
                Err(error) if is_tick(&error) => self.tick(watch, terms)?,
                Err(_) => return Err(Cause::Closed),
            }
        }
    }

    fn send(&mut self, items: &[Outgoing], watch: &mut Watch<'_>, terms: &Terms<'_>) -> Result<(), Cause> {
        let file = items.iter().find_map(|item| match &item.body {
            Body::File(sealed) => Some(&sealed.file),
            Body::Inline(_) => None,
        });
        let request = std::mem::take(&mut self.request);
        let mut parts = request.parts(items);
        let mut rest = &mut parts[..];
        if let (Some(file), Some(first)) = (file, rest.first()) {
            // With the length only, so that the file surely comes with the first bytes.
            send_with(&self.socket, &first[..4], &[file.as_fd()]).map_err(|_| Cause::Closed)?;
            IoSlice::advance_slices(&mut rest, 4);
        }
        while !rest.is_empty() {
            match rustix::net::sendmsg(&self.socket, rest, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL) {
                Ok(n) => IoSlice::advance_slices(&mut rest, n),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => self.tick(watch, terms)?,
                Err(_) => return Err(Cause::Closed),
            }
        }
        self.request = request;
        Ok(())
    }

    fn tick(&mut self, watch: &mut Watch<'_>, terms: &Terms<'_>) -> Result<(), Cause> {
        if terms.closing.load(Ordering::Relaxed) {
            let detail = "the pool is being closed".to_owned();
            return Err(Refusal { reason: StopReason::Unavailable, detail }.into());
        }
        watch.read(&mut self.hints);
        match watch.tick(sys::cpu_time(self.process.pid())) {
            Some((reason, detail)) => Err(Refusal { reason, detail }.into()),
            None => Ok(()),
        }
    }

    /// Kills what is left and finds out what it died of. `author` sent the last frames, where that is known.
    fn bury(mut self, cause: Cause, watch: &Watch<'_>, author: Option<u16>) -> Death {
        let went_away = matches!(cause, Cause::Closed) && self.process.ended_within(END_TIME);
        let end = self.process.kill();
        let notes = last_words(&mut self.notes);
        // What is wrong with a reply is its author's doing, even if the slot has gone on to another plugin meanwhile.
        let author = author.filter(|_| {
            matches!(&cause, Cause::Refused(Refusal { reason: StopReason::Protocol | StopReason::Budget, .. }))
        });
        let (reason, detail) = match cause {
            Cause::Refused(Refusal { reason, detail }) => (reason, detail),
            Cause::Closed if went_away => diagnose(end, &notes),
            Cause::Closed => (StopReason::Protocol, "closed its socket and went on running".into()),
        };
        metrics::slot_killed(reason.name());
        let hint = watch.current();
        Death {
            item: hint.map(|h| usize::from(h.item)),
            stopped: Stopped { plugin: author.or(hint.map(|h| h.plugin)), reason, detail },
        }
    }
}

fn read(socket: &mut UnixStream, decoder: &mut Decoder) -> io::Result<usize> {
    let read = rustix::io::retry_on_intr(|| rustix::io::read(&*socket, &mut *decoder.room()))?;
    decoder.filled(read);
    Ok(read)
}

fn is_tick(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

fn protocol(detail: String) -> Refusal {
    Refusal { reason: StopReason::Protocol, detail }
}

/// What the slot wrote to its standard error, made harmless for a log.
fn last_words(notes: &mut File) -> String {
    let mut bytes = [0; MAX_NOTES];
    let read = notes.read(&mut bytes).unwrap_or(0);
    let text = String::from_utf8_lossy(&bytes[..read]);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

/// What a process died of, from how it ended and what it said last.
fn diagnose(end: End, notes: &str) -> (StopReason, String) {
    let said = |what: String| if notes.is_empty() { what } else { format!("{what}: {notes}") };
    match end {
        End::Signal(libc::SIGSYS) => (StopReason::Policy, "a system call that no plugin needs".into()),
        End::Signal(libc::SIGXFSZ) => (StopReason::Policy, "it wrote to a file".into()),
        End::Signal(libc::SIGXCPU) => (StopReason::Time, "the CPU time of the slot's whole life".into()),
        End::Signal(libc::SIGKILL) => {
            (StopReason::Memory, "killed from outside: this machine's memory is short".into())
        }
        End::Signal(libc::SIGABRT) if notes.contains("memory allocation of") => (StopReason::Memory, notes.to_owned()),
        End::Signal(libc::SIGABRT) => (StopReason::Crash, said("it aborted".into())),
        End::Signal(signal) => (StopReason::Crash, said(format!("signal {signal}"))),
        End::Exit(crate::slot::PANICKED) => (StopReason::Crash, said("it panicked".into())),
        End::Exit(code) => (StopReason::Crash, said(format!("it ended with exit code {code}"))),
        End::Unknown => (StopReason::Crash, said("it ended, and this sandbox does not tell how".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart() {
        for (end, notes, reason) in [
            (End::Signal(31), "", StopReason::Policy),
            (End::Signal(24), "", StopReason::Time),
            (End::Signal(9), "", StopReason::Memory),
            (End::Signal(6), "memory allocation of 99 bytes failed", StopReason::Memory),
            (End::Signal(6), "thread 'main' has overflowed its stack", StopReason::Crash),
            (End::Signal(11), "", StopReason::Crash),
            (End::Signal(7), "", StopReason::Crash),
            (End::Exit(101), "panicked at x", StopReason::Crash),
            (End::Unknown, "", StopReason::Crash),
        ] {
            assert_eq!(diagnose(end, notes).0, reason, "{end:?} {notes}");
        }
    }
}
