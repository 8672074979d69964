//! The ledger's operations, each inside a transaction that somebody else commits.

use std::time::Duration;

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _};
use stoq_api::ledger::{
    ATTEMPTS_KEPT, Admission, Admitted, ChildRecord, Claim, Completeness, FINISH_LEASE, Overdue, Settled,
};
use stoq_api::{Budgets, PayloadId, ScanId, Timestamp};
use uuid::Uuid;

use super::Head;

type Result<T> = rusqlite::Result<T>;

const OPEN: i64 = 0;
const FROZEN: i64 = 1;
const CLOSED: i64 = 2;
/// Old tombstones and attempts that one operation clears away.
const CLEAR: u32 = 256;

/// What a scan is to an operation.
pub(super) enum Found {
    /// Its number.
    Open(i64),
    Frozen,
    Closed,
    Unknown,
}

/// Everything a frozen scan is made of, as it is stored.
pub(super) struct Stored {
    pub(super) head: Vec<u8>,
    pub(super) completeness: Completeness,
    pub(super) outcomes: Vec<Vec<u8>>,
    pub(super) missing: Vec<PayloadId>,
}

impl Stored {
    pub(super) fn bytes(&self) -> usize {
        self.head.len() + self.outcomes.iter().map(Vec::len).sum::<usize>()
    }
}

/// SQLite's integers are signed; what is larger counts as the largest.
fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn payload_id(column: usize, bytes: &[u8]) -> Result<PayloadId> {
    let id = Uuid::from_slice(bytes);
    id.map(PayloadId).map_err(|e| rusqlite::Error::FromSqlConversionFailure(column, Type::Blob, e.into()))
}

