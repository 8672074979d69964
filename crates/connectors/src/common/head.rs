//! What places in a sink are made of: tenant, source and time, and nothing that was scanned.

use time::OffsetDateTime;

use crate::model::Document;

/// Characters of a name that are kept in a place.
pub const NAME_MAX: usize = 64;

/// What of a document names places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// When the scan was first seen, UTC; so a place does not depend on when something is delivered.
    pub time: OffsetDateTime,
    /// Whose scan it is.
    pub tenant: Option<String>,
    /// Where the request came from, as it says itself.
    pub source: Option<String>,
}

impl From<&Document> for Head {
    fn from(document: &Document) -> Self {
        let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(document.time.0) * 1_000);
        Self {
            time: time.unwrap_or(OffsetDateTime::UNIX_EPOCH),
            tenant: document.tenant.clone(),
            source: document.source.clone(),
        }
    }
}

/// A name that others chose as a part of a path: ASCII letters, digits, `-`, `_` and `.` stay, anything else becomes `_`;
/// at most [`NAME_MAX`] characters; never empty, never hidden, never a step upwards.
pub fn plain(name: Option<&str>) -> String {
    let kept = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    let mut plain: String = name.unwrap_or_default().chars().take(NAME_MAX).map(kept).collect();
    if plain.is_empty() || plain.starts_with('.') {
        plain.insert(0, '_');
        plain.truncate(NAME_MAX);
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_anywhere() {
        for (name, expected) in [
            (None, "_"),
            (Some(""), "_"),
            (Some("acme-1.x"), "acme-1.x"),
            (Some(".."), "_.."),
            (Some("../../etc"), "_.._.._etc"),
            (Some("a/b\\c\0d\u{202e}{seq}"), "a_b_c_d__seq_"),
        ] {
            assert_eq!(plain(name), expected);
        }
        assert_eq!(plain(Some(&".x".repeat(1000))).len(), NAME_MAX);
    }
}
