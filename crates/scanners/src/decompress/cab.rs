//! Microsoft cabinets: stored, MSZIP and LZX, as \[MS-CAB\] describes them. Quantum is not read.
//!
//! The container is own code: a folder is one stream that holds many files, and readers to be had start it anew for each
//! of them, which takes quadratic time.
#![expect(clippy::disallowed_types, reason = "one of the format readers of decompress")]

use std::io::{self, Read};

use flate2::{Decompress, FlushDecompress};
use lzxd::{Lzxd, WindowSize};

use super::Unpack;
use super::codec::{Checked, MemberError};
use super::extract::{Extraction, Member, Stop, dos_time};
use super::names::{self, Fallback};

const MAGIC: &[u8] = b"MSCF\0\0\0\0";
/// Bytes of the fixed part of the cabinet's header, of a folder's, a file's and a block's.
const HEADER: usize = 36;
const FOLDER: usize = 8;
const FILE: usize = 16;
const BLOCK: usize = 8;
/// Flags of the header: names of the cabinets before and after follow; reserved areas follow.
const PREVIOUS: u16 = 1;
const NEXT: u16 = 2;
const RESERVED: u16 = 4;
/// Folder numbers of a file that starts in the cabinet before, ends in the one after, or both.
const ELSEWHERE: std::ops::RangeInclusive<u16> = 0xfffd..=0xffff;
/// Attribute that says that a name is UTF-8.
const NAME_IS_UTF: u16 = 0x80;
/// Bytes that a block may hold when unpacked, and how far MSZIP looks back.
const BLOCK_BYTES: usize = 32 << 10;

/// The format.
pub(super) struct Cab;

/// Whether a cabinet starts here.
pub(super) fn starts(data: &[u8]) -> bool {
    data.starts_with(MAGIC) && data.get(24..26).is_some_and(|version| version[1] == 1)
}

impl Unpack for Cab {
    fn unpack(&self, input: &[u8], out: &mut Extraction<'_, '_>) -> Result<(), Stop> {
        let Some(cabinet) = Cabinet::read(input) else {
            out.broken("damaged header");
            return Ok(());
        };
        if cabinet.stated > input.len() {
            out.anomaly(format!("ends after {} bytes, the header says {}", input.len(), cabinet.stated));
        }
        let mut at = cabinet.files_at;
        let mut current: Option<(u16, Stream<'_>)> = None;
        for _ in 0..cabinet.files {
            let Some((entry, end)) = Entry::read(input, at) else {
                out.broken(format!("at byte {at}: damaged file header"));
                return Ok(());
            };
            at = end;
            out.next()?;
            let folder = cabinet.folder(entry.folder);
            let member = entry.member(folder.as_ref());
            let Some(folder) = folder else {
                out.refuse(&member, &entry.without_folder());
                continue;
            };
            let same = current.take().filter(|(number, stream)| *number == entry.folder && stream.at <= entry.offset);
            let mut stream = same.map_or_else(|| folder.stream(), |(_, stream)| stream);
            let gap = entry.offset - stream.at;
            out.skip(&mut (&mut stream).take(gap))?;
            let mut first = Some(&mut stream);
            out.extract(&member, &mut || {
                let data: Box<dyn Read> = match first.take() {
                    Some(stream) => Box::new(stream.take(entry.size)),
                    None => Box::new(folder.from(entry.offset)?.take(entry.size)),
                };
                Ok(Box::new(Checked::new(data, None, Some(entry.size))))
            })?;
            current = Some((entry.folder, stream));
        }
        Ok(())
    }
}

fn u16_at(input: &[u8], at: usize) -> Option<u16> {
    input.get(at..)?.first_chunk().map(|b| u16::from_le_bytes(*b))
}

fn u32_at(input: &[u8], at: usize) -> Option<usize> {
    input.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b) as usize)
}

/// The part of `input` from `at` to the next NUL, and where the byte after it is.
fn text_at(input: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let rest = input.get(at..)?;
    let len = memchr::memchr(0, rest)?;
    Some((&rest[..len], at + len + 1))
}

/// What the header says.
struct Cabinet<'a> {
    input: &'a [u8],
    /// Bytes of the cabinet, as it states.
    stated: usize,
    files_at: usize,
    files: u16,
    folders_at: usize,
    folders: u16,
    folder_reserve: usize,
    block_reserve: usize,
}

