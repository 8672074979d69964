//! Values that are used but never shown.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// What stands in place of a secret wherever it would be shown.
pub const MASK: &str = "********";

/// A password, token or key. `Debug`, `Display` and `Serialize` give [`MASK`]; only [`Secret::expose`] gives the value.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Hides `value`.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MASK)
    }
}

/// Words that mark a key's value as secret, wherever they stand in its name.
const WORDS: [&str; 12] = [
    "password",
    "passwords",
    "passwd",
    "passphrase",
    "secret",
    "secrets",
    "token",
    "apikey",
    "credential",
    "credentials",
    "workspacekey",
    "dsn",
];
/// Names of two words that do so: `api_key`, `conn_str`, ...
const PAIRS: [(&str, &str); 8] = [
    ("api", "key"),
    ("access", "key"),
    ("private", "key"),
    ("secret", "key"),
    ("account", "key"),
    ("shared", "key"),
    ("conn", "str"),
    ("connection", "string"),
];

/// Whether an option of this name holds a secret. Options are described by plugins, which say no more than the name.
pub fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let words: Vec<&str> = key.split(['_', '-', '.']).collect();
    words.iter().any(|w| WORDS.contains(w)) || words.windows(2).any(|w| PAIRS.contains(&(w[0], w[1])))
}

/// `text` with the password of every URL in it masked: `amqp://user:********@host`.
pub fn mask_urls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        out.push_str(head);
        let end =
            tail.find(|c: char| matches!(c, '/' | '?' | '#' | '"' | '\'') || c.is_whitespace()).unwrap_or(tail.len());
        let authority = &tail[..end];
        match authority.rfind('@').and_then(|host| authority[..host].find(':').map(|colon| (colon, host))) {
            Some((colon, host)) => {
                out.push_str(&authority[..=colon]);
                out.push_str(MASK);
                out.push_str(&authority[host..]);
            }
            None => out.push_str(authority),
        }
        rest = &tail[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_shown() {
        let secret = Secret::new("hunter2");
        let shown = format!("{secret} {secret:?} {}", serde_json::to_string(&secret).unwrap());
        assert_eq!(shown, format!("{MASK} {MASK} \"{MASK}\""));
        assert_eq!(serde_json::from_str::<Secret>("\"hunter2\"").unwrap().expose(), "hunter2");
    }

    #[test]
    fn secret_names() {
        for key in ["password", "es_password", "API_KEY", "apikey", "secret-key", "hec_token", "conn_str", "passwords"]
        {
            assert!(is_secret(key), "{key}");
        }
        for key in ["timeout", "ioc_keys", "xorkey", "use_sha", "key", "tokens_per_page", "source_dir"] {
            assert!(!is_secret(key), "{key}");
        }
    }

    #[test]
    fn urls_lose_their_password_only() {
        for (text, masked) in [
            ("amqp://guest:p@ss@host:5672/v", "amqp://guest:********@host:5672/v"),
            ("https://host/a:b@c", "https://host/a:b@c"),
            ("redis://:pw@h, redis://:pw2@i", "redis://:********@h, redis://:********@i"),
            ("https://user@host", "https://user@host"),
            ("plain", "plain"),
        ] {
            assert_eq!(mask_urls(text), masked);
        }
    }
}
