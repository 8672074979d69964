//! 7z, also with encrypted contents or headers, and also behind the program of a self-extracting archive.
#![expect(clippy::disallowed_types, reason = "one of the format readers of decompress")]

use std::io::{self, Cursor, Read};

use memchr::memmem;
use sevenz_rust2::{Archive, ArchiveEntry, BlockDecoder, EncoderMethod, Error, NtTime, Password};
use stoq_api::Timestamp;

use super::Unpack;
use super::codec::{MAX_LZMA_KIB, MemberError};
use super::extract::{Extracted, Extraction, Kind, Member, Stop};
use super::names;

const SIGNATURE: &[u8] = b"7z\xbc\xaf\x27\x1c";
/// The header of an archive, unpacked, in KiB. Each of its bytes may claim an entry of about a hundred bytes in memory.
const MAX_HEADER_KIB: usize = 2 << 10;
/// Blocks of an archive that are read.
const MAX_BLOCKS: usize = 100_000;
/// Keys that are derived for the blocks of one archive together: each takes up to 2^[`MAX_ROUNDS`] rounds.
const MAX_TRIES: usize = 256;
/// Rounds of SHA-256 that a key may take, as a power of two; 7-Zip itself makes archives with 19.
const MAX_ROUNDS: u8 = 22;
/// Bytes from the start of a program within which a self-extracting archive starts.
const MAX_STUB: usize = 4 << 20;
/// Windows attribute bit that says that the upper half is a Unix mode.
const UNIX_MODE: u32 = 0x8000;

/// The format.
pub(super) struct SevenZ;

/// Whether an archive starts here.
pub(super) fn starts(data: &[u8]) -> bool {
    data.starts_with(SIGNATURE)
}

/// Where the archive behind a program starts: its signature, with a start header whose checksum is right.
pub(super) fn behind_program(data: &[u8]) -> Option<usize> {
    if !data.starts_with(b"MZ") && !data.starts_with(b"\x7fELF") {
        return None;
    }
    memmem::find_iter(&data[..data.len().min(MAX_STUB)], SIGNATURE).find(|at| {
        let header = data.get(at + 8..at + 32);
        header.is_some_and(|h| h[..4] == crc32fast::hash(&h[4..]).to_le_bytes() && h[4..].iter().any(|b| *b != 0))
    })
}

impl Unpack for SevenZ {
    fn unpack(&self, input: &[u8], out: &mut Extraction<'_, '_>) -> Result<(), Stop> {
        let shift = behind_program(input).unwrap_or(0);
        if shift > 0 {
            out.anomaly(format!("the archive starts at byte {shift}"));
        }
        let mut run = Run { input: &input[shift..], password: Password::empty(), known: None, tries: 0 };
        let Some(archive) = run.header(out)? else { return Ok(()) };
        for entry in archive.files.iter().filter(|e| !e.has_stream) {
            out.next()?;
            let member = member_of(entry, None);
            if member.kind == Kind::File {
                out.extract(&member, &mut || Ok(Box::new(io::empty())))?;
            } else {
                out.list(&member);
            }
        }
        if archive.blocks.len() > MAX_BLOCKS {
            out.anomaly(format!("{} blocks, of which {MAX_BLOCKS} are read", archive.blocks.len()));
        }
        (0..archive.blocks.len().min(MAX_BLOCKS)).try_for_each(|block| run.block(&archive, block, out))
    }
}

struct Run<'a> {
    input: &'a [u8],
    /// Opened the last thing that needed one.
    password: Password,
    /// The same as text.
    known: Option<String>,
    tries: usize,
}

/// How the members of one block are packed.
struct Packing {
    method: String,
    password: Option<String>,
    encrypted: bool,
}

