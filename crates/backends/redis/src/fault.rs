//! What an error of the server or of the way to it asks of the caller.

use redis::{ErrorKind, RedisError};
use stoq_api::{Fault, FaultKind};

/// Answers whose cause passes by itself, by the word that they begin with, and what they mean.
const PASSING: [(&str, &str); 12] = [
    ("LOADING", "it is still loading its data"),
    ("READONLY", "it is a replica, to which nothing can be written"),
    ("MASTERDOWN", "it has lost the server that it follows"),
    ("CLUSTERDOWN", "the cluster does not serve these keys now"),
    ("TRYAGAIN", "these keys are being moved to another node"),
    ("MOVED", "these keys were moved to another node"),
    ("ASK", "these keys are being moved to another node"),
    ("UNBLOCKED", "it was made a replica meanwhile"),
    ("BUSY", "a script of somebody has kept it busy for too long"),
    ("OOM", "its memory is full: raise maxmemory, or wait until scans end"),
    ("NOREPLICAS", "too few replicas follow it (min-replicas-to-write)"),
    ("MISCONF", "it cannot write to its disk"),
];

/// Answers that a person has to do something about.
const LASTING: [(&str, &str); 6] = [
    ("NOAUTH", "it wants a password: set `password` or `password_file`, and `user` if it is not the default one"),
    ("WRONGPASS", "wrong user or password: look at `user`, `password` and `password_file`"),
    ("NOPERM", "its user may not do this; docs/ledger.md lists the permissions that a ledger needs"),
    ("DENIED", "it refuses clients from elsewhere (protected mode): give it a password, or bind it"),
    ("CROSSSLOT", "keys of one scan lie on several nodes, which a proxy in front of it must have done"),
    ("WRONGTYPE", "somebody else uses keys of this prefix: set another `prefix`, or another `db`"),
];

/// Words of a general error that say what is wrong all the same.
const TOLD: [(&str, &str); 4] = [
    ("cluster support disabled", "it is not a cluster: set `cluster = false`"),
    ("DB index is out of range", "it has no such database: look at `db`"),
    ("AUTH <password> called without any password", "it has no password: remove `password`, or give it one"),
    ("unknown command", "it does not know a command that the ledger needs; Redis 6.2 or later is expected"),
];

/// What `error`, met while doing `what` at `place`, asks of the caller.
pub(crate) fn of(what: &str, place: &str, error: RedisError) -> Fault {
    let text = error.to_string();
    let code = error.code().unwrap_or_default();
    let found = |words: &[(&'static str, &'static str)]| {
        // Before version 7 an error inside a script stands somewhere in the text of another.
        words.iter().find(|(word, _)| code == *word || text.contains(&format!("-{word} "))).map(|(_, says)| *says)
    };
    let told = || TOLD.iter().find(|(words, _)| text.contains(words)).map(|(_, says)| *says);
    let (kind, says) = if let Some(says) = found(&PASSING) {
        (FaultKind::Unavailable, says)
    } else if let Some(says) = found(&LASTING).or_else(told) {
        (FaultKind::Misconfigured, says)
    } else {
        by_kind(&error)
    };
    Fault::because(kind, format!("cannot {what} in Redis at {place}: {says}"), error)
}

fn by_kind(error: &RedisError) -> (FaultKind, &'static str) {
    match error.kind() {
        ErrorKind::AuthenticationFailed => {
            (FaultKind::Misconfigured, "it refused to let us in: look at `user`, `password` and `password_file`")
        }
        ErrorKind::InvalidClientConfig => (FaultKind::Misconfigured, "these settings cannot be used"),
        ErrorKind::Client if error.to_string().contains("certificate") => {
            (FaultKind::Misconfigured, "its certificate is not trusted: look at `tls_ca_file`")
        }
        ErrorKind::UnexpectedReturnType | ErrorKind::Parse => {
            (FaultKind::Corrupt, "it answered what cannot be understood")
        }
        _ if error.is_timeout() => (FaultKind::Unavailable, "no answer came in time"),
        _ if error.is_io_error() && error.to_string().contains("certificate") => {
            (FaultKind::Misconfigured, "its certificate is not trusted: look at `tls_ca_file`")
        }
        _ => (FaultKind::Unavailable, "it is away or cannot do it now"),
    }
}

/// The server's memory is full; what frees some may still be done.
pub(crate) fn is_full(error: &RedisError) -> bool {
    error.code() == Some("OOM") || error.to_string().contains("-OOM ")
}