impl<'a> Cabinet<'a> {
    fn read(input: &'a [u8]) -> Option<Self> {
        let (folders, files, flags) = (u16_at(input, 26)?, u16_at(input, 28)?, u16_at(input, 30)?);
        let (mut at, mut folder_reserve, mut block_reserve) = (HEADER, 0, 0);
        if flags & RESERVED != 0 {
            folder_reserve = usize::from(*input.get(at + 2)?);
            block_reserve = usize::from(*input.get(at + 3)?);
            at += 4 + usize::from(u16_at(input, at)?);
        }
        // Each of the other cabinets has a file's name and a disk's.
        for _ in 0..2 * (u32::from(flags & PREVIOUS != 0) + u32::from(flags & NEXT != 0)) {
            at = text_at(input, at)?.1;
        }
        let (stated, files_at) = (u32_at(input, 8)?, u32_at(input, 16)?);
        Some(Self { input, stated, files_at, files, folders_at: at, folders, folder_reserve, block_reserve })
    }

    fn folder(&self, number: u16) -> Option<Folder<'a>> {
        let at = self.folders_at + usize::from(number) * (FOLDER + self.folder_reserve);
        let (start, blocks) = (u32_at(self.input, at)?, u16_at(self.input, at + 4)?);
        let method = Method::of(u16_at(self.input, at + 6)?);
        let known = number < self.folders;
        known.then_some(Folder { input: self.input, start, blocks, method, reserve: self.block_reserve })
    }
}

/// How a folder is packed.
#[derive(Clone, Copy)]
enum Method {
    Stored,
    MsZip,
    Lzx(WindowSize),
    Unknown(u16),
}

impl Method {
    fn of(field: u16) -> Self {
        match (field & 0xf, field >> 8 & 0x1f) {
            (0, _) => Self::Stored,
            (1, _) => Self::MsZip,
            (3, 15) => Self::Lzx(WindowSize::KB32),
            (3, 16) => Self::Lzx(WindowSize::KB64),
            (3, 17) => Self::Lzx(WindowSize::KB128),
            (3, 18) => Self::Lzx(WindowSize::KB256),
            (3, 19) => Self::Lzx(WindowSize::KB512),
            (3, 20) => Self::Lzx(WindowSize::MB1),
            (3, 21) => Self::Lzx(WindowSize::MB2),
            _ => Self::Unknown(field),
        }
    }

    fn name(self) -> String {
        match self {
            Self::Stored => "store".to_owned(),
            Self::MsZip => "mszip".to_owned(),
            Self::Lzx(_) => "lzx".to_owned(),
            Self::Unknown(2) => "quantum".to_owned(),
            Self::Unknown(field) => format!("method {field:#06x}"),
        }
    }
}

/// One stream of blocks.
struct Folder<'a> {
    input: &'a [u8],
    start: usize,
    blocks: u16,
    method: Method,
    reserve: usize,
}

impl<'a> Folder<'a> {
    fn stream(&self) -> Stream<'a> {
        let codec = match self.method {
            Method::Stored => Codec::Stored,
            Method::MsZip => Codec::MsZip(Box::new(Decompress::new(false))),
            Method::Lzx(window) => Codec::Lzx(Box::new(Lzxd::new(window))),
            Method::Unknown(2) => Codec::Failed("Quantum is not supported".to_owned()),
            Method::Unknown(_) => Codec::Failed(format!("{} is not supported", self.method.name())),
        };
        let (input, next, left, reserve) = (self.input, self.start, self.blocks, self.reserve);
        Stream { input, next, left, reserve, codec, block: Vec::new(), taken: 0, at: 0 }
    }

    /// The stream from a place on that was reached before.
    fn from(&self, offset: u64) -> io::Result<Stream<'a>> {
        let mut stream = self.stream();
        io::copy(&mut (&mut stream).take(offset), &mut io::sink())?;
        Ok(stream)
    }
}

enum Codec {
    Stored,
    MsZip(Box<Decompress>),
    Lzx(Box<Lzxd>),
    /// Nothing can be read any more, for this reason.
    Failed(String),
}

/// A folder's unpacked bytes.
struct Stream<'a> {
    input: &'a [u8],
    /// Where the next block starts.
    next: usize,
    /// Blocks from there on.
    left: u16,
    reserve: usize,
    codec: Codec,
    /// The last block, unpacked: MSZIP looks back into it.
    block: Vec<u8>,
    /// How much of it was read.
    taken: usize,
    /// Bytes that were read.
    at: u64,
}

