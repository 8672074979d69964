//! Bytes to text, the same way every time: no guessing by statistics, nothing that depends on the machine.
//!
//! The order is: a byte order mark, the encoding declared in an XML or HTML head ([`decode`] only), strict UTF-8, and
//! windows-1252, which fits any bytes; its five undefined ones become U+FFFD.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252, X_USER_DEFINED};

/// Bytes of a document's head in which a declared encoding is looked for.
const DECLARATION: usize = 2048;

/// The text of a whole document.
pub fn decode(bytes: &[u8]) -> Cow<'_, str> {
    with_mark(bytes).or_else(|| declared(bytes)).unwrap_or_else(|| unmarked(bytes))
}

/// The text of a piece of something, such as a string that a rule matched: declarations in it mean nothing.
pub fn decode_fragment(bytes: &[u8]) -> Cow<'_, str> {
    with_mark(bytes).unwrap_or_else(|| unmarked(bytes))
}

/// Text behind a byte order mark, without the mark.
fn with_mark(bytes: &[u8]) -> Option<Cow<'_, str>> {
    // The marks of UTF-32 begin like or end like those of UTF-16, and encoding_rs knows nothing of them.
    match bytes {
        [0xff, 0xfe, 0, 0, rest @ ..] => return Some(utf32(rest, u32::from_le_bytes).into()),
        [0, 0, 0xfe, 0xff, rest @ ..] => return Some(utf32(rest, u32::from_be_bytes).into()),
        _ => {}
    }
    let (encoding, mark) = Encoding::for_bom(bytes)?;
    Some(encoding.decode_without_bom_handling(&bytes[mark..]).0)
}

fn utf32(bytes: &[u8], unit: fn([u8; 4]) -> u32) -> String {
    let (units, rest) = bytes.as_chunks::<4>();
    let replacement = (!rest.is_empty()).then_some(char::REPLACEMENT_CHARACTER);
    let chars = units.iter().map(|u| char::from_u32(unit(*u)).unwrap_or(char::REPLACEMENT_CHARACTER));
    chars.chain(replacement).collect()
}

/// Text in the encoding that the document declares, if it is known and fits.
fn declared(bytes: &[u8]) -> Option<Cow<'_, str>> {
    let head = &bytes[..bytes.len().min(DECLARATION)];
    let encoding = Encoding::for_label(xml_label(head).or_else(|| meta_label(head))?)?;
    // Who declares UTF-16 in a head that reads as ASCII is wrong, and x-user-defined is no encoding of text.
    if [UTF_8, UTF_16LE, UTF_16BE, X_USER_DEFINED].contains(&encoding) {
        return None;
    }
    encoding.decode_without_bom_handling_and_without_replacement(bytes)
}

/// The label in `<?xml … encoding="label" …?>` (XML 1.0, section 4.3.3).
fn xml_label(head: &[u8]) -> Option<&[u8]> {
    let declaration = head.trim_ascii_start().strip_prefix(b"<?xml")?;
    let end = declaration.windows(2).position(|w| w == b"?>")?;
    let at = find_no_case(&declaration[..end], b"encoding")?;
    value(&declaration[at + b"encoding".len()..end])
}

/// The label in `<meta charset="label">` or `<meta … content="text/html; charset=label">`.
fn meta_label(head: &[u8]) -> Option<&[u8]> {
    let mut rest = head;
    while let Some(at) = find_no_case(rest, b"<meta") {
        rest = &rest[at + b"<meta".len()..];
        let tag = &rest[..rest.iter().position(|b| *b == b'>').unwrap_or(rest.len())];
        if let Some(label) = find_no_case(tag, b"charset").and_then(|at| value(&tag[at + b"charset".len()..])) {
            return Some(label);
        }
    }
    None
}

/// What stands behind an equals sign, with or without quotes.
fn value(text: &[u8]) -> Option<&[u8]> {
    let text = text.trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
    let text = text.strip_prefix(b"\"").or_else(|| text.strip_prefix(b"'")).unwrap_or(text);
    let end = text.iter().position(|b| b"\"'/>;".contains(b) || b.is_ascii_whitespace()).unwrap_or(text.len());
    (end > 0).then(|| &text[..end])
}

fn find_no_case(text: &[u8], needle: &[u8]) -> Option<usize> {
    text.windows(needle.len()).position(|w| w.eq_ignore_ascii_case(needle))
}

/// UTF-8 if it is, else windows-1252.
fn unmarked(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let text = WINDOWS_1252.decode_without_bom_handling(bytes).0;
    if bytes.iter().any(|b| matches!(b, 0x81 | 0x8d | 0x8f | 0x90 | 0x9d)) {
        // The WHATWG's table maps them to C1 controls, which nobody ever meant.
        return text.chars().map(|c| if matches!(c, '\u{80}'..='\u{9f}') { '\u{fffd}' } else { c }).collect();
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], expected: &str) {
        assert_eq!(decode(bytes), expected);
    }

    #[test]
    fn order_of_rules() {
        check(b"", "");
        check(b"plain\0text", "plain\0text");
        check("žluťoučký".as_bytes(), "žluťoučký");
        check(b"caf\xe9", "café");
        check(b"\x80 \x81 \x9f", "€ \u{fffd} Ÿ");
        check(b"\xef\xbb\xbfbom", "bom");
        check(b"\xff\xfea\0b\0", "ab");
        check(b"\xfe\xff\0a\0b", "ab");
        check(b"\xff\xfe\0\0a\0\0\0\0\0\x11\0\x01", "a\u{fffd}\u{fffd}");
        check(b"\0\0\xfe\xff\0\0\0a", "a");
    }

    #[test]
    fn declared_encodings() {
        check(b"<?xml version='1.0' encoding='windows-1251'?>\xcf", "<?xml version='1.0' encoding='windows-1251'?>П");
        check(b"<html><META charset=\"koi8-r\">\xf0", "<html><META charset=\"koi8-r\">П");
        check(b"<meta name=a><meta content='text/html; charset=iso-8859-2'>\xb9", {
            "<meta name=a><meta content='text/html; charset=iso-8859-2'>š"
        });
        // One that does not fit, is not known, or cannot be.
        check(b"<meta charset=shift_jis>\x82\xff\xe9", "<meta charset=shift_jis>‚ÿé");
        check(b"<meta charset=nonsense>\xe9", "<meta charset=nonsense>é");
        check(b"<meta charset=utf-16>\xe9", "<meta charset=utf-16>é");
        assert_eq!(decode_fragment(b"<meta charset=koi8-r>\xf0"), "<meta charset=koi8-r>ð");
    }

    proptest! {
        #[test]
        fn utf8_stays_itself(text in "\\PC*") {
            prop_assume!(!text.starts_with('\u{feff}') && !text.contains('<'));
            prop_assert_eq!(decode(text.as_bytes()), text.as_str());
        }

        #[test]
        fn text_is_bounded_by_its_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(decode(&bytes).len() <= 3 * bytes.len());
        }
    }
}
