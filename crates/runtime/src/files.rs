//! Regular files beneath named directories, opened so that no name, link or special file leads anywhere else.
//!
//! Providers and workers both use this: a provider when it takes a file, a worker when it fetches one that was left in
//! place. Nothing is decided on a name; every check is made on the open descriptor.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use stoq_api::task::{FileRef, RawPath};
use stoq_api::{Fault, FaultKind};

/// Tries of one `openat2` that the kernel could not finish safely because something was renamed meanwhile (`EAGAIN`).
const MAX_RACES: usize = 16;
/// Most components of a path beneath a root.
const MAX_COMPONENTS: usize = 256;

/// Directories by name, beneath which files may be read.
///
/// Only the path is kept, and the directory opened anew for each file: a file system that is mounted again, or a
/// directory that is rotated, needs no restart.
#[derive(Debug, Default)]
pub struct FileRoots {
    roots: RwLock<BTreeMap<String, PathBuf>>,
}

impl FileRoots {
    /// Adds a root. The path is the operator's and may go through links; it is resolved here, once.
    ///
    /// # Errors
    /// [`FaultKind::Misconfigured`] if it is not a directory, or the name stands for another one already.
    pub fn add(&self, name: &str, path: &Path) -> Result<(), Fault> {
        let resolved = path
            .canonicalize()
            .map_err(|e| Fault::because(FaultKind::Misconfigured, format!("file root {name}: {path:?}"), e))?;
        if !resolved.is_dir() {
            return Err(Fault::new(FaultKind::Misconfigured, format!("file root {name}: {path:?} is not a directory")));
        }
        let mut roots = self.roots.write().unwrap_or_else(PoisonError::into_inner);
        match roots.get(name) {
            Some(known) if *known != resolved => Err(Fault::new(
                FaultKind::Misconfigured,
                format!("file root {name}: cannot be {resolved:?}, it is {known:?} already"),
            )),
            _ => {
                roots.insert(name.to_owned(), resolved);
                Ok(())
            }
        }
    }

    /// Where a root is.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.roots.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The innermost root that holds `path` (absolute and resolved), and the rest of the path.
    pub fn holding(&self, path: &Path) -> Option<(String, PathBuf)> {
        let roots = self.roots.read().unwrap_or_else(PoisonError::into_inner);
        let (name, root) =
            roots.iter().filter(|(_, root)| path.starts_with(root)).max_by_key(|(_, root)| root.as_os_str().len())?;
        Some((name.clone(), path.strip_prefix(root).ok()?.to_owned()))
    }

    /// Opens the regular file at `path` beneath the root `name`.
    ///
    /// # Errors
    /// [`FaultKind::Misconfigured`] if there is no such root; [`FaultKind::NotFound`]; [`FaultKind::Refused`] if the path
    /// leaves the root, goes through a link, is not a regular file, or may not be read; [`FaultKind::Unavailable`] when
    /// the file system or this process is short of something for now.
    pub fn open(&self, name: &str, path: &RawPath) -> Result<OpenFile, Fault> {
        let dir = self.open_root(name)?;
        let Some(bytes) = path.to_bytes() else {
            return Err(Fault::new(FaultKind::Refused, format!("file root {name}: the path is not hexadecimal")));
        };
        open_beneath(&dir, Path::new(OsStr::from_bytes(&bytes)))
    }

    /// Opens the file of a reference. The second value says how it differs from what the reference says of it, if it does.
    ///
    /// # Errors
    /// As for [`FileRoots::open`].
    pub fn open_ref(&self, file: &FileRef) -> Result<(OpenFile, Option<String>), Fault> {
        let open = self.open(&file.root, &file.path)?;
        let difference = open.state.difference(file);
        Ok((open, difference))
    }

    /// Opens the directory of a root.
    ///
    /// # Errors
    /// [`FaultKind::Misconfigured`] if there is no such root; [`FaultKind::Unavailable`] if its directory is away.
    pub fn open_root(&self, name: &str) -> Result<OwnedFd, Fault> {
        let Some(path) = self.path(name) else {
            return Err(Fault::new(FaultKind::Misconfigured, format!("there is no file root {name:?}")));
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, &path, flags, Mode::empty())
            .map_err(|e| Fault::because(FaultKind::Unavailable, format!("file root {name}: {path:?}"), e))
    }
}

/// An open regular file.
#[derive(Debug)]
pub struct OpenFile {
    /// The file, open for reading.
    pub file: File,
    /// What it was when it was opened.
    pub state: FileState,
}

impl OpenFile {
    /// What the file is now; differs from [`OpenFile::state`] if somebody wrote to it meanwhile.
    ///
    /// # Errors
    /// The file system failed.
    pub fn state_now(&self) -> Result<FileState, Fault> {
        let stat = rustix::fs::fstat(&self.file)
            .map_err(|e| Fault::because(FaultKind::Unavailable, "cannot look at an open file", e))?;
        Ok(FileState::of(&stat))
    }
}