impl Stream<'_> {
    /// Unpacks the next block; `false` if there is none. Of a damaged one what comes before the damage counts.
    fn advance(&mut self) -> Result<bool, String> {
        const CUT: &str = "ends in the middle of a block";
        if let Codec::Failed(reason) = &self.codec {
            return Err(reason.clone());
        }
        if self.left == 0 {
            return Ok(false);
        }
        let packed = usize::from(u16_at(self.input, self.next + 4).ok_or(CUT)?);
        let size = usize::from(u16_at(self.input, self.next + 6).ok_or(CUT)?);
        if size > BLOCK_BYTES {
            return Err(format!("a block of {size} bytes, {BLOCK_BYTES} is the most"));
        }
        if size == 0 {
            return Err("a block continues in another cabinet".to_owned());
        }
        let start = self.next + BLOCK + self.reserve;
        let rest = self.input.get(start..).ok_or(CUT)?;
        let data = &rest[..packed.min(rest.len())];
        let (mut block, mut trouble) = match &mut self.codec {
            Codec::Stored => (data.to_vec(), None),
            Codec::MsZip(inflate) => ms_zip(inflate, &self.block, data, size),
            Codec::Lzx(lzx) => match lzx.decompress_next(data, size) {
                Ok(block) => (block.to_vec(), None),
                Err(error) => (Vec::new(), Some(format!("LZX: {error}"))),
            },
            Codec::Failed(reason) => (Vec::new(), Some(reason.clone())),
        };
        block.truncate(size);
        if rest.len() < packed {
            trouble = Some(CUT.to_owned());
        } else if block.len() < size {
            trouble.get_or_insert(format!("a block of {} bytes, {size} are stated", block.len()));
        }
        (self.block, self.taken, self.next, self.left) = (block, 0, start + packed, self.left - 1);
        match trouble {
            Some(reason) if self.block.is_empty() => return Err(reason),
            Some(reason) => self.codec = Codec::Failed(reason),
            None => {}
        }
        Ok(true)
    }
}

/// One block of MSZIP: deflate (RFC 1951) behind a mark; it may look back into the block before. What is wrong with it
/// comes beside what could be unpacked.
fn ms_zip(inflate: &mut Decompress, before: &[u8], data: &[u8], size: usize) -> (Vec<u8>, Option<String>) {
    let mut block = Vec::with_capacity(size);
    let Some(data) = data.strip_prefix(b"CK") else {
        return (block, Some("MSZIP: a block without its mark".to_owned()));
    };
    inflate.reset(false);
    let dictionary = if before.is_empty() { Ok(0) } else { inflate.set_dictionary(before) };
    let unpacked = dictionary.and_then(|_| inflate.decompress_vec(data, &mut block, FlushDecompress::Finish));
    (block, unpacked.err().map(|error| format!("MSZIP: {error}")))
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.block.len() {
            if buffer.is_empty() {
                return Ok(0);
            }
            match self.advance() {
                Ok(true) => {}
                Ok(false) => return Ok(0),
                Err(reason) => {
                    self.codec = Codec::Failed(reason.clone());
                    return Err(match reason.strip_suffix(" is not supported") {
                        Some(what) => MemberError::Unsupported(what.to_owned()).io(),
                        None => io::Error::new(io::ErrorKind::InvalidData, reason),
                    });
                }
            }
        }
        let n = buffer.len().min(self.block.len() - self.taken);
        buffer[..n].copy_from_slice(&self.block[self.taken..self.taken + n]);
        self.taken += n;
        self.at += n as u64;
        Ok(n)
    }
}

/// A file's header.
struct Entry<'a> {
    name: &'a [u8],
    size: u64,
    /// Where it starts in its folder.
    offset: u64,
    folder: u16,
    date: u16,
    time: u16,
    attributes: u16,
}

impl<'a> Entry<'a> {
    /// The header at `at`, and where the next one is.
    fn read(input: &'a [u8], at: usize) -> Option<(Self, usize)> {
        let (name, end) = text_at(input, at + FILE)?;
        let entry = Self {
            name,
            size: u32_at(input, at)? as u64,
            offset: u32_at(input, at + 4)? as u64,
            folder: u16_at(input, at + 8)?,
            date: u16_at(input, at + 10)?,
            time: u16_at(input, at + 12)?,
            attributes: u16_at(input, at + 14)?,
        };
        Some((entry, end))
    }

    fn member(&self, folder: Option<&Folder<'_>>) -> Member {
        let name = match self.attributes & NAME_IS_UTF {
            0 => names::decode(self.name, Fallback::Windows1252),
            _ => String::from_utf8_lossy(self.name).into_owned(),
        };
        Member {
            path: names::path(&name),
            size: Some(self.size),
            mtime: dos_time(self.date, self.time),
            method: folder.map(|folder| folder.method.name()),
            ..Member::default()
        }
    }

    /// Why there is no folder to read it from.
    fn without_folder(&self) -> io::Error {
        if ELSEWHERE.contains(&self.folder) {
            return MemberError::Unsupported("a member that continues in another cabinet".to_owned()).io();
        }
        io::Error::new(io::ErrorKind::InvalidData, format!("there is no folder {}", self.folder))
    }
}
