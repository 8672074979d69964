//! Names of members: bytes of unknown encoding from whoever made the archive, made into bounded text.
//!
//! Nothing is thrown away that an analyst could want to see: `..`, a leading slash, control and direction characters stay
//! in the text. Names are never used as a path of this machine.

use std::borrow::Cow;

/// Characters of a member's path that are kept.
pub(super) const MAX_PATH: usize = 1024;
/// Characters of a member's base name that are kept.
pub(super) const MAX_NAME: usize = 255;

/// Code page 437, upper half: the encoding that the ZIP specification (APPNOTE 6.3.10, appendix D) gives to names without
/// the UTF-8 flag.
const CP437: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

/// What to read a name as when it is not valid UTF-8.
#[derive(Clone, Copy)]
pub(super) enum Fallback {
    /// Code page 437.
    Cp437,
    /// Windows-1252, as browsers read it: every byte has a character.
    Windows1252,
}

/// The name as text. Valid UTF-8 counts as UTF-8 whatever the archive says: text in another encoding is hardly ever valid.
pub(super) fn decode(name: &[u8], fallback: Fallback) -> String {
    match (std::str::from_utf8(name), fallback) {
        (Ok(text), _) => text.to_owned(),
        (Err(_), Fallback::Cp437) => {
            let high: Vec<char> = CP437.chars().collect();
            let decode = |&b: &u8| if b < 0x80 { char::from(b) } else { high[usize::from(b - 0x80)] };
            name.iter().map(decode).collect()
        }
        (Err(_), Fallback::Windows1252) => encoding_rs::WINDOWS_1252.decode_without_bom_handling(name).0.into_owned(),
    }
}

/// The path with `/` between its parts, without empty parts and `.`, cut to [`MAX_PATH`] characters.
pub(super) fn path(name: &str) -> String {
    let rooted = name.starts_with(['/', '\\']);
    let mut path = String::from(if rooted { "/" } else { "" });
    for part in name.split(['/', '\\']).filter(|p| !p.is_empty() && *p != ".") {
        if !path.is_empty() && !path.ends_with('/') {
            path.push('/');
        }
        path.push_str(part);
    }
    cut(path, MAX_PATH)
}

/// The last part of a [`path`], as a child is named. `None` if there is none that could name a file.
pub(super) fn base(path: &str) -> Option<String> {
    let name = path.rsplit('/').next().unwrap_or_default();
    // A NUL ends the name for most tools; what follows must not hide what they see.
    let name = name.split('\0').next().unwrap_or_default();
    (!name.is_empty() && name != "..").then(|| cut(name.to_owned(), MAX_NAME))
}

/// What may be a link's target; longer content is a file's, whatever the archive says.
pub(super) const MAX_TARGET: u64 = 1_024;

/// A link's target, if the content can be one. A program that only claims to be a link is a file.
pub(super) fn target(content: &[u8]) -> Option<String> {
    let text = decode(content, Fallback::Cp437);
    (!text.is_empty() && !text.contains(char::is_control)).then(|| path(&text))
}

/// Whether the path leads out of the folder that an archive is unpacked into.
pub(super) fn leads_out(path: &str) -> bool {
    let drive = path.as_bytes().get(1) == Some(&b':') && path.as_bytes()[0].is_ascii_alphabetic();
    path.starts_with('/') || drive || path.split('/').any(|p| p == "..")
}

/// The name of what is in a compressed stream, from the stream's own name: `a.tgz` holds `a.tar`.
pub(super) fn without_suffix(name: &str, suffixes: &[(&str, &str)]) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    suffixes.iter().find_map(|(suffix, instead)| {
        let stem = lower.strip_suffix(suffix).filter(|s| !s.is_empty())?;
        Some(format!("{}{instead}", &name[..stem.len()]))
    })
}

/// `text` with at most `most` characters.
pub(super) fn cut(mut text: String, most: usize) -> String {
    if let Some((at, _)) = text.char_indices().nth(most) {
        text.truncate(at);
    }
    text
}

/// `text` for a sentence: control and direction characters escaped, bounded.
pub(super) fn shown(text: &str) -> Cow<'_, str> {
    /// Characters of a name in a sentence.
    const MAX_SHOWN: usize = 120;
    let plain = |c: char| (c.is_ascii_graphic() || c == ' ') && c != '\\';
    if text.len() <= MAX_SHOWN && text.chars().all(plain) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::new();
    for c in text.chars().take(MAX_SHOWN) {
        if c.is_alphanumeric() || plain(c) { shown.push(c) } else { shown.extend(c.escape_default()) }
    }
    if text.chars().nth(MAX_SHOWN).is_some() {
        shown.push('…');
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_character() {
        assert_eq!(CP437.chars().count(), 128);
        assert_eq!(decode(b"caf\x82", Fallback::Cp437), "café");
        assert_eq!(decode(b"caf\xe9\x81", Fallback::Windows1252), "café\u{81}");
        assert_eq!(decode("café".as_bytes(), Fallback::Cp437), "café");
    }

    #[test]
    fn paths_keep_what_is_hostile_about_them() {
        assert_eq!(path(r"..\.\a//b/"), "../a/b");
        assert_eq!(path("//etc/passwd"), "/etc/passwd");
        assert_eq!(path("./"), "");
        assert!(leads_out("a/../b") && leads_out("/a") && leads_out("C:/a") && !leads_out("a..b/c"));
        assert_eq!(base("a/b.exe\0.txt").as_deref(), Some("b.exe"));
        assert_eq!(base("a/.."), None);
        assert_eq!(path(&"ä".repeat(2000)).chars().count(), MAX_PATH);
    }

    #[test]
    fn names_in_sentences_are_harmless() {
        assert_eq!(shown("a\u{202e}b\u{1b}"), r"a\u{202e}b\u{1b}");
        assert_eq!(shown("grün.txt"), "grün.txt");
    }

    #[test]
    fn stream_names() {
        let suffixes = [(".tgz", ".tar"), (".gz", "")];
        assert_eq!(without_suffix("A.TGZ", &suffixes).as_deref(), Some("A.tar"));
        assert_eq!(without_suffix("a.txt.gz", &suffixes).as_deref(), Some("a.txt"));
        assert_eq!(without_suffix(".gz", &suffixes), None);
    }
}
