//! tar: v7, ustar, pax (POSIX.1-2001) and GNU, with long names and sparse files.
#![expect(clippy::disallowed_types, reason = "one of the format readers of decompress")]

use std::cell::RefCell;
use std::io::{self, Cursor, Read};

use stoq_api::Timestamp;
use tar::{Archive, Entry, EntryType};

use super::Unpack;
use super::codec::Checked;
use super::extract::{Extraction, Kind, Member, Stop};
use super::names::{self, Fallback};

/// Headers and data stand in blocks of this size.
const BLOCK: usize = 512;
/// How often reading goes on behind a damaged header.
const MAX_RESYNCS: usize = 16;

/// The format.
pub(super) struct Tar;

/// Whether a header with a valid checksum stands here.
pub(super) fn starts(data: &[u8]) -> bool {
    let Some(block) = data.first_chunk::<BLOCK>() else { return false };
    let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
    let field: u64 = block[148..156].iter().map(|b| u64::from(*b)).sum();
    block[0] != 0 && octal(&block[148..156]) == Some(sum - field + 8 * u64::from(b' '))
}

/// A number in octal digits, between blanks and NULs.
fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?.trim_matches([' ', '\0']);
    u64::from_str_radix(text, 8).ok()
}

impl Unpack for Tar {
    fn unpack(&self, input: &[u8], out: &mut Extraction<'_, '_>) -> Result<(), Stop> {
        let mut at = 0;
        for _ in 0..MAX_RESYNCS {
            let (end, error) = part(&input[at..], out)?;
            let Some(error) = error else { return Ok(()) };
            out.broken(format!("at byte {}: {error}", at + end));
            // The next header behind the damage, if there is one: everything in a tar lies on whole blocks.
            let next = (at + end) / BLOCK * BLOCK + BLOCK;
            let Some(found) = (next..input.len()).step_by(BLOCK).find(|i| starts(&input[*i..])) else { return Ok(()) };
            at = found;
        }
        Ok(())
    }
}

/// Reads until the end, or until a header is damaged; says how far it came.
fn part(input: &[u8], out: &mut Extraction<'_, '_>) -> Result<(usize, Option<io::Error>), Stop> {
    let mut archive = Archive::new(Cursor::new(input));
    // Members behind the end mark are what a second archive appended to the first one looks like.
    archive.set_ignore_zeros(true);
    let mut end = 0;
    let entries = match archive.entries_with_seek() {
        Ok(entries) => entries,
        Err(error) => return Ok((0, Some(error))),
    };
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => return Ok((end, Some(error))),
        };
        out.next()?;
        end = end_of(&entry).min(input.len());
        let member = member(&entry);
        if member.kind == Kind::File { file(entry, &member, input, out)? } else { out.list(&member) }
    }
    Ok((end, None))
}

/// Where the member's data end.
fn end_of(entry: &Entry<'_, Cursor<&[u8]>>) -> usize {
    let stored = entry.header().entry_size().unwrap_or(0);
    usize::try_from(entry.raw_file_position().saturating_add(stored)).unwrap_or(usize::MAX)
}

fn member(entry: &Entry<'_, Cursor<&[u8]>>) -> Member {
    let header = entry.header();
    let kind = match header.entry_type() {
        EntryType::Directory => Kind::Directory,
        EntryType::Link | EntryType::Symlink => Kind::Link,
        EntryType::Char | EntryType::Block | EntryType::Fifo => Kind::Device,
        // An unknown type is a file, says POSIX.
        _ => Kind::File,
    };
    let path = names::path(&names::decode(&entry.path_bytes(), Fallback::Windows1252));
    let mtime = header.mtime().ok().filter(|t| *t != 0);
    Member {
        path,
        kind,
        size: (kind == Kind::File).then_some(entry.size()),
        mtime: mtime.map(|t| Timestamp(t.saturating_mul(1_000_000)).iso()),
        link: entry.link_name_bytes().map(|l| names::path(&names::decode(&l, Fallback::Windows1252))),
        ..Member::default()
    }
}

fn file(
    entry: Entry<'_, Cursor<&[u8]>>,
    member: &Member,
    input: &[u8],
    out: &mut Extraction<'_, '_>,
) -> Result<(), Stop> {
    if entry.header().entry_type() == EntryType::GNUSparse {
        // Sparse data cannot be read twice, so that what is damaged in them is left out.
        let once = RefCell::new(Some(entry));
        let mut open = || match once.borrow_mut().take() {
            Some(entry) => Ok(Box::new(Checked::new(entry, None, member.size)) as Box<dyn Read>),
            None => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
        };
        return out.extract(member, &mut open).map(|_| ());
    }
    let start = usize::try_from(entry.raw_file_position()).unwrap_or(usize::MAX).min(input.len());
    let size = usize::try_from(entry.size()).unwrap_or(usize::MAX);
    let data = &input[start..start.saturating_add(size).min(input.len())];
    out.extract(member, &mut || Ok(Box::new(Checked::new(data, None, member.size)))).map(|_| ())
}
