//! RAR 1.3 to 7, with encrypted contents or headers, and behind the program of a self-extracting archive.
//!
//! The library pushes: it writes each member before it knows whether the checksum holds. So a member is gathered in
//! memory, at most `maximum_size` of it, and handed on when the library has gone to the next one or says what is wrong.

use std::cell::RefCell;
use std::io::{self, Cursor, Read, Write};
use std::rc::Rc;
use std::time::Instant;

use rars::{
    Archive, ArchiveFamily, ArchiveMember, ArchiveMemberDetail, ArchiveReadOptions, ArchiveReader, Error, ErrorKind,
    ExtractionDecision, ExtractionErrorAction,
};
use stoq_api::Timestamp;

use super::Unpack;
use super::codec::{MAX_DICTIONARY, MemberError};
use super::extract::{Extraction, Kind, Member, Stop, dos_time};
use super::names::{self, Fallback};

/// How archives start: RAR 1.5 to 4, RAR 5 and later, and RAR 1.3.
const MAGICS: [&[u8]; 3] = [b"Rar!\x1a\x07\0", b"Rar!\x1a\x07\x01\0", b"RE~^"];
/// Bytes from the start of a program within which a self-extracting archive starts.
const MAX_STUB: usize = 1 << 20;
/// Headers of an archive.
const MAX_HEADERS: u64 = 200_000;
/// Bytes of all headers of an archive.
const MAX_HEADER_BYTES: u64 = 32 << 20;
/// What the library may hold while it unpacks: the dictionary, which it copies while it grows, and what it filters.
const MAX_WORKSPACE: u64 = 2 * MAX_DICTIONARY + (64 << 20);
/// Size of the smallest dictionary of RAR 5, which its headers shift.
const SMALLEST_DICTIONARY: u64 = 128 << 10;

/// The format.
pub(super) struct Rar;

/// Whether an archive starts here.
pub(super) fn starts(data: &[u8]) -> bool {
    MAGICS.iter().any(|magic| data.starts_with(magic))
}

/// Whether an archive stands behind a program. RAR 1.3 has a signature too short to be looked for.
pub(super) fn behind_program(data: &[u8]) -> bool {
    (data.starts_with(b"MZ") || data.starts_with(b"\x7fELF"))
        && MAGICS[..2].iter().any(|magic| memchr::memmem::find(&data[..data.len().min(MAX_STUB)], magic).is_some())
}

impl Unpack for Rar {
    fn unpack(&self, input: &[u8], out: &mut Extraction<'_, '_>) -> Result<(), Stop> {
        let Some((archive, mut password)) = open(input, out)? else { return Ok(()) };
        if archive.sfx_offset() > 0 {
            out.anomaly(format!("the archive starts at byte {}", archive.sfx_offset()));
        }
        if password.is_none() {
            password = unlock(&archive, out)?;
        }
        let options = options(password.as_deref());
        if let Ok(Some(comment)) = archive.comment_with_options(options) {
            out.comment(names::decode(&comment, Fallback::Cp437));
        }
        let solid = archive.members().any(|member| member.is_solid());
        let run = RefCell::new(Run { out, password: password.clone(), solid, pending: None, stop: None });
        let ended = archive.extract_with_control_and_errors(
            options,
            |member| Ok(run.borrow_mut().decide(member)),
            |_, error| Ok(run.borrow_mut().failed(error)),
        );
        let mut run = run.into_inner();
        match ended {
            _ if run.stop.is_some() => {}
            Ok(_) => run.whole(),
            // Nothing that follows can be read: it needs what was lost here.
            Err(error) if run.pending.is_some() => {
                run.partly(&error);
                run.out.broken(format!("reading ended: {error}"));
            }
            Err(error) => run.out.broken(error.to_string()),
        }
        run.stop.map_or(Ok(()), Err)
    }
}

fn options(password: Option<&str>) -> ArchiveReadOptions<'_> {
    ArchiveReadOptions::with_optional_password(password.map(str::as_bytes))
        .with_max_header_count(MAX_HEADERS)
        .with_max_header_bytes(MAX_HEADER_BYTES)
        .with_rar50_dictionary_size_limit(MAX_DICTIONARY)
        .with_max_reader_workspace_bytes(MAX_WORKSPACE)
}

