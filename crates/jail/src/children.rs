//! Where an item's children are kept while they arrive: in memory up to a limit, then in a file without a name.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use stoq_api::digest::Sha256Builder;
use stoq_api::scanner::Remaining;
use stoq_api::{Content, PackedMeta, Sha256, SpentKind};

use crate::job::Child;
use crate::protocol::MAX_META_TOTAL;

/// Bytes of an item's children that stay in memory; the rest goes to the spool file.
pub const MAX_IN_MEMORY: usize = 1 << 20;
/// Greatest number of children of one item, whatever its budgets leave.
pub const MAX_CHILDREN: u64 = 1 << 20;
/// Buffer in front of the spool file.
const SPOOL_BUFFER: usize = 64 << 10;

/// Counts what an item produces against what its budgets leave. A slot and its supervisor count the same way, so that an
/// honest slot is told by its own count and never meets the supervisor's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meter {
    left: Remaining,
    meta: usize,
}

impl Meter {
    pub(crate) fn new(left: Remaining) -> Self {
        Self { left: Remaining { children: left.children.min(MAX_CHILDREN), ..left }, meta: MAX_META_TOTAL }
    }

    pub(crate) fn left(&self) -> Remaining {
        self.left
    }

    /// One more child with `meta` bytes of metadata.
    pub(crate) fn child(&mut self, meta: usize) -> Result<(), SpentKind> {
        let children = self.left.children.checked_sub(1).ok_or(SpentKind::Payloads)?;
        // Both or neither: what is refused changes no count.
        self.meta = self.meta.checked_sub(meta).ok_or(SpentKind::Bytes)?;
        self.left.children = children;
        Ok(())
    }

    /// `n` more bytes. They count even if their child is discarded later: they were produced.
    pub(crate) fn bytes(&mut self, n: usize) -> Result<(), SpentKind> {
        self.left.bytes = self.left.bytes.checked_sub(n as u64).ok_or(SpentKind::Bytes)?;
        Ok(())
    }

    /// The last child was discarded: it does not count.
    pub(crate) fn discarded(&mut self) {
        self.left.children += 1;
    }
}

/// Why a child is not taken.
#[derive(Debug)]
pub(crate) enum Refused {
    /// More than the budgets leave.
    Spent(SpentKind),
    /// Not at this point.
    Order(&'static str),
    /// The spool file cannot be written: not the emitter's fault.
    Spool(io::Error),
}

/// The children of one item.
pub(crate) struct Children {
    meter: Meter,
    in_memory: usize,
    open: Option<Open>,
    spool: Option<Spool>,
    done: Vec<Done>,
}

struct Open {
    plugin: u16,
    meta: PackedMeta,
    digest: Sha256Builder,
    place: Place,
}

#[derive(Debug)]
struct Done {
    plugin: u16,
    meta: PackedMeta,
    sha256: Sha256,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Memory(Vec<u8>),
    Spool { offset: u64, len: u64 },
}

#[derive(Debug)]
struct Spool {
    file: BufWriter<File>,
    end: u64,
}

impl Children {
    pub(crate) fn new(remaining: Remaining) -> Self {
        Self { meter: Meter::new(remaining), in_memory: 0, open: None, spool: None, done: Vec::new() }
    }

    pub(crate) fn remaining(&self) -> Remaining {
        self.meter.left()
    }

    /// A child of `plugin` begins; its metadata took `size` bytes on the wire.
    pub(crate) fn open(&mut self, plugin: u16, meta: PackedMeta, size: usize) -> Result<(), Refused> {
        if self.open.is_some() {
            return Err(Refused::Order("a child inside a child"));
        }
        self.meter.child(size).map_err(Refused::Spent)?;
        self.open = Some(Open { plugin, meta, digest: Sha256Builder::default(), place: Place::Memory(Vec::new()) });
        Ok(())
    }

    /// The open child's next bytes.
    pub(crate) fn data(&mut self, bytes: &[u8], spool_dir: &Path) -> Result<(), Refused> {
        let Some(open) = &mut self.open else { return Err(Refused::Order("bytes of no child")) };
        self.meter.bytes(bytes.len()).map_err(Refused::Spent)?;
        open.digest.update(bytes);
        match &mut open.place {
            Place::Memory(held) if self.in_memory + bytes.len() <= MAX_IN_MEMORY => {
                held.extend_from_slice(bytes);
                self.in_memory += bytes.len();
            }
            Place::Memory(held) => {
                let spool = Spool::of(&mut self.spool, spool_dir).map_err(Refused::Spool)?;
                let offset = spool.end;
                spool.append(held).and_then(|()| spool.append(bytes)).map_err(Refused::Spool)?;
                self.in_memory -= held.len();
                open.place = Place::Spool { offset, len: spool.end - offset };
            }
            Place::Spool { len, .. } => {
                let spool = Spool::of(&mut self.spool, spool_dir).map_err(Refused::Spool)?;
                spool.append(bytes).map_err(Refused::Spool)?;
                *len += bytes.len() as u64;
            }
        }
        Ok(())
    }

