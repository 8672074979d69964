//! The structures of a zip file (APPNOTE 6.3.10): end records, central directory, local headers, data descriptors.
//!
//! Nothing is trusted further than the bytes reach. Entries are parsed one at a time, so that a directory of any length
//! costs no memory.

use memchr::memmem;

use super::super::extract::dos_time;

/// Signature of a local header.
pub(super) const LOCAL: &[u8] = b"PK\x03\x04";
const CENTRAL: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
const END64: &[u8] = b"PK\x06\x06";
const LOCATOR64: &[u8] = b"PK\x06\x07";
const DESCRIPTOR: &[u8] = b"PK\x07\x08";
/// Bytes from the end of the input within which the end record starts: its own size and the longest comment.
const END_RANGE: usize = 22 + 0xffff;
/// Extra fields of one entry that are looked at.
const MAX_EXTRAS: usize = 64;

/// General purpose bit flags.
pub(super) const ENCRYPTED: u16 = 1;
pub(super) const HAS_DESCRIPTOR: u16 = 1 << 3;
pub(super) const STRONG: u16 = 1 << 6;

/// An entry of the central directory, or a local header standing for one.
#[derive(Clone, Debug)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    pub(super) flags: u16,
    pub(super) method: u16,
    pub(super) time: u16,
    pub(super) date: u16,
    pub(super) crc: u32,
    pub(super) compressed: u64,
    pub(super) size: u64,
    pub(super) extra: &'a [u8],
    /// The upper half of the external attributes where they are those of Unix: type and permissions.
    pub(super) mode: Option<u32>,
    /// Where its local header starts in the input.
    pub(super) offset: u64,
}

pub(super) fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    data.get(at..)?.first_chunk().map(|b| u16::from_le_bytes(*b))
}

pub(super) fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

pub(super) fn u64_at(data: &[u8], at: usize) -> Option<u64> {
    data.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

/// Extra fields as (id, value), as far as they are well formed.
pub(super) fn extras(mut extra: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (id, len) = (u16_at(extra, 0)?, usize::from(u16_at(extra, 2)?));
        let value = extra.get(4..4 + len)?;
        extra = &extra[4 + len..];
        Some((id, value))
    })
    .take(MAX_EXTRAS)
}

/// The central directory as the end record tells it.
#[derive(Debug)]
pub(super) struct Directory<'a> {
    /// Where it starts in the input.
    pub(super) start: usize,
    /// Where the end record starts.
    pub(super) end: usize,
    /// Entries that the end record announces.
    pub(super) announced: u64,
    /// Bytes before the archive: offsets in it count from behind them.
    pub(super) shift: u64,
    pub(super) comment: &'a [u8],
}

impl<'a> Directory<'a> {
    /// Finds the end record, from the end of the input backwards, and the directory before it. A record whose directory
    /// does not start with an entry is passed over, unless it announces none.
    pub(super) fn find(input: &'a [u8]) -> Option<Self> {
        let from = input.len().saturating_sub(END_RANGE);
        memmem::rfind_iter(&input[from..], END).find_map(|at| Self::at(input, from + at))
    }

    fn at(input: &'a [u8], end: usize) -> Option<Self> {
        let mut announced = u64::from(u16_at(input, end + 10)?);
        let mut size = u64::from(u32_at(input, end + 12)?);
        let mut offset = u64::from(u32_at(input, end + 16)?);
        let comment = input.get(end + 22..)?;
        let comment = &comment[..comment.len().min(u16_at(input, end + 20)?.into())];
        let mut before = end;
        if let Some((at, record)) = end64(input, end) {
            (announced, size, offset, before) = (record.0, record.1, record.2, at);
        }
        if announced == 0 && size == 0 {
            return Some(Self { start: before, end, announced, shift: 0, comment });
        }
        // Where the record says, or, with something in front of the archive, right before the end record.
        let said = index(offset);
        let adjacent = before.checked_sub(index(size));
        let start = [Some(said), adjacent].into_iter().flatten().find(|s| is_entry(input, *s))?;
        Some(Self { start, end, announced, shift: (start as u64).saturating_sub(offset), comment })
    }

