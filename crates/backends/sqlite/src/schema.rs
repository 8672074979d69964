//! The file: its settings, its tables and how older ones become current.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};
use stoq_api::{Fault, FaultKind};

use crate::SqliteOptions;

/// Marks the file as ours (`stoq` in ASCII).
const APPLICATION_ID: i32 = 0x7374_6f71;
/// Pages of the write-ahead log after which its content is moved into the database.
const CHECKPOINT_PAGES: u32 = 4_000;
/// Bytes that the write-ahead log is cut back to after it has grown further.
const LOG_BYTES: u32 = 64 << 20;
/// How long a tool that somebody opened beside us may keep the file locked before what waits is refused for now.
const OTHERS: Duration = Duration::from_secs(1);
/// Prepared statements that are kept.
const STATEMENTS: usize = 64;

/// Each entry makes the schema one version newer. Entries are never changed, only added.
const MIGRATIONS: &[&str] = &["
    -- `count` is the number of messages. Messages up to `mark` may have been delivered.
    CREATE TABLE subscription (
        n INTEGER PRIMARY KEY,
        queue TEXT NOT NULL,
        name TEXT NOT NULL,
        count INTEGER NOT NULL DEFAULT 0,
        mark INTEGER NOT NULL DEFAULT 0,
        UNIQUE (queue, name)
    );
    -- `key` is the subscription's number, then the message's: one range of keys for each subscription and no other index,
    -- so that a message costs the same however many wait.
    CREATE TABLE message (
        key INTEGER PRIMARY KEY,
        published INTEGER NOT NULL,
        id TEXT NOT NULL,
        headers TEXT,
        body BLOB NOT NULL
    );
    -- `due`: end of an open scan's time, of a frozen one's lease, of a tombstone.
    CREATE TABLE scan (
        n INTEGER PRIMARY KEY,
        id BLOB NOT NULL UNIQUE,
        state INTEGER NOT NULL,
        complete INTEGER NOT NULL DEFAULT 0,
        started INTEGER NOT NULL,
        due INTEGER NOT NULL,
        budgets TEXT NOT NULL,
        root_bytes INTEGER NOT NULL,
        admitted INTEGER NOT NULL DEFAULT 0,
        admitted_bytes INTEGER NOT NULL DEFAULT 0,
        outstanding INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX scan_due ON scan (state, due);
    CREATE TABLE head (scan INTEGER PRIMARY KEY, data BLOB NOT NULL);
    CREATE TABLE payload (
        scan INTEGER NOT NULL,
        id BLOB NOT NULL,
        parent BLOB,
        settled INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (scan, id)
    ) WITHOUT ROWID;
    CREATE INDEX payload_outstanding ON payload (scan, parent) WHERE settled = 0;
    CREATE TABLE outcome (n INTEGER PRIMARY KEY, scan INTEGER NOT NULL, data BLOB NOT NULL);
    CREATE INDEX outcome_scan ON outcome (scan);
    CREATE TABLE attempt (
        scan BLOB NOT NULL,
        payload BLOB NOT NULL,
        count INTEGER NOT NULL,
        last INTEGER NOT NULL,
        PRIMARY KEY (scan, payload)
    ) WITHOUT ROWID;
    CREATE INDEX attempt_last ON attempt (last);
"];

/// Opens the file, makes it ours if it is new, and brings it up to date.
pub(crate) fn open(path: &Path, options: SqliteOptions) -> Result<Connection, Fault> {
    let shown = path.display();
    let opened = Connection::open(path).and_then(|connection| {
        let id: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
        let version: usize = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        Ok((connection, id, version, tables))
    });
    let (mut connection, id, version, tables) = opened.map_err(|e| cannot_open(path, e))?;
    if id != APPLICATION_ID && (id != 0 || version != 0 || tables != 0) {
        let text = format!("{shown} is a database of another program: move it away, or name another data directory");
        return Err(Fault::new(FaultKind::Misconfigured, text));
    }
    if version > MIGRATIONS.len() {
        let known = MIGRATIONS.len();
        let text = format!(
            "{shown} was written by a newer stoq (schema {version}, this one knows {known}): use that version, or name \
             another data directory"
        );
        return Err(Fault::new(FaultKind::Misconfigured, text));
    }
    configure(&connection, options)
        .and_then(|()| migrate(&mut connection, version))
        .map_err(|e| cannot_open(path, e))?;
    Ok(connection)
}

/// Why the file cannot be used, and what to do.
pub(crate) fn cannot_open(path: &Path, error: rusqlite::Error) -> Fault {
    let shown = path.display();
    let text = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => {
            format!("{shown} is not a database: move it away, or name another data directory")
        }
        Some(ErrorCode::DatabaseCorrupt) => {
            format!("{shown} is damaged: move it and the files beside it away, or restore them")
        }
        Some(ErrorCode::DiskFull) => format!("cannot open {shown}: no space left; free some and start again"),
        _ => format!("cannot open {shown}: see that it and its directory can be written"),
    };
    Fault::because(FaultKind::Misconfigured, text, error)
}

fn configure(connection: &Connection, options: SqliteOptions) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.busy_timeout(OTHERS)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // Each commit is on the disk before it is answered.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
    connection.pragma_update(None, "secure_delete", false)?;
    if let Some(bytes) = options.max_bytes {
        let page: u64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        connection.pragma_update(None, "max_page_count", (bytes / page).clamp(1, u64::from(u32::MAX - 1)))?;
    }
    Ok(())
}

fn migrate(connection: &mut Connection, version: usize) -> rusqlite::Result<()> {
    for (from, step) in MIGRATIONS.iter().enumerate().skip(version) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", from + 1)?;
        transaction.commit()?;
    }
    Ok(())
}
