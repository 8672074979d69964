//! What an error of Pub/Sub asks of the caller.

use std::error::Error as _;

use google_cloud_auth::errors::CredentialsError;
use google_cloud_gax::error::Error;
use google_cloud_gax::error::rpc::Code;
use google_cloud_pubsub::error::PublishError;
use stoq_api::fault::chain;
use stoq_api::{Fault, FaultKind};

/// Texts of rustls that mean that waiting will not help.
const TLS: [&str; 3] = ["invalid peer certificate", "received corrupt message", "peer is incompatible"];

/// `doing` failed with `error`; `role` is the role that allows it.
pub(crate) fn of(doing: &str, role: &str, error: Error) -> Fault {
    let (kind, hint) = judge(&error, role);
    Fault::because(kind, format!("cannot {doing}{hint}"), error)
}

/// The same for one message of a batch.
pub(crate) fn of_publish(doing: &str, role: &str, error: PublishError) -> Fault {
    let (kind, hint) = match &error {
        PublishError::Rpc(inner) => judge(inner, role),
        // The publisher ends with the runtime, or with the broker that was closed.
        _ => (FaultKind::Unavailable, String::new()),
    };
    Fault::because(kind, format!("cannot {doing}{hint}"), error)
}

/// The status that the server answered with, whatever retries were tried on it.
pub(crate) fn code(error: &Error) -> Option<Code> {
    if let Some(status) = error.status() {
        return Some(status.code);
    }
    error.source().and_then(|s| s.downcast_ref::<Error>()).and_then(code)
}

/// What to do about it, and what to add to the message.
fn judge(error: &Error, role: &str) -> (FaultKind, String) {
    if let Some(code) = code(error) {
        return match code {
            Code::NotFound => (FaultKind::Misconfigured, ": it is not there".to_owned()),
            Code::PermissionDenied => {
                (FaultKind::Misconfigured, format!(": the credentials do not allow it; {role} does"))
            }
            Code::Unauthenticated => (FaultKind::Misconfigured, ": the credentials are not accepted".to_owned()),
            Code::FailedPrecondition | Code::AlreadyExists | Code::Unimplemented => {
                (FaultKind::Misconfigured, String::new())
            }
            Code::InvalidArgument | Code::OutOfRange => (FaultKind::Refused, String::new()),
            _ => (FaultKind::Unavailable, String::new()),
        };
    }
    if error.is_authentication() {
        let passes =
            error.source().and_then(|s| s.downcast_ref::<CredentialsError>()).is_some_and(|e| e.is_transient());
        return if passes {
            (FaultKind::Unavailable, ": no token for the credentials".to_owned())
        } else {
            (FaultKind::Misconfigured, ": the credentials cannot be used".to_owned())
        };
    }
    if error.is_serialization() || error.is_deserialization() || error.is_binding() {
        return (FaultKind::Refused, String::new());
    }
    let text = chain(error);
    if TLS.iter().any(|t| text.contains(t)) {
        return (
            FaultKind::Misconfigured,
            ": no TLS connection; check endpoint and the machine's root certificates".to_owned(),
        );
    }
    // Whatever answers like this does not speak Pub/Sub.
    if error.http_status_code().is_some_and(|s| (400..500).contains(&s) && s != 429 && s != 408) {
        return (FaultKind::Misconfigured, ": what answers there is not Pub/Sub; check endpoint".to_owned());
    }
    (FaultKind::Unavailable, String::new())
}

#[cfg(test)]
mod tests {
    use google_cloud_gax::error::rpc::Status;

    use super::*;

    fn kind_of(error: Error) -> FaultKind {
        of("publish", "roles/pubsub.publisher", error).kind
    }

    #[test]
    fn every_status_has_its_kind() {
        let status = |code| Error::service(Status::default().set_code(code).set_message("x"));
        for (code, kind) in [
            (Code::NotFound, FaultKind::Misconfigured),
            (Code::PermissionDenied, FaultKind::Misconfigured),
            (Code::Unauthenticated, FaultKind::Misconfigured),
            (Code::FailedPrecondition, FaultKind::Misconfigured),
            (Code::InvalidArgument, FaultKind::Refused),
            (Code::Unavailable, FaultKind::Unavailable),
            (Code::ResourceExhausted, FaultKind::Unavailable),
            (Code::DeadlineExceeded, FaultKind::Unavailable),
            (Code::Internal, FaultKind::Unavailable),
        ] {
            assert_eq!(kind_of(status(code)), kind, "{code:?}");
            assert_eq!(kind_of(Error::exhausted(status(code))), kind, "{code:?} after retries");
        }
    }

    #[test]
    fn what_never_reached_a_server() {
        assert_eq!(kind_of(Error::io("reset")), FaultKind::Unavailable);
        assert_eq!(kind_of(Error::timeout("late")), FaultKind::Unavailable);
        assert_eq!(kind_of(Error::connect("invalid peer certificate: UnknownIssuer")), FaultKind::Misconfigured);
        let credentials = |passes| Error::authentication(CredentialsError::from_msg(passes, "x"));
        assert_eq!(kind_of(credentials(true)), FaultKind::Unavailable);
        assert_eq!(kind_of(credentials(false)), FaultKind::Misconfigured);
        let text = of(
            "read topic t",
            "roles/pubsub.viewer",
            Error::service(Status::default().set_code(Code::PermissionDenied)),
        );
        assert!(text.to_string().contains("roles/pubsub.viewer"), "{text}");
    }
}
