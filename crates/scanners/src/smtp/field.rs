//! Header fields: where they end, what they are called, what they say.
//!
//! Lines that are no field are a known trick. A reader that skips such a line still sees the fields below it, one that
//! stops there takes the rest for the body. Here the line is skipped if a MIME field follows before the blank line, so that
//! no attachment is missed, and ends the header otherwise, so that no body is.

use mail_parser::decoders::charsets::map::charset_decoder;
use mail_parser::parsers::MessageStream;
use mail_parser::{Address, ContentType, HeaderValue};
use memchr::{memchr, memmem};

use super::decode;

/// Fields of one part; further ones are left out.
pub(super) const MAX_FIELDS: usize = 1_000;
/// Bytes of one field's value that are read.
pub(super) const MAX_VALUE: usize = 32 << 10;
/// Bytes of all values of one part together.
pub(super) const MAX_VALUES: usize = 1 << 20;
/// Defects of one header that are told.
const MAX_DEFECTS: usize = 20;
/// Bytes of a field's name; a longer one is no field.
const MAX_NAME: usize = 256;
/// Bytes of one encoded word (RFC 2047 allows 75; senders exceed that).
const MAX_ENCODED_WORD: usize = 1_024;
/// Bytes of a media type or disposition, with its parameters, that are read.
pub(super) const MAX_PARAMETERS: usize = 4 << 10;
/// Bytes of a field in which addresses are looked for, and addresses taken from it.
const MAX_ADDRESSES_VALUE: usize = 16 << 10;
const MAX_ADDRESSES: usize = 500;
/// Stands for a question mark; no byte that a field may hold.
const VEILED: u8 = 1;

/// One header field.
pub(super) struct Field<'a> {
    /// Its name in lower case.
    pub(super) name: String,
    /// Its bytes after the colon, folds included.
    pub(super) value: &'a [u8],
}

/// The header of a message or part.
#[derive(Default)]
pub(super) struct Header<'a> {
    /// Fields in order.
    pub(super) fields: Vec<Field<'a>>,
    /// Where the body begins.
    pub(super) body: usize,
    /// What was not as it should be.
    pub(super) defects: Vec<String>,
    /// What was left out for its size or number.
    pub(super) limits: Vec<String>,
}

/// Reads the header at the beginning of `bytes`.
pub(super) fn read(bytes: &[u8]) -> Header<'_> {
    let mut header = Header::default();
    let (end, last_mime) = extent(bytes);
    let mut total = 0;
    let mut at = 0;
    while at < end {
        let stop = field_end(bytes, at, end);
        let line = &bytes[at..stop];
        match split(line) {
            Some((name, value)) if header.fields.len() < MAX_FIELDS && total < MAX_VALUES => {
                if value.len() > MAX_VALUE {
                    header.limits.push(format!("header field {name}: only {MAX_VALUE} of {} bytes read", value.len()));
                }
                let value = &value[..value.len().min(MAX_VALUE)];
                total += value.len();
                header.fields.push(Field { name, value });
            }
            Some(_) => {
                header.limits.push(format!(
                    "header fields from byte {at} on left out: more than {MAX_FIELDS}, or {MAX_VALUES} bytes"
                ));
                break;
            }
            None if line.starts_with(b"From ") || line.starts_with(b">From ") => {}
            None if at < last_mime => {
                if header.defects.len() < MAX_DEFECTS {
                    header.defects.push(format!("line at byte {at} of the header is no field"));
                }
            }
            None => {
                header.defects.push("no blank line between header and body".to_owned());
                header.body = at;
                return header;
            }
        }
        at = stop;
    }
    header.body = blank_end(bytes, end);
    header
}

/// Where the blank line after the header is, and where the last line stands that begins like a MIME field.
fn extent(bytes: &[u8]) -> (usize, usize) {
    let (mut at, mut last_mime) = (0, 0);
    while at < bytes.len() && !matches!(&bytes[at..], [b'\n', ..] | [b'\r', b'\n', ..]) {
        let line = &bytes[at..];
        let begins = |prefix: &[u8]| line.len() >= prefix.len() && line[..prefix.len()].eq_ignore_ascii_case(prefix);
        if begins(b"content-") || begins(b"mime-version:") {
            last_mime = at;
        }
        at = next_line(bytes, at);
    }
    (at, last_mime)
}

/// Where the line after the one at `at` begins.
fn next_line(bytes: &[u8], at: usize) -> usize {
    memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |n| at + n + 1)
}

/// Where the field at `at` ends, its continuation lines included.
fn field_end(bytes: &[u8], at: usize, end: usize) -> usize {
    let mut stop = next_line(bytes, at);
    while stop < end && matches!(bytes[stop], b' ' | b'\t') {
        stop = next_line(bytes, stop);
    }
    stop.min(end)
}

fn blank_end(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at..) {
        Some([b'\r', b'\n', ..]) => at + 2,
        Some([b'\n', ..]) => at + 1,
        _ => bytes.len(),
    }
}

