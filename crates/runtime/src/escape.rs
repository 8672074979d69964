//! Hostile text made safe to show: on a terminal, in a log line, in a table.
//!
//! File names, mail headers and archive members are the attacker's. Shown raw they move the cursor, recolour or retitle
//! the terminal, forge log lines, or turn the reading direction around (CVE-2021-42574).

use std::borrow::Cow;
use std::fmt;

/// Text whose `Display` holds no character that acts on a terminal or on the order of text. Such characters become
/// `\n`, `\r`, `\t` or `\u{…}`. A backslash stays one: showing what was made safe before changes nothing.
#[derive(Clone, Copy, Debug)]
pub struct Visible<'a>(pub &'a str);

impl fmt::Display for Visible<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(acts) {
            f.write_str(&rest[..at])?;
            let mut chars = rest[at..].chars();
            match chars.next() {
                Some('\n') => f.write_str("\\n")?,
                Some('\r') => f.write_str("\\r")?,
                Some('\t') => f.write_str("\\t")?,
                Some(c) => write!(f, "\\u{{{:x}}}", u32::from(c))?,
                None => {}
            }
            rest = chars.as_str();
        }
        f.write_str(rest)
    }
}

/// Whether `c` does something other than being seen: control characters (C0, DEL, C1), bidirectional controls, line and
/// paragraph separators, and format characters that cannot be seen. The two joiners stay: some scripts need them.
pub fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// `text` made safe; borrowed when it was.
pub fn visible(text: &str) -> Cow<'_, str> {
    if text.contains(acts) { Cow::Owned(Visible(text).to_string()) } else { Cow::Borrowed(text) }
}

/// Bytes that are meant as text, such as a path, made safe; what is not UTF-8 becomes `\xff`.
pub fn visible_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(&visible(chunk.valid()));
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

/// At most `most` characters of `text`, made safe; when some were left out, `…` and their number follow.
pub fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => visible(text).into_owned(),
        Some((at, _)) => format!("{}… ({} more)", Visible(&text[..at]), text[at..].chars().count()),
    }
}

/// JSON text in which every character that [`acts`] is written `\uXXXX`: the same document, safe to print. Only for text
/// that is valid JSON on one line, where such characters can stand in strings alone.
pub(crate) fn json_line(text: &str) -> Cow<'_, str> {
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if acts(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_acts_becomes_visible() {
        for (text, shown) in [
            ("plain ünï 文 👨‍👩‍👧", "plain ünï 文 👨‍👩‍👧"),
            ("\x1b]0;owned\x07", "\\u{1b}]0;owned\\u{7}"),
            ("a\r\n[2026 ERROR] forged\t", "a\\r\\n[2026 ERROR] forged\\t"),
            ("gnp.\u{202e}exe", "gnp.\\u{202e}exe"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("a\u{2028}b\u{2029}", "a\\u{2028}b\\u{2029}"),
            ("C:\\new", "C:\\new"),
            ("\u{e0041}", "\\u{e0041}"),
        ] {
            assert_eq!(visible(text), shown);
        }
        assert_eq!(visible_bytes(b"a\xff\x1b\xc3\xa9"), "a\\xff\\u{1b}é");
    }

    #[test]
    fn cut_by_characters() {
        assert_eq!(shortened("äöü", 3), "äöü");
        assert_eq!(shortened("äöü\n", 2), "äö… (2 more)");
        assert_eq!(shortened("\u{202e}b", 1), "\\u{202e}… (1 more)");
    }

    fn any_text() -> impl Strategy<Value = String> {
        prop::collection::vec(
            prop_oneof![
                any::<char>(),
                (0_u32..0xa0).prop_map(|c| char::from_u32(c).unwrap()),
                (0x2000_u32..0x2070).prop_map(|c| char::from_u32(c).unwrap()),
            ],
            0..40,
        )
        .prop_map(String::from_iter)
    }

    proptest! {
        #[test]
        fn nothing_that_acts_is_left(text in any_text(), most in 0_usize..50) {
            prop_assert!(!visible(&text).contains(acts));
            prop_assert!(!shortened(&text, most).contains(acts));
            prop_assert!(!visible_bytes(text.as_bytes()).contains(acts));
        }

        #[test]
        fn showing_twice_changes_nothing(text in any_text()) {
            let once = visible(&text).into_owned();
            prop_assert_eq!(visible(&once), once.as_str());
        }

        #[test]
        fn json_stays_the_same_document(text in any_text()) {
            let json = serde_json::to_string(&text).unwrap();
            let safe = json_line(&json);
            prop_assert!(!safe.contains(acts));
            prop_assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), text);
        }
    }
}