/// The archive's headers, and the password if they needed one. `None` if they cannot be read; that is reported then.
fn open(input: &[u8], out: &mut Extraction<'_, '_>) -> Result<Option<(Archive, Option<String>)>, Stop> {
    let error = match ArchiveReader::read_with_options(input, options(None)) {
        Ok(archive) => return Ok(Some((archive, None))),
        Err(error) => error,
    };
    if !matches!(error.root_cause(), Error::NeedPassword) {
        if error.kind() == ErrorKind::ResourceLimit {
            out.too_much(error.to_string())
        } else {
            out.broken(error.to_string())
        }
        return Ok(None);
    }
    let candidates = out.passwords().to_vec();
    for candidate in &candidates {
        out.on_time()?;
        if let Ok(archive) = ArchiveReader::read_with_options(input, options(Some(candidate))) {
            out.opened_with(candidate);
            return Ok(Some((archive, Some(candidate.clone()))));
        }
    }
    out.locked(format!("the header is encrypted, and none of {} passwords opens it", candidates.len()));
    Ok(None)
}

/// The password of encrypted members: it has to give the smallest of them with the right checksum.
fn unlock(archive: &Archive, out: &mut Extraction<'_, '_>) -> Result<Option<String>, Stop> {
    let whole = |member: &ArchiveMember| !member.meta.is_split_before && !member.meta.is_split_after;
    let encrypted = archive.members().enumerate().filter(|(_, member)| member.meta.is_encrypted && whole(member));
    let Some((index, _)) = encrypted.min_by_key(|(_, member)| member.meta.packed_size) else { return Ok(None) };
    for candidate in out.passwords().to_vec() {
        out.on_time()?;
        let options = options(Some(&candidate)).with_max_total_output_bytes(out.largest());
        if let Ok(Some(_)) = archive.read_member_at_with_options(index, options) {
            out.opened_with(&candidate);
            return Ok(Some(candidate));
        }
    }
    Ok(None)
}

/// One pass over the members.
struct Run<'o, 'a, 'c> {
    out: &'o mut Extraction<'a, 'c>,
    password: Option<String>,
    /// Members need those before them.
    solid: bool,
    /// The member that the library is writing.
    pending: Option<(Member, Content)>,
    stop: Option<Stop>,
}

/// A member's bytes, so far.
type Content = Rc<RefCell<Vec<u8>>>;

