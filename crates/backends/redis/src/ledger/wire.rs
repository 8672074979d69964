//! How operations and answers look to the scripts. Pure.

use std::time::Duration;

use redis::Value;
use stoq_api::ledger::{Admission, Admitted, ChildRecord, Claim, Completeness, Settled};
use stoq_api::task::ScanHead;
use stoq_api::{Fault, FaultKind, PayloadId, ScanId, SpentKind, Timestamp};
use uuid::Uuid;

use super::blob::Blob;

/// Bytes of an id.
const ID: usize = 16;
/// Numbers of scripts are doubles, which are exact up to here: times until the year 2255, sizes up to 9 PB.
const MAX_EXACT: u64 = (1 << 53) - 1;
/// Times to live above this are cut: a hundred years in milliseconds.
const MAX_TTL: u64 = 100 * 365 * 86_400 * 1_000;

/// What a script can count with.
pub(super) fn number(value: u64) -> Vec<u8> {
    value.min(MAX_EXACT).to_string().into_bytes()
}

pub(super) fn time(at: Timestamp) -> Vec<u8> {
    number(at.0)
}

/// A time to live, in milliseconds.
pub(super) fn ttl(time: Duration) -> Vec<u8> {
    crate::link::millis(time).clamp(1, MAX_TTL).to_string().into_bytes()
}

pub(super) fn scan(id: ScanId) -> Vec<u8> {
    id.0.as_bytes().to_vec()
}

pub(super) fn payload(id: PayloadId) -> Vec<u8> {
    id.0.as_bytes().to_vec()
}

pub(super) fn payloads(ids: impl IntoIterator<Item = PayloadId>) -> Vec<u8> {
    ids.into_iter().flat_map(|id| *id.0.as_bytes()).collect()
}

/// Id and size of each.
pub(super) fn children(records: &[ChildRecord]) -> Vec<u8> {
    let mut all = Vec::with_capacity(records.len() * (ID + 8));
    for child in records {
        all.extend_from_slice(child.id.0.as_bytes());
        // Exact, as it is cut to what a double holds exactly.
        #[expect(clippy::cast_precision_loss, reason = "cut to what a double holds exactly")]
        let size = child.size.min(MAX_EXACT) as f64;
        all.extend_from_slice(&size.to_le_bytes());
    }
    all
}

/// What opens a scan, in the order of the script's `open`. `keep` is how long it is kept beyond its own time.
pub(super) fn description(head: &ScanHead, stored: &Blob, keep: Duration) -> Vec<Vec<u8>> {
    let budgets = &head.budgets;
    let root_bytes = head.roots.iter().fold(0_u64, |sum, root| sum.saturating_add(root.size));
    vec![
        stored.to_bytes(),
        number(u64::try_from(budgets.deadline().as_micros()).unwrap_or(u64::MAX)),
        ttl(budgets.deadline().saturating_add(keep)),
        number(budgets.max_payloads),
        number(budgets.max_bytes),
        number(budgets.bytes_allowed(root_bytes)),
        number(head.first_seen.day().into()),
        payloads(head.roots.iter().map(|root| root.id)),
    ]
}

/// An answer that no script of ours gives.
pub(super) fn strange(what: &str, answer: &Value) -> Fault {
    let text = format!("cannot {what} in Redis: its answer is none of this version's ({})", kind_of(answer));
    Fault::new(FaultKind::Corrupt, text)
}

fn kind_of(answer: &Value) -> &'static str {
    match answer {
        Value::Nil => "nothing",
        Value::Int(_) => "a number",
        Value::BulkString(_) | Value::SimpleString(_) => "other text",
        Value::Array(_) => "a list",
        _ => "of another kind",
    }
}

/// State letter and what follows it.
fn text(answer: &Value) -> Option<(u8, &[u8])> {
    match answer {
        Value::BulkString(text) => text.split_first().map(|(state, rest)| (*state, rest)),
        _ => None,
    }
}

pub(super) fn ids(bytes: &[u8]) -> Option<Vec<PayloadId>> {
    let chunks = bytes.chunks(ID).map(|id| Uuid::from_slice(id).map(PayloadId).ok());
    chunks.collect()
}