/// (number, state, due)
fn look_up(c: &Connection, scan: ScanId) -> Result<Option<(i64, i64, i64)>> {
    c.prepare_cached("SELECT n, state, due FROM scan WHERE id = ?1")?
        .query_row([scan.0.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()
}

pub(super) fn find(c: &Connection, scan: ScanId, head: Option<&Head>, now: Timestamp) -> Result<Found> {
    match look_up(c, scan)? {
        Some((n, OPEN, _)) => return Ok(Found::Open(n)),
        Some((_, CLOSED, until)) if int(now.0) < until => return Ok(Found::Closed),
        Some((n, CLOSED, _)) => {
            c.prepare_cached("DELETE FROM scan WHERE n = ?1")?.execute([n])?;
        }
        Some(_) => return Ok(Found::Frozen),
        None => {}
    }
    head.map_or(Ok(Found::Unknown), |head| open(c, scan, head, now).map(Found::Open))
}

fn open(c: &Connection, scan: ScanId, head: &Head, now: Timestamp) -> Result<i64> {
    let due = int(now.after(head.max_seconds).0);
    c.prepare_cached(
        "INSERT INTO scan (id, state, started, due, budgets, root_bytes) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute((scan.0.as_bytes(), OPEN, int(now.0), due, &head.budgets, int(head.root_bytes)))?;
    let n = c.last_insert_rowid();
    c.prepare_cached("INSERT INTO head (scan, data) VALUES (?1, ?2)")?.execute((n, &head.data))?;
    let mut outstanding = 0;
    for root in &head.roots {
        outstanding += take_in(c, n, *root, None)?;
    }
    c.prepare_cached("UPDATE scan SET outstanding = ?2 WHERE n = ?1")?.execute((n, outstanding))?;
    Ok(n)
}

/// 1 if the payload was not known and is outstanding now.
fn take_in(c: &Connection, n: i64, payload: PayloadId, parent: Option<PayloadId>) -> Result<i64> {
    let made = c.prepare_cached("INSERT OR IGNORE INTO payload (scan, id, parent) VALUES (?1, ?2, ?3)")?.execute((
        n,
        payload.0.as_bytes(),
        parent.map(|p| *p.0.as_bytes()),
    ))?;
    Ok(i64::from(made > 0))
}

/// What a scan was given and what it has used.
struct Account {
    budgets: Budgets,
    root_bytes: u64,
    admitted: u64,
    bytes: u64,
}

fn account(c: &Connection, n: i64) -> Result<Account> {
    let mut select = c.prepare_cached("SELECT budgets, root_bytes, admitted, admitted_bytes FROM scan WHERE n = ?1")?;
    select.query_row([n], |row| {
        let budgets: String = row.get(0)?;
        let budgets = serde_json::from_str(&budgets)
            .map_err(|e| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, e.into()))?;
        Ok(Account { budgets, root_bytes: row.get(1)?, admitted: row.get(2)?, bytes: row.get(3)? })
    })
}

pub(super) fn admit(
    c: &Connection,
    scan: ScanId,
    head: Option<&Head>,
    parent: PayloadId,
    children: &[ChildRecord],
    now: Timestamp,
) -> Result<Admitted> {
    let n = match find(c, scan, head, now)? {
        Found::Open(n) => n,
        Found::Frozen => return Ok(Admitted::Frozen),
        Found::Closed => return Ok(Admitted::Closed),
        Found::Unknown => return Ok(Admitted::Unknown),
    };
    let mut outstanding = take_in(c, n, parent, None)?;
    let mut account = account(c, n)?;
    let mut admissions = Vec::with_capacity(children.len());
    for child in children {
        let admission = admit_one(c, n, &mut account, parent, child)?;
        outstanding += i64::from(admission == Admission::New);
        admissions.push(admission);
    }
    if outstanding > 0 {
        // A scan that grows has its time once more.
        let grown = admissions.contains(&Admission::New);
        let due = if grown { int(now.after(account.budgets.deadline()).0) } else { 0 };
        c.prepare_cached(
            "UPDATE scan SET admitted = ?2, admitted_bytes = ?3, outstanding = outstanding + ?4, due = max(due, ?5)
             WHERE n = ?1",
        )?
        .execute((n, int(account.admitted), int(account.bytes), outstanding, due))?;
    }
    Ok(Admitted::Open(admissions))
}

fn admit_one(
    c: &Connection,
    n: i64,
    account: &mut Account,
    parent: PayloadId,
    child: &ChildRecord,
) -> Result<Admission> {
    let known: Option<(Option<Vec<u8>>, bool)> = c
        .prepare_cached("SELECT parent, settled FROM payload WHERE scan = ?1 AND id = ?2")?
        .query_row((n, child.id.0.as_bytes()), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match known {
        Some((_, true)) => return Ok(Admission::Settled),
        Some((by, false)) => {
            return Ok(Admission::Known { own: by.is_some_and(|by| by == parent.0.as_bytes()) });
        }
        None => {}
    }
    let (payloads, bytes) = (account.admitted.saturating_add(1), account.bytes.saturating_add(child.size));
    if let Some(kind) = account.budgets.broken_by(payloads, bytes, account.root_bytes) {
        return Ok(Admission::Refused(kind));
    }
    (account.admitted, account.bytes) = (payloads, bytes);
    take_in(c, n, child.id, Some(parent))?;
    Ok(Admission::New)
}

pub(super) fn settle(
    c: &Connection,
    scan: ScanId,
    head: Option<&Head>,
    (payload, outcome): (PayloadId, &[u8]),
    children: &[PayloadId],
    now: Timestamp,
) -> Result<Settled> {
    let n = match find(c, scan, head, now)? {
        Found::Open(n) => n,
        Found::Frozen => return Ok(Settled::Frozen),
        Found::Closed => return Ok(Settled::Closed),
        Found::Unknown => return Ok(Settled::Unknown),
    };
    let mut taken_in = take_in(c, n, payload, None)?;
    let settled = c
        .prepare_cached("UPDATE payload SET settled = 1 WHERE scan = ?1 AND id = ?2 AND settled = 0")?
        .execute((n, payload.0.as_bytes()))?;
    if settled > 0 {
        c.prepare_cached("INSERT INTO outcome (scan, data) VALUES (?1, ?2)")?.execute((n, outcome))?;
    }
    for child in children {
        taken_in += take_in(c, n, *child, Some(payload))?;
    }
    let outstanding: i64 = c
        .prepare_cached("UPDATE scan SET outstanding = outstanding + ?2 WHERE n = ?1 RETURNING outstanding")?
        .query_row((n, taken_in - i64::from(settled > 0)), |row| row.get(0))?;
    if outstanding == 0 {
        c.prepare_cached("UPDATE scan SET state = ?2, complete = 1, due = ?3 WHERE n = ?1")?.execute((
            n,
            FROZEN,
            int(now.after(FINISH_LEASE).0),
        ))?;
        return Ok(Settled::Frozen);
    }
    let mut select = c.prepare_cached("SELECT id FROM payload WHERE scan = ?1 AND parent = ?2 AND settled = 0")?;
    let mut rows = select.query((n, payload.0.as_bytes()))?;
    let mut unsettled = Vec::new();
    while let Some(row) = rows.next()? {
        unsettled.push(payload_id(0, row.get_ref(0)?.as_blob()?)?);
    }
    Ok(Settled::Open { unsettled })
}

pub(super) fn begin(c: &Connection, scan: ScanId, payload: PayloadId, now: Timestamp) -> Result<u32> {
    if matches!(look_up(c, scan)?, Some((_, CLOSED, until)) if int(now.0) < until) {
        return Ok(0);
    }
    c.prepare_cached(
        "INSERT INTO attempt (scan, payload, count, last) VALUES (?1, ?2, 1, ?3)
         ON CONFLICT DO UPDATE SET count = count + 1, last = ?3 RETURNING count",
    )?
    .query_row((scan.0.as_bytes(), payload.0.as_bytes(), int(now.0)), |row| row.get(0))
}

pub(super) fn survived(c: &Connection, scan: ScanId, payload: PayloadId) -> Result<()> {
    c.prepare_cached("UPDATE attempt SET count = count - 1 WHERE scan = ?1 AND payload = ?2 AND count > 0")?
        .execute((scan.0.as_bytes(), payload.0.as_bytes()))
        .map(drop)
}

pub(super) fn spent(c: &Connection, scan: ScanId) -> Result<Option<(u64, u64)>> {
    c.prepare_cached("SELECT admitted, admitted_bytes FROM scan WHERE id = ?1 AND state IN (?2, ?3)")?
        .query_row((scan.0.as_bytes(), OPEN, FROZEN), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
}

fn completeness(c: &Connection, n: i64) -> Result<Completeness> {
    let complete: bool =
        c.prepare_cached("SELECT complete FROM scan WHERE n = ?1")?.query_row([n], |row| row.get(0))?;
    Ok(if complete { Completeness::Complete } else { Completeness::Partial })
}

pub(super) fn head(c: &Connection, scan: ScanId) -> Result<Option<Vec<u8>>> {
    let Some((n, OPEN | FROZEN, _)) = look_up(c, scan)? else { return Ok(None) };
    c.prepare_cached("SELECT data FROM head WHERE scan = ?1")?.query_row([n], |row| row.get(0)).optional()
}

pub(super) fn frozen(c: &Connection, scan: ScanId) -> Result<Option<Stored>> {
    let Some((n, FROZEN, _)) = look_up(c, scan)? else { return Ok(None) };
    let head = c.prepare_cached("SELECT data FROM head WHERE scan = ?1")?.query_row([n], |row| row.get(0))?;
    let outcomes: Result<Vec<Vec<u8>>> =
        c.prepare_cached("SELECT data FROM outcome WHERE scan = ?1")?.query_map([n], |row| row.get(0))?.collect();
    let mut select = c.prepare_cached("SELECT id FROM payload WHERE scan = ?1 AND settled = 0")?;
    let mut rows = select.query([n])?;
    let mut missing = Vec::new();
    while let Some(row) = rows.next()? {
        missing.push(payload_id(0, row.get_ref(0)?.as_blob()?)?);
    }
    Ok(Some(Stored { head, completeness: completeness(c, n)?, outcomes: outcomes?, missing }))
}

pub(super) fn close(c: &Connection, scan: ScanId, keep: Duration, now: Timestamp) -> Result<()> {
    clear(c, now)?;
    let Some((n, FROZEN, _)) = look_up(c, scan)? else { return Ok(()) };
    for delete in [
        "DELETE FROM outcome WHERE scan = ?1",
        "DELETE FROM payload WHERE scan = ?1",
        "DELETE FROM head WHERE scan = ?1",
    ] {
        c.prepare_cached(delete)?.execute([n])?;
    }
    c.prepare_cached("DELETE FROM attempt WHERE scan = ?1")?.execute([scan.0.as_bytes()])?;
    c.prepare_cached("UPDATE scan SET state = ?2, due = ?3 WHERE n = ?1")?.execute((
        n,
        CLOSED,
        int(now.after(keep).0),
    ))?;
    Ok(())
}

/// Clears away a bounded number of tombstones whose time is over.
fn clear(c: &Connection, now: Timestamp) -> Result<()> {
    c.prepare_cached(
        "DELETE FROM scan WHERE n IN (SELECT n FROM scan WHERE state = ?1 AND due <= ?2 ORDER BY due LIMIT ?3)",
    )?
    .execute((CLOSED, int(now.0), CLEAR))?;
    Ok(())
}

/// Clears away a bounded number of attempts at payloads of scans that never came.
fn clear_attempts(c: &Connection, now: Timestamp) -> Result<()> {
    let before = now.0.saturating_sub(u64::try_from(ATTEMPTS_KEPT.as_micros()).unwrap_or(u64::MAX));
    c.prepare_cached(
        "DELETE FROM attempt WHERE (scan, payload) IN (
             SELECT scan, payload FROM attempt WHERE last <= ?1
             AND NOT EXISTS (SELECT 1 FROM scan s WHERE s.id = attempt.scan) LIMIT ?2)",
    )?
    .execute((int(before), CLEAR))?;
    Ok(())
}

pub(super) fn overdue(c: &Connection, horizon: Timestamp, now: Timestamp, limit: usize) -> Result<Vec<Overdue>> {
    clear(c, now)?;
    clear_attempts(c, now)?;
    // Each half is read from the index and no further than `limit`.
    let mut select = c.prepare_cached(
        "SELECT id, state, due FROM (SELECT * FROM scan WHERE state = ?1 AND due < ?2 ORDER BY due LIMIT ?5)
         UNION ALL
         SELECT id, state, due FROM (SELECT * FROM scan WHERE state = ?3 AND due <= ?4 ORDER BY due LIMIT ?5)
         ORDER BY due LIMIT ?5",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = select.query((OPEN, int(horizon.0), FROZEN, int(now.0), limit))?;
    let mut overdue = Vec::new();
    while let Some(row) = rows.next()? {
        overdue.push(Overdue {
            scan_id: ScanId(payload_id(0, row.get_ref(0)?.as_blob()?)?.0),
            due: Timestamp(row.get(2)?),
            frozen: row.get::<_, i64>(1)? == FROZEN,
        });
    }
    Ok(overdue)
}

pub(super) fn freeze(c: &Connection, scan: ScanId, lease: Duration, now: Timestamp) -> Result<Claim> {
    let until = int(now.after(lease).0);
    match look_up(c, scan)? {
        Some((n, OPEN, _)) => {
            c.prepare_cached("UPDATE scan SET state = ?2, complete = 0, due = ?3 WHERE n = ?1")?
                .execute((n, FROZEN, until))?;
            Ok(Claim::Taken(Completeness::Partial))
        }
        Some((_, FROZEN, held_until)) if int(now.0) < held_until => Ok(Claim::Held),
        Some((n, FROZEN, _)) => {
            c.prepare_cached("UPDATE scan SET due = ?2 WHERE n = ?1")?.execute((n, until))?;
            completeness(c, n).map(Claim::Taken)
        }
        _ => Ok(Claim::Gone),
    }
}

pub(super) fn open_scans(c: &Connection) -> Result<u64> {
    c.prepare_cached("SELECT count(*) FROM scan WHERE state IN (?1, ?2)")?.query_row((OPEN, FROZEN), |row| row.get(0))
}
