//! Bytes that are too many for memory, in files without a name.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use stoq_api::{Content, Fault, FaultKind};

/// A file that has grown to this is left to those who have something in it, and goes with the last of them.
const MAX_FILE: u64 = 64 << 20;
/// What is gathered before it is written.
const BUFFER: usize = 64 << 10;

/// Appends bytes to files in a folder.
pub(crate) struct Spool {
    dir: Arc<Path>,
    file: Option<Arc<File>>,
    end: u64,
}

impl Spool {
    /// Files in `dir`, none so far.
    pub(crate) fn new(dir: Arc<Path>) -> Self {
        Self { dir, file: None, end: 0 }
    }

    /// Keeps `bytes` until the content is dropped.
    ///
    /// # Errors
    /// [`FaultKind::Unavailable`]: the file cannot be made or written; a full disk may have room again.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<Content, Fault> {
        self.append(bytes).map_err(|e| self.away(e))
    }

    /// Why nothing can be kept.
    pub(crate) fn away(&self, error: io::Error) -> Fault {
        let text = format!("what does not fit into memory cannot be written to a file in {}", self.dir.display());
        Fault::because(FaultKind::Unavailable, text, error)
    }

    /// Keeps what `write` writes, which is never in memory as a whole. What was written before it failed is forgotten.
    pub(crate) fn write(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<Content> {
        let file = self.file()?;
        let offset = self.end;
        let mut out = BufWriter::with_capacity(BUFFER, Writer { file: &file, at: offset });
        write(&mut out)?;
        self.end = out.into_inner().map_err(io::IntoInnerError::into_error)?.at;
        Ok(Content::File { offset, len: self.end - offset, file })
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<Content> {
        let file = self.file()?;
        let offset = self.end;
        file.write_all_at(bytes, offset)?;
        self.end += bytes.len() as u64;
        Ok(Content::File { file, offset, len: bytes.len() as u64 })
    }

    /// The file for what comes next.
    fn file(&mut self) -> io::Result<Arc<File>> {
        if self.end >= MAX_FILE {
            self.file = None;
        }
        if let Some(file) = &self.file {
            return Ok(Arc::clone(file));
        }
        self.end = 0;
        Ok(Arc::clone(self.file.insert(Arc::new(tempfile::tempfile_in(&self.dir)?))))
    }
}

/// Writes from a place of a file on.
struct Writer<'a> {
    file: &'a File,
    at: u64,
}

impl Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write_at(bytes, self.at)?;
        self.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_from_every_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(dir.path().into());
        let piece = |n: u8| vec![n; 3 << 20];
        let kept: Vec<Content> = (0..50).map(|n| spool.put(&piece(n)).unwrap()).collect();
        for (n, content) in (0_u8..).zip(&kept) {
            assert_eq!(content.to_bytes().unwrap(), piece(n));
        }
        assert!(spool.end <= MAX_FILE + (3 << 20), "the file grows for ever");
        assert_eq!(dir.path().read_dir().unwrap().count(), 0, "a file has a name");
        let before = spool.end;
        let failed = spool.write(|out| {
            out.write_all(&piece(1))?;
            Err(io::ErrorKind::Other.into())
        });
        assert!(failed.is_err() && spool.end == before, "half of something is kept");
        let whole = spool.write(|out| (0..3).try_for_each(|n| out.write_all(&piece(n)))).unwrap();
        assert_eq!(whole.to_bytes().unwrap(), [piece(0), piece(1), piece(2)].concat());
        let away = Spool::new(dir.path().join("gone").into()).put(b"x").unwrap_err();
        assert_eq!(away.kind, FaultKind::Unavailable);
    }
}
