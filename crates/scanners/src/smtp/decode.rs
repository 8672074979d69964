//! Transfer encodings and charsets, read as leniently as mail clients do.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use mail_parser::decoders::charsets::map::charset_decoder;

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
}

impl Transfer {
    /// From the value of `Content-Transfer-Encoding`.
    pub(super) fn named(name: &str) -> Self {
        let name = name.split(';').next().unwrap_or_default().trim().trim_matches('"');
        if name.eq_ignore_ascii_case("base64") {
            Self::Base64
        } else if name.eq_ignore_ascii_case("quoted-printable") {
            Self::QuotedPrintable
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
    while let Some(at) = memchr::memchr(mark, text) {
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

/// Bytes as text: byte-order mark, then the charset that was declared, then UTF-8, then windows-1252.
pub(super) fn text(bytes: &[u8], charset: Option<&str>) -> String {
    let by_mark = match bytes {
        [0xef, 0xbb, 0xbf, rest @ ..] => return String::from_utf8_lossy(rest).into_owned(),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => charset_decoder(b"utf-16"),
        _ => None,
    };
    let declared = charset.filter(|c| !is_ascii_or_utf8(c)).and_then(|c| charset_decoder(c.as_bytes()));
    if let Some(decoder) = by_mark.or(declared) {
        return decoder(bytes);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => match charset_decoder(b"windows-1252") {
            Some(decoder) => decoder(bytes),
            None => String::from_utf8_lossy(bytes).into_owned(),
        },
    }
}

/// Charsets for which strict UTF-8 is tried first, as it reads all of them.
fn is_ascii_or_utf8(charset: &str) -> bool {
    ["utf-8", "utf8", "us-ascii", "ascii"].iter().any(|c| charset.eq_ignore_ascii_case(c))
}
