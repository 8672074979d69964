//! Compressed streams that hold one file: gzip (RFC 1952), bzip2, xz, LZMA alone and zstd (RFC 8878), each with as many
//! members, streams or frames after one another as there are: they are one child, as their own tools make them.
#![expect(clippy::disallowed_types, reason = "one of the format readers of decompress")]

use std::cell::Cell;
use std::io::{self, Read};

use stoq_api::Timestamp;

use super::Unpack;
use super::codec::{self, MAX_LZMA_KIB, MemberError};
use super::extract::{Extraction, Member, Stop};
use super::names::{self, Fallback};

/// Streams after one another that are read; each may be empty, so their number must not depend on the input alone.
const MAX_STREAMS: usize = 65_536;

/// The kinds of streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Gzip,
    Bzip2,
    Xz,
    Lzma,
    Zstd,
}

/// Endings of names, and what the content is called instead.
const SUFFIXES: &[(&str, &str)] = &[
    (".tgz", ".tar"),
    (".taz", ".tar"),
    (".tbz2", ".tar"),
    (".tbz", ".tar"),
    (".txz", ".tar"),
    (".tlz", ".tar"),
    (".tzst", ".tar"),
    (".svgz", ".svg"),
    (".gz", ""),
    (".bz2", ""),
    (".xz", ""),
    (".lzma", ""),
    (".zst", ""),
];

impl Stream {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Lzma => "lzma",
            Self::Zstd => "zstd",
        }
    }

    /// Whether a stream of this kind starts here.
    pub(super) fn starts(self, data: &[u8]) -> bool {
        match self {
            Self::Gzip => data.starts_with(&[0x1f, 0x8b, 8]),
            Self::Bzip2 => is_bzip2(data),
            Self::Xz => data.starts_with(b"\xfd7zXZ\0"),
            Self::Lzma => is_lzma(data),
            Self::Zstd => is_zstd(data),
        }
    }

    fn decoder(self, data: &[u8]) -> io::Result<Decoder<'_>> {
        Ok(match self {
            Self::Gzip => Decoder::Gzip(Box::new(flate2::bufread::GzDecoder::new(data))),
            Self::Bzip2 => Decoder::Bzip2(bzip2::bufread::BzDecoder::new(data)),
            Self::Xz => Decoder::Xz(Box::new(codec::Xz::new(data, false))),
            Self::Lzma => Decoder::Lzma(Box::new(lzma_alone(data)?)),
            Self::Zstd => Decoder::Zstd(codec::zstd(data, false)?),
        })
    }
}

/// `BZh`, the block size, then the magic of a block or of the end.
fn is_bzip2(data: &[u8]) -> bool {
    data.starts_with(b"BZh")
        && data.get(3).is_some_and(|level| (b'1'..=b'9').contains(level))
        && (data.len() < 10 || data[4..10] == *b"\x31AY&SY" || data[4..10] == *b"\x17rE8P\x90")
}

/// A frame, or a skippable frame.
fn is_zstd(data: &[u8]) -> bool {
    let magic = data.first_chunk().map(|m| u32::from_le_bytes(*m));
    magic.is_some_and(|m| m == 0xfd2f_b528 || m & 0xffff_fff0 == 0x184d_2a50)
}

/// LZMA alone has no magic. The rules are those of `xz`: valid properties, a dictionary of 2^n or 2^n + 2^(n-1) bytes, and
/// a size that is unknown or below 256 GiB; the range coder's first byte is always 0.
fn is_lzma(data: &[u8]) -> bool {
    let Some(head) = data.first_chunk::<14>() else { return false };
    let dictionary = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
    let size = u64::from_le_bytes([head[5], head[6], head[7], head[8], head[9], head[10], head[11], head[12]]);
    let round = dictionary.is_power_of_two() || (dictionary % 3 == 0 && (dictionary / 3).is_power_of_two());
    head[0] < 225
        && (round && dictionary >= 4096 || dictionary == u32::MAX)
        && (size == u64::MAX || size < 1 << 38)
        && head[13] == 0
}

/// # Errors
/// The header is cut short or invalid, or asks for too much memory.
fn lzma_alone(data: &[u8]) -> io::Result<lzma_rust2::LzmaReader<&[u8]>> {
    if let Some(size) = data.get(1..5).and_then(|d| d.try_into().ok()).map(u32::from_le_bytes) {
        codec::check_memory(size.into())?;
    }
    lzma_rust2::LzmaReader::new_mem_limit(data, MAX_LZMA_KIB, None)
}

