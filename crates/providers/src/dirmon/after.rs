//! What happens to a file once it was taken.

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, RenameFlags};
use rustix::io::Errno;
use stoq_api::scanner::BuildError;
use stoq_api::{Fault, FaultKind};
use stoq_runtime::files::{self, FileRoots, FileState};

use super::config::{AfterTaken, Config};

/// Names tried for a file whose own is in use in the directory it moves to.
const MAX_NAMES: u32 = 1_000;

/// What to do with taken files.
pub(super) struct After {
    what: AfterTaken,
    roots: Arc<FileRoots>,
    root: String,
    /// The watched directory beneath the root.
    base: PathBuf,
    move_to: PathBuf,
}

impl After {
    pub(super) fn new(config: &Config, roots: Arc<FileRoots>, root: String, base: PathBuf) -> Result<Self, BuildError> {
        let mut move_to = config.move_to.clone();
        if config.after == AfterTaken::Move {
            move_to = prepared(&config.source_dir, &move_to)
                .map_err(|why| BuildError(format!("move_to {:?}: {why}", config.move_to)))?;
        }
        Ok(Self { what: config.after, roots, root, base, move_to })
    }

    /// Files stay where they are, so workers may read them there.
    pub(super) fn keeps(&self) -> bool {
        self.what == AfterTaken::Keep
    }

    /// Deals with the file at `path` beneath the root, unless it is not the one that was taken any more; blocks.
    pub(super) fn apply(&self, path: &Path, state: &FileState) -> Result<(), Fault> {
        if self.keeps() {
            return Ok(());
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
        let dir = files::open_dir_beneath(self.roots.open_root(&self.root)?, parent)?;
        match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileState::of(&stat) == *state && FileType::from_raw_mode(stat.st_mode).is_file() => {}
            // Gone, or another version that will be taken in its turn.
            Ok(_) | Err(Errno::NOENT) => return Ok(()),
            Err(e) => return Err(failed(path, "looked at", e)),
        }
        if self.what == AfterTaken::Move {
            return self.put_away(&dir, path);
        }
        match rustix::fs::unlinkat(&dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(failed(path, "deleted", e)),
        }
    }

    /// Moves the file to the same place below `move_to`, under another name if its own is in use.
    fn put_away(&self, dir: &OwnedFd, path: &Path) -> Result<(), Fault> {
        let Some(name) = path.file_name() else { return Ok(()) };
        let target = self.move_to.join(path.strip_prefix(&self.base).unwrap_or(path));
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)
                .map_err(|e| Fault::because(FaultKind::Unavailable, format!("cannot make {parent:?}"), e))?;
        }
        for number in 0..MAX_NAMES {
            let mut to = target.clone().into_os_string();
            if number > 0 {
                to.push(format!(".{number}"));
            }
            match rustix::fs::renameat_with(dir, name, CWD, &to, RenameFlags::NOREPLACE) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(Errno::EXIST) => {}
                Err(e) => return Err(failed(path, "moved", e)),
            }
        }
        Err(failed(path, "moved", Errno::EXIST))
    }
}

fn failed(path: &Path, what: &str, error: Errno) -> Fault {
    Fault::because(FaultKind::Refused, format!("{path:?} was taken but cannot be {what}"), error)
}

/// The directory to move to, made if need be: not below the watched one, and on the same file system.
fn prepared(source_dir: &Path, move_to: &Path) -> Result<PathBuf, String> {
    std::fs::create_dir_all(move_to).map_err(|e| e.to_string())?;
    let move_to = move_to.canonicalize().map_err(|e| e.to_string())?;
    if move_to.starts_with(source_dir) {
        return Err("lies below source_dir, so that files would be taken again".to_owned());
    }
    let device = |path: &Path| path.metadata().map(|m| m.dev()).map_err(|e| e.to_string());
    if device(source_dir)? != device(&move_to)? {
        return Err("is not on the file system of source_dir, so that files cannot be moved in one step".to_owned());
    }
    Ok(move_to)
}
