//! The inside of a slot: sandbox first, then items, until the supervisor is gone.

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::time::{Duration, Instant};

use stoq_api::PayloadMeta;
use stoq_api::scanner::{Remaining, Sink, Spent};

use crate::children::Meter;
use crate::memfd::Map;
use crate::protocol::reply::{Reply, append_data};
use crate::protocol::request::{self, Incoming, Place};
use crate::protocol::{Hint, encode_meta};
use crate::sandbox::{self, Applied, Baseline, Rules};
use crate::server::receive;
use crate::sys;
use crate::work::{Item, Wire, Workload};

/// Exit code of a slot whose plugin panicked.
pub(crate) const PANICKED: i32 = 101;
/// Exit code of a slot that was sent something that is no request.
const BAD_REQUEST: i32 = 102;
/// Exit code of a slot that could not be locked in.
const NO_SANDBOX: i32 = 103;
/// Replies are sent when this much is waiting.
const FLUSH: usize = 64 << 10;
/// A buffer that grew above this is given back after a batch.
const KEEP: usize = 1 << 20;
/// How long a hint is as good as the next one on the same item.
const HINT_TIME: Duration = Duration::from_millis(1);
/// Characters of a panic that are told.
const MAX_NOTE: usize = 400;

/// What connects a slot with its supervisor.
pub(crate) struct Ends {
    pub(crate) socket: OwnedFd,
    pub(crate) hints: OwnedFd,
    pub(crate) notes: OwnedFd,
}

/// Lives the life of a slot in a process that was just forked.
pub(crate) fn run(ends: Ends, workload: &dyn Workload, rules: &Rules, base: Baseline) -> ! {
    let mut wire = match settle(ends) {
        Ok((socket, hints)) => SlotWire::new(socket, hints),
        Err(_) => sys::exit_now(NO_SANDBOX),
    };
    match sandbox::enter(rules, base) {
        Ok(Applied { landlock, seccomp, unprivileged }) => {
            Reply::Ready { landlock, seccomp, unprivileged }.encode(&mut wire.out);
        }
        Err(text) => {
            Reply::Failed(text.as_bytes()).encode(&mut wire.out);
            wire.flush().ok();
            sys::exit_now(NO_SANDBOX);
        }
    }
    let outcome = catch_unwind(AssertUnwindSafe(|| wire.flush().and_then(|()| work(&mut wire, workload))));
    sys::exit_now(match outcome {
        Ok(Ok(())) => 0,
        Ok(Err(_)) => BAD_REQUEST,
        Err(_) => PANICKED,
    })
}

/// Keeps the two descriptors that a slot needs, and notes as its standard output and error, and closes all others.
fn settle(ends: Ends) -> io::Result<(OwnedFd, OwnedFd)> {
    rustix::stdio::dup2_stdin(&ends.notes)?;
    rustix::stdio::dup2_stdout(&ends.notes)?;
    rustix::stdio::dup2_stderr(&ends.notes)?;
    let mut keep: [RawFd; 2] = [ends.socket.as_raw_fd(), ends.hints.as_raw_fd()];
    keep.sort_unstable();
    sys::close_range(3, keep[0] - 1)?;
    sys::close_range(keep[0] + 1, keep[1] - 1)?;
    sys::close_range(keep[1] + 1, RawFd::MAX)?;
    // Its descriptor is closed already.
    std::mem::forget(ends.notes);
    Ok((ends.socket, ends.hints))
}

/// The panic hook of slots: one line for the supervisor instead of a backtrace.
pub(crate) fn note_panic(info: &PanicHookInfo<'_>) {
    let text = format!("{info}");
    let cut = text.char_indices().nth(MAX_NOTE).map_or(text.len(), |(at, _)| at);
    // The pipe being full or gone only costs the note.
    io::stderr().write_all(&text.as_bytes()[..cut]).ok();
}

fn work(wire: &mut SlotWire, workload: &dyn Workload) -> io::Result<()> {
    let mut bytes = Vec::new();
    let mut serial = 0;
    while let Some(request) = next_request(&wire.socket, &mut bytes)? {
        batch(wire, workload, &request, &bytes, serial)?;
        serial += request.items.len() as u64;
        Reply::Done.encode(&mut wire.out);
        wire.flush()?;
        if bytes.capacity() > KEEP {
            bytes = Vec::new();
        }
        wire.out.shrink_to(KEEP);
    }
    Ok(())
}

/// Runs the items of a request whose bytes are `request`; the first has the serial `serial`.
fn batch(
    wire: &mut SlotWire,
    workload: &dyn Workload,
    Request { careful, items, file }: &Request,
    request: &[u8],
    serial: u64,
) -> io::Result<()> {
    (wire.careful, wire.hinted) = (*careful, None);
    let bodies = items.iter().map(|item| Body::of(item, request, file.as_ref())).collect::<io::Result<Vec<_>>>()?;
    let mut todo = Vec::with_capacity(items.len());
    for (serial, (Incoming { header, excluded, .. }, body)) in (serial..).zip(items.iter().zip(&bodies)) {
        todo.push(Item { serial, header: &request[header.clone()], content: body.bytes(), excluded });
    }
    if let [first, _, ..] = &**items {
        wire.begin(0, first.remaining);
        workload.ahead(&todo, &mut |plugin| wire.starting(plugin));
    }
    for ((index, item), todo) in items.iter().enumerate().zip(&todo) {
        wire.begin(index as u16, item.remaining);
        let report = workload.run(todo, wire);
        wire.report(&report)?;
    }
    Ok(())
}

