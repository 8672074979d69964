//! Takes a text of rules apart, so that one broken rule does not cost the others.
//!
//! This is a tokeniser, not a parser: it knows comments, strings, regular expressions and braces, and finds the next rule
//! again after one whose braces or quotes do not match. Whether a piece means anything is for the engine to say.

use std::ops::Range;

/// A part of a text of rules that can be compiled on its own, after those in front of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Where it stands, in bytes.
    pub range: Range<usize>,
    /// What it is.
    pub kind: Kind,
}

/// Kinds of pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `import "module"`.
    Import,
    /// `include "file"`.
    Include,
    /// A rule of this name, closed or not.
    Rule(String),
    /// Something else, up to the next piece.
    Stray,
}

/// Splits `text` into pieces in their order. White space and comments between pieces belong to none.
pub(crate) fn split(text: &str) -> Vec<Piece> {
    let mut cursor = Cursor { text: text.as_bytes(), at: 0 };
    let mut pieces: Vec<Piece> = Vec::new();
    while let Some((token, range)) = cursor.next(false) {
        let header = if token == Token::Word { rule_header(cursor.text, range.start) } else { None };
        let (kind, end) = match (&cursor.text[range.clone()], header) {
            (_, Some((name, end))) => {
                cursor.at = end;
                skip_body(&mut cursor);
                (Kind::Rule(String::from_utf8_lossy(&cursor.text[name]).into_owned()), cursor.at)
            }
            (word @ (b"import" | b"include"), None) => match cursor.next(false) {
                Some((Token::Quoted, name)) if word == b"import" => (Kind::Import, name.end),
                Some((Token::Quoted, name)) => (Kind::Include, name.end),
                _ => {
                    cursor.at = range.end;
                    (Kind::Stray, range.end)
                }
            },
            _ => (Kind::Stray, range.end),
        };
        match pieces.last_mut() {
            Some(last) if last.kind == Kind::Stray && kind == Kind::Stray => last.range.end = end,
            _ => pieces.push(Piece { range: range.start..end, kind }),
        }
    }
    pieces
}

/// Moves behind the closing brace of a rule, or in front of the next rule if this one has none.
fn skip_body(cursor: &mut Cursor<'_>) {
    let mut depth = 0_usize;
    while let Some((token, range)) = cursor.next(depth > 0) {
        match token {
            Token::Open => depth += 1,
            Token::Close if depth <= 1 => return,
            Token::Close => depth -= 1,
            Token::Word if starts_line(cursor.text, range.start) && rule_header(cursor.text, range.start).is_some() => {
                cursor.at = range.start;
                return;
            }
            _ => {}
        }
    }
}

/// Nothing but white space is in front of `at` on its line.
fn starts_line(text: &[u8], at: usize) -> bool {
    text[..at].iter().rev().take_while(|b| **b != b'\n').all(u8::is_ascii_whitespace)
}

/// Where the name of the rule stands whose header starts at `at`, and where the header's name ends. A rule begins with
/// any of `private` and `global`, then `rule`, then a name, then a brace or the colon in front of its tags.
fn rule_header(text: &[u8], at: usize) -> Option<(Range<usize>, usize)> {
    /// Modifiers before `rule`; there are two, and nobody needs one twice.
    const MAX_MODIFIERS: usize = 4;
    let mut cursor = Cursor { text, at };
    for _ in 0..=MAX_MODIFIERS {
        let (Token::Word, word) = cursor.next(false)? else { return None };
        match &text[word] {
            b"private" | b"global" => {}
            b"rule" => {
                let (Token::Word, name) = cursor.next(false)? else { return None };
                let end = cursor.at;
                let (next, range) = cursor.next(false)?;
                let opens = next == Token::Open || text[range] == *b":";
                return opens.then_some((name, end));
            }
            _ => return None,
        }
    }
    None
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    /// Letters, digits and underscores.
    Word,
    /// A text string, which ends at the end of its line at the latest.
    Quoted,
    Open,
    Close,
    /// Anything else.
    Other,
}

struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    /// The next token behind white space and comments. `in_rule`: a slash opens a regular expression.
    fn next(&mut self, in_rule: bool) -> Option<(Token, Range<usize>)> {
        self.skip_blank();
        let start = self.at;
        let first = *self.text.get(start)?;
        self.at += 1;
        let token = match first {
            b'"' => {
                self.skip_delimited(b'"');
                Token::Quoted
            }
            b'/' if in_rule => {
                self.skip_delimited(b'/');
                Token::Other
            }
            b'{' => Token::Open,
            b'}' => Token::Close,
            b'_' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => {
                let word = |b: &&u8| b.is_ascii_alphanumeric() || **b == b'_';
                self.at += self.text[self.at..].iter().take_while(word).count();
                Token::Word
            }
            // A letter of another script is taken whole, so that pieces end between letters.
            _ => {
                self.at += self.text[self.at..].iter().take_while(|b| (**b & 0xc0) == 0x80).count();
                Token::Other
            }
        };
        Some((token, start..self.at))
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = &self.text[self.at..];
            self.at += match rest {
                [b, ..] if b.is_ascii_whitespace() => 1,
                [b'/', b'/', ..] => rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()),
                [b'/', b'*', comment @ ..] => {
                    // One that is not closed hides whatever follows, in the language as here.
                    comment.windows(2).position(|w| w == b"*/").map_or(rest.len(), |at| at + 4)
                }
                [0xef, 0xbb, 0xbf, ..] if self.at == 0 => 3,
                _ => return,
            };
        }
    }

    /// Moves behind the closing `mark`, or to the end of the line if there is none on it.
    fn skip_delimited(&mut self, mark: u8) {
        while let Some(byte) = self.text.get(self.at) {
            match byte {
                b'\n' => return,
                b'\\' if self.text.get(self.at + 1).is_some_and(|b| *b != b'\n') => self.at += 2,
                b if *b == mark => {
                    self.at += 1;
                    return;
                }
                _ => self.at += 1,
            }
        }
        self.at = self.at.min(self.text.len());
    }
}

/// The invariants of [`split`], for tests and for fuzzing: pieces are in order, do not overlap, lie on letters, and
/// nothing but white space and comments lies between them.
///
/// # Panics
/// One of them does not hold.
pub(crate) fn check(text: &str) {
    let mut end = 0;
    for piece in split(text) {
        assert!(piece.range.start >= end && piece.range.end > piece.range.start, "{piece:?} after {end}");
        let inside = &text[piece.range.clone()];
        let mut between = Cursor { text: &text.as_bytes()[..piece.range.start], at: end };
        between.skip_blank();
        assert_eq!(between.at, piece.range.start, "something lies in front of {piece:?}");
        if let Kind::Rule(name) = &piece.kind {
            assert!(inside.contains(name.as_str()), "{piece:?}");
        }
        end = piece.range.end;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn names(text: &str, expected: &[&str]) {
        check(text);
        let names: Vec<String> = split(text)
            .into_iter()
            .map(|p| match p.kind {
                Kind::Rule(name) => name,
                kind => format!("{kind:?}"),
            })
            .collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn whole_rules() {
        names("", &[]);
        names("// rule no { }\n/* rule no {} */ rule a{condition:true}", &["a"]);
        names("import \"pe\"\ninclude \"x.yar\"\nprivate global rule b : t1 t2\n{\n}\n", &["Import", "Include", "b"]);
        let tricky = r#"rule c { strings: $a = "}\"rule x {" $b = /\/}[}]"/ $c = { 4D /* } */ ?? } // }
            condition: $a and "\\" contains "}" }
            rule d { condition: false }"#;
        names(tricky, &["c", "d"]);
    }

    #[test]
    fn broken_rules_cost_nobody_else() {
        names("rule a { strings: $a = \"open\n condition: $a }\nrule b { condition: true }", &["a", "b"]);
        names("rule a { strings: $a = { 4D\n condition: $a }\nrule b { condition: true }", &["a", "b"]);
        names("rule a condition: true }\nrule b { condition: true }", &["Stray", "b"]);
        names("rule a { condition: true\nglobal rule b { condition: true }", &["a", "b"]);
        names("rule { }\n} what is this\nrule b : t { condition: true }", &["Stray", "b"]);
        names("rule a { condition: true } /* open\nrule b { condition: true }", &["a"]);
        names("import pe\nrule b { condition: true }", &["Stray", "b"]);
        names("é rule b { condition: true }", &["Stray", "b"]);
    }

    proptest! {
        #[test]
        fn invariants_hold(parts in proptest::collection::vec(
            prop_oneof![Just("rule a {"), Just("}"), Just("\""), Just("/"), Just("/*"), Just("*/"), Just("//"), Just("\n"),
                Just("\\"), Just("import "), Just("private "), Just("rule"), Just(" b "), Just(":"), Just("é"), Just("{")],
            0..40,
        )) {
            check(&parts.concat());
        }
    }
}
