//! The folder of large payloads on their way: one for each process, so that several may share a data directory.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::{FlockOperation, flock};

/// A folder that no living process but this one uses.
pub(crate) struct Spool {
    path: PathBuf,
    /// The folder itself, locked: whoever can lock it finds that its owner is gone.
    _lock: File,
}

impl Spool {
    /// A new folder beneath `parent`. Folders that dead processes left there are removed.
    pub(crate) fn make(parent: &Path) -> Result<Self> {
        let make = || -> std::io::Result<(PathBuf, File)> {
            fs::create_dir_all(parent)?;
            for entry in fs::read_dir(parent)? {
                let path = entry?.path();
                let left = path.is_dir() && File::open(&path).is_ok_and(|dir| locked(&dir));
                if left {
                    fs::remove_dir_all(&path)?;
                }
            }
            let path = tempfile::Builder::new().prefix("process-").tempdir_in(parent)?.keep();
            let dir = File::open(&path)?;
            if !locked(&dir) {
                return Err(std::io::Error::other("another process locked it at once"));
            }
            Ok((path, dir))
        };
        let (path, lock) = make().with_context(|| format!("cannot make a spool folder in {}", parent.display()))?;
        Ok(Self { path, _lock: lock })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next process.
        fs::remove_dir_all(&self.path).ok();
    }
}

fn locked(dir: &File) -> bool {
    flock(dir, FlockOperation::NonBlockingLockExclusive).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_uses_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let left = parent.path().join("process-left");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("payload"), "x").unwrap();
        let mine = Spool::make(parent.path()).unwrap();
        assert!(!left.exists());
        fs::write(mine.path().join("payload"), "x").unwrap();
        let other = Spool::make(parent.path()).unwrap();
        assert!(mine.path().join("payload").exists() && mine.path() != other.path());
        let path = mine.path().to_owned();
        drop(mine);
        assert!(!path.exists());
    }
}
