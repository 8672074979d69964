//! What was taken, over restarts: a file of 16-byte keys that grows, and is written anew when most of it is stale.
//!
//! A lost key costs a second scan with the same ids, which changes nothing; so nothing is flushed, and a torn end of the
//! file is cut off.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use stoq_api::Sha256;
use stoq_runtime::files::FileState;

use crate::Context;
use crate::take::identity;

/// The file's first bytes.
const MAGIC: &[u8; KEY] = b"stoq taken v1\n\n\n";
/// Files remembered, at some 24 bytes of memory each. Beyond it the operator has to clear the directory.
pub(crate) const MAX_KNOWN: usize = 16 << 20;
/// Stale keys that are not worth writing the file anew.
const SLACK: u64 = 4_096;
/// Bytes of a key.
const KEY: usize = 16;

/// Stands for one version of one file: the head of the SHA-256 of its identity.
pub(crate) type Key = [u8; KEY];

/// The key of a file at `path` that looks so; each `run` has its own where each scans anew.
pub(crate) fn key(path: &Path, state: &FileState, run: &str) -> Key {
    let digest = Sha256::of(&identity(path, state, run));
    let mut key = [0; KEY];
    key.copy_from_slice(&digest.as_bytes()[..KEY]);
    key
}

/// Where a provider of this `kind` remembers.
pub(crate) fn path(context: &Context, kind: &str) -> PathBuf {
    context.data_dir.join(format!("{kind}-{}.taken", file_name(&context.name)))
}

/// A source's name as a part of a file name: letters, digits, `-` and `_` as they are, other bytes in hexadecimal.
fn file_name(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02x}"));
        }
    }
    out
}

/// Keys of files that were taken, each with the last listing that saw the file.
pub(crate) struct Memory {
    path: PathBuf,
    file: File,
    keys: HashMap<Key, u32>,
    listing: u32,
    /// Keys in the file.
    written: u64,
}

impl Memory {
    /// What is remembered at `path`; `None` if nothing ever was.
    pub(crate) fn load(path: &Path) -> io::Result<Option<Self>> {
        let file = match OpenOptions::new().read(true).append(true).open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut reader = BufReader::new(&file);
        let mut key = [0; KEY];
        if reader.read_exact(&mut key).is_err() || key != *MAGIC {
            let text = "not a list of taken files of this version; move it away to start anew";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let mut keys = HashMap::new();
        let mut written = 0;
        while keys.len() < MAX_KNOWN && reader.read_exact(&mut key).is_ok() {
            keys.insert(key, 0);
            written += 1;
        }
        // A torn key at the end would put all that follow out of step.
        file.set_len((written + 1) * KEY as u64)?;
        Ok(Some(Self { path: path.to_owned(), file, keys, listing: 0, written }))
    }

    /// Remembers `keys` from now on. The file appears whole or not at all.
    pub(crate) fn create(path: &Path, keys: impl IntoIterator<Item = Key>) -> io::Result<Self> {
        let keys: HashMap<Key, u32> = keys.into_iter().map(|key| (key, 0)).collect();
        let file = write_whole(path, keys.keys())?;
        let written = keys.len() as u64;
        Ok(Self { path: path.to_owned(), file, keys, listing: 0, written })
    }

    /// Whether the file was taken; notes that it is there still.
    pub(crate) fn knows(&mut self, key: &Key) -> bool {
        match self.keys.get_mut(key) {
            Some(listing) => {
                *listing = self.listing;
                true
            }
            None => false,
        }
    }

    /// No more can be remembered.
    pub(crate) fn is_full(&self) -> bool {
        self.keys.len() >= MAX_KNOWN
    }

    /// The file was taken.
    pub(crate) fn add(&mut self, key: Key) -> io::Result<()> {
        if self.keys.insert(key, self.listing).is_none() {
            self.written += 1;
            self.file.write_all(&key)?;
        }
        Ok(())
    }

    /// A listing begins.
    pub(crate) fn begin_listing(&mut self) {
        self.listing = self.listing.wrapping_add(1);
    }

    /// The listing saw every file: what neither it nor the one before saw is there no more.
    pub(crate) fn end_listing(&mut self) -> io::Result<()> {
        let listing = self.listing;
        self.keys.retain(|_, seen| listing.wrapping_sub(*seen) <= 1);
        if self.written > 2 * self.keys.len() as u64 + SLACK {
            self.file = write_whole(&self.path, self.keys.keys())?;
            self.written = self.keys.len() as u64;
        }
        Ok(())
    }
}

fn write_whole<'a>(path: &Path, keys: impl Iterator<Item = &'a Key>) -> io::Result<File> {
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir)?;
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    let mut writer = BufWriter::new(&mut file);
    writer.write_all(MAGIC)?;
    for key in keys {
        writer.write_all(key)?;
    }
    writer.flush()?;
    drop(writer);
    file.persist(path)?;
    OpenOptions::new().append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(n: u32) -> Key {
        key(Path::new("f"), &FileState { size: n.into(), mtime_ns: 0, inode: 0 }, "")
    }

    #[test]
    fn keys_survive_a_restart_and_a_torn_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/taken");
        assert!(Memory::load(&path).unwrap().is_none());
        Memory::create(&path, [of(1)]).unwrap().add(of(2)).unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"torn").unwrap();
        let mut memory = Memory::load(&path).unwrap().unwrap();
        memory.add(of(3)).unwrap();
        let mut memory = Memory::load(&path).unwrap().unwrap();
        assert_eq!([1, 2, 3, 4].map(|n| memory.knows(&of(n))), [true, true, true, false]);
        std::fs::write(&path, "something else").unwrap();
        assert!(Memory::load(&path).is_err());
    }

    #[test]
    fn what_is_gone_is_forgotten_and_the_file_stays_small() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("taken");
        let mut memory = Memory::create(&path, []).unwrap();
        for n in 0..10_000 {
            memory.add(of(n)).unwrap();
        }
        for _ in 0..2 {
            memory.begin_listing();
            assert!(memory.knows(&of(7)));
            memory.end_listing().unwrap();
        }
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 32);
        memory.add(of(8)).unwrap();
        let mut memory = Memory::load(&path).unwrap().unwrap();
        assert!(memory.knows(&of(7)) && memory.knows(&of(8)) && !memory.knows(&of(9)));
    }
}