impl Run<'_> {
    /// The archive's header. `None` if it cannot be read; that is reported then.
    fn header(&mut self, out: &mut Extraction<'_, '_>) -> Result<Option<Archive>, Stop> {
        // An archive without members has no header.
        if self.input.get(12..28).is_some_and(|places| places.iter().all(|b| *b == 0)) {
            return Ok(Some(Archive::default()));
        }
        let read = |password: &Password| {
            Archive::read_with_memory_limit(&mut Cursor::new(self.input), password, MAX_HEADER_KIB)
        };
        let error = match read(&Password::empty()) {
            Ok(archive) => return Ok(Some(archive)),
            Err(error) => error,
        };
        let rounds = self.header_rounds();
        match (&error, &rounds) {
            (Error::PasswordRequired, Ok(())) => {}
            (Error::PasswordRequired, Err(rounds)) => out.too_much(format!("the header {rounds}")),
            (Error::MaxMemLimited { .. }, _) => out.too_much(text(&error)),
            _ => out.broken(text(&error)),
        }
        if rounds.is_err() || !matches!(error, Error::PasswordRequired) {
            return Ok(None);
        }
        let candidates = out.passwords().to_vec();
        for candidate in &candidates {
            out.on_time()?;
            let password = Password::new(candidate);
            if let Ok(archive) = read(&password) {
                out.opened_with(candidate);
                (self.password, self.known) = (password, Some(candidate.clone()));
                return Ok(Some(archive));
            }
        }
        out.locked(format!("the header is encrypted, and none of {} passwords opens it", candidates.len()));
        Ok(None)
    }

    /// Checks what a packed header says about its encryption. The library tells it only of headers that it has opened.
    fn header_rounds(&self) -> io::Result<()> {
        let field = |at: usize| {
            let bytes = self.input.get(at..).and_then(|i| i.first_chunk());
            bytes.and_then(|b| usize::try_from(u64::from_le_bytes(*b)).ok()).unwrap_or(usize::MAX)
        };
        let start = field(12).saturating_add(32);
        let header = self.input.get(start..start.saturating_add(field(20))).unwrap_or_default();
        // Behind the method's id stand the length of the properties, one byte, and the properties.
        let properties = |at| header.get(at + EncoderMethod::ID_AES256_SHA256.len() + 1..).unwrap_or_default();
        memmem::find_iter(header, EncoderMethod::ID_AES256_SHA256).try_for_each(|at| check_rounds(properties(at)))
    }

    /// The members of one block: they are one stream, so that each can only be read behind its predecessors.
    fn block(&mut self, archive: &Archive, index: usize, out: &mut Extraction<'_, '_>) -> Result<(), Stop> {
        let coders = &archive.blocks[index].coders;
        let is_aes = |id: &[u8]| id == EncoderMethod::ID_AES256_SHA256;
        let encrypted = coders.iter().any(|c| is_aes(c.encoder_method_id()));
        let names: Vec<_> = coders
            .iter()
            .filter(|c| !is_aes(c.encoder_method_id()))
            .map(|c| EncoderMethod::by_id(c.encoder_method_id()).map_or("unknown", |m| m.name()).to_lowercase())
            .collect();
        let mut packing = Packing { method: names.join("+"), password: None, encrypted };
        let rounds =
            coders.iter().filter(|c| is_aes(c.encoder_method_id())).try_for_each(|c| check_rounds(c.properties()));
        if let Err(error) = rounds {
            return self.refuse_from(archive, index, 0, &packing, &error, out);
        }
        if encrypted && !self.unlock(archive, index, out)? {
            let error = MemberError::Password { tried: out.passwords().len() }.io();
            return self.refuse_from(archive, index, 0, &packing, &error, out);
        }
        if encrypted {
            packing.password.clone_from(&self.known);
        }
        let (mut stop, mut done) = (None, 0);
        let mut each = |entry: &ArchiveEntry, reader: &mut dyn Read| {
            done += 1;
            if !entry.has_stream {
                return Ok(true);
            }
            let member = member_of(entry, Some(&packing));
            stop = one(member, entry, reader, out).err();
            Ok(stop.is_none())
        };
        let mut source = Cursor::new(self.input);
        let ended = decoder(archive, index, &self.password, &mut source).for_each_entries(&mut each);
        match (stop, ended) {
            (Some(stop), _) => Err(stop),
            (None, Ok(_)) => Ok(()),
            (None, Err(error)) => {
                let error = io_error(error);
                self.refuse_from(archive, index, done, &packing, &error, out)
            }
        }
    }

    /// Finds the password of an encrypted block: it has to give the first member with the right checksum.
    fn unlock(&mut self, archive: &Archive, index: usize, out: &mut Extraction<'_, '_>) -> Result<bool, Stop> {
        for candidate in out.passwords().to_vec() {
            out.on_time()?;
            self.tries += 1;
            if self.tries > MAX_TRIES {
                return Ok(false);
            }
            let password = Password::new(&candidate);
            let (mut proven, mut stop) = (false, None);
            let mut each = |entry: &ArchiveEntry, reader: &mut dyn Read| {
                if !entry.has_stream {
                    return Ok(true);
                }
                let mut once = Some(reader);
                let mut open = || once.take().map(|r| Box::new(r) as Box<dyn Read>).ok_or(io::ErrorKind::Other.into());
                match out.proves(&mut open) {
                    Ok(proof) => proven = proof,
                    Err(reason) => stop = Some(reason),
                }
                Ok(false)
            };
            let mut source = Cursor::new(self.input);
            // Any error says that it is the wrong one, or that the block is broken under every password.
            decoder(archive, index, &password, &mut source).for_each_entries(&mut each).ok();
            if let Some(stop) = stop {
                return Err(stop);
            }
            if proven {
                out.opened_with(&candidate);
                (self.password, self.known) = (password, Some(candidate));
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Lists the block's members from the `from`th on as not readable.
    fn refuse_from(
        &self,
        archive: &Archive,
        index: usize,
        from: usize,
        packing: &Packing,
        error: &io::Error,
        out: &mut Extraction<'_, '_>,
    ) -> Result<(), Stop> {
        let mut source = Cursor::new(self.input);
        let decoder = decoder(archive, index, &self.password, &mut source);
        let left = decoder.entries().get(from..).unwrap_or_default();
        if left.is_empty() {
            out.anomaly(format!("block {index}: {error}"));
        }
        for entry in left.iter().filter(|e| e.has_stream) {
            out.next()?;
            out.refuse(&member_of(entry, Some(packing)), error);
        }
        Ok(())
    }
}

/// # Errors
/// The properties of AES ask for too many rounds.
fn check_rounds(properties: &[u8]) -> io::Result<()> {
    /// No rounds at all: the key is salt and password.
    const PLAIN: u8 = 63;
    let power = properties.first().map_or(0, |b| b & 63);
    if power > MAX_ROUNDS && power != PLAIN {
        Err(MemberError::Rounds { power, most: MAX_ROUNDS }.io())
    } else {
        Ok(())
    }
}

fn decoder<'a, 'b>(
    archive: &'a Archive,
    block: usize,
    password: &'a Password,
    source: &'a mut Cursor<&'b [u8]>,
) -> BlockDecoder<'a, Cursor<&'b [u8]>> {
    BlockDecoder::new_with_memory_limit(1, MAX_LZMA_KIB as usize, block, archive, password, source)
}

/// One member of a block. The whole of it is read in any case, because the next one lies behind it.
fn one(
    mut member: Member,
    entry: &ArchiveEntry,
    reader: &mut dyn Read,
    out: &mut Extraction<'_, '_>,
) -> Result<(), Stop> {
    out.next()?;
    let mut start = Vec::new();
    let linked = entry.has_windows_attributes
        && entry.windows_attributes & UNIX_MODE != 0
        && entry.windows_attributes >> 16 & 0o170_000 == 0o120_000;
    if linked && entry.size <= names::MAX_TARGET {
        let read = reader.take(names::MAX_TARGET).read_to_end(&mut start);
        if let Some(target) = read.ok().and_then(|_| names::target(&start)) {
            (member.kind, member.link) = (Kind::Link, Some(target));
            out.list(&member);
            return Ok(());
        }
    }
    let mut once = Some(Read::chain(&start[..], Plain(&mut *reader)));
    let mut open = || once.take().map(|r| Box::new(r) as Box<dyn Read>).ok_or(io::ErrorKind::UnexpectedEof.into());
    if out.extract(&member, &mut open)? != Extracted::Whole {
        out.skip(reader)?;
    }
    Ok(())
}

/// A reader whose errors a person can read.
struct Plain<R>(R);

impl<R: Read> Read for Plain<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(plain)
    }
}

