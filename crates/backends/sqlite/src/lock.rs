//! One process for one data directory.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;

use stoq_api::{Fault, FaultKind};

/// The lock file's name in the data directory.
const LOCK: &str = "lock";
/// Characters of a lock file that are read: a process id.
const PID_DIGITS: u64 = 20;

/// Held as long as it lives; the kernel gives it free if the process dies.
pub(crate) struct LockFile {
    _file: File,
}

impl LockFile {
    /// Makes the directory if need be and takes its lock.
    pub(crate) fn take(directory: &Path) -> Result<Self, Fault> {
        let shown = directory.display();
        let wrong = |e: io::Error| {
            let text = format!("cannot use {shown} as data directory: name one that can be written");
            Fault::because(FaultKind::Misconfigured, text, e)
        };
        fs::create_dir_all(directory).map_err(wrong)?;
        let path = directory.join(LOCK);
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(wrong)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let owner =
                    owner(&mut file).map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
                let text = format!("data directory {shown} is in use by {owner}: stop it, or name another directory");
                return Err(Fault::new(FaultKind::Misconfigured, text));
            }
            Err(TryLockError::Error(e)) => return Err(wrong(e)),
        }
        // Only to be told to whoever comes second.
        let told = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
        told.map_err(wrong)?;
        Ok(Self { _file: file })
    }
}

fn owner(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(PID_DIGITS).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_owner_is_told_of_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let first = LockFile::take(&data).unwrap();
        let refused = LockFile::take(&data).map(drop).unwrap_err();
        assert_eq!(refused.kind, FaultKind::Misconfigured);
        let text = refused.to_string();
        assert!(text.contains(&data.display().to_string()), "{text}");
        assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
        drop(first);
        LockFile::take(&data).map(drop).unwrap();
    }
}
