//! What the broker and the client library say, as faults.

use std::io;

use lapin::protocol::{AMQPError, AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::{Error, ErrorKind};
use stoq_api::fault::chain;
use stoq_api::{Fault, FaultKind};

/// Texts with which the broker refuses what it cannot do at the moment, though the code says that it never can.
const FOR_NOW: [&str; 5] = ["is down", "down or inaccessible", "timed out", "unknown delivery tag", "is stopped"];

/// The fault of having failed at `doing` because of `error`.
pub(crate) fn fault(doing: impl std::fmt::Display, error: &Error) -> Fault {
    let kind = kind(error);
    let why = match error.kind() {
        // The broker's own words, without the library's around them.
        ErrorKind::ProtocolError(said) => said.get_message().to_string(),
        ErrorKind::IOError(inner) => chain(&**inner),
        _ => chain(error),
    };
    Fault::new(kind, format!("{doing}: {why}{}", advice(error, kind)))
}

/// Whether the broker said that something does not exist.
pub(crate) fn is_missing(error: &Error) -> bool {
    soft(error) == Some(AMQPSoftError::NOTFOUND) && kind(error) == FaultKind::Misconfigured
}

/// The broker's text if it refused something for what it is or has: other settings, or a size.
pub(crate) fn precondition(error: &Error) -> Option<String> {
    (soft(error) == Some(AMQPSoftError::PRECONDITIONFAILED) && kind(error) == FaultKind::Misconfigured)
        .then(|| said(error).map(|e| e.get_message().to_string()))
        .flatten()
}

/// Whether the user may not do this.
pub(crate) fn is_forbidden(error: &Error) -> bool {
    soft(error) == Some(AMQPSoftError::ACCESSREFUSED)
}

fn said(error: &Error) -> Option<&AMQPError> {
    match error.kind() {
        ErrorKind::ProtocolError(said) => Some(said),
        _ => None,
    }
}

fn soft(error: &Error) -> Option<AMQPSoftError> {
    match said(error)?.kind() {
        AMQPErrorKind::Soft(soft) => Some(soft.clone()),
        AMQPErrorKind::Hard(_) => None,
    }
}

fn kind(error: &Error) -> FaultKind {
    match error.kind() {
        ErrorKind::ProtocolError(said) => match said.kind() {
            _ if FOR_NOW.iter().any(|text| said.get_message().as_str().contains(text)) => FaultKind::Unavailable,
            AMQPErrorKind::Soft(
                AMQPSoftError::ACCESSREFUSED | AMQPSoftError::NOTFOUND | AMQPSoftError::PRECONDITIONFAILED,
            )
            | AMQPErrorKind::Hard(
                AMQPHardError::NOTALLOWED | AMQPHardError::NOTIMPLEMENTED | AMQPHardError::INVALIDPATH,
            ) => FaultKind::Misconfigured,
            AMQPErrorKind::Soft(AMQPSoftError::CONTENTTOOLARGE) => FaultKind::Refused,
            _ => FaultKind::Unavailable,
        },
        ErrorKind::InvalidProtocolVersion(_) | ErrorKind::ParsingError(_) => FaultKind::Misconfigured,
        // TLS says so of certificates, and of a peer that does not speak it.
        ErrorKind::IOError(inner) if inner.kind() == io::ErrorKind::InvalidData => FaultKind::Misconfigured,
        ErrorKind::SerialisationError(_) => FaultKind::Refused,
        _ => FaultKind::Unavailable,
    }
}

fn advice(error: &Error, kind: FaultKind) -> &'static str {
    if kind != FaultKind::Misconfigured {
        return "";
    }
    match error.kind() {
        ErrorKind::ProtocolError(said) => match said.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => "; look at user, password and the user's permissions",
            AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => {
                "; look at vhost, and whether the user has permissions there"
            }
            _ => "",
        },
        ErrorKind::IOError(_) => "; look at tls_ca_file, the host name in addresses, and whether that port speaks TLS",
        _ => "; look at addresses: that port may speak another protocol, or want amqps",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_and_what_does_not() {
        let soft =
            |e: AMQPSoftError, text: &str| Error::from(ErrorKind::ProtocolError(AMQPError::new(e.into(), text.into())));
        let hard =
            |e: AMQPHardError, text: &str| Error::from(ErrorKind::ProtocolError(AMQPError::new(e.into(), text.into())));
        let io = |k: io::ErrorKind| Error::from(io::Error::from(k));
        for (error, expected) in [
            (soft(AMQPSoftError::NOTFOUND, "NOT_FOUND - no queue 'q' in vhost '/'"), FaultKind::Misconfigured),
            (
                soft(
                    AMQPSoftError::NOTFOUND,
                    "NOT_FOUND - home node 'a' of durable queue 'q' in vhost '/' is down or inaccessible",
                ),
                FaultKind::Unavailable,
            ),
            (
                soft(
                    AMQPSoftError::PRECONDITIONFAILED,
                    "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: 1800000 ms",
                ),
                FaultKind::Unavailable,
            ),
            (
                soft(AMQPSoftError::PRECONDITIONFAILED, "PRECONDITION_FAILED - inequivalent arg 'x-max-length'"),
                FaultKind::Misconfigured,
            ),
            (soft(AMQPSoftError::ACCESSREFUSED, "ACCESS_REFUSED - Login was refused"), FaultKind::Misconfigured),
            (soft(AMQPSoftError::RESOURCELOCKED, "RESOURCE_LOCKED"), FaultKind::Unavailable),
            (hard(AMQPHardError::NOTALLOWED, "NOT_ALLOWED - vhost x not found"), FaultKind::Misconfigured),
            (hard(AMQPHardError::NOTALLOWED, "NOT_ALLOWED - vhost '/' is down"), FaultKind::Unavailable),
            (
                hard(AMQPHardError::CONNECTIONFORCED, "CONNECTION_FORCED - broker forced connection closure"),
                FaultKind::Unavailable,
            ),
            (hard(AMQPHardError::INTERNALERROR, "INTERNAL_ERROR"), FaultKind::Unavailable),
            (io(io::ErrorKind::ConnectionRefused), FaultKind::Unavailable),
            (io(io::ErrorKind::InvalidData), FaultKind::Misconfigured),
            (ErrorKind::MissingHeartbeatError.into(), FaultKind::Unavailable),
        ] {
            let fault = fault("test", &error);
            assert_eq!(fault.kind, expected, "{fault}");
        }
    }
}
