//! What a failure of the client asks of its caller, and what is known of the brokers' state.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use stoq_api::{Fault, FaultKind};

/// How long a refusal of the brokers explains failures that come after it: requests of a client that cannot log in only
/// ever time out.
const EXPLAINS: Duration = Duration::from_secs(60);

/// What the clients of one broker said last about why they cannot be used.
#[derive(Default)]
pub(crate) struct Health {
    refusal: Mutex<Option<(Instant, String)>>,
    away: Mutex<bool>,
}

impl Health {
    /// A client reports `code`; `reason` is its own sentence.
    pub(crate) fn note(&self, code: Code, reason: &str) {
        match code {
            Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism | Code::SSL => {
                let mut refusal = self.refusal.lock();
                if refusal.as_ref().is_none_or(|(_, old)| old != reason) {
                    tracing::error!(reason, "the broker refuses this client");
                }
                *refusal = Some((Instant::now(), reason.to_owned()));
            }
            Code::AllBrokersDown => {
                if !std::mem::replace(&mut *self.away.lock(), true) {
                    tracing::warn!(reason, "no broker can be reached");
                }
            }
            _ => tracing::debug!(%code, reason, "reported by the client"),
        }
    }

    /// A broker has answered.
    pub(crate) fn answered(&self) {
        *self.refusal.lock() = None;
        if std::mem::replace(&mut *self.away.lock(), false) {
            tracing::info!("the broker is back");
        }
    }

    /// Why no client can be used until somebody mends it.
    pub(crate) fn refusal(&self) -> Option<String> {
        let refusal = self.refusal.lock();
        refusal.as_ref().filter(|(since, _)| since.elapsed() < EXPLAINS).map(|(_, reason)| reason.clone())
    }

    /// The fault behind `error`, which came while doing what `context` says.
    pub(crate) fn fault(&self, context: impl Into<String>, error: KafkaError) -> Fault {
        let context = context.into();
        let code = match &error {
            // The client does not count these among those that have a code.
            KafkaError::AdminOp(code) => Some(*code),
            other => other.rdkafka_error_code(),
        };
        let kind = code.map_or(FaultKind::Unavailable, kind);
        if kind == FaultKind::Unavailable
            && let Some(reason) = self.refusal()
        {
            let text = format!("{context}: check user, password, mechanism and the TLS options ({reason})");
            return Fault::because(FaultKind::Misconfigured, text, error);
        }
        Fault::because(kind, context, error)
    }
}

/// What is to be done about `code`.
pub(crate) fn kind(code: Code) -> FaultKind {
    match code {
        Code::MessageSizeTooLarge
        | Code::InvalidMessageSize
        | Code::InvalidMessage
        | Code::InvalidRecord
        | Code::MessageBatchTooLarge => FaultKind::Refused,
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::SSL
        | Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownPartition
        | Code::InvalidTopic
        | Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::InvalidReplicationFactor
        | Code::InvalidPartitions
        | Code::InvalidConfig
        | Code::PolicyViolation
        | Code::InvalidSessionTimeout
        | Code::InconsistentGroupProtocol
        | Code::UnsupportedVersion => FaultKind::Misconfigured,
        _ => FaultKind::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_login_explains_time_outs_until_a_broker_answers() {
        let health = Health::default();
        let timed_out = || KafkaError::MetadataFetch(Code::OperationTimedOut);
        assert_eq!(health.fault("x", timed_out()).kind, FaultKind::Unavailable);
        health.note(Code::AllBrokersDown, "1/1 brokers are down");
        assert_eq!(health.fault("x", timed_out()).kind, FaultKind::Unavailable);
        health.note(Code::Authentication, "SASL authentication failed");
        let fault = health.fault("x", timed_out());
        assert_eq!(fault.kind, FaultKind::Misconfigured);
        assert!(fault.context.contains("password") && fault.context.contains("SASL authentication failed"));
        let large = KafkaError::MessageProduction(Code::MessageSizeTooLarge);
        assert_eq!(health.fault("x", large).kind, FaultKind::Refused);
        health.answered();
        assert_eq!(health.fault("x", timed_out()).kind, FaultKind::Unavailable);
    }
}