/// The library's own errors arrive inside those of a reader.
fn plain(error: io::Error) -> io::Error {
    match error.get_ref().and_then(|e| e.downcast_ref::<Error>()) {
        Some(inner) => io::Error::other(text(inner)),
        None => error,
    }
}

fn member_of(entry: &ArchiveEntry, packing: Option<&Packing>) -> Member {
    let time = entry.has_last_modified_date.then_some(entry.last_modified_date);
    Member {
        path: names::path(entry.name()),
        kind: if entry.is_directory { Kind::Directory } else { Kind::File },
        size: (!entry.is_directory).then_some(entry.size),
        compressed_size: Some(entry.compressed_size).filter(|s| *s > 0),
        crc: entry.has_crc.then_some(entry.crc as u32),
        mtime: time.and_then(iso),
        method: packing.map(|p| p.method.clone()),
        encrypted: packing.is_some_and(|p| p.encrypted),
        password: packing.and_then(|p| p.password.clone()),
        ..Member::default()
    }
}

/// `None` before 1970.
fn iso(time: NtTime) -> Option<String> {
    let hundred_ns = u64::from(time).checked_sub(NtTime::UNIX_EPOCH.into())?;
    Some(Timestamp(hundred_ns / 10).iso())
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::MaxMemLimited { actaul_kb, .. } => MemberError::TooMuchMemory { needed: actaul_kb as u64 * 1024 }.io(),
        Error::UnsupportedCompressionMethod(name) => MemberError::Unsupported(format!("compression {name}")).io(),
        Error::Io(error, _) | Error::MaybeBadPassword(error) => plain(error),
        other => io::Error::other(text(&other)),
    }
}

/// What went wrong, for a person.
fn text(error: &Error) -> String {
    match error {
        Error::ChecksumVerificationFailed => "a checksum does not fit".into(),
        Error::NextHeaderCrcMismatch => "the header's checksum does not fit".into(),
        Error::Io(error, _) | Error::MaybeBadPassword(error) => error.to_string(),
        Error::Other(text) | Error::Unsupported(text) => text.to_string(),
        Error::MaxMemLimited { max_kb, actaul_kb } => {
            format!("the header needs {actaul_kb} KiB, at most {max_kb} are spent")
        }
        other => format!("{other:?}"),
    }
}