/// Name and value of a field; `None` if the line is none.
fn split(line: &[u8]) -> Option<(String, &[u8])> {
    let colon = memchr(b':', &line[..line.len().min(MAX_NAME)])?;
    let name = line[..colon].trim_ascii_end();
    if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    Some((String::from_utf8_lossy(name).to_ascii_lowercase(), &line[colon + 1..]))
}

impl Field<'_> {
    /// The value as people read it: unfolded, encoded words decoded, blanks at both ends gone.
    pub(super) fn text(&self) -> String {
        decode_words(&unfold(self.value))
    }

    /// The value as a media type or disposition with parameters (RFC 2045, RFC 2183, RFC 2231). Encoded words in
    /// parameters stay as they are; see [`words`].
    pub(super) fn content_type(&self) -> Option<ContentType<'static>> {
        let line = self.line(MAX_PARAMETERS);
        let HeaderValue::ContentType(mut found) = MessageStream::new(&line).parse_content_type().into_owned() else {
            return None;
        };
        for attribute in found.attributes.iter_mut().flatten() {
            if attribute.value.contains(char::from(VEILED)) {
                attribute.value = attribute.value.replace(char::from(VEILED), "?").into();
            }
        }
        Some(found)
    }

    /// The addresses in the value.
    pub(super) fn addresses(&self) -> Vec<String> {
        let line = self.line(MAX_ADDRESSES_VALUE);
        let found = match MessageStream::new(&line).parse_address() {
            HeaderValue::Address(found) => found,
            _ => Address::List(Vec::new()),
        };
        found.iter().filter_map(|a| a.address()).map(str::to_owned).take(MAX_ADDRESSES).collect()
    }

    /// The beginning of the value as one line with an end, which is what the field parsers expect. The question mark of
    /// `=?` is veiled: for each of them the parsers look through the rest of the line for an encoded word.
    fn line(&self, most: usize) -> Vec<u8> {
        let mut line = unfold(&self.value[..self.value.len().min(most)]);
        for at in 1..line.len() {
            if line[at - 1] == b'=' && line[at] == b'?' {
                line[at] = VEILED;
            }
        }
        line.push(b'\n');
        line
    }
}

/// Joins folded lines (RFC 5322, 2.2.3): the line breaks go, the blanks stay.
fn unfold(value: &[u8]) -> Vec<u8> {
    value.iter().copied().filter(|b| !matches!(b, b'\r' | b'\n')).collect::<Vec<_>>().trim_ascii().to_vec()
}

/// A parameter's value with encoded words decoded.
pub(super) fn words(value: &str) -> String {
    if value.contains("=?") { decode_words(value.as_bytes()) } else { value.to_owned() }
}

/// Decodes encoded words (RFC 2047). Words next to each other are decoded together where their charset is the same, since
/// senders cut characters in two.
fn decode_words(value: &[u8]) -> String {
    let mut out = String::new();
    let mut pending: Option<(String, Vec<u8>)> = None;
    let mut rest = value;
    while let Some(at) = memmem::find(rest, b"=?") {
        let Some((charset, bytes, len)) = encoded_word(&rest[at..]) else {
            flush(&mut out, &mut pending);
            out.push_str(&decode::text(&rest[..at + 2], None));
            rest = &rest[at + 2..];
            continue;
        };
        if pending.is_none() || !rest[..at].trim_ascii().is_empty() {
            flush(&mut out, &mut pending);
            out.push_str(&decode::text(&rest[..at], None));
        }
        match &mut pending {
            Some((same, before)) if *same == charset => before.extend_from_slice(&bytes),
            _ => {
                flush(&mut out, &mut pending);
                pending = Some((charset, bytes));
            }
        }
        rest = &rest[at + len..];
    }
    flush(&mut out, &mut pending);
    out.push_str(&decode::text(rest, None));
    out
}

fn flush(out: &mut String, pending: &mut Option<(String, Vec<u8>)>) {
    if let Some((charset, bytes)) = pending.take() {
        out.push_str(&decode::text(&bytes, Some(&charset)));
    }
}

/// The encoded word at the beginning of `at`: charset, bytes, and how long it is.
fn encoded_word(at: &[u8]) -> Option<(String, Vec<u8>, usize)> {
    let window = &at[..at.len().min(MAX_ENCODED_WORD)];
    let charset_end = 2 + memchr(b'?', &window[2..])?;
    let charset = std::str::from_utf8(&window[2..charset_end]).ok()?.split('*').next()?.to_ascii_lowercase();
    let method = *window.get(charset_end + 1)?;
    if window.get(charset_end + 2) != Some(&b'?') {
        return None;
    }
    let from = charset_end + 3;
    let data_end = from + memmem::find(&window[from..], b"?=")?;
    let data = &window[from..data_end];
    let bytes = match method {
        b'b' | b'B' => decode::base64(data).0,
        b'q' | b'Q' => decode::q_word(data),
        _ => return None,
    };
    // An unknown charset is read as plain text would be; a nonsense one is no encoded word.
    (!charset.is_empty() && (charset_decoder(charset.as_bytes()).is_some() || charset.is_ascii())).then_some((
        charset,
        bytes,
        data_end + 2,
    ))
}
