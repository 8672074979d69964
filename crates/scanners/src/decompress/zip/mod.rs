//! ZIP and what is built on it (APPNOTE 6.3.10), read both ways: by the central directory, as most tools do, and by the
//! local headers that the directory does not name, which is where malware hides from such tools.
//!
//! Entries whose data overlap (a zip bomb without nesting, or one file shown as two) are extracted only as far as their
//! data together are not longer than the archive, so that no byte is read much more than twice.

mod crypto;
mod data;
mod directory;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, Read};

use memchr::memmem;

use self::crypto::Key;
use self::data::{Plan, method_name};
use self::directory::{Directory, ENCRYPTED, Entry, HAS_DESCRIPTOR, LOCAL, extras, u32_at};
use super::Unpack;
use super::codec::MemberError;
use super::extract::{Extracted, Extraction, Kind, Member, Stop};
use super::names::{self, Fallback};

/// How often, on average, each byte may be searched for data descriptors, or read in vain as a hidden member's data.
const MAX_REREADS: usize = 4;
/// Keys that are derived for one archive; with AES each costs about a millisecond.
const MAX_DERIVATIONS: usize = 4_096;
/// The extra field with a name in UTF-8, and the CRC of the name that it stands for.
const UNICODE_PATH: u16 = 0x7075;

/// The format.
pub(super) struct Zip;

/// Whether an archive starts here; also one that was split, or said to be.
pub(super) fn starts(data: &[u8]) -> bool {
    [LOCAL, b"PK\x05\x06", b"PK\x07\x08PK\x03\x04", b"PK00PK\x03\x04"].into_iter().any(|m| data.starts_with(m))
}

/// Whether an archive with at least one entry ends here, whatever stands in front of it.
pub(super) fn ends(data: &[u8]) -> bool {
    Directory::find(data).is_some_and(|d| d.entries(data).next().is_some())
}

impl Unpack for Zip {
    fn unpack(&self, input: &[u8], out: &mut Extraction<'_, '_>) -> Result<(), Stop> {
        let mut walk = Walk {
            input,
            out,
            ranges: Ranges::default(),
            overlap: input.len(),
            searches: input.len() * MAX_REREADS,
            derivations: 0,
        };
        match Directory::find(input) {
            Some(directory) => walk.directory(&directory)?,
            None => walk.out.anomaly("there is no central directory"),
        }
        let found = walk.hidden()?;
        if found == 0 && walk.ranges.is_empty() {
            walk.out.broken("neither a central directory nor a local header is to be found");
        }
        Ok(())
    }
}

struct Walk<'a, 'o, 'x, 'c> {
    input: &'a [u8],
    out: &'o mut Extraction<'x, 'c>,
    /// What entries so far cover.
    ranges: Ranges,
    /// Bytes of overlapping data that may still be read.
    overlap: usize,
    /// Bytes that may still be read for nothing while hidden members are looked for.
    searches: usize,
    derivations: usize,
}

