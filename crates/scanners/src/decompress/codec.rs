//! Decompressors with their memory capped, the checksum behind them, and what can go wrong with a member.
//!
//! The only place, with the format readers beside it, where decompressors are made. What comes out of them is bounded by
//! [`stoq_api::BoundedReader`] in [`super::extract`].
#![expect(clippy::disallowed_types, reason = "the one place where decompressors are made")]

use std::io::{self, BufRead, Read};

/// Window, dictionary or model of any decompressor, in bytes: what `zstd --long` and 7-Zip's own defaults need.
pub(super) const MAX_DICTIONARY: u64 = 128 << 20;
/// The same for zstd, as the logarithm that its frames state.
const MAX_WINDOW_LOG: u32 = MAX_DICTIONARY.ilog2();
/// What LZMA decoders need beside the dictionary, in KiB: the model for `lc + lp` = 12 and buffers.
const LZMA_OVERHEAD_KIB: u32 = 16 << 10;
/// The limit that LZMA decoders take: everything, in KiB.
pub(super) const MAX_LZMA_KIB: u32 = (MAX_DICTIONARY >> 10) as u32 + LZMA_OVERHEAD_KIB;

/// What is wrong with a member, carried inside an [`io::Error`].
#[derive(Debug, thiserror::Error)]
pub(super) enum MemberError {
    /// A method that nobody here speaks.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// More memory than is spent on one stream.
    #[error("needs a dictionary of {needed} bytes, at most {MAX_DICTIONARY} are spent")]
    TooMuchMemory { needed: u64 },
    /// More work than is spent on one key.
    #[error("takes 2^{power} rounds for its key, at most 2^{most} are spent")]
    Rounds { power: u8, most: u8 },
    /// Encrypted, and no candidate fits.
    #[error("encrypted, and none of {tried} passwords opens it")]
    Password { tried: usize },
    /// The code that authenticates an encrypted member does not fit its data.
    #[error("authentication code does not fit")]
    Authentication,
    /// All data were read, but they are not what the archive states.
    #[error("checksum is {found:08x}, the archive says {stated:08x}")]
    Checksum { stated: u32, found: u32 },
    /// All data were read, but there are less than the archive states.
    #[error("ends after {found} bytes, the archive says {stated}")]
    Size { stated: u64, found: u64 },
}

impl MemberError {
    /// Whether a limit of ours is the reason.
    pub(super) const fn is_limit(&self) -> bool {
        matches!(self, Self::TooMuchMemory { .. } | Self::Rounds { .. })
    }

    /// As an [`io::Error`], for a reader.
    pub(super) fn io(self) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, self)
    }
}

/// Not more than [`MAX_DICTIONARY`].
///
/// # Errors
/// It is more.
pub(super) fn check_memory(needed: u64) -> io::Result<()> {
    if needed > MAX_DICTIONARY { Err(MemberError::TooMuchMemory { needed }.io()) } else { Ok(()) }
}

/// Raw deflate (RFC 1951); its window is 32 KiB.
pub(super) fn deflate<'a>(data: impl BufRead + 'a) -> Box<dyn Read + 'a> {
    Box::new(flate2::bufread::DeflateDecoder::new(data))
}

/// Deflate64 (APPNOTE method 9); its window is 64 KiB.
pub(super) fn deflate64<'a>(data: impl BufRead + 'a) -> Box<dyn Read + 'a> {
    Box::new(deflate64::Deflate64Decoder::with_buffer(data))
}

/// bzip2; a block is at most 900 kB, which takes about 4 MB.
pub(super) fn bzip2<'a>(data: impl BufRead + 'a) -> Box<dyn Read + 'a> {
    Box::new(bzip2::bufread::MultiBzDecoder::new(data))
}

/// LZMA without a header of its own.
///
/// # Errors
/// The properties are invalid, or ask for too much memory.
pub(super) fn lzma<'a>(
    data: impl Read + 'a,
    properties: u8,
    dictionary: u32,
    size: u64,
) -> io::Result<Box<dyn Read + 'a>> {
    check_memory(dictionary.into())?;
    Ok(Box::new(lzma_rust2::LzmaReader::new_with_props(data, size, properties, dictionary, None)?))
}

/// xz streams: the first one, or all. Unlike the library's own reader, it gives the content of a chunk that is cut short
/// as far as it goes.
pub(super) struct Xz<R> {
    stream: lzma_rust2::XzStream,
    data: R,
    ended: bool,
}

