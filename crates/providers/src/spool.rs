//! A stream read to its end: into memory while it is small, then into a file without a name.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use stoq_api::{BoundedReader, Content, Fault, FaultKind, OverLimit};

/// A stream that was read.
#[derive(Debug)]
pub(crate) enum Spooled {
    /// All of it.
    Whole(Content),
    /// More than allowed; the rest was not read.
    TooLarge {
        /// Bytes that were read at least.
        read: u64,
    },
}

/// Reads `input` to its end, but at most `most` bytes: up to `memory` into memory, more into a file in `dir` that has no
/// name and is gone when its last user is.
///
/// # Errors
/// [`FaultKind::Refused`] if the input cannot be read; [`FaultKind::Unavailable`] if the file cannot be written.
pub(crate) fn spool(input: impl Read, memory: u64, most: u64, dir: &Path) -> Result<Spooled, Fault> {
    let mut input = BoundedReader::new(input, most);
    let mut head = Vec::new();
    match (&mut input).take(memory.saturating_add(1)).read_to_end(&mut head) {
        Ok(_) if head.len() as u64 <= memory => return Ok(Spooled::Whole(head.into())),
        Ok(_) => {}
        Err(e) => return over_or(&e, most).ok_or_else(|| unread(e)),
    }
    let mut file = tempfile::tempfile_in(dir).map_err(|e| unwritten(dir, e))?;
    file.write_all(&head).map_err(|e| unwritten(dir, e))?;
    let mut chunk = vec![0; 256 << 10];
    let mut len = head.len() as u64;
    loop {
        match input.read(&mut chunk) {
            Ok(0) => return Ok(Spooled::Whole(Content::File { file: Arc::new(file), offset: 0, len })),
            Ok(got) => {
                file.write_all(&chunk[..got]).map_err(|e| unwritten(dir, e))?;
                len += got as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return over_or(&e, most).ok_or_else(|| unread(e)),
        }
    }
}

fn over_or(error: &io::Error, most: u64) -> Option<Spooled> {
    OverLimit::is(error).then_some(Spooled::TooLarge { read: most.saturating_add(1) })
}

fn unread(error: io::Error) -> Fault {
    Fault::because(FaultKind::Refused, "the input cannot be read to its end", error)
}

fn unwritten(dir: &Path, error: io::Error) -> Fault {
    Fault::because(FaultKind::Unavailable, format!("cannot spool a payload in {dir:?}"), error)
}
