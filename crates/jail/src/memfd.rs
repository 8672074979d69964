//! Large payloads as sealed memory files: filled while bytes arrive, then unchangeable for everyone who holds them.
//!
//! A sealed file is the one form in which a slot gets a large payload: its bytes are in memory once, however many slots
//! map them, and neither side can change or shorten them under the other (`memfd_create(2)`, `fcntl(2)` "File Sealing").
//!
//! What no slot gets and is too large to be kept in memory goes into a file without a name ([`Unnamed`]) and is mapped.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use stoq_api::Content;

/// Writes into a memory file that becomes a [`Content`] when all bytes are there.
#[derive(Debug)]
pub struct Writer {
    file: File,
    len: u64,
}

impl Writer {
    /// An empty memory file.
    ///
    /// # Errors
    /// The kernel gives none: no memory, or too many open files.
    pub fn new() -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // NOEXEC_SEAL keeps the bytes from ever being executed; kernels before 6.3 do not know it.
        let fd = match rustix::fs::memfd_create("payload", flags | MemfdFlags::NOEXEC_SEAL) {
            Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create("payload", flags)?,
            other => other?,
        };
        Ok(Self { file: fd.into(), len: 0 })
    }

    /// Bytes written so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Seals the file against every change and hands it out.
    ///
    /// # Errors
    /// The kernel refuses the seals.
    pub fn finish(self) -> io::Result<Content> {
        rustix::fs::fcntl_add_seals(&self.file, seals())?;
        Ok(Content::File { file: Arc::new(self.file), offset: 0, len: self.len })
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn seals() -> SealFlags {
    SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL
}

/// A part of a file that cannot change any more.
#[derive(Clone, Debug)]
pub(crate) struct Sealed {
    pub(crate) file: Arc<File>,
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

impl Sealed {
    /// `content` itself where it lies in a sealed memory file, else a sealed copy.
    pub(crate) fn of(content: &Content) -> io::Result<Self> {
        if let Content::File { file, offset, len } = content
            && rustix::fs::fcntl_get_seals(file).is_ok_and(|s| s.contains(seals()))
        {
            return Ok(Self { file: Arc::clone(file), offset: *offset, len: *len });
        }
        let mut writer = Writer::new()?;
        content.for_each_chunk(|chunk| writer.write_all(chunk))?;
        match writer.finish()? {
            Content::File { file, offset, len } => Ok(Self { file, offset, len }),
            Content::Bytes(_) => Err(io::Error::other("a memory file is a file")),
        }
    }
}

/// Bytes on their way into a file that nobody else can open. Once all are there they are read where they are: the kernel
/// keeps of them in memory what it has room for.
#[derive(Debug)]
pub struct Unnamed(BufWriter<File>);

impl Unnamed {
    /// An empty file in `dir`.
    ///
    /// # Errors
    /// There is no such folder, or no room in it.
    pub fn new(dir: &Path) -> io::Result<Self> {
        tempfile::tempfile_in(dir).map(BufWriter::new).map(Self)
    }

    /// All that was written.
    ///
    /// # Errors
    /// The last of it cannot be written, or the file not be mapped.
    pub fn finish(self) -> io::Result<Bytes> {
        let file = self.0.into_inner()?;
        match file.metadata()?.len() {
            0 => Ok(Bytes::new()),
            // Nobody else has the file, so it is as good as sealed.
            len => Ok(Bytes::from_owner(Listed::new(Map::new(&file, 0, len)?))),
        }
    }
}

/// The bytes of every [`Unnamed`] that is mapped: how many, by their address.
static LISTED: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());

/// A mapping that is listed for as long as it is there.
struct Listed(Map);

impl Listed {
    fn new(map: Map) -> Self {
        LISTED.lock().insert(map.bytes().as_ptr().addr(), map.len);
        Self(map)
    }
}

impl AsRef<[u8]> for Listed {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        // Before the kernel may give the address to another mapping.
        LISTED.lock().remove(&self.0.bytes().as_ptr().addr());
    }
}

/// Lets go of the memory behind `read`, where that is a part of what an [`Unnamed`] holds: its bytes are still there, and
/// come out of the file once more if they are read again. Who reads a large file from its start to its end so has no more
/// of it in memory than he has just read. Does nothing to any other bytes.
pub fn let_go(read: &[u8]) {
    let page = rustix::param::page_size();
    let (from, to) = (read.as_ptr().addr(), read.as_ptr().addr() + read.len());
    let listed = LISTED.lock();
    let Some((start, len)) = listed.range(..=from).next_back() else { return };
    // The last page of a mapping is all its own, and so is its first.
    let end = if to == start + len { to.next_multiple_of(page) } else { to / page * page };
    let from = from / page * page;
    if to > start + len || from >= end {
        return;
    }
    // SAFETY: as long as the list is locked, these are pages of one mapping of a file, read-only and private, which nobody
    // has written to. Without them, reading its bytes gives what the file has, and nobody can change that. An error means
    // that they stay.
    unsafe { rustix::mm::madvise((from as *mut u8).cast(), end - from, Advice::LinuxDontNeed) }.ok();
}

