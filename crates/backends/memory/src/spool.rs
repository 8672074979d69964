//! Bytes that are too many for memory, in files without a name.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use stoq_api::{Content, Fault, FaultKind};

/// A file that has grown to this is left to those who have something in it, and goes with the last of them.
const MAX_FILE: u64 = 64 << 20;

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
        self.append(bytes).map_err(|e| {
            let text = format!("what does not fit into memory cannot be written to a file in {}", self.dir.display());
            Fault::because(FaultKind::Unavailable, text, e)
        })
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<Content> {
        if self.end >= MAX_FILE {
            self.file = None;
        }
        let file = match &self.file {
            Some(file) => file,
            None => {
                self.end = 0;
                self.file.insert(Arc::new(tempfile::tempfile_in(&self.dir)?))
            }
        };
        file.write_all_at(bytes, self.end)?;
        let content = Content::File { file: Arc::clone(file), offset: self.end, len: bytes.len() as u64 };
        self.end += bytes.len() as u64;
        Ok(content)
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
        let away = Spool::new(dir.path().join("gone").into()).put(b"x").unwrap_err();
        assert_eq!(away.kind, FaultKind::Unavailable);
    }
}
