//! Exit codes. They are part of the command's contract: scripts depend on them.

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    /// Everything was done.
    Clean = 0,
    /// Something matched, and `--fail-on match` asked to be told.
    Matched = 1,
    /// The command line or the configuration is wrong; nothing was scanned.
    Usage = 2,
    /// Some payload could not be scanned, or not in full.
    Unscanned = 3,
    /// stoq itself failed.
    Failed = 4,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A mistake of the person at the keyboard, as opposed to a failure.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);