impl<'a> Walk<'a, '_, '_, '_> {
    /// Every entry of the central directory.
    fn directory(&mut self, directory: &Directory<'a>) -> Result<(), Stop> {
        self.out.comment(names::decode(directory.comment, Fallback::Cp437));
        if directory.shift > 0 {
            self.out.anomaly(format!("the archive starts at byte {}", directory.shift));
        }
        let mut entries = directory.entries(self.input);
        let mut count = 0_u64;
        for entry in entries.by_ref() {
            count += 1;
            self.out.next()?;
            self.listed(&entry)?;
        }
        // The count of an old end record is that of entries modulo 65,536.
        if count != directory.announced && count % 65_536 != directory.announced {
            let announced = directory.announced;
            self.out.anomaly(format!("the end record announces {announced} entries, the directory has {count}"));
        }
        self.ranges.add(directory.start, entries.at);
        self.ranges.add(directory.end, directory.end + 22);
        Ok(())
    }

    /// A member that the directory names.
    fn listed(&mut self, entry: &Entry<'a>) -> Result<(), Stop> {
        let mut member = member_of(entry);
        let Some((local, start)) = Entry::local(self.input, entry.offset) else {
            let text = format!("there is no local header at byte {}", entry.offset);
            self.out.refuse(&member, &io::Error::other(text));
            return Ok(());
        };
        let end = start.saturating_add(usize::try_from(entry.compressed).unwrap_or(usize::MAX)).min(self.input.len());
        let header = start - (30 + local.name.len() + local.extra.len());
        if self.ranges.overlaps(header, end) {
            self.out.anomaly("data of members overlap");
            let size = end - header;
            if size > self.overlap {
                let text = "its data overlap those of other members, and more of them than the archive is long";
                self.out.refuse(&member, &io::Error::other(text));
                return Ok(());
            }
            self.overlap -= size;
        }
        self.ranges.add(header, end);
        if member.kind != Kind::File {
            self.out.list(&member);
            return Ok(());
        }
        if entry.mode.is_some_and(|m| m & 0o170_000 == 0o120_000)
            && let Some(target) = self.target(entry, start, end)
        {
            (member.kind, member.link) = (Kind::Link, Some(target));
            self.out.list(&member);
            return Ok(());
        }
        let (extracted, _) = self.content(&mut member, entry, start, end, true)?;
        self.other_reading(entry, &local, start, extracted)
    }

    /// Headers that contradict each other are noted; where the directory's reading gave nothing whole, the local header's
    /// is tried as well: each is what some tool shows.
    fn other_reading(
        &mut self,
        entry: &Entry<'a>,
        local: &Entry<'a>,
        start: usize,
        got: Extracted,
    ) -> Result<(), Stop> {
        let described = local.flags & HAS_DESCRIPTOR == 0;
        let sizes = described && (local.compressed, local.size) != (entry.compressed, entry.size);
        let method = local.method != entry.method || (local.flags ^ entry.flags) & ENCRYPTED != 0;
        if local.name != entry.name {
            self.out.anomaly("names in local headers differ from those in the central directory");
        }
        if !sizes && !method {
            return Ok(());
        }
        self.out.anomaly("local headers differ from the central directory");
        if got == Extracted::Whole {
            return Ok(());
        }
        self.out.next()?;
        let mut other = member_of(local);
        other.hidden = true;
        let size = if described { local.compressed } else { entry.compressed };
        let end = start.saturating_add(usize::try_from(size).unwrap_or(usize::MAX)).min(self.input.len());
        self.content(&mut other, local, start, end, described).map(|_| ())
    }

    /// Members that only their local headers tell of. Says how many were found.
    fn hidden(&mut self) -> Result<usize, Stop> {
        let mut found = 0;
        for (from, to) in self.ranges.gaps(self.input.len()) {
            let mut at = from;
            while let Some(next) = self.input.get(at..to).and_then(|gap| memmem::find(gap, LOCAL)) {
                at += next;
                let local = Entry::local(self.input, at as u64).filter(|(e, start)| e.is_plausible() && *start <= to);
                let Some((entry, start)) = local else {
                    at += LOCAL.len();
                    continue;
                };
                if self.searches == 0 {
                    self.out.broken("too many headers of hidden members lead nowhere; the rest was not read");
                    return Ok(found);
                }
                found += 1;
                self.out.next()?;
                at = self.unlisted(entry, start, to)?;
            }
        }
        if found > 0 {
            self.out.anomaly("members are missing in the central directory");
        }
        Ok(found)
    }

    /// A member at a local header in a gap that ends at `to`; says where reading goes on.
    fn unlisted(&mut self, mut entry: Entry<'a>, start: usize, to: usize) -> Result<usize, Stop> {
        let mut described = entry.flags & HAS_DESCRIPTOR == 0 || entry.compressed > 0;
        if !described {
            let reach = to.min(start.saturating_add(self.searches));
            let found = directory::descriptor(self.input, start, reach);
            self.searches -= found.map_or(reach - start, |(_, distance, _)| distance as usize);
            if let Some((crc, compressed, size)) = found {
                (entry.crc, entry.compressed, entry.size, described) = (crc, compressed, size, true);
            }
        }
        let end = match (described, entry.method) {
            (true, _) => start.saturating_add(usize::try_from(entry.compressed).unwrap_or(usize::MAX)).min(to),
            // Nothing says where stored data end but what follows them.
            (false, 0) => memmem::find(&self.input[start..to], b"PK").map_or(to, |n| start + n),
            (false, _) => to,
        };
        let mut member = member_of(&entry);
        member.hidden = true;
        if !described {
            (member.size, member.compressed_size, member.crc) = (None, None, None);
        }
        if member.kind != Kind::File {
            self.out.list(&member);
            return Ok(end);
        }
        let (extracted, used) = self.content(&mut member, &entry, start, end, described)?;
        Ok(match extracted {
            Extracted::Not => {
                self.searches = self.searches.saturating_sub(used.max(1));
                start
            }
            Extracted::Whole if !described && used > 0 => start + used,
            _ => end,
        })
    }

    /// Extracts a member whose data stand between `start` and `end`. Also says how many bytes were used, where that can
    /// be told.
    fn content(
        &mut self,
        member: &mut Member,
        entry: &Entry<'a>,
        start: usize,
        end: usize,
        described: bool,
    ) -> Result<(Extracted, usize), Stop> {
        let plan = match Plan::new(entry, &self.input[start..end], described) {
            Ok(plan) => plan,
            Err(error) => {
                self.out.refuse(member, &error);
                return Ok((Extracted::Not, 0));
            }
        };
        member.method = Some(method_name(plan.method));
        let key = match self.unlock(&plan)? {
            Unlocked::With(password, key) => {
                member.password = Some(password);
                Some(key)
            }
            Unlocked::Plain => None,
            Unlocked::Not(error) => {
                self.out.refuse(member, &error);
                return Ok((Extracted::Not, 0));
            }
        };
        let used = Cell::new(0);
        let extracted = self.out.extract(member, &mut || plan.open(key.as_ref(), &used))?;
        Ok((extracted, used.get()))
    }

    /// Finds the password of an encrypted member. One that opened a member before is believed if it is the only one that
    /// passes the cipher's quick check; any other has to give data with the right checksum first.
    fn unlock(&mut self, plan: &Plan<'_>) -> Result<Unlocked, Stop> {
        let Some(cipher) = plan.cipher else { return Ok(Unlocked::Plain) };
        let candidates = self.out.passwords().to_vec();
        for password in &candidates {
            self.out.on_time()?;
            self.derivations += 1;
            if self.derivations > MAX_DERIVATIONS {
                let text = format!("more than {MAX_DERIVATIONS} passwords were tried on this archive");
                return Ok(Unlocked::Not(io::Error::other(text)));
            }
            let Some(key) = cipher.try_password(password, plan.data) else { continue };
            let used = Cell::new(0);
            if self.out.proves(&mut || plan.open(Some(&key), &used))? {
                self.out.opened_with(password);
                return Ok(Unlocked::With(password.clone(), key));
            }
        }
        Ok(Unlocked::Not(MemberError::Password { tried: candidates.len() }.io()))
    }

    /// Where a member that says that it is a link leads to, if its content can be that.
    fn target(&self, entry: &Entry<'_>, start: usize, end: usize) -> Option<String> {
        if entry.size > names::MAX_TARGET || entry.flags & ENCRYPTED != 0 {
            return None;
        }
        let plan = Plan::new(entry, &self.input[start..end], true).ok()?;
        let (mut target, used) = (Vec::new(), Cell::new(0));
        plan.open(None, &used).ok()?.take(names::MAX_TARGET).read_to_end(&mut target).ok()?;
        names::target(&target)
    }
}