    /// Its entries, and where they end, as far as they are well formed.
    pub(super) fn entries(&self, input: &'a [u8]) -> Entries<'a> {
        Entries { input, at: self.start, shift: self.shift }
    }
}

fn is_entry(input: &[u8], at: usize) -> bool {
    input.get(at..).is_some_and(|d| d.starts_with(CENTRAL))
}

/// The zip64 end record: where it starts, with entries, size and offset of the directory.
fn end64(input: &[u8], end: usize) -> Option<(usize, (u64, u64, u64))> {
    let locator = end.checked_sub(20).filter(|l| input[*l..].starts_with(LOCATOR64))?;
    let at = index(u64_at(input, locator + 8)?);
    // Right before its locator if something was put in front of the archive.
    let at = [Some(at), locator.checked_sub(56)].into_iter().flatten().find(|a| {
        let data = input.get(*a..);
        data.is_some_and(|d| d.starts_with(END64))
    })?;
    Some((at, (u64_at(input, at + 32)?, u64_at(input, at + 40)?, u64_at(input, at + 48)?)))
}

/// See [`Directory::entries`].
pub(super) struct Entries<'a> {
    input: &'a [u8],
    /// Where the next entry starts; at last, where they end.
    pub(super) at: usize,
    shift: u64,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let at = self.at;
        let head = self.input.get(at..at + 46).filter(|h| h.starts_with(CENTRAL))?;
        let len = |field| u16_at(head, field).map(usize::from);
        let (name, extra, comment) = (len(28)?, len(30)?, len(32)?);
        let data = self.input.get(at + 46..)?;
        let unix = matches!(head[5], 3 | 19);
        let mut entry = Entry {
            name: data.get(..name)?,
            flags: u16_at(head, 8)?,
            method: u16_at(head, 10)?,
            time: u16_at(head, 12)?,
            date: u16_at(head, 14)?,
            crc: u32_at(head, 16)?,
            compressed: u32_at(head, 20)?.into(),
            size: u32_at(head, 24)?.into(),
            extra: data.get(name..name + extra).unwrap_or_default(),
            mode: unix.then_some(u32_at(head, 38)? >> 16),
            offset: u32_at(head, 42)?.into(),
        };
        entry.widen();
        entry.offset = entry.offset.saturating_add(self.shift);
        self.at = at + 46 + name + extra + comment;
        Some(entry)
    }
}

impl<'a> Entry<'a> {
    /// Puts the 64-bit values of extra field 1 in the place of those that are all ones.
    fn widen(&mut self) {
        let Some((_, value)) = extras(self.extra).find(|(id, _)| *id == 1) else { return };
        let mut at = 0;
        for field in [&mut self.size, &mut self.compressed, &mut self.offset] {
            if *field == u64::from(u32::MAX) {
                let Some(wide) = u64_at(value, at) else { return };
                (*field, at) = (wide, at + 8);
            }
        }
    }

    /// The local header at `offset`, and where the data behind it start.
    pub(super) fn local(input: &'a [u8], offset: u64) -> Option<(Self, usize)> {
        let at = index(offset);
        let head = input.get(at..at.checked_add(30)?).filter(|h| h.starts_with(LOCAL))?;
        let (name, extra) = (usize::from(u16_at(head, 26)?), usize::from(u16_at(head, 28)?));
        let data = at + 30 + name + extra;
        let mut entry = Self {
            name: input.get(at + 30..at + 30 + name)?,
            flags: u16_at(head, 6)?,
            method: u16_at(head, 8)?,
            time: u16_at(head, 10)?,
            date: u16_at(head, 12)?,
            crc: u32_at(head, 14)?,
            compressed: u32_at(head, 18)?.into(),
            size: u32_at(head, 22)?.into(),
            extra: input.get(at + 30 + name..data)?,
            mode: None,
            offset,
        };
        entry.widen();
        entry.offset = offset;
        Some((entry, data))
    }

    /// Whether a local header found by its signature alone is likely to be one.
    pub(super) fn is_plausible(&self) -> bool {
        let methods = matches!(self.method, 0..=6 | 8 | 9 | 10 | 12 | 14 | 18..=20 | 93..=99);
        methods && !self.name.is_empty() && !self.name.contains(&0)
    }

    /// The time of last change, `2026-01-02T03:04:06`, of whatever zone the archive was made in.
    pub(super) fn mtime(&self) -> Option<String> {
        dos_time(self.date, self.time)
    }
}

/// A data descriptor with its signature, somewhere behind `start`, whose compressed size is the distance to it: crc,
/// compressed size and size.
pub(super) fn descriptor(input: &[u8], start: usize, end: usize) -> Option<(u32, u64, u64)> {
    let data = input.get(start..end)?;
    memmem::find_iter(data, DESCRIPTOR).find_map(|at| {
        let crc = u32_at(data, at + 4)?;
        let distance = at as u64;
        if u32_at(data, at + 8).map(u64::from) == Some(distance) {
            return Some((crc, distance, u32_at(data, at + 12)?.into()));
        }
        (u64_at(data, at + 8) == Some(distance)).then_some((crc, distance, u64_at(data, at + 16)?))
    })
}
