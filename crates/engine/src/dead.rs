//! The dead lane: what no one could process, with the reason and the original bytes.

use stoq_api::plugin::Item;
use stoq_api::queue::Message;
use stoq_api::results::STORED_HEADER;
use stoq_api::{Content, Fault, Sha256, Timestamp};

use crate::lanes::Lanes;
use crate::links::Links;

/// What a dead letter was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadKind {
    /// A reference that could not be decoded or fetched.
    Reference,
    /// A task that was given up or cannot be read.
    Task,
    /// A response that a connector's sink refused for good.
    Result,
}

impl DeadKind {
    /// As it stands in the header.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Task => "task",
            Self::Result => "result",
        }
    }

    /// The kind with that name.
    pub fn of_name(name: &str) -> Option<Self> {
        [Self::Reference, Self::Task, Self::Result].into_iter().find(|kind| kind.name() == name)
    }
}

/// Header: what the letter was, see [`DeadKind::name`].
pub const KIND: &str = "stoq-kind";
/// Header: why it is here, one sentence.
pub const REASON: &str = "stoq-reason";
/// Header: the intake, lane or connector that gave it up.
pub const FROM: &str = "stoq-from";
/// Header: when, microseconds since the epoch.
pub const AT: &str = "stoq-at";

/// Header: the name under which the body is kept in the store, where it is too large for the lane.
pub const KEPT: &str = "stoq-kept";

/// Header: the object of the store's shelf that holds the body, where it is too large for the lane. It lies there, outside
/// of any day, until the letter is dropped or replayed.
pub const SHELVED: &str = "stoq-shelved";

/// Characters of a reason.
const MAX_REASON: usize = 2_000;

/// A dead letter for `original`.
pub fn letter(kind: DeadKind, from: &str, reason: &str, original: &Message) -> Message {
    let mut letter = original.clone();
    letter.headers.retain(|(name, _)| !name.starts_with("stoq-") || name == STORED_HEADER);
    letter.headers.extend([
        (KIND.to_owned(), kind.name().to_owned()),
        (FROM.to_owned(), from.to_owned()),
        (REASON.to_owned(), reason.chars().take(MAX_REASON).collect()),
        (AT.to_owned(), Timestamp::now().0.to_string()),
    ]);
    letter
}

/// Puts `original` on the dead lane. Only when this returns may the original be acknowledged.
///
/// # Errors
/// The lane is away.
pub async fn bury(lanes: &Lanes, kind: DeadKind, from: &str, reason: &str, original: &Message) -> Result<(), Fault> {
    tracing::error!(kind = kind.name(), from, reason, id = %original.id, "put on the dead lane");
    lanes.dead.publish(vec![letter(kind, from, reason, original)]).await
}

/// As [`bury`], for the response `item`, which is too large for the lane: it is put on the store's shelf first.
///
/// # Errors
/// The store or the lane is away.
pub async fn bury_response(links: &Links, from: &str, reason: &str, item: &Item) -> Result<(), Fault> {
    // A name of its own for each letter: what goes with one letter must not be what another one stands for.
    let digest = Sha256::of(&[item.id.as_bytes(), b" ", from.as_bytes()].concat());
    let name = format!("dead/{:020}-{digest}", Timestamp::now().0);
    links.store.shelve(&name, &Content::Bytes(item.json.clone())).await?;
    let original = Message::new(item.id.clone(), bytes::Bytes::new());
    let mut letter = letter(DeadKind::Result, from, reason, &original);
    letter.headers.push((SHELVED.to_owned(), name));
    links.lanes.dead.publish(vec![letter]).await
}

/// As [`bury`], for an `original` whose body the lane did not take and the store keeps as `name`.
///
/// # Errors
/// The lane is away.
pub async fn bury_kept(
    lanes: &Lanes,
    kind: DeadKind,
    from: &str,
    reason: &str,
    original: &Message,
    name: &str,
) -> Result<(), Fault> {
    let without_body = Message { body: bytes::Bytes::new(), ..original.clone() };
    let mut letter = letter(kind, from, reason, &without_body);
    letter.headers.push((KEPT.to_owned(), name.to_owned()));
    lanes.dead.publish(vec![letter]).await
}