enum Unlocked {
    Plain,
    With(String, Key),
    Not(io::Error),
}

fn member_of(entry: &Entry<'_>) -> Member {
    let unicode = extras(entry.extra).find(|(id, _)| *id == UNICODE_PATH).and_then(|(_, value)| {
        let fits = value.first() == Some(&1) && u32_at(value, 1) == Some(crc32fast::hash(entry.name));
        value.get(5..).filter(|_| fits)
    });
    let name = names::decode(unicode.unwrap_or(entry.name), Fallback::Cp437);
    let empty = entry.size == 0;
    let kind = match entry.mode.unwrap_or(0) & 0o170_000 {
        0o020_000 | 0o060_000 | 0o010_000 if empty => Kind::Device,
        // With content it is a file that only looks like a folder.
        _ if empty && name.ends_with(['/', '\\']) => Kind::Directory,
        _ => Kind::File,
    };
    Member {
        path: names::path(&name),
        kind,
        size: Some(entry.size),
        compressed_size: Some(entry.compressed),
        crc: Some(entry.crc),
        mtime: entry.mtime(),
        method: Some(method_name(entry.method)),
        encrypted: entry.flags & ENCRYPTED != 0,
        ..Member::default()
    }
}

/// Disjoint parts of the input, by their start.
#[derive(Default)]
struct Ranges(BTreeMap<usize, usize>);

impl Ranges {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn overlaps(&self, start: usize, end: usize) -> bool {
        self.0.range(..end).next_back().is_some_and(|(_, e)| *e > start)
    }

    /// Adds a part, joined with those that it overlaps or touches.
    fn add(&mut self, mut start: usize, mut end: usize) {
        while let Some((s, e)) = self.0.range(..=end).next_back().map(|(s, e)| (*s, *e)).filter(|(_, e)| *e >= start) {
            self.0.remove(&s);
            (start, end) = (start.min(s), end.max(e));
        }
        self.0.insert(start, end);
    }

    /// What lies between the parts, and around them, of an input of `len` bytes.
    fn gaps(&self, len: usize) -> Vec<(usize, usize)> {
        let mut gaps = Vec::new();
        let mut at = 0;
        for (start, end) in &self.0 {
            if *start > at {
                gaps.push((at, (*start).min(len)));
            }
            at = *end;
        }
        if at < len {
            gaps.push((at, len));
        }
        gaps
    }
}