    /// The open child ends.
    pub(crate) fn close(&mut self, keep: bool) -> Result<(), Refused> {
        let Some(open) = self.open.take() else { return Err(Refused::Order("the end of no child")) };
        if keep {
            let Open { plugin, meta, digest, place } = open;
            self.done.push(Done { plugin, meta, sha256: digest.finish(), place });
            return Ok(());
        }
        self.meter.discarded();
        match (open.place, &mut self.spool) {
            (Place::Memory(held), _) => self.in_memory -= held.len(),
            (Place::Spool { offset, .. }, Some(spool)) => spool.rewind(offset).map_err(Refused::Spool)?,
            (Place::Spool { .. }, None) => {}
        }
        Ok(())
    }

    /// A child is open.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// All children that were kept, in order.
    pub(crate) fn finish(self) -> io::Result<Vec<Child>> {
        let file = match self.spool {
            Some(spool) => Some(Arc::new(spool.file.into_inner().map_err(io::IntoInnerError::into_error)?)),
            None => None,
        };
        let finished = |Done { plugin, meta, sha256, place }| {
            let content = match (place, &file) {
                (Place::Memory(held), _) => Content::Bytes(Bytes::from(held)),
                (Place::Spool { offset, len }, Some(file)) => Content::File { file: Arc::clone(file), offset, len },
                (Place::Spool { .. }, None) => return Err(io::Error::other("the spool file is gone")),
            };
            Ok(Child { plugin, meta, content, sha256 })
        };
        self.done.into_iter().map(finished).collect()
    }
}

impl Spool {
    fn of<'a>(spool: &'a mut Option<Self>, dir: &Path) -> io::Result<&'a mut Self> {
        match spool {
            Some(spool) => Ok(spool),
            none => {
                let file = BufWriter::with_capacity(SPOOL_BUFFER, tempfile::tempfile_in(dir)?);
                Ok(none.insert(Self { file, end: 0 }))
            }
        }
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Takes back what was appended since `offset`, so that discarded children do not pile up on the disk.
    fn rewind(&mut self, offset: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(offset))?;
        self.end = offset;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use stoq_api::PayloadMeta;

    use super::*;

    const PLENTY: Remaining = Remaining { children: 1000, bytes: 100 << 20 };

    fn emit(children: &mut Children, dir: &Path, byte: u8, len: usize, keep: bool) {
        children.open(1, PackedMeta::from(&PayloadMeta::default()), 10).unwrap();
        for piece in vec![byte; len].chunks(60_000) {
            children.data(piece, dir).unwrap();
        }
        children.close(keep).unwrap();
    }

    #[test]
    fn children_move_to_the_spool_and_keep_their_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let mut children = Children::new(PLENTY);
        let sizes = [(1, 10), (2, MAX_IN_MEMORY - 20), (3, 500_000), (5, 3), (6, 0), (7, 2_000_000)];
        for (byte, len) in sizes {
            emit(&mut children, dir.path(), byte, len, true);
            emit(&mut children, dir.path(), 99, len, false);
        }
        assert_eq!(children.remaining().children, PLENTY.children - sizes.len() as u64);
        let done = children.finish().unwrap();
        assert_eq!(done.len(), sizes.len());
        for (child, (byte, len)) in done.iter().zip(sizes) {
            let bytes = child.content.to_bytes().unwrap();
            assert_eq!(bytes, vec![byte; len]);
            assert_eq!(child.sha256, Sha256::of(&bytes));
        }
        assert!(matches!(done[2].content, Content::File { .. }));
        assert_eq!(dir.path().read_dir().unwrap().count(), 0, "a spool file has a name");
    }

    #[test]
    fn budgets_and_order_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut children = Children::new(Remaining { children: 1, bytes: 3 });
        assert!(matches!(children.data(b"a", dir.path()), Err(Refused::Order(_))));
        assert!(matches!(children.close(true), Err(Refused::Order(_))));
        children.open(0, PackedMeta::from(&PayloadMeta::default()), 2).unwrap();
        assert!(matches!(children.open(0, PackedMeta::from(&PayloadMeta::default()), 2), Err(Refused::Order(_))));
        children.data(b"abc", dir.path()).unwrap();
        assert!(matches!(children.data(b"d", dir.path()), Err(Refused::Spent(SpentKind::Bytes))));
        children.close(true).unwrap();
        assert!(matches!(
            children.open(0, PackedMeta::from(&PayloadMeta::default()), 2),
            Err(Refused::Spent(SpentKind::Payloads))
        ));
        let mut meta = Meter::new(PLENTY);
        assert_eq!(meta.child(MAX_META_TOTAL + 1), Err(SpentKind::Bytes));
    }
}
