//! Failures of the surroundings: a broker, a ledger, a store, a sink.

use std::error::Error;
use std::fmt;

/// Something around the scan failed. The kind decides what happens next; the text says what, where and what to do.
#[derive(Debug)]
pub struct Fault {
    /// What to do about it.
    pub kind: FaultKind,
    /// What was attempted, on what.
    pub context: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// What a failure asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// Away, overloaded or full for now: keep what you hold, back off, try again.
    Unavailable,
    /// What was asked for is not there, and waiting will not bring it.
    NotFound,
    /// It is there but not what it should be.
    Corrupt,
    /// Refused for good: a limit, a permission, a wrong request.
    Refused,
    /// The operator has to change something before this can work.
    Misconfigured,
}

impl Fault {
    /// A failure of `kind` while doing what `context` says.
    pub fn new(kind: FaultKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None }
    }

    /// The same, caused by `source`.
    pub fn because(
        kind: FaultKind,
        context: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self { kind, context: context.into(), source: Some(source.into()) }
    }

    /// Trying again later can succeed without anyone changing anything.
    pub fn is_transient(&self) -> bool {
        self.kind == FaultKind::Unavailable
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|e| e as &(dyn Error + 'static))
    }
}

/// An error with all its causes on one line, `: ` between them.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