/// One stream's decompressor over what is left of the input.
enum Decoder<'a> {
    Gzip(Box<flate2::bufread::GzDecoder<&'a [u8]>>),
    Bzip2(bzip2::bufread::BzDecoder<&'a [u8]>),
    Xz(Box<codec::Xz<&'a [u8]>>),
    Lzma(Box<lzma_rust2::LzmaReader<&'a [u8]>>),
    Zstd(zstd::Decoder<'static, &'a [u8]>),
}

impl<'a> Decoder<'a> {
    /// What follows the stream, once it has ended.
    fn rest(self) -> &'a [u8] {
        match self {
            Self::Gzip(d) => d.into_inner(),
            Self::Bzip2(d) => d.into_inner(),
            Self::Xz(d) => d.into_inner(),
            Self::Lzma(d) => {
                // It reads ahead; what it did not use lies right before the reader's position, in the same input.
                let (rest, unused) = d.into_parts();
                if unused.is_empty() { rest } else { &[] }
            }
            Self::Zstd(d) => d.finish(),
        }
    }
}

impl Read for Decoder<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(d) => d.read(buffer),
            Self::Bzip2(d) => d.read(buffer),
            Self::Xz(d) => d.read(buffer),
            Self::Lzma(d) => d.read(buffer),
            Self::Zstd(d) => d.read(buffer),
        }
    }
}

/// All streams after one another, as one reader.
struct Streams<'a, 'b> {
    stream: Stream,
    decoder: Option<Decoder<'a>>,
    count: usize,
    /// Where what follows the last stream is left.
    rest: &'b Cell<&'a [u8]>,
}

impl<'a, 'b> Streams<'a, 'b> {
    fn new(stream: Stream, data: &'a [u8], rest: &'b Cell<&'a [u8]>) -> io::Result<Self> {
        rest.set(&[]);
        Ok(Self { stream, decoder: Some(stream.decoder(data)?), count: 1, rest })
    }
}

impl Read for Streams<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let Some(decoder) = &mut self.decoder else { return Ok(0) };
            let n = decoder.read(buffer)?;
            if n > 0 {
                return Ok(n);
            }
            let rest = self.decoder.take().map(Decoder::rest).unwrap_or_default();
            // xz pads its streams with zeros; a run of them between streams of other kinds does no harm either.
            let padding = rest.iter().position(|b| *b != 0).unwrap_or(rest.len());
            let next = &rest[padding..];
            // LZMA alone is never followed by another one.
            if self.stream == Stream::Lzma || !self.stream.starts(next) {
                self.rest.set(rest);
                return Ok(0);
            }
            self.count += 1;
            if self.count > MAX_STREAMS {
                return Err(MemberError::Unsupported(format!("a file of more than {MAX_STREAMS} streams")).io());
            }
            self.decoder = Some(self.stream.decoder(next)?);
        }
    }
}

impl Unpack for Stream {
    fn unpack(&self, input: &[u8], out: &mut Extraction<'_, '_>) -> Result<(), Stop> {
        out.next()?;
        let mut member = Member { method: Some(self.name().to_owned()), ..Member::default() };
        member.compressed_size = Some(input.len() as u64);
        let named = out.archive_name().and_then(|n| names::without_suffix(n, SUFFIXES));
        member.path = names::path(named.as_deref().or(out.archive_name()).unwrap_or("content"));
        if *self == Self::Gzip {
            gzip_header(input, &mut member, out);
        }
        let rest = Cell::new(&[][..]);
        let mut open = || Ok(Box::new(Streams::new(*self, input, &rest)?) as Box<dyn Read>);
        out.extract(&member, &mut open)?;
        let rest = rest.get();
        if rest.iter().any(|b| *b != 0) {
            out.anomaly(format!("{} bytes follow the last stream", rest.len()));
        }
        Ok(())
    }
}

/// Name, comment and time of the first member.
fn gzip_header(input: &[u8], member: &mut Member, out: &mut Extraction<'_, '_>) {
    let decoder = flate2::bufread::GzDecoder::new(input);
    let Some(header) = decoder.header() else { return };
    if let Some(name) = header.filename().filter(|n| !n.is_empty()) {
        member.path = names::path(&names::decode(name, Fallback::Windows1252));
    }
    if header.mtime() != 0 {
        member.mtime = Some(Timestamp(u64::from(header.mtime()) * 1_000_000).iso());
    }
    if let Some(comment) = header.comment() {
        out.comment(names::decode(comment, Fallback::Windows1252));
    }
}
