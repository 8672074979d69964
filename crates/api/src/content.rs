//! A payload's bytes: in memory when small, in a sealed or private file when large.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

use crate::digest::{Sha256, Sha256Builder};

/// Bytes that can be handed on without a copy.
#[derive(Clone, Debug)]
pub enum Content {
    /// In memory.
    Bytes(Bytes),
    /// A part of an open file that nobody changes any more: a sealed memfd, or a spool file without a name.
    File {
        /// The open file; only positioned reads are used, so clones do not disturb each other.
        file: Arc<File>,
        /// Where the content starts.
        offset: u64,
        /// Its length in bytes.
        len: u64,
    },
}

/// Bytes read at a time from a [`Content::File`].
const CHUNK: usize = 256 << 10;

impl Content {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { len, .. } => *len,
        }
    }

    /// No bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads it from the start, a piece at a time.
    pub fn reader(&self) -> Reader<'_> {
        Reader { content: self, at: 0 }
    }

    /// Hands all bytes, in order and in pieces, to `take`; blocks while it reads.
    ///
    /// # Errors
    /// The file cannot be read, ends early, or `take` fails.
    pub fn for_each_chunk(&self, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        match self {
            Self::Bytes(bytes) => take(bytes),
            Self::File { file, offset, len } => {
                let mut buffer = vec![0_u8; CHUNK.min(usize::try_from(*len).unwrap_or(CHUNK))];
                let mut at = 0;
                while at < *len {
                    let want = buffer.len().min(usize::try_from(*len - at).unwrap_or(CHUNK));
                    file.read_exact_at(&mut buffer[..want], *offset + at)?;
                    take(&buffer[..want])?;
                    at += want as u64;
                }
                Ok(())
            }
        }
    }

    /// The digest of all bytes; blocks while it reads.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn sha256(&self) -> io::Result<Sha256> {
        let mut builder = Sha256Builder::default();
        self.for_each_chunk(|chunk| {
            builder.update(chunk);
            Ok(())
        })?;
        Ok(builder.finish())
    }

    /// All bytes in memory; blocks while it reads. For content that is known to be small.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn to_bytes(&self) -> io::Result<Bytes> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.clone()),
            Self::File { file, offset, len } => {
                let mut all = vec![0_u8; usize::try_from(*len).map_err(|_| io::ErrorKind::FileTooLarge)?];
                file.read_exact_at(&mut all, *offset)?;
                Ok(all.into())
            }
        }
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}
/// Reads a [`Content`] from its start; reads of a file block.
pub struct Reader<'a> {
    content: &'a Content,
    at: u64,
}

impl io::Read for Reader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.content.len() - self.at).unwrap_or(usize::MAX);
        let room = left.min(into.len());
        let into = &mut into[..room];
        let read = match self.content {
            Content::Bytes(bytes) => {
                // No longer than what is left of bytes in memory.
                let start = self.at as usize;
                into.copy_from_slice(&bytes[start..start + into.len()]);
                into.len()
            }
            Content::File { file, offset, .. } => file.read_at(into, offset + self.at)?,
        };
        self.at += read as u64;
        Ok(read)
    }
}