impl<R: BufRead> Xz<R> {
    pub(super) fn new(data: R, all: bool) -> Self {
        Self { stream: lzma_rust2::XzStream::new_mem_limit(all, MAX_LZMA_KIB), data, ended: false }
    }

    /// What follows the stream, once it has ended.
    pub(super) fn into_inner(self) -> R {
        self.data
    }
}

impl<R: BufRead> Read for Xz<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.ended && !buffer.is_empty() {
            let data = self.data.fill_buf()?;
            let action = if data.is_empty() { lzma_rust2::Action::Finish } else { lzma_rust2::Action::Run };
            let step = self.stream.process(data, buffer, action)?;
            self.data.consume(step.bytes_consumed);
            self.ended = step.status == lzma_rust2::Status::StreamEnd;
            if step.bytes_produced > 0 {
                return Ok(step.bytes_produced);
            }
            if step.bytes_consumed == 0 && !self.ended {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(0)
    }
}

/// zstd frames: the first one, or all.
///
/// # Errors
/// The first frame asks for too much memory, or the library's context cannot be made. Later frames are checked by the
/// library itself.
pub(super) fn zstd<R: BufRead>(mut data: R, all: bool) -> io::Result<zstd::Decoder<'static, R>> {
    if let Some(window) = zstd_window(data.fill_buf()?) {
        check_memory(window)?;
    }
    let mut decoder = zstd::Decoder::with_buffer(data)?;
    decoder.window_log_max(MAX_WINDOW_LOG)?;
    Ok(if all { decoder } else { decoder.single_frame() })
}

/// The window that a frame states (RFC 8878, 3.1.1.1.2); `None` where it is the content itself.
fn zstd_window(frame: &[u8]) -> Option<u64> {
    let descriptor = *frame.get(4)?;
    if !frame.starts_with(&0xfd2f_b528_u32.to_le_bytes()) || descriptor & 0x20 != 0 {
        return None;
    }
    let window = frame.get(5)?;
    let base = 1_u64 << (10 + (window >> 3));
    Some(base + base / 8 * u64::from(window & 7))
}

/// Whether a decompressor refused because of the memory that it would need.
pub(super) fn is_memory(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::OutOfMemory || error.to_string().contains("too much memory")
}

/// PPMd variant I (APPNOTE method 98).
///
/// # Errors
/// The parameters are invalid, or ask for too much memory.
pub(super) fn ppmd<'a>(data: impl Read + 'a, order: u32, memory: u32, restore: u16) -> io::Result<Box<dyn Read + 'a>> {
    check_memory(memory.into())?;
    let restore = match restore {
        0 => ppmd_rust::RestoreMethod::Restart,
        1 => ppmd_rust::RestoreMethod::CutOff,
        _ => return Err(MemberError::Unsupported(format!("PPMd restore method {restore}")).io()),
    };
    let decoder = ppmd_rust::Ppmd8Decoder::new(data, order, memory, restore).map_err(io::Error::other)?;
    Ok(Box::new(decoder))
}

/// Compares what was read with what the archive states, once the data have ended. A reader that has more than the stated
/// size is left to do so: what unpackers show to a user is what has to be scanned.
pub(super) struct Checked<R> {
    inner: R,
    crc: Option<(crc32fast::Hasher, u32)>,
    size: Option<u64>,
    read: u64,
}

impl<R: Read> Checked<R> {
    pub(super) fn new(inner: R, crc: Option<u32>, size: Option<u64>) -> Self {
        Self { inner, crc: crc.map(|stated| (crc32fast::Hasher::new(), stated)), size, read: 0 }
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        if n > 0 {
            self.read += n as u64;
            if let Some((hasher, _)) = &mut self.crc {
                hasher.update(&buffer[..n]);
            }
            return Ok(n);
        }
        if let Some(stated) = self.size.filter(|s| *s > self.read && !buffer.is_empty()) {
            return Err(MemberError::Size { stated, found: self.read }.io());
        }
        if let Some((hasher, stated)) = self.crc.as_ref().filter(|_| !buffer.is_empty()) {
            let (found, stated) = (hasher.clone().finalize(), *stated);
            if found != stated {
                return Err(MemberError::Checksum { stated, found }.io());
            }
        }
        Ok(0)
    }
}
