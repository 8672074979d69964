//! The wire form of tasks on a lane.
//!
//! A message is a sequence of frames, one per task, each:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | magic `STQ1` |
//! | 2 | version of the header, little endian |
//! | 16 | scan id |
//! | 16 | payload id |
//! | 4 | length of the header, little endian |
//! | 4 | length of the inline bytes, little endian |
//! | … | the header: a [`Task`] as JSON; without its `scan` where that is the same as in the frame before |
//! | … | the inline bytes |
//!
//! The first six rows (the prelude) never change in any version, so that any version can settle a frame as an error. A
//! new header version gets a number, a fixture under `testdata/` that is committed for good, and a reader for every older
//! one.

mod header;

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use crate::id::{PayloadId, ScanId};
use crate::payload::{MAX_NESTING, nests_too_deep};
use crate::task::{Location, Place, RemoteRef, Task};

/// The header version that this build writes.
pub const VERSION: u16 = 1;
/// Bytes of the prelude.
pub const PRELUDE: usize = 46;
/// Greatest header that is read: ancestors, metadata and locations are all bounded well below it.
pub const MAX_HEADER: usize = 4 << 20;
/// Greatest inline content that is read.
pub const MAX_INLINE: usize = 64 << 20;
/// Greatest number of tasks in a message.
pub const MAX_TASKS: usize = 1024;

const MAGIC: &[u8; 4] = b"STQ1";
/// Room for a usual header. One that is larger makes the whole message move, so this is more than most need.
const USUAL_HEADER: usize = 1_500;

/// One decoded frame.
#[derive(Debug)]
pub struct Envelope {
    /// From the prelude.
    pub scan_id: ScanId,
    /// From the prelude.
    pub payload_id: PayloadId,
    /// The task, or why it cannot be read; the ids above hold in either case.
    pub task: Result<Box<Task>, EnvelopeError>,
}

/// A message or a frame that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Not a frame at all.
    #[error("not a task message: no frame starts at byte {at}")]
    NoFrame {
        /// Offset in the message.
        at: usize,
    },
    /// The message ends inside a frame.
    #[error("the task message is cut short at byte {at}")]
    Short {
        /// Offset in the message.
        at: usize,
    },
    /// Written by a newer version: wait for a worker that knows it.
    #[error("header version {0} is newer than this build reads ({VERSION})")]
    Newer(u16),
    /// A length or a count is above its limit.
    #[error("the task message exceeds a limit: {0}")]
    TooLarge(&'static str),
    /// The header is not what its version says.
    #[error("the task header is not valid: {0}")]
    Header(String),
}

/// Writes tasks as one message.
///
/// # Errors
/// A header or inline content is above its limit, or there are too many tasks.
pub fn encode(tasks: &[Task]) -> Result<Bytes, EnvelopeError> {
    if tasks.len() > MAX_TASKS {
        return Err(EnvelopeError::TooLarge("tasks"));
    }
    let mut out = BytesMut::with_capacity(tasks.iter().map(|t| PRELUDE + USUAL_HEADER + t.inline.len()).sum());
    let mut before: Option<&Task> = None;
    for task in tasks {
        let said = before.replace(task).is_some_and(|before| same_scan(before, task));
        let start = out.len();
        out.put_slice(MAGIC);
        out.put_u16_le(VERSION);
        out.put_slice(task.scan_id.0.as_bytes());
        out.put_slice(task.payload_id.0.as_bytes());
        out.put_u64_le(0);
        serde_json::to_writer((&mut out).writer(), &header::Out::of(task, said))
            .map_err(|e| EnvelopeError::Header(e.to_string()))?;
        let header = out.len() - start - PRELUDE;
        if header > MAX_HEADER {
            return Err(EnvelopeError::TooLarge("header"));
        }
        if task.inline.len() > MAX_INLINE {
            return Err(EnvelopeError::TooLarge("inline bytes"));
        }
        // Both lengths are below their limits, which fit in 32 bits.
        out[start + 38..start + 42].copy_from_slice(&(header as u32).to_le_bytes());
        out[start + 42..start + 46].copy_from_slice(&(task.inline.len() as u32).to_le_bytes());
        out.put_slice(&task.inline);
    }
    Ok(out.freeze())
}