/// What tells one version of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileState {
    /// Size in bytes.
    pub size: u64,
    /// Modification time, nanoseconds since the epoch.
    pub mtime_ns: i128,
    /// Inode number.
    pub inode: u64,
}

impl FileState {
    /// The state that `stat` shows.
    #[expect(clippy::useless_conversion, reason = "the types of these fields differ between architectures")]
    pub fn of(stat: &Stat) -> Self {
        Self {
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime_ns: i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec),
            inode: u64::from(stat.st_ino),
        }
    }

    /// How the file differs from what a reference says of it, for a person. The inode alone does not count: it differs
    /// between the hosts of a shared file system.
    pub fn difference(&self, file: &FileRef) -> Option<String> {
        if self.size != file.size {
            Some(format!("the file has {} bytes, its reference says {}", self.size, file.size))
        } else if self.mtime_ns != file.mtime_ns {
            Some("the file was modified after its reference was taken".to_owned())
        } else {
            None
        }
    }
}

/// Opens the regular file at `path` beneath the directory `dir`.
///
/// # Errors
/// As for [`FileRoots::open`].
pub fn open_beneath(dir: impl AsFd, path: &Path) -> Result<OpenFile, Fault> {
    // Without O_NONBLOCK a named pipe that takes a file's place would block the open for ever.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = open_at(dir.as_fd(), path, flags).map_err(|e| fault_of(e, path))?;
    let stat = regular(&fd, path)?;
    Ok(OpenFile { file: File::from(fd), state: FileState::of(&stat) })
}

/// The metadata of an open file, if it is a regular one.
fn regular(fd: &OwnedFd, path: &Path) -> Result<Stat, Fault> {
    let stat = rustix::fs::fstat(fd).map_err(|e| fault_of(e, path))?;
    match special(FileType::from_raw_mode(stat.st_mode)) {
        None => Ok(stat),
        Some(kind) => Err(Fault::new(FaultKind::Refused, format!("{path:?} is {kind}, not a regular file"))),
    }
}

/// What the regular file at `path` beneath the directory `dir` is, without opening it for reading: works for a file that
/// may not be read, and touches no device.
///
/// # Errors
/// As for [`FileRoots::open`].
pub fn state_beneath(dir: impl AsFd, path: &Path) -> Result<FileState, Fault> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = open_at(dir.as_fd(), path, flags).map_err(|e| fault_of(e, path))?;
    Ok(FileState::of(&regular(&fd, path)?))
}

/// Opens the directory at `path` beneath the directory `dir`, to list it; an empty path is `dir` itself.
///
/// # Errors
/// As for [`FileRoots::open`].
pub fn open_dir_beneath(dir: impl AsFd, path: &Path) -> Result<OwnedFd, Fault> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    open_at(dir.as_fd(), path, flags).map_err(|e| fault_of(e, path))
}

/// What a file that is not regular is, for a person; `None` for a regular one.
pub fn special(kind: FileType) -> Option<&'static str> {
    match kind {
        FileType::RegularFile => None,
        FileType::Directory => Some("a directory"),
        FileType::Symlink => Some("a symbolic link"),
        FileType::Fifo => Some("a named pipe"),
        FileType::Socket => Some("a socket"),
        FileType::CharacterDevice | FileType::BlockDevice => Some("a device"),
        _ => Some("of an unknown kind"),
    }
}

fn open_at(dir: rustix::fd::BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let mut races = 0;
    loop {
        match rustix::fs::openat2(dir, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) if races < MAX_RACES => races += 1,
            Err(Errno::INTR) => {}
            // Kernels before 5.6 and sandboxes that reimplement the kernel have no openat2.
            Err(Errno::NOSYS) => return open_by_steps(dir, path, flags),
            other => return other,
        }
    }
}

/// What `openat2` does with the flags used here, one component at a time.
fn open_by_steps(dir: rustix::fd::BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(name) if names.len() < MAX_COMPONENTS => names.push(name),
            Component::Normal(_) => return Err(Errno::NAMETOOLONG),
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return Err(Errno::XDEV),
        }
    }
    let last = names.pop().unwrap_or(OsStr::new("."));
    let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = rustix::fs::openat(dir, ".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for name in names {
        at = rustix::fs::openat(&at, name, step, Mode::empty()).map_err(|e| link_or(e, &at, name))?;
    }
    rustix::fs::openat(&at, last, flags, Mode::empty()).map_err(|e| link_or(e, &at, last))
}

/// With `O_DIRECTORY`, `O_NOFOLLOW` reports a link as "not a directory"; say what it is.
fn link_or(error: Errno, dir: &OwnedFd, name: &OsStr) -> Errno {
    let is_link = || {
        rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
    };
    if error == Errno::NOTDIR && is_link() { Errno::LOOP } else { error }
}

