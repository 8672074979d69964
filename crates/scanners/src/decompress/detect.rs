//! Which format an archive has: told from its bytes. The metadata's `archiver` overrides that; a media type helps only
//! where the bytes say nothing.

use serde_json::Value;
use stoq_api::scanner::{Payload, ScanError};

use super::stream::Stream;
use super::{Unpack, ar, cab, lha, rar, sevenz, tar, zip};

/// Formats that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Zip,
    SevenZ,
    Rar,
    Cab,
    Lha,
    Tar,
    Ar,
    Stream(Stream),
}

/// Names of formats in `archiver`, with the format; `7z` is stoQ's word for whatever that tool opens.
const ARCHIVERS: &[(&str, Option<Format>)] = &[
    ("7z", None),
    ("zip", Some(Format::Zip)),
    ("rar", Some(Format::Rar)),
    ("cab", Some(Format::Cab)),
    ("lha", Some(Format::Lha)),
    ("tar", Some(Format::Tar)),
    ("ar", Some(Format::Ar)),
    ("gzip", Some(Format::Stream(Stream::Gzip))),
    ("bzip2", Some(Format::Stream(Stream::Bzip2))),
    ("xz", Some(Format::Stream(Stream::Xz))),
    ("lzma", Some(Format::Stream(Stream::Lzma))),
    ("zstd", Some(Format::Stream(Stream::Zstd))),
];

/// Media types for content that its first bytes do not tell, such as an archive whose start is damaged.
const MIMETYPES: &[(&str, Format)] = &[
    ("application/zip", Format::Zip),
    ("application/x-zip-compressed", Format::Zip),
    ("application/java-archive", Format::Zip),
    ("application/x-7z-compressed", Format::SevenZ),
    ("application/rar", Format::Rar),
    ("application/vnd.rar", Format::Rar),
    ("application/x-rar", Format::Rar),
    ("application/x-rar-compressed", Format::Rar),
    ("application/vnd.ms-cab-compressed", Format::Cab),
    ("application/x-lha", Format::Lha),
    ("application/x-lzh-compressed", Format::Lha),
    ("application/x-tar", Format::Tar),
    ("application/vnd.debian.binary-package", Format::Ar),
    ("application/gzip", Format::Stream(Stream::Gzip)),
    ("application/x-gzip", Format::Stream(Stream::Gzip)),
    ("application/x-bzip2", Format::Stream(Stream::Bzip2)),
    ("application/x-xz", Format::Stream(Stream::Xz)),
    ("application/x-lzma", Format::Stream(Stream::Lzma)),
    ("application/zstd", Format::Stream(Stream::Zstd)),
];

/// The name of a format that is recognised here and read nowhere.
pub(super) fn unread(data: &[u8]) -> Option<&'static str> {
    /// Greatest main header of an ARJ archive.
    const ARJ_HEADER: u16 = 2_600;
    match data {
        // The mark, the size of the header, and the size of its fixed part.
        [0x60, 0xea, a, b, 30..=80, ..] if (30..=ARJ_HEADER).contains(&u16::from_le_bytes([*a, *b])) => Some("ARJ"),
        [_, _, _, _, _, _, _, b'*', b'*', b'A', b'C', b'E', b'*', b'*', ..] => Some("ACE"),
        [0x1f, 0x9d, ..] => Some("compress"),
        _ => None,
    }
}

impl Format {
    /// The payload's format.
    ///
    /// # Errors
    /// It is none of those that are read here, or `archiver` names none.
    pub(super) fn of(payload: &Payload<'_>, mimetype: Option<&str>) -> Result<Self, ScanError> {
        if let Some(name) = payload.meta.extra_data.get("archiver").and_then(Value::as_str) {
            let known = ARCHIVERS.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
            let Some((_, format)) = known else {
                let names: Vec<_> = ARCHIVERS.iter().map(|(n, _)| *n).collect();
                let name: String = name.chars().take(64).collect();
                return Err(ScanError::failed(format!(
                    "unknown archive type of {name:?} in archiver; known are {}",
                    names.join(", ")
                )));
            };
            if let Some(format) = format {
                return Ok(*format);
            }
        }
        if let Some(format) = Self::detect(payload.content) {
            return Ok(format);
        }
        let claimed = MIMETYPES.iter().find(|(m, _)| Some(*m) == mimetype).filter(|_| !payload.content.is_empty());
        claimed.map(|(_, format)| *format).ok_or_else(|| {
            if let Some(name) = unread(payload.content) {
                return ScanError::failed(format!("unsupported archive type: {name}"));
            }
            let mimetype: String = mimetype.unwrap_or("unknown").chars().take(100).collect();
            ScanError::failed(format!("unable to determine archive type, mimetype: {mimetype}"))
        })
    }

    /// The format that the bytes show.
    pub(super) fn detect(data: &[u8]) -> Option<Self> {
        use Stream::{Bzip2, Gzip, Lzma, Xz, Zstd};
        if zip::starts(data) {
            return Some(Self::Zip);
        }
        if sevenz::starts(data) {
            return Some(Self::SevenZ);
        }
        if rar::starts(data) {
            return Some(Self::Rar);
        }
        if cab::starts(data) {
            return Some(Self::Cab);
        }
        if ar::starts(data) {
            return Some(Self::Ar);
        }
        if let Some(stream) = [Gzip, Bzip2, Xz, Zstd].into_iter().find(|s| s.starts(data)) {
            return Some(Self::Stream(stream));
        }
        if tar::starts(data) {
            return Some(Self::Tar);
        }
        if lha::starts(data) {
            return Some(Self::Lha);
        }
        // Programs and pictures with an archive behind them are told by its end. LZMA has no magic, so it comes last.
        if zip::ends(data) {
            return Some(Self::Zip);
        }
        if sevenz::behind_program(data).is_some() {
            return Some(Self::SevenZ);
        }
        if rar::behind_program(data) {
            return Some(Self::Rar);
        }
        Lzma.starts(data).then_some(Self::Stream(Lzma))
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Zip => "zip",
            Self::SevenZ => "7z",
            Self::Rar => "rar",
            Self::Cab => "cab",
            Self::Lha => "lha",
            Self::Tar => "tar",
            Self::Ar => "ar",
            Self::Stream(stream) => stream.name(),
        }
    }

    pub(super) fn reader(self) -> Box<dyn Unpack> {
        match self {
            Self::Zip => Box::new(zip::Zip),
            Self::SevenZ => Box::new(sevenz::SevenZ),
            Self::Rar => Box::new(rar::Rar),
            Self::Cab => Box::new(cab::Cab),
            Self::Lha => Box::new(lha::Lha),
            Self::Tar => Box::new(tar::Tar),
            Self::Ar => Box::new(ar::Ar),
            Self::Stream(stream) => Box::new(stream),
        }
    }
}
