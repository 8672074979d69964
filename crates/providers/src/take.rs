//! One file made into a root of a reference.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use stoq_api::plugin::{Root, RootBytes};
use stoq_api::task::{FileRef, RawPath};
use stoq_api::{Content, Fault, FaultKind, PayloadMeta, fault};
use stoq_runtime::files::{self, FileState, OpenFile};

use crate::Context;
use crate::spool::{Spooled, spool};

/// Readings of a file that changes while it is read, and of one that the system cannot give now.
const MAX_TRIES: u32 = 4;
/// Wait before the second try; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_millis(50);

/// What decides whether a file is read, left in place, or not scanned.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Files of at most this many bytes are read.
    pub(crate) inline: u64,
    /// Files of more bytes are not scanned.
    pub(crate) max_payload: u64,
}

/// A file that was taken.
pub(crate) struct File {
    /// What it was.
    pub(crate) state: FileState,
    /// Its bytes.
    pub(crate) bytes: RootBytes,
}

/// Why a file was not taken.
#[derive(Debug)]
pub(crate) enum NotTaken {
    /// It is gone.
    Gone,
    /// It changed each time that it was read; this is what it was at the last.
    Changing(FileState),
}

/// Takes the file at `path` beneath `root`, whose name for workers is `name`. What will not go away by asking again makes
/// [`RootBytes::Unreadable`]; waits for what may.
pub(crate) fn take(root: impl AsFd, name: &str, path: &Path, limits: &Limits) -> Result<File, NotTaken> {
    let mut wait = FIRST_WAIT;
    let mut attempt = 0;
    loop {
        attempt += 1;
        let last = attempt >= MAX_TRIES;
        match once(root.as_fd(), name, path, limits) {
            Ok(Tried::Whole(file)) => return Ok(file),
            Ok(Tried::Changed(state)) if last => return Err(NotTaken::Changing(state)),
            Err(fault) if fault.kind == FaultKind::NotFound => return Err(NotTaken::Gone),
            Err(fault) if last || !fault.is_transient() => return unreadable(root.as_fd(), path, &fault),
            Ok(Tried::Changed(_)) | Err(_) => {
                std::thread::sleep(wait);
                wait *= 2;
            }
        }
    }
}

/// How one try ended.
enum Tried {
    Whole(File),
    /// The file changed under the reader.
    Changed(FileState),
}

fn once(root: impl AsFd, name: &str, path: &Path, limits: &Limits) -> Result<Tried, Fault> {
    let open = files::open_beneath(root, path)?;
    let state = open.state;
    let bytes = if state.size > limits.max_payload {
        let reason = format!(
            "{} bytes are more than max_payload allows ({}): raise it to have such files scanned",
            state.size, limits.max_payload
        );
        RootBytes::Unreadable { reason, size: state.size }
    } else if state.size > limits.inline {
        in_place(name, path, state)
    } else {
        match read(open, limits.inline, path)? {
            Some(bytes) => RootBytes::Content(bytes),
            None => return Ok(Tried::Changed(state)),
        }
    };
    Ok(Tried::Whole(File { state, bytes }))
}

/// A reference to the file as it is.
pub(crate) fn in_place(root: &str, path: &Path, state: FileState) -> RootBytes {
    RootBytes::File(FileRef {
        root: root.to_owned(),
        path: RawPath::from_bytes(path.as_os_str().as_bytes()),
        size: state.size,
        mtime_ns: state.mtime_ns,
        inode: state.inode,
    })
}

/// A private copy of the file at `path` beneath `root`, which must be as in `state` all the while.
///
/// # Errors
/// It cannot be read, it changes, or the copy cannot be written.
pub(crate) fn copy(root: impl AsFd, path: &Path, state: &FileState, context: &Context) -> Result<RootBytes, Fault> {
    let open = files::open_beneath(root, path)?;
    let spooled = spool(&open.file, context.inline_limit, context.max_payload, &context.data_dir)?;
    match spooled {
        Spooled::Whole(content) if open.state == *state && open.state_now()? == *state => {
            Ok(RootBytes::Content(content))
        }
        _ => Err(Fault::new(FaultKind::Unavailable, "it changes while it is copied")),
    }
}

/// The whole content of at most `most` bytes; `None` if the file changed meanwhile.
fn read(open: OpenFile, most: u64, path: &Path) -> Result<Option<Content>, Fault> {
    let mut bytes = Vec::with_capacity(usize::try_from(open.state.size).unwrap_or(0));
    // One byte more than the file should have shows that it grew.
    (&open.file)
        .take(most.min(open.state.size) + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Fault::because(FaultKind::Unavailable, format!("{path:?} cannot be read"), e))?;
    let whole = bytes.len() as u64 == open.state.size && open.state_now()? == open.state;
    Ok(whole.then(|| bytes.into()))
}

fn unreadable(root: impl AsFd, path: &Path, fault: &Fault) -> Result<File, NotTaken> {
    // The reason matters more than the figures, which are there only if the directory can be searched.
    let state = match files::state_beneath(root, path) {
        Ok(state) => state,
        Err(e) if e.kind == FaultKind::NotFound => return Err(NotTaken::Gone),
        Err(_) => FileState { size: 0, mtime_ns: 0, inode: 0 },
    };
    Ok(File { state, bytes: RootBytes::Unreadable { reason: fault::chain(fault), size: state.size } })
}

