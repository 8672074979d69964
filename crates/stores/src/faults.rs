//! What an error of an object store asks of its caller.
//!
//! `object_store` tells conditions apart only where S3, GCS and Azure share them. For the others the HTTP status is read
//! out of the error's text, because the type that holds it is not public.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use object_store::Error;
use object_store::path::Path;
use stoq_api::{Fault, FaultKind};

/// Bytes of an error's text that are passed on: servers answer with whole documents.
const TEXT_MAX: usize = 1_000;

/// What `object_store` writes in front of a status.
const STATUS: &str = "status code: ";

/// Signs of an endpoint whose certificate is not trusted, or that speaks no TLS.
const TLS: [&str; 3] = ["certificate", "InvalidContentType", "tls handshake"];

/// Where clouds tell their machines who they are.
const METADATA: [&str; 3] = ["169.254.", "metadata.google.internal", "metadata/identity"];

/// Added where credentials were refused.
const NOT_ALLOWED: &str = ": not allowed; check the credentials, their permissions and this machine's clock";

/// Why an operation failed, said once: the errors of `object_store` repeat their causes in their own text.
#[derive(Debug)]
struct Cause(String);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Cause {}

/// The fault of an operation (`what`, as in "cannot put") on an object of `place`.
pub(crate) fn fault(place: &str, what: &str, path: &Path, error: &Error) -> Fault {
    let object = if path.as_ref().is_empty() { place.to_owned() } else { format!("{place}/{path}") };
    let cause = text(error);
    let (kind, sentence) = match error {
        Error::NotFound { .. } => (FaultKind::NotFound, format!("{object} is not there")),
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            (FaultKind::Misconfigured, format!("cannot {what} {object}{NOT_ALLOWED}"))
        }
        Error::NotSupported { .. } | Error::NotImplemented { .. } | Error::UnknownConfigurationKey { .. } => {
            (FaultKind::Misconfigured, format!("cannot {what} {object}: the store does not support it"))
        }
        _ if is_full(error) => {
            let advice = "no space left; free some, work goes on by itself then";
            (FaultKind::Unavailable, format!("cannot {what} {object}: {advice}"))
        }
        _ => {
            let (kind, advice) = by_text(&cause);
            (kind, format!("cannot {what} {object}{advice}"))
        }
    };
    Fault::because(kind, sentence, Cause(cause))
}

/// What it is that a put or a list cannot find: the bucket, which waiting does not bring, unless it is an upload that
/// was completed or removed meanwhile.
pub(crate) fn no_bucket(place: &str, error: &Error) -> Fault {
    if text(error).contains("NoSuchUpload") {
        let sentence = format!("cannot put into {place}: the upload is gone");
        return Fault::because(FaultKind::Unavailable, sentence, Cause(text(error)));
    }
    let sentence = format!("{place} is not there: make the bucket or container, or correct its name");
    Fault::because(FaultKind::Misconfigured, sentence, Cause(text(error)))
}

/// Whether it is the bucket or container that is not there, as S3, Google and Azure say it.
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
pub(crate) fn is_bucket(error: &Error) -> bool {
    let text = text(error);
    ["NoSuchBucket", "ContainerNotFound"].iter().any(|code| text.contains(code))
}

/// Whether the server says that the request itself makes no sense to it: a version that cannot be one, for instance.
#[cfg(any(feature = "s3", feature = "gcs"))]
pub(crate) fn is_bad_request(error: &Error) -> bool {
    text(error).contains("status code: 400")
}

