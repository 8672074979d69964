//! How large a text becomes in JSON. Results and metadata are bounded as JSON, in which a control character takes six bytes:
//! whoever counts bytes of the text alone lets a hostile text make an answer that is thrown away for its size.

/// Bytes of `c` inside a JSON text as `serde_json` writes it.
fn cost(c: char) -> usize {
    match c {
        '"' | '\\' | '\u{8}' | '\u{9}' | '\n' | '\u{c}' | '\r' => 2,
        '\0'..='\u{1f}' => 6,
        c => c.len_utf8(),
    }
}

/// Bytes of `text` inside a JSON text, quotes not counted.
pub(crate) fn json_len(text: &str) -> usize {
    text.chars().map(cost).sum()
}

/// The beginning of `text` that takes at most `most` bytes in JSON.
pub(crate) fn clip(text: &str, most: usize) -> &str {
    // Nothing grows more than sixfold, so most texts need no counting.
    if text.len() <= most / 6 {
        return text;
    }
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += cost(c);
        if used > most {
            return &text[..at];
        }
    }
    text
}

/// Cuts `text` to at most `most` bytes in JSON; says whether anything was cut.
pub(crate) fn truncate(text: &mut String, most: usize) -> bool {
    let len = clip(text, most).len();
    let cut = len < text.len();
    text.truncate(len);
    cut
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn counts_as_serde_json_writes(text in any::<String>(), most in 0_usize..200) {
            prop_assert_eq!(json_len(&text) + 2, serde_json::to_string(&text).unwrap().len());
            let clipped = clip(&text, most);
            prop_assert!(json_len(clipped) <= most && text.starts_with(clipped));
            if let Some(next) = text[clipped.len()..].chars().next() {
                prop_assert!(json_len(clipped) + cost(next) > most);
            }
        }
    }

    #[test]
    fn truncation_is_told() {
        let mut text = "a\u{1}b".to_owned();
        assert!(!truncate(&mut text, 8));
        assert!(truncate(&mut text, 7));
        assert_eq!(text, "a\u{1}");
    }
}
