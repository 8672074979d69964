//! What the front does with requests, and what it saw of them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use tokio::sync::watch;

/// Requests that are remembered; a test that makes more has gone wild.
const MAX_SEEN: usize = 1_000_000;

/// Changes an answer's body.
pub type Edit = Arc<dyn Fn(Bytes) -> Bytes + Send + Sync>;

/// What becomes of one request.
#[derive(Clone)]
pub enum Act {
    /// The server gets it, and the client the answer.
    Pass,
    /// The connection ends; the server gets nothing.
    Reset,
    /// The server does it; the connection ends before the answer.
    Lose,
    /// The server does it; the connection ends in the middle of the answer's body.
    CutShort,
    /// The server does it; the answer comes so much later.
    Late(Duration),
    /// The server gets nothing, and the client neither an answer nor an end.
    Hang,
    /// The front answers itself; the server gets nothing.
    Answer {
        /// The status.
        status: u16,
        /// Header fields.
        headers: Vec<(&'static str, String)>,
        /// The body.
        body: Bytes,
    },
    /// The server does it; the answer's body is changed on its way.
    Edit(Edit),
}

impl Act {
    /// An answer of the front itself with a status and nothing else.
    pub fn status(status: u16) -> Self {
        Self::Answer { status, headers: Vec::new(), body: Bytes::new() }
    }

    /// Another address to ask.
    pub fn redirect(to: &str) -> Self {
        Self::Answer { status: 307, headers: vec![("location", to.to_owned())], body: Bytes::new() }
    }

    /// An answer with a body.
    pub fn answer(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self::Answer { status, headers: vec![("content-type", content_type.to_owned())], body: body.into() }
    }

    /// The answer's body, changed.
    pub fn edit(edit: impl Fn(Bytes) -> Bytes + Send + Sync + 'static) -> Self {
        Self::Edit(Arc::new(edit))
    }
}

impl fmt::Debug for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass => f.write_str("Pass"),
            Self::Reset => f.write_str("Reset"),
            Self::Lose => f.write_str("Lose"),
            Self::CutShort => f.write_str("CutShort"),
            Self::Late(by) => write!(f, "Late({by:?})"),
            Self::Hang => f.write_str("Hang"),
            Self::Answer { status, .. } => write!(f, "Answer({status})"),
            Self::Edit(_) => f.write_str("Edit"),
        }
    }
}

/// One request as the front saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its method.
    pub method: String,
    /// Its path with its query.
    pub target: String,
    /// Its header fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body as it came; empty where it was not read.
    pub body: Bytes,
}

/// Whether a request counts, by method and target.
type Counts = Arc<dyn Fn(&str, &str) -> bool + Send + Sync>;

pub(super) struct Script {
    pub(super) next: VecDeque<Act>,
    pub(super) otherwise: Act,
    pub(super) counts: Option<Counts>,
    pub(super) seen: Vec<Seen>,
    pub(super) shut: watch::Sender<bool>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            next: VecDeque::new(),
            otherwise: Act::Pass,
            counts: None,
            seen: Vec::new(),
            shut: watch::Sender::new(false),
        }
    }
}

impl Script {
    /// Notes a request and says what becomes of it.
    pub(super) fn take(&mut self, seen: Seen) -> Act {
        let counts = self.counts.as_ref().is_none_or(|counts| counts(&seen.method, &seen.target));
        assert!(self.seen.len() < MAX_SEEN, "more than {MAX_SEEN} requests");
        self.seen.push(seen);
        if !counts {
            return Act::Pass;
        }
        self.next.pop_front().unwrap_or_else(|| self.otherwise.clone())
    }
}
