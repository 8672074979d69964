//! What of a response places in a sink are made of: tenant, source and time, and nothing that was scanned.

use std::borrow::Cow;

use serde::Deserialize;
use time::PrimitiveDateTime;
use time::macros::format_description;

/// Characters of a name that are kept in a place.
pub const NAME_MAX: usize = 64;

/// The few members of a response that name places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// When the reference was first seen, UTC; so a place does not depend on when a response is delivered.
    pub time: PrimitiveDateTime,
    /// Whose scan it is.
    pub tenant: Option<String>,
    /// Where the request came from, as it says itself.
    pub source: Option<String>,
}

#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(borrow, default)]
    tenant: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    request_meta: Request<'a>,
}

#[derive(Default, Deserialize)]
struct Request<'a> {
    #[serde(borrow, default)]
    source: Option<Cow<'a, str>>,
}

impl Head {
    /// Reads them out of a response's JSON text, all of which is looked at: what is not JSON is found here.
    ///
    /// # Errors
    /// A sentence: it is not a response.
    pub fn of(json: &[u8]) -> Result<Self, String> {
        let read: Members = serde_json::from_slice(json).map_err(|e| format!("not a response: {e}"))?;
        let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond]");
        let time = PrimitiveDateTime::parse(&read.time, &format)
            .map_err(|e| format!("not a response: time {:?}: {e}", read.time))?;
        let owned = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned);
        Ok(Self { time, tenant: owned(read.tenant), source: owned(read.request_meta.source) })
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
    fn places_are_read_from_a_response_and_from_nothing_else() {
        let text = r#"{"results":[{"size":[[[]]]}],"request_meta":{"source":"a\nb"},"time":"2026-11-04T05:06:07.000001","tenant":"acme"}"#;
        let head = Head::of(text.as_bytes()).unwrap();
        assert_eq!((head.tenant.as_deref(), head.source.as_deref()), (Some("acme"), Some("a\nb")));
        assert_eq!(head.time.date().to_string(), "2026-11-04");
        let bare = Head::of(br#"{"time":"2026-11-04T05:06:07.000001","request_meta":{"source":null}}"#).unwrap();
        assert_eq!((bare.tenant, bare.source), (None, None));
        for wrong in [&b"{}"[..], b"", b"{\"time\":\"today\"}", b"{\"time\":\"2026-11-04T05:06:07.000001\"} x", b"\xff"]
        {
            assert!(Head::of(wrong).is_err(), "{wrong:?}");
        }
    }

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