impl Run<'_, '_, '_> {
    /// What to do with the next member; the one before is whole.
    fn decide(&mut self, member: &ArchiveMember) -> ExtractionDecision {
        self.whole();
        if self.stop.is_none() {
            self.stop = self.out.next().err();
        }
        if self.stop.is_some() {
            return ExtractionDecision::Stop;
        }
        let known = self.member(member);
        if known.kind != Kind::File {
            self.out.list(&known);
            return ExtractionDecision::Skip;
        }
        if let Some(error) = self.obstacle(member) {
            self.out.refuse(&known, &error);
            // The next one may need what this one holds.
            let discard = self.solid && !member.meta.is_split_before && !member.meta.is_split_after;
            let bounded = member.meta.unpacked_size <= self.out.largest();
            return if discard && bounded {
                ExtractionDecision::Extract(Box::new(io::sink()))
            } else {
                ExtractionDecision::Skip
            };
        }
        let content = Content::default();
        let sink = Gather { content: Rc::clone(&content), most: self.out.largest(), deadline: self.out.deadline() };
        self.pending = Some((known, content));
        ExtractionDecision::Extract(Box::new(sink))
    }

    /// Why a member's bytes are not to be had, if that can be told from its header.
    fn obstacle(&self, member: &ArchiveMember) -> Option<io::Error> {
        let meta = &member.meta;
        if meta.is_split_before || meta.is_split_after {
            return Some(MemberError::Unsupported("a member that continues in another volume".to_owned()).io());
        }
        if meta.is_encrypted && self.password.is_none() {
            return Some(MemberError::Password { tried: self.out.passwords().len() }.io());
        }
        let needed = dictionary(member).filter(|needed| *needed > MAX_DICTIONARY && !meta.is_stored);
        if let Some(needed) = needed {
            return Some(MemberError::TooMuchMemory { needed }.io());
        }
        self.out.over_size(meta.unpacked_size)
    }

    /// Hands on the member that was written and verified.
    fn whole(&mut self) {
        if let Some((member, content)) = self.pending.take() {
            let content = content.borrow();
            let read = self.out.extract(&member, &mut || Ok(Box::new(Cursor::new(&content[..]))));
            self.stop = read.err();
        }
    }

    /// Hands on what was written before `error`, and says the error.
    fn partly(&mut self, error: &Error) {
        let Some((member, content)) = self.pending.take() else { return };
        let content = content.borrow();
        let tried = self.out.passwords().len();
        let read = self.out.extract(&member, &mut || {
            Ok(Box::new(Cursor::new(&content[..]).chain(Fails(Some(member_error(error, tried))))))
        });
        self.stop = read.err();
    }

    fn failed(&mut self, error: &Error) -> ExtractionErrorAction {
        self.partly(error);
        if self.stop.is_some() { ExtractionErrorAction::Abort } else { ExtractionErrorAction::Continue }
    }

    fn member(&self, member: &ArchiveMember) -> Member {
        let meta = &member.meta;
        let kind = match () {
            () if meta.is_redirection => Kind::Link,
            () if meta.is_directory => Kind::Directory,
            () => Kind::File,
        };
        let (method, crc, link) = match &member.detail {
            ArchiveMemberDetail::Rar13 { method, .. } => (Some(u64::from(*method)), None, None),
            ArchiveMemberDetail::Rar15To40 { method, crc32, .. } => (Some(u64::from(*method & 7)), Some(*crc32), None),
            ArchiveMemberDetail::Rar50Plus { compression_info, crc32, redirection, .. } => {
                let link = redirection.as_ref().map(|r| names::path(&names::decode(&r.target_name, Fallback::Cp437)));
                (Some(compression_info >> 7 & 7), *crc32, link)
            }
            // A family that the library learns of later.
            _ => (None, None, None),
        };
        let mtime = meta.file_time.and_then(|t| match meta.family {
            ArchiveFamily::Rar50Plus => Some(Timestamp(u64::from(t) * 1_000_000).iso()),
            _ => dos_time((t >> 16) as u16, (t & 0xffff) as u16),
        });
        Member {
            path: names::path(&names::decode(&meta.name, Fallback::Cp437)),
            kind,
            size: (kind == Kind::File).then_some(meta.unpacked_size),
            compressed_size: (kind == Kind::File).then_some(meta.packed_size),
            crc: crc.filter(|_| kind == Kind::File),
            mtime,
            method: method.filter(|_| kind == Kind::File).map(|m| format!("m{m}")),
            encrypted: meta.is_encrypted,
            link,
            password: self.password.clone().filter(|_| meta.is_encrypted),
            ..Member::default()
        }
    }
}

/// The dictionary that a member of RAR 5 or later asks for, in bytes. Older ones use at most 4 MiB.
fn dictionary(member: &ArchiveMember) -> Option<u64> {
    let ArchiveMemberDetail::Rar50Plus { compression_info, .. } = member.detail else { return None };
    // Bits 10 to 14 are a power of two; since RAR 7, bits 15 to 19 add that many 32ths of it.
    let power = compression_info >> 10 & 0x1f;
    let base = SMALLEST_DICTIONARY << power;
    Some(base + base / 32 * (compression_info >> 15 & 0x1f))
}

/// What the library says of a member, in this plugin's terms.
fn member_error(error: &Error, tried: usize) -> io::Error {
    match error.root_cause() {
        Error::Crc32Mismatch { expected, actual } => MemberError::Checksum { stated: *expected, found: *actual }.io(),
        Error::CrcMismatch { expected, actual } => {
            MemberError::Checksum { stated: (*expected).into(), found: (*actual).into() }.io()
        }
        Error::NeedPassword | Error::WrongPasswordOrCorruptData => MemberError::Password { tried }.io(),
        Error::Io(inner) if inner.kind == io::ErrorKind::TimedOut => io::ErrorKind::TimedOut.into(),
        cause => match cause.kind() {
            ErrorKind::UnsupportedFeature | ErrorKind::UnsupportedFormat => {
                MemberError::Unsupported(cause.to_string()).io()
            }
            _ => io::Error::new(io::ErrorKind::InvalidData, cause.to_string()),
        },
    }
}

/// Takes a member's bytes, as long as there is time, up to a limit. Headers state sizes, but need not be true.
struct Gather {
    content: Content,
    most: u64,
    deadline: Option<Instant>,
}

impl Write for Gather {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut content = self.content.borrow_mut();
        if (content.len() + bytes.len()) as u64 > self.most {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        content.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Fails once, and then has nothing more.
struct Fails(Option<io::Error>);

impl Read for Fails {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}
