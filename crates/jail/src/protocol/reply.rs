//! Replies: written by a slot, read by the supervisor as hostile bytes.

use super::{MAX_DATA, MAX_FAILED, MAX_META};

/// Bytes asked for in one read.
const READ: usize = 64 << 10;
/// A buffer that grew above this is given back after a batch.
const KEEP: usize = 256 << 10;

const READY: u8 = 1;
const FAILED: u8 = 2;
const OPEN: u8 = 3;
const DATA: u8 = 4;
const CLOSE: u8 = 5;
const REPORT: u8 = 6;
const DONE: u8 = 7;
const STARTING: u8 = 8;

/// One frame of a slot.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply<'a> {
    /// The sandbox stands.
    Ready { landlock: u8, seccomp: bool, unprivileged: bool },
    /// The sandbox cannot be set up.
    Failed(&'a [u8]),
    /// A plugin starts; sent in place by careful slots only.
    Starting { plugin: u16 },
    /// A child begins.
    Open { plugin: u16, meta: &'a [u8] },
    /// The open child's next bytes.
    Data(&'a [u8]),
    /// The open child ends.
    Close { keep: bool },
    /// An item is finished.
    Report { item: u16, report: &'a [u8] },
    /// The batch is finished.
    Done,
}

/// Bytes that are no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    #[error("a frame of kind {kind} with {len} bytes")]
    Length { kind: u8, len: u32 },
}

impl Reply<'_> {
    /// Appends the frame to `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let start = begin(out);
        match self {
            Self::Ready { landlock, seccomp, unprivileged } => {
                out.extend([READY, *landlock, u8::from(*seccomp), u8::from(*unprivileged)]);
            }
            Self::Failed(text) => {
                out.push(FAILED);
                out.extend(&text[..text.len().min(MAX_FAILED)]);
            }
            Self::Open { plugin, meta } => {
                out.push(OPEN);
                out.extend(plugin.to_le_bytes());
                out.extend(*meta);
            }
            Self::Starting { plugin } => {
                out.push(STARTING);
                out.extend(plugin.to_le_bytes());
            }
            Self::Data(bytes) => {
                out.push(DATA);
                out.extend(*bytes);
            }
            Self::Close { keep } => out.extend([CLOSE, u8::from(*keep)]),
            Self::Report { item, report } => {
                out.push(REPORT);
                out.extend(item.to_le_bytes());
                out.extend(*report);
            }
            Self::Done => out.push(DONE),
        }
        finish(out, start);
    }
}

fn begin(out: &mut Vec<u8>) -> usize {
    out.extend([0; 4]);
    out.len()
}

/// Sets the length of the frame whose body starts at `start` and reaches to the end of `out`.
fn finish(out: &mut [u8], start: usize) {
    let len = (out.len() - start) as u32;
    out[start - 4..start].copy_from_slice(&len.to_le_bytes());
}

/// Appends child data to `out`: to the data frame at its end, while that is open and small, else as new frames.
/// `last` is where that frame's body starts.
pub(crate) fn append_data(out: &mut Vec<u8>, last: &mut Option<usize>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let start = *last.get_or_insert_with(|| {
            let start = begin(out);
            out.push(DATA);
            start
        });
        let room = MAX_DATA - (out.len() - start - 1);
        let (now, later) = bytes.split_at(room.min(bytes.len()));
        out.extend(now);
        finish(out, start);
        bytes = later;
        if now.len() == room {
            *last = None;
        }
    }
}

/// Takes frames out of a stream of bytes. Holds at most one frame of the greatest kind and one read more.
#[derive(Debug)]
pub(crate) struct Decoder {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    max_report: usize,
}

impl Decoder {
    pub(crate) fn new(max_report: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, end: 0, max_report }
    }

    /// Room for the next read; call [`Decoder::filled`] with what came.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.buffer.len() < self.end + READ {
            self.buffer.resize(self.end + READ, 0);
        }
        &mut self.buffer[self.end..]
    }

    pub(crate) fn filled(&mut self, read: usize) {
        self.end = (self.end + read).min(self.buffer.len());
    }

    /// The next whole frame; `None` until more bytes come.
    ///
    /// # Errors
    /// The bytes are no frame. Nothing after them means anything.
    pub(crate) fn next(&mut self) -> Result<Option<Reply<'_>>, Violation> {
        let held = &self.buffer[self.start..self.end];
        let Some((prefix, body)) = held.split_first_chunk::<4>() else { return Ok(None) };
        let len = u32::from_le_bytes(*prefix);
        let Some((&kind, _)) = body.split_first() else { return Ok(None) };
        self.check(kind, len)?;
        let Some(frame) = body.get(1..len as usize) else { return Ok(None) };
        self.start += 4 + len as usize;
        parse(kind, len, frame).map(Some)
    }

    /// Bytes that no one asked for are left over.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Gives memory back that one large frame needed.
    pub(crate) fn relax(&mut self) {
        if self.is_empty() && self.buffer.len() > KEEP {
            self.buffer = Vec::new();
            (self.start, self.end) = (0, 0);
        }
    }

    fn check(&self, kind: u8, len: u32) -> Result<(), Violation> {
        let most = match kind {
            READY => 4,
            FAILED => 1 + MAX_FAILED,
            OPEN => 3 + MAX_META,
            DATA => 1 + MAX_DATA,
            STARTING => 3,
            CLOSE => 2,
            REPORT => 3 + self.max_report,
            DONE => 1,
            _ => return Err(Violation::Kind(kind)),
        };
        if len == 0 || len as usize > most { Err(Violation::Length { kind, len }) } else { Ok(()) }
    }

    /// Memory in use, for tests.
    pub(crate) fn held(&self) -> usize {
        self.buffer.capacity()
    }
}

fn parse(kind: u8, len: u32, frame: &[u8]) -> Result<Reply<'_>, Violation> {
    let wrong = Violation::Length { kind, len };
    let number = |frame| <[u8]>::split_first_chunk::<2>(frame).map(|(n, rest)| (u16::from_le_bytes(*n), rest));
    Ok(match (kind, frame) {
        (READY, [landlock, seccomp, unprivileged]) => {
            Reply::Ready { landlock: *landlock, seccomp: *seccomp != 0, unprivileged: *unprivileged != 0 }
        }
        (FAILED, text) => Reply::Failed(text),
        (OPEN, frame) => {
            let (plugin, meta) = number(frame).ok_or(wrong)?;
            Reply::Open { plugin, meta }
        }
        (STARTING, [a, b]) => Reply::Starting { plugin: u16::from_le_bytes([*a, *b]) },
        (DATA, bytes) => Reply::Data(bytes),
        (CLOSE, [keep]) => Reply::Close { keep: *keep != 0 },
        (REPORT, frame) => {
            let (item, report) = number(frame).ok_or(wrong)?;
            Reply::Report { item, report }
        }
        (DONE, []) => Reply::Done,
        _ => return Err(wrong),
    })
}
