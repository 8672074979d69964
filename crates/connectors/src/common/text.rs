//! Forms of a response's JSON text. The values are never read, so no number loses a digit and no key its place.

use std::borrow::Cow;
use std::fmt::Write;

use stoq_runtime::escape::acts;

/// The same document with `\u` escapes for characters that would act on a terminal or turn text around. JSON itself keeps
/// the first 32 control characters out of its strings; where they stand between values they stay.
pub fn printable(json: &str) -> Cow<'_, str> {
    let harmful = |c: char| c > '\u{1f}' && acts(c);
    if !json.contains(harmful) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if harmful(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a `String` cannot fail.
                write!(out, "\\u{unit:04x}").ok();
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// JSON text on several lines, indented by `width` for each level, as Python's `json.dumps(…, indent=…)` writes it. Text
/// that is not valid JSON comes out as some text, too.
pub fn indented(json: &[u8], width: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let mut rest = json.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        match byte {
            b'"' => {
                out.push(byte);
                string(&mut rest, &mut out);
            }
            b' ' | b'\t' | b'\n' | b'\r' => {}
            b'{' | b'[' => {
                while rest.next_if(u8::is_ascii_whitespace).is_some() {}
                out.push(byte);
                match rest.next_if(|b| matches!(b, b'}' | b']')) {
                    Some(close) => out.push(close),
                    None => {
                        depth += 1;
                        line(&mut out, depth * width);
                    }
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth * width);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                line(&mut out, depth * width);
            }
            b':' => out.extend_from_slice(b": "),
            other => out.push(other),
        }
    }
    out
}

/// Copies the rest of a string, with its closing quote.
fn string(rest: &mut impl Iterator<Item = u8>, out: &mut Vec<u8>) {
    while let Some(byte) = rest.next() {
        out.push(byte);
        match byte {
            b'"' => return,
            b'\\' => out.extend(rest.next()),
            _ => {}
        }
    }
}

fn line(out: &mut Vec<u8>, indent: usize) {
    out.push(b'\n');
    out.resize(out.len() + indent, b' ');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expected: &str) {
        assert_eq!(String::from_utf8(indented(json.as_bytes(), 4)).unwrap(), expected);
    }

    #[test]
    fn as_python_writes_it() {
        check("null", "null");
        check("{}", "{}");
        check("[ ]", "[]");
        check(r#"{"a":[],"b":{}}"#, "{\n    \"a\": [],\n    \"b\": {}\n}");
        check(
            r#"{"a":[1,2.50,{"b":12345678901234567890123}]}"#,
            "{\n    \"a\": [\n        1,\n        2.50,\n        {\n            \"b\": 12345678901234567890123\n        }\n    ]\n}",
        );
        check(r#"["{\"[,:\\",":"]"#, "[\n    \"{\\\"[,:\\\\\",\n    \":\"\n]");
    }

    #[test]
    fn no_text_can_break_it() {
        for json in ["", "}}}]", "\"", "\"\\", "[[[", "{\"a"] {
            indented(json.as_bytes(), 4);
        }
    }
}
