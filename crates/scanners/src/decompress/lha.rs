//! LHA (LZH): headers of level 0 to 3, methods of LHarc, LHA and PMarc.

use std::io::{self, Cursor, Read};

use delharc::crc::Crc16;
use delharc::decode::DecoderAny;
use delharc::header::TimestampResult;
use delharc::{LhaDecodeReader, LhaHeader};
use stoq_api::Timestamp;

use super::Unpack;
use super::codec::MemberError;
use super::extract::{Extraction, Kind, Member, Stop};
use super::names;

/// Bytes that are decoded at a time.
const PORTION: usize = 512;

/// The format.
pub(super) struct Lha;

/// Whether an archive starts here: a method between hyphens behind the header's size and sum, and a level that exists.
pub(super) fn starts(data: &[u8]) -> bool {
    let Some(header) = data.first_chunk::<21>() else { return false };
    let family = [b"-lh", b"-lz", b"-pm"].iter().any(|family| header[2..5] == family[..]);
    family && header[6] == b'-' && header[20] <= 3
}

impl Unpack for Lha {
    fn unpack(&self, input: &[u8], out: &mut Extraction<'_, '_>) -> Result<(), Stop> {
        let mut at = 0;
        loop {
            let mut cursor = Cursor::new(&input[at..]);
            let header = match LhaHeader::read(&mut cursor) {
                Ok(Some(header)) => header,
                Ok(None) => return Ok(()),
                Err(error) => {
                    out.broken(format!("at byte {at}: {error}"));
                    return Ok(());
                }
            };
            let start = at + usize::try_from(cursor.position()).unwrap_or(usize::MAX);
            let size = usize::try_from(header.compressed_size).unwrap_or(usize::MAX);
            let data = &input[start.min(input.len())..start.saturating_add(size).min(input.len())];
            at = start.saturating_add(size).min(input.len());
            out.next()?;
            one(&header, data, out)?;
        }
    }
}

fn one(header: &LhaHeader, data: &[u8], out: &mut Extraction<'_, '_>) -> Result<(), Stop> {
    let member = member(header);
    if member.kind != Kind::File {
        out.list(&member);
        return Ok(());
    }
    let decoder = || DecoderAny::new_from_header(header, Cursor::new(data));
    if !decoder().is_supported() {
        let method = member.method.clone().unwrap_or_default();
        out.refuse(&member, &MemberError::Unsupported(format!("method {method}")).io());
        return Ok(());
    }
    out.extract(&member, &mut || {
        let mut reader = LhaDecodeReader::default();
        reader.begin_with_header_and_decoder(header.clone(), decoder());
        Ok(Box::new(Content { reader, crc: Crc16::default(), stated: header.file_crc }))
    })
    .map(|_| ())
}

/// A member's bytes, with the checksum behind them.
struct Content<'a> {
    reader: LhaDecodeReader<Cursor<&'a [u8]>>,
    crc: Crc16,
    stated: u16,
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // The decoder fills a buffer or fails: small ones leave more of a member that is cut short.
        let most = buffer.len().min(PORTION);
        let n = self.reader.read(&mut buffer[..most]).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "its data end early"),
            _ => error,
        })?;
        self.crc.digest(&buffer[..n]);
        let found = self.crc.sum16();
        if n == 0 && !buffer.is_empty() && found != self.stated {
            return Err(MemberError::Checksum { stated: self.stated.into(), found: found.into() }.io());
        }
        Ok(n)
    }
}

fn member(header: &LhaHeader) -> Member {
    let kind = if header.is_directory() { Kind::Directory } else { Kind::File };
    let is_file = kind == Kind::File;
    Member {
        path: names::path(&header.parse_pathname_to_str()),
        kind,
        size: is_file.then_some(header.original_size),
        compressed_size: is_file.then_some(header.compressed_size),
        mtime: match header.parse_last_modified() {
            TimestampResult::None => None,
            // As local as MS-DOS kept it.
            TimestampResult::Naive(time) => Some(format!("{time:?}")),
            TimestampResult::Utc(time) => {
                u64::try_from(time.timestamp()).ok().map(|t| Timestamp(t.saturating_mul(1_000_000)).iso())
            }
        },
        method: is_file.then(|| String::from_utf8_lossy(header.compression.trim_ascii()).trim_matches('-').to_owned()),
        ..Member::default()
    }
}
