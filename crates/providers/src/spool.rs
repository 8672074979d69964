//! A stream read to its end: into memory while it is small, then into a file without a name.

use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt as _;
use stoq_api::fetch::{FetchedBytes, Fetching};
use stoq_api::{BoundedReader, Content, Fault, FaultKind, OverLimit};
use tokio::io::AsyncWriteExt as _;

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

/// As [`spool`], for what is fetched: reads it to its end, but at most `most` bytes.
///
/// # Errors
/// As the stream's; [`FaultKind::Unavailable`] if the file cannot be written.
pub(crate) async fn spool_stream(fetching: Fetching, memory: u64, most: u64, dir: &Path) -> Result<Spooled, Fault> {
    if let Some(size) = fetching.size.filter(|size| *size > most) {
        return Ok(Spooled::TooLarge { read: size });
    }
    let mut stream = match fetching.bytes {
        FetchedBytes::Stream(stream) => stream,
        FetchedBytes::Whole(content) => return copy(content, memory, most, dir).await,
    };
    let mut head = Vec::new();
    let mut file: Option<tokio::fs::File> = None;
    let mut len = 0;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        len += chunk.len() as u64;
        if len > most {
            return Ok(Spooled::TooLarge { read: len });
        }
        if file.is_none() && len <= memory {
            head.extend_from_slice(&chunk);
            continue;
        }
        let out = match &mut file {
            Some(out) => out,
            none => {
                let mut new = tokio::fs::File::from_std(tempfile::tempfile_in(dir).map_err(|e| unwritten(dir, e))?);
                new.write_all(&std::mem::take(&mut head)).await.map_err(|e| unwritten(dir, e))?;
                none.insert(new)
            }
        };
        out.write_all(&chunk).await.map_err(|e| unwritten(dir, e))?;
    }
    let Some(mut file) = file else { return Ok(Spooled::Whole(head.into())) };
    file.flush().await.map_err(|e| unwritten(dir, e))?;
    Ok(Spooled::Whole(Content::File { file: Arc::new(file.into_std().await), offset: 0, len }))
}

/// A copy of what somebody else may still write to.
async fn copy(content: Content, memory: u64, most: u64, dir: &Path) -> Result<Spooled, Fault> {
    let dir = dir.to_owned();
    let copied = tokio::task::spawn_blocking(move || match content {
        Content::Bytes(bytes) if bytes.len() as u64 <= most => Ok(Spooled::Whole(bytes.into())),
        Content::Bytes(bytes) => Ok(Spooled::TooLarge { read: bytes.len() as u64 }),
        Content::File { file, offset, len } => {
            spool(Part { file: &file, at: offset, end: offset + len }, memory, most, &dir)
        }
    });
    copied.await.map_err(|e| Fault::because(FaultKind::Unavailable, "copying a payload stopped", e))?
}

/// A part of a file as a stream.
struct Part<'a> {
    file: &'a std::fs::File,
    at: u64,
    end: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let want = buffer.len().min(left);
        let got = self.file.read_at(&mut buffer[..want], self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}