pub(super) fn admitted(answer: &Value, asked: usize) -> Option<Admitted> {
    let (state, letters) = text(answer)?;
    Some(match state {
        b'u' => Admitted::Unknown,
        b'f' => Admitted::Frozen,
        b'c' => Admitted::Closed,
        b'o' if letters.len() == asked => {
            Admitted::Open(letters.iter().map(|letter| admission(*letter)).collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

fn admission(letter: u8) -> Option<Admission> {
    Some(match letter {
        b'n' => Admission::New,
        b'm' => Admission::Known { own: true },
        b'k' => Admission::Known { own: false },
        b's' => Admission::Settled,
        b'p' => Admission::Refused(SpentKind::Payloads),
        b'b' => Admission::Refused(SpentKind::Bytes),
        b'x' => Admission::Refused(SpentKind::Expansion),
        _ => return None,
    })
}

/// The answer to a settlement; without an answer, the script has to be told first where the outcome is.
pub(super) enum Settlement {
    Done(Settled),
    WhereIsIt,
}

pub(super) fn settled(answer: &Value) -> Option<Settlement> {
    let (state, rest) = text(answer)?;
    Some(Settlement::Done(match state {
        b'u' => Settled::Unknown,
        b'f' => Settled::Frozen,
        b'c' => Settled::Closed,
        b'o' => Settled::Open { unsettled: ids(rest)? },
        b'r' => return Some(Settlement::WhereIsIt),
        _ => return None,
    }))
}

pub(super) fn claim(answer: &Value) -> Option<Claim> {
    Some(match text(answer)?.0 {
        b'g' => Claim::Gone,
        b'h' => Claim::Held,
        b'1' => Claim::Taken(Completeness::Complete),
        b'0' => Claim::Taken(Completeness::Partial),
        _ => return None,
    })
}

/// Bytes of an answer's part.
pub(super) fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

/// A whole number, which Redis keeps as text.
pub(super) fn integer(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        // Scores and sums of doubles, all below MAX_EXACT.
        other => std::str::from_utf8(bytes(other)?).ok()?.parse().ok(),
    }
}

/// A frozen scan as it is kept.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) completeness: Completeness,
    pub(super) head: Vec<u8>,
    pub(super) settled: Vec<PayloadId>,
    pub(super) missing: Vec<PayloadId>,
    /// In the order of `settled`; absent if they are too many for one answer.
    pub(super) outcomes: Option<Vec<Vec<u8>>>,
}

/// `Ok(None)` if the scan is not frozen; `Err(())` for an answer of another kind.
pub(super) fn frozen(answer: Value) -> Option<Option<Stored>> {
    if matches!(answer, Value::Nil) {
        return Some(None);
    }
    let Value::Array(parts) = answer else { return None };
    let [complete, head, payloads, outcomes] = <[Value; 4]>::try_from(parts).ok()?;
    let completeness = match bytes(&complete)? {
        b"1" => Completeness::Complete,
        b"0" => Completeness::Partial,
        _ => return None,
    };
    let (mut settled, mut missing) = (Vec::new(), Vec::new());
    let Value::Array(payloads) = payloads else { return None };
    for pair in payloads.chunks_exact(2) {
        let id = PayloadId(Uuid::from_slice(bytes(&pair[0])?).ok()?);
        let list = if bytes(&pair[1])? == b"+" { &mut settled } else { &mut missing };
        list.push(id);
    }
    let outcomes = match outcomes {
        Value::Nil => None,
        Value::Array(outcomes) => Some(outcomes.into_iter().map(into_bytes).collect::<Option<_>>()?),
        _ => return None,
    };
    Some(Some(Stored { completeness, head: into_bytes(head)?, settled, missing, outcomes }))
}

pub(super) fn into_bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &[u8]) -> Value {
        Value::BulkString(text.to_vec())
    }

    #[test]
    fn answers_of_no_script_are_seen() {
        assert_eq!(
            admitted(&bulk(b"onm"), 2),
            Some(Admitted::Open(vec![Admission::New, Admission::Known { own: true }]))
        );
        assert_eq!(admitted(&bulk(b"on"), 2), None, "one for each child");
        assert_eq!(admitted(&bulk(b"oz"), 1), None);
        assert_eq!(admitted(&Value::Nil, 0), None);
        assert!(settled(&bulk(b"o123")).is_none(), "half an id");
        assert!(settled(&bulk(b"")).is_none());
        assert_eq!(claim(&bulk(b"x")), None);
        assert!(frozen(Value::Array(vec![bulk(b"1")])).is_none());
        assert!(matches!(frozen(Value::Nil), Some(None)));
    }

    #[test]
    fn numbers_stay_exact() {
        assert_eq!(number(u64::MAX), b"9007199254740991");
        assert_eq!(integer(&bulk(b"9007199254740991")), Some(MAX_EXACT));
        let child =
            ChildRecord { id: PayloadId(Uuid::nil()), sha256: stoq_api::Sha256::of(b""), size: u64::MAX, depth: 1 };
        assert_eq!(children(&[child])[ID..], ((1_u64 << 53) as f64 - 1.0).to_le_bytes());
    }
}
