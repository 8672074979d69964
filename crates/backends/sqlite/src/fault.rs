//! What an error of SQLite asks of the caller.

use rusqlite::ErrorCode;
use stoq_api::{Fault, FaultKind};

/// A failure of the running database while doing what `what` says.
pub(crate) fn of(what: &str, error: rusqlite::Error) -> Fault {
    let (kind, advice) = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => (
            FaultKind::Unavailable,
            ": the disk or the size limit is full; free space, nothing that was confirmed is lost",
        ),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => (
            FaultKind::Corrupt,
            ": the database is damaged; stop stoq, move its files away or restore them, start again",
        ),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (FaultKind::Unavailable, ": another program keeps the database locked; close it")
        }
        Some(ErrorCode::TooBig) => (FaultKind::Refused, ": too large for the database"),
        Some(_) => (FaultKind::Unavailable, ""),
        // Not from SQLite: something that was read does not have the form in which it was written.
        None => (FaultKind::Corrupt, ": the database holds what this version did not write"),
    };
    Fault::because(kind, format!("{what}{advice}"), error)
}

/// After the sync of a file failed, what the kernel still remembers of it may be wrong: only a new start reads the
/// truth.
pub(crate) fn is_fatal(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|e| e.extended_code);
    matches!(code, Some(rusqlite::ffi::SQLITE_IOERR_FSYNC | rusqlite::ffi::SQLITE_IOERR_DIR_FSYNC))
}

/// Whether the jobs of a transaction would each fail the same way, and wait as long for it, if they were tried one by
/// one.
pub(crate) fn concerns_all(error: &rusqlite::Error) -> bool {
    is_fatal(error) || matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// The same error once more, for another caller.
pub(crate) fn again(error: &rusqlite::Error) -> rusqlite::Error {
    match error.sqlite_error() {
        Some(code) => rusqlite::Error::SqliteFailure(*code, None),
        None => rusqlite::Error::InvalidQuery,
    }
}