fn fault_of(error: Errno, path: &Path) -> Fault {
    let (kind, what) = match error {
        Errno::NOENT | Errno::NOTDIR => (FaultKind::NotFound, "does not exist (any more)"),
        Errno::LOOP => (FaultKind::Refused, "is or goes through a symbolic link"),
        Errno::XDEV => (FaultKind::Refused, "leaves its root"),
        Errno::ACCESS | Errno::PERM => (FaultKind::Refused, "may not be read by this user"),
        Errno::NXIO | Errno::NODEV => (FaultKind::Refused, "is a socket or device, not a regular file"),
        Errno::NAMETOOLONG | Errno::INVAL => (FaultKind::Refused, "has a path that the system does not take"),
        _ => (FaultKind::Unavailable, "cannot be opened now"),
    };
    Fault::because(kind, format!("{path:?} {what}"), error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn text(path: &str) -> RawPath {
        RawPath::Text(path.to_owned())
    }

    /// A root `r` with `in/ok`, links and a pipe; a secret beside it.
    fn tree() -> (tempfile::TempDir, FileRoots) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("in")).unwrap();
        std::fs::write(root.join("in/ok"), b"bytes").unwrap();
        std::fs::write(dir.path().join("secret"), b"secret").unwrap();
        symlink("/etc/passwd", root.join("passwd")).unwrap();
        symlink("ok", root.join("in/near")).unwrap();
        symlink("..", root.join("up")).unwrap();
        rustix::fs::mknodat(CWD, root.join("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let roots = FileRoots::default();
        roots.add("r", &root).unwrap();
        (dir, roots)
    }

    #[test]
    fn only_regular_files_beneath_the_root_open() {
        let (dir, roots) = tree();
        let open = roots.open("r", &text("in/ok")).unwrap();
        assert_eq!(open.state.size, 5);
        assert_eq!(open.state_now().unwrap(), open.state);
        let outside = dir.path().join("secret");
        for (path, kind) in [
            ("../secret", FaultKind::Refused),
            (outside.to_str().unwrap(), FaultKind::Refused),
            ("passwd", FaultKind::Refused),
            ("in/near", FaultKind::Refused),
            ("up/secret", FaultKind::Refused),
            ("pipe", FaultKind::Refused),
            ("in", FaultKind::Refused),
            ("gone", FaultKind::NotFound),
            ("in/ok/x", FaultKind::NotFound),
            ("", FaultKind::NotFound),
            ("in/ok\0", FaultKind::Refused),
        ] {
            assert_eq!(roots.open("r", &text(path)).unwrap_err().kind, kind, "{path}");
            let root = roots.open_root("r").unwrap();
            assert_eq!(state_beneath(&root, Path::new(path)).unwrap_err().kind, kind, "{path}");
        }
        assert_eq!(roots.open("other", &text("in/ok")).unwrap_err().kind, FaultKind::Misconfigured);
        assert_eq!(roots.open("r", &RawPath::Raw { bytes: "zz".into() }).unwrap_err().kind, FaultKind::Refused);
    }

    #[test]
    fn steps_agree_with_openat2() {
        let (dir, roots) = tree();
        let root = roots.open_root("r").unwrap();
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for path in
            ["in/ok", "./in/ok", "../secret", "passwd", "in/near", "up/secret", "gone", "in/ok/x", "/etc/passwd"]
        {
            let one = open_at(root.as_fd(), Path::new(path), flags).map(drop);
            let other = open_by_steps(root.as_fd(), Path::new(path), flags).map(drop);
            assert_eq!(one, other, "{path}");
        }
        drop(dir);
    }

    #[test]
    fn a_changed_file_is_told() {
        let (dir, roots) = tree();
        let state = roots.open("r", &text("in/ok")).unwrap().state;
        let file = FileRef {
            root: "r".into(),
            path: text("in/ok"),
            size: state.size,
            mtime_ns: state.mtime_ns,
            inode: state.inode,
        };
        assert!(roots.open_ref(&file).unwrap().1.is_none());
        std::fs::write(dir.path().join("root/in/ok"), b"other bytes").unwrap();
        assert_eq!(roots.open_ref(&file).unwrap().1.unwrap(), "the file has 11 bytes, its reference says 5");
    }

    #[test]
    fn names_stand_for_one_directory() {
        let (dir, roots) = tree();
        assert!(roots.add("r", dir.path()).is_err());
        assert!(roots.add("r", &dir.path().join("root/../root")).is_ok());
        assert!(roots.add("file", &dir.path().join("secret")).is_err());
        let inner = dir.path().join("root/in").canonicalize().unwrap();
        assert_eq!(roots.holding(&inner), Some(("r".to_owned(), PathBuf::from("in"))));
        assert_eq!(roots.holding(Path::new("/elsewhere")), None);
    }
}
