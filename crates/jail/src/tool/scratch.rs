//! A tool's working directory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use stoq_api::scanner::Remaining;
use stoq_api::{Content, PackedMeta, PayloadMeta};
use tempfile::TempDir;

use super::{INPUT, ToolFile, ToolLimits};
use crate::children::{Children, Refused};
use crate::sandbox::NOBODY;

/// Bytes read at a time.
const CHUNK: usize = 64 << 10;
/// Greatest path that is looked at; the tool's own system calls take none that is longer.
const MAX_PATH: usize = 4096;

/// A directory that only the tool's user can enter. Dropping it removes it with all that is in it.
pub(super) struct Scratch(TempDir);

/// What is in a directory.
struct Found {
    files: Vec<(PathBuf, u64)>,
    entries: usize,
    bytes: u64,
}

impl Scratch {
    pub(super) fn new(base: &Path) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("tool-").tempdir_in(base)?;
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY))?;
        }
        Ok(Self(dir))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Puts the payload there in place of the last one.
    pub(super) fn fill(&self, content: &Content) -> io::Result<()> {
        let path = self.path().join(INPUT);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // A new file each time: nothing is written through what a tool may have put there.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
        content.for_each_chunk(|chunk| file.write_all(chunk))
    }

    /// Whether what the tool has written is more than it may. Called while it runs.
    pub(super) fn is_over(&self, limits: &ToolLimits) -> bool {
        let found = self.walk(limits.scratch_files);
        found.bytes > limits.scratch_bytes || found.entries > limits.scratch_files
    }

    /// Reads the files that a tool left that has ended.
    pub(super) fn collect(&self, limits: &ToolLimits, spool: &Path) -> io::Result<Vec<ToolFile>> {
        let mut found = self.walk(limits.scratch_files);
        found.files.sort();
        let remaining = Remaining { children: found.files.len() as u64, bytes: limits.scratch_bytes };
        let mut children = Children::new(remaining);
        for (path, _) in &found.files {
            take(&self.path().join(path), &mut children, spool).map_err(as_io)?;
        }
        let children = children.finish()?;
        let files = found.files.into_iter().zip(children);
        Ok(files.map(|((path, _), c)| ToolFile { path, content: c.content, sha256: c.sha256 }).collect())
    }

    /// Looks at no more than one entry above `most`. The tool may be at work: what vanishes meanwhile is passed over.
    fn walk(&self, most: usize) -> Found {
        let mut found = Found { files: Vec::new(), entries: 0, bytes: 0 };
        let mut left = vec![PathBuf::new()];
        while let Some(dir) = left.pop() {
            for entry in fs::read_dir(self.path().join(&dir)).into_iter().flatten().flatten() {
                let path = dir.join(entry.file_name());
                let Ok(metadata) = entry.metadata() else { continue };
                if path == Path::new(INPUT) || path.as_os_str().len() > MAX_PATH {
                    continue;
                }
                found.entries += 1;
                if metadata.is_dir() {
                    left.push(path);
                } else if metadata.is_file() {
                    found.bytes += metadata.len().max(metadata.blocks() * 512);
                    found.files.push((path, metadata.len()));
                }
                if found.entries > most {
                    return found;
                }
            }
        }
        found
    }
}

fn take(path: &Path, children: &mut Children, spool: &Path) -> Result<(), Refused> {
    // Neither a link nor a pipe can be here, and if one were it would not be followed or waited for.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut file: File = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(Refused::Spool)?;
    children.open(0, PackedMeta::from(&PayloadMeta::default()), 0)?;
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk).map_err(Refused::Spool)? {
            0 => break,
            n => children.data(&chunk[..n], spool)?,
        }
    }
    children.close(true)
}

fn as_io(refused: Refused) -> io::Error {
    match refused {
        Refused::Spool(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}