/// An item's bytes: in the request, or mapped from the file that came with it.
enum Body<'a> {
    Inline(&'a [u8]),
    Mapped(Map),
}

impl<'a> Body<'a> {
    fn of(item: &Incoming, request: &'a [u8], file: Option<&OwnedFd>) -> io::Result<Self> {
        match (&item.body, file) {
            (Place::Inline(place), _) => Ok(Self::Inline(&request[place.clone()])),
            (Place::File { offset, len }, Some(file)) => Map::new(file, *offset, *len).map(Self::Mapped),
            (Place::File { .. }, None) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Inline(bytes) => bytes,
            Self::Mapped(map) => map.bytes(),
        }
    }
}

/// A batch, and the file that came with it.
struct Request {
    careful: bool,
    items: Vec<Incoming>,
    file: Option<OwnedFd>,
}

/// The next request; `None` when the supervisor is gone.
fn next_request(socket: &OwnedFd, request: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let mut prefix = [0; 4];
    let (read, fds) = receive(socket, &mut prefix)?;
    if read == 0 {
        return Ok(None);
    }
    read_exact(socket, &mut prefix[read..])?;
    let len = request::length(prefix).ok_or(io::ErrorKind::InvalidData)?;
    request.resize(len, 0);
    read_exact(socket, request)?;
    let (careful, items) = request::decode(request).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Some(Request { careful, items, file: fds.into_iter().next() }))
}

fn read_exact(socket: &OwnedFd, mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::read(socket, &mut *bytes))? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => bytes = &mut bytes[n..],
        }
    }
    Ok(())
}

/// The way out of a slot. Frames gather until there is enough to send.
struct SlotWire {
    socket: OwnedFd,
    hints: OwnedFd,
    out: Vec<u8>,
    /// Where the data frame at the end of `out` starts, while it can still grow.
    data: Option<usize>,
    item: u16,
    plugin: u16,
    meter: Meter,
    open: bool,
    careful: bool,
    /// The item of the last hint of this batch, and when it was given.
    hinted: Option<(u16, Instant)>,
}

impl SlotWire {
    fn new(socket: OwnedFd, hints: OwnedFd) -> Self {
        let meter = Meter::new(Remaining { children: 0, bytes: 0 });
        let out = Vec::with_capacity(FLUSH * 2);
        Self { socket, hints, out, data: None, item: 0, plugin: 0, meter, open: false, careful: false, hinted: None }
    }

    fn begin(&mut self, item: u16, remaining: Remaining) {
        (self.item, self.plugin, self.meter) = (item, 0, Meter::new(remaining));
    }

    fn report(&mut self, report: &[u8]) -> io::Result<()> {
        if self.open {
            self.close(false)?;
        }
        self.data = None;
        Reply::Report { item: self.item, report }.encode(&mut self.out);
        self.flush_if_full()
    }

    fn flush_if_full(&mut self) -> io::Result<()> {
        if self.out.len() < FLUSH { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut left = &self.out[..];
        while !left.is_empty() {
            let written = rustix::io::retry_on_intr(|| rustix::io::write(&self.socket, left))?;
            left = &left[written..];
        }
        self.out.clear();
        self.data = None;
        Ok(())
    }
}

impl Sink for SlotWire {
    fn remaining(&self) -> Remaining {
        self.meter.left()
    }

    fn open(&mut self, meta: PayloadMeta) -> io::Result<()> {
        if self.open {
            self.close(false)?;
        }
        let meta = encode_meta(&meta)?;
        self.meter.child(meta.len()).map_err(|kind| Spent(kind).into_io())?;
        self.data = None;
        Reply::Open { plugin: self.plugin, meta: &meta }.encode(&mut self.out);
        self.open = true;
        self.flush_if_full()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.open {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no child is open"));
        }
        self.meter.bytes(bytes.len()).map_err(|kind| Spent(kind).into_io())?;
        for piece in bytes.chunks(FLUSH) {
            append_data(&mut self.out, &mut self.data, piece);
            self.flush_if_full()?;
        }
        Ok(())
    }

    fn close(&mut self, keep: bool) -> io::Result<()> {
        if !std::mem::take(&mut self.open) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no child is open"));
        }
        if !keep {
            self.meter.discarded();
        }
        self.data = None;
        Reply::Close { keep }.encode(&mut self.out);
        self.flush_if_full()
    }
}

impl Wire for SlotWire {
    fn starting(&mut self, plugin: u16) {
        self.plugin = plugin;
        let fresh = self.hinted.is_some_and(|(item, at)| item == self.item && at.elapsed() < HINT_TIME);
        if self.careful || !fresh {
            // A full or broken pipe costs the supervisor the hint, and this slot at most its own blame.
            rustix::io::write(self.hints.as_fd(), &Hint { item: self.item, plugin }.encode()).ok();
            self.hinted = Some((self.item, Instant::now()));
        }
        if self.careful {
            self.data = None;
            Reply::Starting { plugin }.encode(&mut self.out);
            // Sent before the plugin can send anything by itself. A broken socket is met again by the next reply.
            self.flush().ok();
        }
    }

    fn sink(&mut self) -> &mut dyn Sink {
        self
    }
}