/// Kind and advice for errors that have no name of their own.
fn by_text(cause: &str) -> (FaultKind, &'static str) {
    if TLS.iter().any(|sign| cause.contains(sign)) {
        let advice = ": no TLS with it; check endpoint, its certificate and the system's certificates";
        return (FaultKind::Misconfigured, advice);
    }
    if cause.contains("redirect without LOCATION") {
        return (FaultKind::Misconfigured, ": it lies elsewhere; check region and endpoint");
    }
    let code = cause.split_once(STATUS).and_then(|(_, rest)| rest.get(..3)?.parse::<u16>().ok());
    match code {
        Some(401 | 403) => (FaultKind::Misconfigured, NOT_ALLOWED),
        Some(404) => (FaultKind::Misconfigured, ": it is not there; check bucket or container, and endpoint"),
        // S3 says the first of a client that was too slow, Azure the second after another put of the same blob.
        Some(400) if cause.contains("RequestTimeout") || cause.contains("InvalidBlockList") => {
            (FaultKind::Unavailable, "")
        }
        Some(408 | 409 | 425 | 429) => (FaultKind::Unavailable, ""),
        Some(413) => (FaultKind::Refused, ": too large for this store"),
        Some(501) => (FaultKind::Misconfigured, ": the store does not support it"),
        Some(300..=399) => (FaultKind::Misconfigured, ": it lies elsewhere; check region and endpoint"),
        Some(400..=499) => (FaultKind::Misconfigured, ": the request was refused; check the store's options"),
        None if METADATA.iter().any(|host| cause.contains(host)) => (
            FaultKind::Unavailable,
            ": no credentials are configured, and the machine's own service for them is silent",
        ),
        _ => (FaultKind::Unavailable, ""),
    }
}

/// An error with those causes that it does not mention itself.
fn text(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = cause.source();
    }
    if text.len() > TEXT_MAX {
        text.truncate(text.floor_char_boundary(TEXT_MAX));
        text.push_str(" ...");
    }
    text
}

/// Whether a full disk or a quota is among the causes.
fn is_full(error: &Error) -> bool {
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<io::Error>()
            && matches!(io.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        {
            return true;
        }
        next = cause.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As object_store wraps what a file system or a server says.
    #[derive(Debug)]
    struct Wrapped(&'static str, io::Error);

    impl fmt::Display for Wrapped {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl StdError for Wrapped {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.1)
        }
    }

    fn of(text: &'static str, io: io::Error) -> Fault {
        let error = Error::Generic { store: "S3", source: Box::new(Wrapped(text, io)) };
        fault("/data", "put", &Path::from("a/b"), &error)
    }

    #[test]
    fn a_full_disk_is_for_later_and_says_so() {
        let full = of("unable to copy data to file", io::ErrorKind::StorageFull.into());
        assert_eq!(full.kind, FaultKind::Unavailable);
        assert_eq!(full.to_string(), "cannot put /data/a/b: no space left; free some, work goes on by itself then");
        let denied = of("unable to copy data to file", io::ErrorKind::PermissionDenied.into());
        assert_eq!((denied.kind, denied.to_string().as_str()), (FaultKind::Unavailable, "cannot put /data/a/b"));
    }

    #[test]
    fn statuses_say_who_has_to_act() {
        use FaultKind::{Misconfigured, Refused, Unavailable};
        for (text, kind) in [
            ("Server returned non-2xx status code: 503 Service Unavailable: SlowDown", Unavailable),
            ("Server returned non-2xx status code: 500 Internal Server Error: ", Unavailable),
            ("Server returned non-2xx status code: 429 Too Many Requests: ", Unavailable),
            ("Server returned non-2xx status code: 400 Bad Request: <Code>RequestTimeout</Code>", Unavailable),
            ("Server returned non-2xx status code: 400 Bad Request: <Code>InvalidBlockList</Code>", Unavailable),
            ("Server returned non-2xx status code: 403 Forbidden: ", Misconfigured),
            ("Server returned non-2xx status code: 404 Not Found: ", Misconfigured),
            ("Server returned non-2xx status code: 400 Bad Request: <Code>ExpiredToken</Code>", Misconfigured),
            ("Server returned non-2xx status code: 413 Payload Too Large: ", Refused),
            ("Server returned non-2xx status code: 501 Not Implemented: ", Misconfigured),
            ("Server returned non-2xx status code: 301 Moved Permanently: ", Misconfigured),
            ("Received redirect without LOCATION, this normally", Misconfigured),
            ("invalid peer certificate: UnknownIssuer", Misconfigured),
            ("connection refused", Unavailable),
            ("operation timed out", Unavailable),
        ] {
            assert_eq!(of(text, io::Error::other("inner")).kind, kind, "{text}");
        }
    }

    #[test]
    fn causes_are_said_once_and_in_bounds() {
        let once = of("outer: inner", io::Error::other("inner"));
        assert_eq!(stoq_api::fault::chain(&once).matches("inner").count(), 1);
        let long: &'static str = "ä".repeat(3_000).leak();
        assert!(stoq_api::fault::chain(&of(long, io::Error::other("inner"))).len() < TEXT_MAX + 100);
    }
}
