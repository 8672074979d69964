//! Transfer encodings and charsets, read as leniently as mail clients do.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use mail_parser::decoders::charsets::map::charset_decoder;
use memchr::{memchr, memmem};

/// Bytes of the name in a uuencoded file.
const MAX_UU_NAME: usize = 255;

/// Ignores padding and loose bits at the end of a run.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// How a part's bytes are packed (RFC 2045, 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transfer {
    /// As they stand: 7bit, 8bit, binary, or a name that nobody knows.
    Plain,
    /// Base64.
    Base64,
    /// Quoted-printable.
    QuotedPrintable,
    /// Uuencode, which was never a standard of mail.
    UuEncode,
}

impl Transfer {
    /// `raw` without the encoding, and whether that was broken.
    pub(super) fn undo(self, raw: &[u8]) -> (Cow<'_, [u8]>, bool) {
        let (bytes, odd) = match self {
            Self::Plain => return (raw.into(), false),
            Self::Base64 => base64(raw),
            Self::QuotedPrintable => quoted_printable(raw),
            Self::UuEncode => match uuencoded(raw, 0) {
                Some(file) => (file.content, file.odd),
                None => return (raw.into(), true),
            },
        };
        (bytes.into(), odd)
    }

    /// From the value of `Content-Transfer-Encoding`.
    pub(super) fn named(name: &str) -> Self {
        let name = name.split(';').next().unwrap_or_default().trim().trim_matches('"');
        if name.eq_ignore_ascii_case("base64") {
            Self::Base64
        } else if name.eq_ignore_ascii_case("quoted-printable") {
            Self::QuotedPrintable
        } else if ["x-uuencode", "uuencode", "x-uue", "uue"].iter().any(|n| name.eq_ignore_ascii_case(n)) {
            Self::UuEncode
        } else {
            Self::Plain
        }
    }
}

/// Decodes base64, skipping whatever is not of its alphabet. Padding ends a run, not the data: clients differ in what
/// they do after it, so nothing after it is dropped. Also says whether anything but line breaks was skipped.
pub(super) fn base64(data: &[u8]) -> (Vec<u8>, bool) {
    let mut out = Vec::with_capacity(data.len() / 4 * 3 + 3);
    let mut odd = false;
    let mut run = Vec::with_capacity(data.len());
    for piece in data.split(|&b| b == b'=') {
        run.clear();
        for &byte in piece {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' => run.push(byte),
                b'\r' | b'\n' | b' ' | b'\t' => {}
                _ => odd = true,
            }
        }
        if run.len() % 4 == 1 {
            odd = true;
            run.pop();
        }
        // Nothing but the alphabet is left, in a length that has a meaning.
        odd |= LENIENT.decode_vec(&run, &mut out).is_err();
    }
    (out, odd)
}

/// Decodes quoted-printable; a broken escape stays as it stands, and is told.
pub(super) fn quoted_printable(data: &[u8]) -> (Vec<u8>, bool) {
    let mut out = Vec::with_capacity(data.len());
    let mut odd = false;
    for line in data.split_inclusive(|&b| b == b'\n') {
        let text = line.trim_ascii_end();
        let ending = match line {
            [.., b'\r', b'\n'] => &b"\r\n"[..],
            [.., b'\n'] => b"\n",
            _ => b"",
        };
        let (text, soft) = match text {
            [text @ .., b'='] => (text, true),
            // Blanks at the end of a line are not part of it; at the end of the data nobody can tell.
            _ if ending.is_empty() => (line, false),
            text => (text, false),
        };
        odd |= escapes(text, b'=', &mut out);
        if !soft {
            out.extend_from_slice(ending);
        }
    }
    (out, odd)
}

/// Decodes the Q encoding of RFC 2047.
pub(super) fn q_word(data: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> = data.iter().map(|&b| if b == b'_' { b' ' } else { b }).collect();
    let mut out = Vec::with_capacity(data.len());
    escapes(&spaced, b'=', &mut out);
    out
}

fn escapes(mut text: &[u8], mark: u8, out: &mut Vec<u8>) -> bool {
    let mut odd = false;
    while let Some(at) = memchr(mark, text) {
        out.extend_from_slice(&text[..at]);
        match text.get(at + 1..at + 3).and_then(hex_pair) {
            Some(byte) => {
                out.push(byte);
                text = &text[at + 3..];
            }
            None => {
                odd = true;
                out.push(mark);
                text = &text[at + 1..];
            }
        }
    }
    out.extend_from_slice(text);
    odd
}