impl Write for Unnamed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A read-only view of a part of a file.
pub(crate) struct Map {
    base: NonNull<u8>,
    mapped: NonZeroUsize,
    skip: usize,
    len: usize,
}

// SAFETY: the mapping is read-only and private to this value; nothing about it is bound to a thread.
unsafe impl Send for Map {}

impl Map {
    /// Maps `len` bytes of `file` from `offset`. The file must be sealed against shrinking, or the first read beyond its
    /// end is a SIGBUS: [`Sealed`] is, and so is what the supervisor sends to a slot; nobody can shorten an [`Unnamed`].
    pub(crate) fn new(file: impl AsFd, offset: u64, len: u64) -> io::Result<Self> {
        let page = rustix::param::page_size() as u64;
        let skip = offset % page;
        let mapped = usize::try_from(skip.saturating_add(len)).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mapped = NonZeroUsize::new(mapped).ok_or(io::ErrorKind::InvalidInput)?;
        if rustix::fs::fstat(&file).is_ok_and(|s| offset.saturating_add(len) > s.st_size as u64) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // SAFETY: a new private read-only mapping at an address that the kernel chooses touches no existing memory; the
        // length is not zero and the offset is a multiple of the page size.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                mapped.get(),
                ProtFlags::READ,
                MapFlags::PRIVATE,
                file,
                offset - skip,
            )
        }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, mapped, skip: skip as usize, len: mapped.get() - skip as usize })
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `skip + len` bytes from `base` are mapped readable until drop, and the file behind them is sealed, so
        // they neither change nor vanish.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(self.skip), self.len) }
    }
}

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: exactly the range that `new` mapped; no slice of it outlives `self`.
        // Unmapping a whole mapping does not fail, and there is nothing to do if it did.
        unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.mapped.get()) }.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_bytes_cannot_be_changed_and_are_not_copied_again() {
        let mut writer = Writer::new().unwrap();
        writer.write_all(&[7; 10_000]).unwrap();
        let content = writer.finish().unwrap();
        let sealed = Sealed::of(&content).unwrap();
        let Content::File { file, .. } = &content else { panic!("not a file") };
        assert!(Arc::ptr_eq(file, &sealed.file));
        assert!(file.set_len(1).is_err());
        assert!((&**file).write_all(b"x").is_err());
        let part = Map::new(&*sealed.file, 5_000, 3_000).unwrap();
        assert_eq!(part.bytes(), &[7; 3_000][..]);
        assert!(Map::new(&*sealed.file, 5_000, 6_000).is_err());
    }

    #[test]
    fn what_is_in_a_file_without_a_name_outlives_its_writer() {
        let dir = tempfile::tempdir().unwrap();
        for len in [0, 1, 100_000] {
            let all: Vec<u8> = (0..len).map(|n: usize| n.to_le_bytes()[0]).collect();
            let mut file = Unnamed::new(dir.path()).unwrap();
            all.chunks(777).for_each(|part| file.write_all(part).unwrap());
            let bytes = file.finish().unwrap();
            assert_eq!(bytes, all);
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
        assert!(Unnamed::new(&dir.path().join("none")).is_err());
    }

    #[test]
    fn what_is_let_go_of_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let all: Vec<u8> = (0..100_000).map(|n: usize| n.to_le_bytes()[1]).collect();
        let mut file = Unnamed::new(dir.path()).unwrap();
        file.write_all(&all).unwrap();
        let bytes = file.finish().unwrap();
        for part in [0..100_000, 0..0, 0..1, 5_000..5_001, 4_096..8_192, 100..90_000, 99_999..100_000] {
            let_go(&bytes[part.clone()]);
            assert_eq!(bytes, all, "{part:?}");
        }
        // Of bytes that are nowhere else nothing is lost.
        let own = all.clone();
        let_go(&own);
        assert_eq!(own, all);
        let known = bytes.as_ptr().addr();
        drop(bytes);
        // Tests beside this one may have got the address since.
        assert_ne!(LISTED.lock().get(&known), Some(&all.len()));
    }

    #[test]
    fn other_content_is_copied() {
        let sealed = Sealed::of(&Content::from(vec![1, 2, 3])).unwrap();
        assert_eq!(Map::new(&*sealed.file, sealed.offset, sealed.len).unwrap().bytes(), [1, 2, 3]);
    }
}
