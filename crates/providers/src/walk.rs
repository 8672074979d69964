//! A walk over a directory tree in the order of names, in bounded memory however many names there are.
//!
//! A directory is read in passes. Each keeps the [`MAX_HELD`] least names behind the last one used, so a directory of ten
//! million files costs some forty passes over its listing and never more memory than one pass.

use std::collections::{BinaryHeap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType};
use stoq_api::{Fault, FaultKind, fault};
use stoq_runtime::files;

/// Names held at a time.
pub(crate) const MAX_HELD: usize = 262_144;
/// Directories below each other; the system's limit on paths ends most trees sooner.
const MAX_DEPTH: usize = 1_024;

/// Which entries a walk shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filter {
    /// Go into directories.
    pub(crate) recursive: bool,
    /// Show names that start with a dot, and go into such directories.
    pub(crate) hidden: bool,
}

/// What a walk finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A regular file, as far as its directory says. The path is beneath the walk's root.
    File(PathBuf),
    /// Something that is not a file that can be scanned, and why.
    Not(PathBuf, String),
    /// A directory that cannot be listed, or not to its end, and why.
    Unlisted(PathBuf, String),
}

/// The walk; an iterator.
pub(crate) struct Walk {
    root: OwnedFd,
    filter: Filter,
    levels: Vec<Level>,
    max_held: usize,
}

/// One directory on the way to where the walk is.
struct Level {
    dir: PathBuf,
    /// The last name used: a new pass goes on behind it.
    after: Option<OsString>,
    /// The next names.
    names: VecDeque<Entry>,
    /// Nothing lies behind `names`.
    complete: bool,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    name: OsString,
    // Only names order entries: they are distinct in a directory.
    is: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    File,
    Dir,
    Other(&'static str),
}

impl Walk {
    /// Walks the directory `base` beneath the open directory `root`.
    pub(crate) fn new(root: OwnedFd, base: PathBuf, filter: Filter) -> Self {
        let top = Level { dir: base, after: None, names: VecDeque::new(), complete: false };
        Self { root, filter, levels: vec![top], max_held: MAX_HELD }
    }

    /// Reads the next names of the innermost directory.
    fn refill(&mut self) -> Result<(), (PathBuf, String)> {
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        // Whatever fails, this directory is not asked again.
        level.complete = true;
        let failed = |e: Fault| (level.dir.clone(), format!("directory cannot be listed: {}", fault::chain(&e)));
        let dir = files::open_dir_beneath(&self.root, &level.dir).map_err(failed)?;
        let read = list(dir, level.after.as_deref(), self.filter.hidden, self.max_held).map_err(failed)?;
        level.names = read.names;
        level.complete = read.complete;
        self.let_go();
        match read.problem {
            Some(problem) => Err((self.levels.last().map(|l| l.dir.clone()).unwrap_or_default(), problem)),
            None => Ok(()),
        }
    }

    /// Forgets names of outer directories, which can be read again, when too many are held.
    fn let_go(&mut self) {
        let mut held: usize = self.levels.iter().map(|l| l.names.len()).sum();
        let inner = self.levels.len().saturating_sub(1);
        for level in &mut self.levels[..inner] {
            if held <= self.max_held {
                break;
            }
            held -= level.names.len();
            level.complete &= level.names.is_empty();
            level.names.clear();
        }
    }

    fn step(&mut self, name: OsString, is: Kind) -> Option<Found> {
        let level = self.levels.last_mut()?;
        let path = level.dir.join(&name);
        level.after = Some(name);
        match is {
            Kind::File => Some(Found::File(path)),
            Kind::Other(what) => Some(Found::Not(path, format!("is {what}, not a regular file"))),
            Kind::Dir if !self.filter.recursive => None,
            Kind::Dir if self.levels.len() >= MAX_DEPTH => {
                Some(Found::Unlisted(path, format!("lies deeper than {MAX_DEPTH} directories")))
            }
            Kind::Dir => {
                self.levels.push(Level { dir: path, after: None, names: VecDeque::new(), complete: false });
                None
            }
        }
    }
}

impl Iterator for Walk {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        loop {
            let level = self.levels.last_mut()?;
            if let Some(Entry { name, is }) = level.names.pop_front() {
                if let Some(found) = self.step(name, is) {
                    return Some(found);
                }
            } else if level.complete {
                self.levels.pop();
            } else if let Err((path, reason)) = self.refill() {
                return Some(Found::Unlisted(path, reason));
            }
        }
    }
}

/// One pass over a directory.
struct Pass {
    names: VecDeque<Entry>,
    complete: bool,
    problem: Option<String>,
}