/// The root of a reference, with the metadata that stoQ gives to files: `filename` and `source_dir`. Where either is not
/// UTF-8 it is shown with replacement characters, and its bytes stand beside it in hexadecimal under `…_hex`.
pub(crate) fn root_of(source_dir: Option<&Path>, filename: &Path, bytes: RootBytes) -> Root {
    let mut meta = PayloadMeta::default();
    for (key, path) in [("filename", Some(filename)), ("source_dir", source_dir)] {
        let Some(path) = path else { continue };
        let raw = path.as_os_str().as_bytes();
        meta.extra_data.insert(key.to_owned(), Value::from(path.to_string_lossy()));
        if let RawPath::Raw { bytes } = RawPath::from_bytes(raw) {
            meta.extra_data.insert(format!("{key}_hex"), Value::from(bytes));
        }
    }
    Root { bytes, meta }
}

/// What a file is to a scan id: its path, size, modification time and inode, and `run` where each run scans anew.
pub(crate) fn identity(path: &Path, state: &FileState, run: &str) -> Vec<u8> {
    let path = path.as_os_str().as_bytes();
    let mut identity = Vec::with_capacity(path.len() + run.len() + 48);
    // Lengths in front keep different parts apart.
    for part in [path, run.as_bytes()] {
        identity.extend_from_slice(&(part.len() as u64).to_le_bytes());
        identity.extend_from_slice(part);
    }
    identity.extend_from_slice(&state.size.to_le_bytes());
    identity.extend_from_slice(&state.mtime_ns.to_le_bytes());
    identity.extend_from_slice(&state.inode.to_le_bytes());
    identity
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;
    use crate::testing::{dir_fd, fifo};

    const LIMITS: Limits = Limits { inline: 8, max_payload: 100 };

    fn taken(dir: &Path, name: &str) -> Result<File, NotTaken> {
        take(dir_fd(dir), "r", Path::new(name), &LIMITS)
    }

    #[test]
    fn size_decides_how_a_file_travels() {
        let dir = tempfile::tempdir().unwrap();
        for size in [0, 8, 9, 100, 101] {
            std::fs::write(dir.path().join("f"), vec![7; size]).unwrap();
            let file = taken(dir.path(), "f").unwrap();
            assert_eq!(file.state.size, size as u64);
            match (size, file.bytes) {
                (0 | 8, RootBytes::Content(content)) => assert_eq!(content.to_bytes().unwrap(), vec![7; size]),
                (9 | 100, RootBytes::File(file)) => {
                    assert_eq!((file.root.as_str(), file.size), ("r", size as u64));
                    assert_eq!(file.path, RawPath::Text("f".into()));
                }
                (101, RootBytes::Unreadable { reason, size: 101 }) => {
                    assert_eq!(
                        reason,
                        "101 bytes are more than max_payload allows (100): raise it to have such files scanned"
                    );
                }
                (size, _) => panic!("{size} bytes"),
            }
        }
        assert!(matches!(taken(dir.path(), "gone"), Err(NotTaken::Gone)));
    }

    #[test]
    fn a_file_that_has_more_than_it_says_is_not_taken_as_whole() {
        // Files under /proc claim to be empty.
        assert!(matches!(taken(Path::new("/proc/self"), "status"), Err(NotTaken::Changing(_))));
    }

    #[test]
    fn what_takes_a_files_place_is_neither_followed_nor_waited_for() {
        type Replace = fn(&Path);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        let path = dir.path().join("f");
        let replacements: [(Replace, &str); 4] = [
            (|path| std::os::unix::fs::symlink("secret", path).unwrap(), "symbolic link"),
            (fifo, "is a named pipe"),
            (|path| drop(std::os::unix::net::UnixListener::bind(path).unwrap()), "is a socket"),
            (|path| std::fs::create_dir(path).unwrap(), "is a directory"),
        ];
        for (replace, what) in replacements {
            replace(&path);
            let RootBytes::Unreadable { reason, .. } = taken(dir.path(), "f").unwrap().bytes else {
                panic!("{what} was read")
            };
            assert!(reason.contains(what), "{reason}");
            std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path)).unwrap();
        }
    }

    #[test]
    fn a_file_that_is_rewritten_all_the_time_is_never_taken_half() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Replaced whole, in turn by two contents of different lengths.
                let mut turn = 0_usize;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let next = dir.path().join("next");
                    std::fs::write(&next, vec![b'a'; 4 + 4 * (turn % 2)]).unwrap();
                    std::fs::rename(&next, &path).unwrap();
                    turn += 1;
                }
            });
            while !path.exists() {
                std::thread::yield_now();
            }
            for _ in 0..200 {
                let file = taken(dir.path(), "f").unwrap();
                let RootBytes::Content(content) = file.bytes else { panic!("not read") };
                assert_eq!(content.len(), file.state.size);
                assert!(matches!(content.len(), 4 | 8), "{} bytes", content.len());
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }

    #[test]
    fn names_that_are_not_text_keep_their_bytes() {
        let name = Path::new(OsStr::from_bytes(b"a\xffb"));
        let root = root_of(Some(Path::new("/in")), name, RootBytes::Content(Vec::new().into()));
        let text = serde_json::to_string(&root.meta.extra_data).unwrap();
        assert_eq!(text, "{\"filename\":\"a\u{fffd}b\",\"filename_hex\":\"61ff62\",\"source_dir\":\"/in\"}");
    }
}