fn hex_pair(digits: &[u8]) -> Option<u8> {
    let mut byte = [0];
    hex::decode_to_slice(digits, &mut byte).ok().map(|()| byte[0])
}

/// A file in uuencode (POSIX `uuencode`).
pub(super) struct UuFile {
    /// Its name.
    pub(super) name: String,
    /// Its bytes.
    pub(super) content: Vec<u8>,
    /// Where the block ends in what it was found in.
    pub(super) end: usize,
    /// It broke off, or lines in it made no sense.
    pub(super) odd: bool,
}

/// The first uuencoded file in `data` from `from` on.
pub(super) fn uuencoded(data: &[u8], from: usize) -> Option<UuFile> {
    let mut search = from;
    loop {
        let at = search + memmem::find(&data[search..], b"begin ")?;
        search = at + 1;
        if at > 0 && data[at - 1] != b'\n' {
            continue;
        }
        let line_end = memchr(b'\n', &data[at..]).map_or(data.len(), |n| at + n + 1);
        if let Some(name) = uu_name(&data[at..line_end]) {
            return Some(uu_lines(data, line_end, name));
        }
    }
}

/// The name in `begin 644 name`.
fn uu_name(line: &[u8]) -> Option<String> {
    let rest = line.strip_prefix(b"begin ")?;
    let mode = rest.iter().position(|b| !matches!(b, b'0'..=b'7')).filter(|n| matches!(n, 3 | 4))?;
    let name = rest[mode..].strip_prefix(b" ")?.trim_ascii();
    (!name.is_empty() && name.len() <= MAX_UU_NAME).then(|| text(name, None))
}

fn uu_lines(data: &[u8], from: usize, name: String) -> UuFile {
    let mut file = UuFile { name, content: Vec::new(), end: from, odd: true };
    while file.end < data.len() {
        let next = memchr(b'\n', &data[file.end..]).map_or(data.len(), |n| file.end + n + 1);
        let line = data[file.end..next].trim_ascii_end();
        if line == b"end" {
            file.end = next;
            file.odd = false;
            return file;
        }
        if !uu_line(line, &mut file.content) {
            return file;
        }
        file.end = next;
    }
    file
}

/// One line: a length, then three bytes in each four characters. Blanks at its end may have got lost on the way.
fn uu_line(line: &[u8], out: &mut Vec<u8>) -> bool {
    let six = |b: &u8| b.wrapping_sub(b' ') & 0x3f;
    let Some((first, rest)) = line.split_first() else { return true };
    if !rest.iter().chain([first]).all(|b| matches!(b, b' '..=b'`')) {
        return false;
    }
    let len = usize::from(six(first));
    let start = out.len();
    for n in 0..len.div_ceil(3) {
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| rest.get(4 * n + i).map_or(0, six));
        out.extend_from_slice(&[a << 2 | b >> 4, b << 4 | c >> 2, c << 6 | d]);
    }
    out.truncate(start + len);
    true
}

/// Bytes as text: byte-order mark, then the charset that was declared, then the rule for text of unknown origin.
pub(super) fn text(bytes: &[u8], charset: Option<&str>) -> String {
    let marked = matches!(bytes, [0xef, 0xbb, 0xbf, ..] | [0xff, 0xfe, ..] | [0xfe, 0xff, ..]);
    let declared = charset.filter(|c| !marked && !is_ascii_or_utf8(c)).and_then(|c| charset_decoder(c.as_bytes()));
    match declared {
        Some(decoder) => decoder(bytes),
        None => crate::text::decode_fragment(bytes).into_owned(),
    }
}

/// A body that is HTML: it may declare its charset itself.
pub(super) fn html(bytes: &[u8], charset: Option<&str>) -> String {
    match charset {
        Some(_) => text(bytes, charset),
        None => crate::text::decode(bytes).into_owned(),
    }
}

/// Charsets for which strict UTF-8 is tried first, as it reads all of them.
fn is_ascii_or_utf8(charset: &str) -> bool {
    ["utf-8", "utf8", "us-ascii", "ascii"].iter().any(|c| charset.eq_ignore_ascii_case(c))
}
