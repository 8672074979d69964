//! What a request asks for.

use std::collections::BTreeMap;

use hyper::body::Bytes;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method};
use percent_encoding::percent_decode_str;

/// A refusal: status and code of the error document.
pub(super) struct Denied {
    pub(super) status: u16,
    pub(super) code: &'static str,
}

/// Shorthand for refusals.
pub(super) fn denied<T>(status: u16, code: &'static str) -> Result<T, Denied> {
    Err(Denied { status, code })
}

/// A request, taken apart.
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) bucket: String,
    /// Empty for requests about the bucket itself.
    pub(super) object: String,
    pub(super) query: BTreeMap<String, String>,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Asked {
    pub(super) fn read(head: &Parts, body: Bytes) -> Result<Self, Denied> {
        let decode = |text: &str| percent_decode_str(text).decode_utf8().map(|t| t.into_owned());
        let Ok(path) = decode(head.uri.path()) else { return denied(400, "InvalidURI") };
        let path = path.strip_prefix('/').unwrap_or(&path);
        let (bucket, object) = path.split_once('/').unwrap_or((path, ""));
        let mut query = BTreeMap::new();
        for pair in head.uri.query().unwrap_or("").split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Ok(value) = decode(&value.replace('+', " ")) else { return denied(400, "InvalidArgument") };
            query.insert(name.to_owned(), value);
        }
        Ok(Self {
            method: head.method.clone(),
            bucket: bucket.to_owned(),
            object: object.to_owned(),
            query,
            headers: head.headers.clone(),
            body,
        })
    }

    pub(super) fn authorize(&self, token: Option<&str>) -> Result<(), Denied> {
        match token {
            Some(token) if self.header("authorization") != Some(&format!("Bearer {token}")) => {
                denied(401, "AuthenticationRequired")
            }
            _ => Ok(()),
        }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    /// The bytes that a `Range` header wants of `len`: `first-last`, `first-` or `-count`.
    pub(super) fn range(&self, len: usize) -> Result<Option<(usize, usize)>, Denied> {
        let Some(range) = self.header("range").and_then(|r| r.strip_prefix("bytes=")) else { return Ok(None) };
        let numbers = range.split_once('-').map(|(a, b)| (a.parse::<usize>().ok(), b.parse::<usize>().ok()));
        let (first, end) = match numbers {
            Some((Some(first), last)) => (first, last.map_or(len, |l| len.min(l + 1))),
            Some((None, Some(count))) => (len.saturating_sub(count), len),
            _ => return Ok(None),
        };
        if first < end { Ok(Some((first, end))) } else { denied(416, "InvalidRange") }
    }
}