/// Reads a message. Frames whose header is broken or newer are returned with their ids.
///
/// # Errors
/// The message is not a sequence of frames.
pub fn decode(message: &Bytes) -> Result<Vec<Envelope>, EnvelopeError> {
    let mut frames: Vec<Envelope> = Vec::new();
    let mut at = 0;
    while at < message.len() {
        if frames.len() == MAX_TASKS {
            return Err(EnvelopeError::TooLarge("tasks"));
        }
        let prelude = message.get(at..at + PRELUDE).ok_or(EnvelopeError::Short { at })?;
        if &prelude[..4] != MAGIC {
            return Err(EnvelopeError::NoFrame { at });
        }
        let version = u16::from_le_bytes([prelude[4], prelude[5]]);
        let scan_id = ScanId(uuid_at(prelude, 6));
        let payload_id = PayloadId(uuid_at(prelude, 22));
        let header = length_at(prelude, 38);
        let inline = length_at(prelude, 42);
        if header > MAX_HEADER {
            return Err(EnvelopeError::TooLarge("header"));
        }
        if inline > MAX_INLINE {
            return Err(EnvelopeError::TooLarge("inline bytes"));
        }
        let body = at + PRELUDE;
        if message.len() - body < header + inline {
            return Err(EnvelopeError::Short { at: message.len() });
        }
        let before = frames.last().and_then(|frame| frame.task.as_ref().ok()).map(|task| &**task);
        let task = read_task(version, &message[body..body + header], (scan_id, payload_id), before).map(|mut task| {
            task.inline = message.slice(body + header..body + header + inline);
            Box::new(task)
        });
        frames.push(Envelope { scan_id, payload_id, task });
        at = body + header + inline;
    }
    Ok(frames)
}

/// Whether both tasks carry the same of their scan, so that the second need not say it again.
fn same_scan(before: &Task, task: &Task) -> bool {
    before.scan_id == task.scan_id && (Arc::ptr_eq(&before.scan, &task.scan) || before.scan == task.scan)
}

fn read_task(
    version: u16,
    header: &[u8],
    ids: (ScanId, PayloadId),
    before: Option<&Task>,
) -> Result<Task, EnvelopeError> {
    match version {
        0 => Err(EnvelopeError::Header("version 0 was never used".into())),
        1 => {
            let mut header: header::In =
                serde_json::from_slice(header).map_err(|e| EnvelopeError::Header(e.to_string()))?;
            if (header.scan_id, header.payload_id) != ids {
                return Err(EnvelopeError::Header("its ids differ from the prelude's".into()));
            }
            let said = before.filter(|before| before.scan_id == header.scan_id).map(|before| Arc::clone(&before.scan));
            let Some(scan) = header.scan.take().map(Arc::new).or(said) else {
                return Err(EnvelopeError::Header("missing field `scan`, and no frame before says it".into()));
            };
            let task = header.task(scan);
            check(&task)?;
            Ok(task)
        }
        newer => Err(EnvelopeError::Newer(newer)),
    }
}

/// The task of a header that stands alone, without the checks that reading a lane makes.
pub(crate) fn header_alone(header: &[u8]) -> Option<Task> {
    let mut header: header::In = serde_json::from_slice(header).ok()?;
    let scan = header.scan.take()?;
    Some(header.task(Arc::new(scan)))
}

/// What [`decode`] asks of a task beyond its form, for one that never was a message.
///
/// # Errors
/// Its metadata is nested too deep.
pub fn check(task: &Task) -> Result<(), EnvelopeError> {
    if has_deep_metadata(task) {
        return Err(EnvelopeError::Header(format!("its metadata is nested deeper than {MAX_NESTING}")));
    }
    Ok(())
}

fn has_deep_metadata(task: &Task) -> bool {
    let metas = task.scan.roots.iter().map(|r| &r.payload_meta).chain([&task.payload_meta]);
    let asked = task.scan.roots.iter().map(|r| &r.location).chain([&task.location]).filter_map(|l| match l {
        Location::Remote(RemoteRef { place: Place::Archive { task, .. }, .. }) => Some(task),
        _ => None,
    });
    metas.map(|m| &m.extra_data).chain([&task.scan.request_meta.extra_data]).chain(asked).any(nests_too_deep)
}

fn uuid_at(bytes: &[u8], at: usize) -> Uuid {
    let mut id = [0_u8; 16];
    id.copy_from_slice(&bytes[at..at + 16]);
    Uuid::from_bytes(id)
}

fn length_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize
}

#[cfg(test)]
mod tests;