/// The `most` least names of `dir` behind `after`, in order.
fn list(dir: OwnedFd, after: Option<&OsStr>, hidden: bool, most: usize) -> Result<Pass, Fault> {
    let away = |e| Fault::because(FaultKind::Unavailable, "reading failed", e);
    let mut reader = Dir::new(dir).map_err(away)?;
    let mut least = BinaryHeap::new();
    let mut complete = true;
    let mut problem = None;
    while let Some(entry) = reader.read() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(e) => {
                problem = Some(format!("directory cannot be listed to its end: {e}"));
                break;
            }
        };
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        let bytes = name.as_bytes();
        if matches!(bytes, b"." | b"..") || (!hidden && bytes.starts_with(b".")) {
            continue;
        }
        // A name that is greater than all that are held and fit is for a later pass.
        let full = least.len() >= most;
        if after.is_some_and(|a| name <= a) {
            continue;
        }
        if full && least.peek().is_some_and(|greatest: &Entry| name > greatest.name.as_os_str()) {
            complete = false;
            continue;
        }
        let is = kind_of(&reader, name, entry.file_type());
        least.push(Entry { name: OsString::from_vec(bytes.to_vec()), is });
        if full {
            least.pop();
            complete = false;
        }
    }
    Ok(Pass { names: least.into_sorted_vec().into(), complete, problem })
}

fn kind_of(dir: &Dir, name: &OsStr, listed: FileType) -> Kind {
    let kind = match listed {
        // Some file systems do not say it in the listing.
        FileType::Unknown => dir
            .fd()
            .and_then(|fd| rustix::fs::statat(fd, Path::new(name), AtFlags::SYMLINK_NOFOLLOW))
            .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode)),
        known => known,
    };
    match (kind, files::special(kind)) {
        (FileType::Directory, _) => Kind::Dir,
        (_, None) => Kind::File,
        (_, Some(what)) => Kind::Other(what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{dir_fd, fifo};

    fn walk(dir: &Path, recursive: bool, hidden: bool, max_held: usize) -> Vec<Found> {
        let mut walk = Walk::new(dir_fd(dir), PathBuf::new(), Filter { recursive, hidden });
        walk.max_held = max_held;
        walk.collect()
    }

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for path in ["b/z", "b/y/2", "b/y/1", "b/y/3", ".git/config"] {
            std::fs::create_dir_all(dir.path().join(path).parent().unwrap()).unwrap();
            std::fs::write(dir.path().join(path), path).unwrap();
        }
        for name in ["c", "a", "d", ".hidden"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        dir
    }

    fn files(paths: &[&str]) -> Vec<Found> {
        paths.iter().map(|p| Found::File(p.into())).collect()
    }

    #[test]
    fn order_does_not_depend_on_how_many_names_fit() {
        let dir = tree();
        let all = files(&["a", "b/y/1", "b/y/2", "b/y/3", "b/z", "c", "d"]);
        for max_held in [1, 2, 3, 100] {
            assert_eq!(walk(dir.path(), true, false, max_held), all, "{max_held} names held");
        }
        assert_eq!(walk(dir.path(), false, false, 2), files(&["a", "c", "d"]));
        let hidden = files(&[".git/config", ".hidden", "a", "b/y/1", "b/y/2", "b/y/3", "b/z", "c", "d"]);
        assert_eq!(walk(dir.path(), true, true, 2), hidden);
    }

    #[test]
    fn links_and_special_files_are_named_and_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("etc")).unwrap();
        fifo(&dir.path().join("pipe"));
        assert_eq!(
            walk(dir.path(), true, false, 10),
            [
                Found::Not("etc".into(), "is a symbolic link, not a regular file".into()),
                Found::Not("pipe".into(), "is a named pipe, not a regular file".into()),
            ]
        );
    }

    #[test]
    fn a_directory_that_is_gone_is_a_problem_and_not_the_end() {
        let dir = tree();
        let mut walk = Walk::new(dir_fd(dir.path()), PathBuf::new(), Filter { recursive: true, hidden: false });
        assert_eq!(walk.next(), Some(Found::File("a".into())));
        std::fs::remove_dir_all(dir.path().join("b")).unwrap();
        let Some(Found::Unlisted(path, reason)) = walk.next() else { panic!("no problem") };
        assert_eq!(path, Path::new("b"));
        assert!(reason.starts_with("directory cannot be listed: "), "{reason}");
        assert_eq!(walk.collect::<Vec<_>>(), files(&["c", "d"]));
    }
}
