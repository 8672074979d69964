//! What failed exchanges and refusals mean.

use std::error::Error;

use stoq_api::{Fault, FaultKind, fault};

use super::Reply;

/// Most bytes of a refusal that are read.
pub(super) const MAX_WORDS: usize = 4 << 10;
/// Most characters of it that are repeated.
const MAX_QUOTED: usize = 300;
/// Signs of a certificate that is not trusted, or of a server that speaks no TLS.
const TLS: [&str; 3] = ["certificate", "InvalidContentType", "tls handshake"];

/// What a failed exchange with the node at `place` means.
pub(super) fn of(place: &str, error: &reqwest::Error) -> Fault {
    let cause = error.source().map(fault::chain).unwrap_or_else(|| "no cause is told".to_owned());
    if error.is_builder() {
        return Fault::new(FaultKind::Misconfigured, format!("{place} cannot be asked: {cause}"));
    }
    if TLS.iter().any(|sign| cause.contains(sign)) {
        let advice = "look at its address and certificate, and at ca_file";
        return Fault::new(FaultKind::Misconfigured, format!("no TLS with {place}: {cause}; {advice}"));
    }
    let what = if error.is_timeout() { "does not answer in time" } else { "cannot be reached" };
    Fault::new(FaultKind::Unavailable, format!("{place} {what}: {cause}"))
}

impl Reply {
    /// 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The beginning of the body, for people.
    pub fn words(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let words: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        match words.char_indices().nth(MAX_QUOTED) {
            Some((end, _)) => format!("{}…", &words[..end]),
            None => words,
        }
    }

    /// What an answer other than 2xx means for whoever was `doing` something: 401, 403, 404 and 405 need a person; 408,
    /// 425, 429 and 5xx pass by themselves; others refuse what was asked.
    pub fn fault(&self, doing: &str) -> Fault {
        let (kind, advice) = match self.status {
            401 => (FaultKind::Misconfigured, "; look at the credentials"),
            403 => (FaultKind::Misconfigured, "; the credentials are known but lack a right"),
            404 | 405 => (FaultKind::Misconfigured, "; look at the address"),
            408 | 425 | 429 | 500..=599 => (FaultKind::Unavailable, ""),
            _ => (FaultKind::Refused, ""),
        };
        let Self { status, place, .. } = self;
        Fault::new(kind, format!("{place} answers {status} to {doing}{advice}: {}", self.words()))
    }
}
