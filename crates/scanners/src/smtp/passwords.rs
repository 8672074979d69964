//! Passwords that a text seems to tell: the word after "password", "Passwort", "pw:" and the like.
//!
//! A guess costs `decompress` one try, so guessing too much is better than too little, within bounds.

/// Words that announce a password, in lower case. Longer ones first where one begins another.
const MARKS: &[&str] = &[
    "passphrase",
    "password",
    "passwort",
    "passwd",
    "passcode",
    "kennwort",
    "mot de passe",
    "contraseña",
    "contrasena",
    "wachtwoord",
    "пароль",
    "密码",
    "密碼",
    "パスワード",
    "senha",
    "hasło",
    "haslo",
    "pass",
    "pwd",
    "pw",
];
/// Words between the mark and the password, in lower case.
const FILLERS: &[&str] =
    &["is", "ist", "est", "es", "lautet", "to", "for", "für", "the", "zip", "archive", "file", "was"];
/// Passwords that are handed on.
pub(super) const MAX_PASSWORDS: usize = 16;
/// Characters of a password.
const MAX_LENGTH: usize = 64;
/// Bytes of a text that are searched.
const MAX_TEXT: usize = 256 << 10;
/// Words looked at after a mark.
const MAX_WORDS: usize = 6;

/// Adds the passwords in `text` to `found`, each once.
pub(super) fn search(text: &str, found: &mut Vec<String>) {
    let text = head(text);
    // Lower case of the same length: only ASCII changes, and the marks beyond it are compared as they stand.
    let lower = text.to_ascii_lowercase();
    for (at, _) in lower.char_indices() {
        if found.len() >= MAX_PASSWORDS {
            return;
        }
        let Some(mark) = mark_at(&lower, at) else { continue };
        for word in candidates(&text[at + mark.len()..]) {
            if found.len() < MAX_PASSWORDS && !found.contains(&word) {
                found.push(word);
            }
        }
    }
}

/// `text` without what stands between angle brackets, for bodies that are HTML.
pub(super) fn without_tags(html: &str) -> String {
    let mut out = String::new();
    let mut rest = head(html);
    while let Some(open) = rest.find('<') {
        out.push_str(&rest[..open]);
        out.push(' ');
        match rest[open..].find('>') {
            Some(close) => rest = &rest[open + close + 1..],
            None => rest = "",
        }
    }
    out.push_str(rest);
    out.replace("&nbsp;", " ").replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"")
}

fn head(text: &str) -> &str {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The mark that begins at `at`, if it is a word of its own.
fn mark_at(lower: &str, at: usize) -> Option<&'static str> {
    let rest = &lower[at..];
    let mark = MARKS.iter().copied().find(|m| rest.starts_with(m))?;
    let begins = lower[..at].chars().next_back().is_none_or(|c| !c.is_ascii_alphanumeric());
    let ends = rest[mark.len()..].chars().next().is_none_or(|c| !c.is_ascii_alphanumeric());
    (begins && ends).then_some(mark)
}

/// What may be the password in the text after a mark: the first word that is no filler, with and without the punctuation
/// that may belong to the sentence.
fn candidates(after: &str) -> Vec<String> {
    let mut end = after.len().min(MAX_WORDS * (MAX_LENGTH + 1) * 4);
    while !after.is_char_boundary(end) {
        end -= 1;
    }
    for word in after[..end].split_whitespace().take(MAX_WORDS) {
        let word = word.trim_start_matches([':', '=', '-', '–', '>', '：', '(', '[']);
        let lower = word.trim_end_matches([':', '=', '-']).to_lowercase();
        if lower.is_empty() || FILLERS.contains(&lower.as_str()) {
            continue;
        }
        return spellings(word);
    }
    Vec::new()
}

fn spellings(word: &str) -> Vec<String> {
    let quotes = ['"', '\'', '`', '“', '”', '„', '‘', '’', '«', '»'];
    let bare = word.trim_matches(quotes);
    let stripped = bare.trim_end_matches(['.', ',', ';', '!', '?', ')', ']', ':']).trim_matches(quotes);
    let mut out: Vec<String> = Vec::new();
    for form in [stripped, bare] {
        let fits = !form.is_empty() && form.chars().count() <= MAX_LENGTH;
        if fits && !out.iter().any(|o| o == form) {
            out.push(form.to_owned());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let mut out = Vec::new();
        search(text, &mut out);
        out
    }

    #[test]
    fn sentences_in_use() {
        assert_eq!(found("The password is: infected."), ["infected", "infected."]);
        assert_eq!(found("Passwort: \"Geheim!1\""), ["Geheim!1"]);
        assert_eq!(found("PW=4711, Gruss"), ["4711", "4711,"]);
        assert_eq!(found("Password for the archive: 'S3cr3t'"), ["S3cr3t"]);
        assert_eq!(found(&without_tags("<b>Password</b>:&nbsp;<i>abc</i>")), ["abc"]);
        assert_eq!(found("Пароль: x пароль: тест1"), ["тест1"]);
    }

    #[test]
    fn nothing_to_tell() {
        assert!(found("passing by, compassion, pwning").is_empty());
        assert!(found("").is_empty());
        assert!(found("password").is_empty());
        assert!(found(&format!("pw {}", "x".repeat(MAX_LENGTH + 1))).is_empty());
    }

    #[test]
    fn bounded() {
        let many: String = (0..1_000).map(|n| format!("pw: a{n}\n")).collect();
        assert_eq!(found(&many).len(), MAX_PASSWORDS);
        assert!(without_tags(&"<".repeat(100_000)).len() < 10);
    }
}
