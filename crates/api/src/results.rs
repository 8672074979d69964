//! Messages of the result lane: one response as it is, or several in frames.
//!
//! A message with one response is that response: its id is the scan's, its body compact JSON. A message with several has
//! the header [`BATCH_HEADER`] with their number, and a body of that many frames: `u32` length of the id, the id, `u32`
//! length of the JSON text, the text; lengths are little-endian. A connector never publishes a message again in parts:
//! that would double it for the other connectors. A large response lies in the payload store, and its message has the
//! header [`STORED_HEADER`] that says where, and no body.

use crate::content::Content;
use crate::digest::Sha256;
use crate::plugin::Item;
use crate::queue::Message;
use crate::stamp::Timestamp;
use crate::store::StoreKey;
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Says that a message holds several responses, and how many.
pub const BATCH_HEADER: &str = "stoq-batch";
/// Most responses in one message.
pub const MAX_ITEMS: usize = 4_096;
/// Most bytes of responses in a message of several; a larger one travels alone.
pub const MAX_BYTES: usize = 1 << 20;

/// The messages that carry `items`, in order; none for no items. At most [`MAX_ITEMS`] and [`MAX_BYTES`] go into one.
pub fn pack(items: &[Item]) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut rest = items;
    while let Some(first) = rest.first() {
        let mut bytes = first.json.len();
        let more = rest[1..].iter().take(MAX_ITEMS - 1).take_while(|item| {
            bytes = bytes.saturating_add(item.json.len());
            bytes <= MAX_BYTES
        });
        let (now, later) = rest.split_at(1 + more.count());
        messages.push(pack_one(now));
        rest = later;
    }
    messages
}

/// Says that a response lies in the payload store: day, digest and length in bytes, with `/` between them.
pub const STORED_HEADER: &str = "stoq-stored";
/// Most bytes of a response that a connector reads from the store.
pub const MAX_STORED: u64 = 1 << 30;

/// Where a large response lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its place in the store.
    pub key: StoreKey,
    /// Its length in bytes.
    pub len: u64,
}

impl Stored {
    /// The place of `response`, which is to be put there on the day of `now`: what waits on the lane for days must not be
    /// dropped with the scan's own day.
    pub fn place(response: &Bytes, now: Timestamp) -> (Self, Content) {
        let key = StoreKey { day: now.day(), sha256: Sha256::of(response) };
        (Self { key, len: response.len() as u64 }, Content::Bytes(response.clone()))
    }

    /// The message that stands for the response of the scan `id`.
    pub fn message(&self, id: &str) -> Message {
        let mut message = Message::new(id, Bytes::new());
        let Self { key, len } = self;
        message.headers.push((STORED_HEADER.to_owned(), format!("{:08}/{}/{len}", key.day, key.sha256)));
        message
    }

    /// Where the response of a message lies, if it is not in the message.
    ///
    /// # Errors
    /// The header cannot be read; a sentence that says so.
    pub fn of(message: &Message) -> Result<Option<Self>, String> {
        let Some(header) = message.header(STORED_HEADER) else { return Ok(None) };
        let mut parts = header.split('/');
        let day = parts.next().and_then(|day| day.parse().ok());
        let sha256 = parts.next().and_then(|digest| digest.parse().ok());
        let len = parts.next().and_then(|len| len.parse().ok()).filter(|len| *len <= MAX_STORED);
        match (day, sha256, len, parts.next()) {
            (Some(day), Some(sha256), Some(len), None) => Ok(Some(Self { key: StoreKey { day, sha256 }, len })),
            _ => Err(format!("header {STORED_HEADER} does not name an object of the store")),
        }
    }
}

fn pack_one(items: &[Item]) -> Message {
    if let [item] = items {
        return Message::new(item.id.clone(), item.json.clone());
    }
    let size = items.iter().map(|i| i.id.len() + i.json.len() + 8).sum();
    let mut body = BytesMut::with_capacity(size);
    for item in items {
        for part in [item.id.as_bytes(), &item.json] {
            // No message is as large as 4 GiB: brokers take far less.
            body.put_u32_le(u32::try_from(part.len()).unwrap_or(u32::MAX));
            body.put_slice(part);
        }
    }
    let mut message = Message::new(items[0].id.clone(), body.freeze());
    message.headers.push((BATCH_HEADER.to_owned(), items.len().to_string()));
    message
}

/// The responses in a message.
///
/// # Errors
/// A sentence that says what is wrong with it. Lanes are our own, so this is damage or a foreign publisher.
pub fn unpack(message: &Message) -> Result<Vec<Item>, String> {
    let Some(count) = message.header(BATCH_HEADER) else {
        return Ok(vec![Item { id: message.id.clone(), json: message.body.clone() }]);
    };
    let count = count.parse().ok().filter(|n| (1..=MAX_ITEMS).contains(n));
    let count: usize = count.ok_or_else(|| format!("header {BATCH_HEADER} is not a number up to {MAX_ITEMS}"))?;
    let mut body = message.body.clone();
    let mut items = Vec::new();
    for number in 0..count {
        let (id, json) = (part(&mut body), part(&mut body));
        match (id.and_then(|id| String::from_utf8(id.into()).ok()), json) {
            (Some(id), Some(json)) => items.push(Item { id, json }),
            _ => return Err(format!("response {number} of {count} is cut short or has no readable id")),
        }
    }
    if body.is_empty() { Ok(items) } else { Err(format!("{} bytes follow the last response", body.len())) }
}

fn part(body: &mut Bytes) -> Option<Bytes> {
    let len = usize::try_from(body.try_get_u32_le().ok()?).ok()?;
    (len <= body.len()).then(|| body.split_to(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(count: usize) -> Vec<Item> {
        (0..count).map(|n| Item { id: format!("id{n}"), json: format!("{{\"n\":{n}}}").into() }).collect()
    }

    fn flat(items: &[Item]) -> Vec<(String, Bytes)> {
        items.iter().map(|i| (i.id.clone(), i.json.clone())).collect()
    }

    #[test]
    fn what_is_packed_comes_out_again() {
        for count in [0, 1, 2, 5, MAX_ITEMS, MAX_ITEMS + 1] {
            let items = items(count);
            let messages = pack(&items);
            assert_eq!(messages.len(), count.div_ceil(MAX_ITEMS));
            let back: Vec<Item> = messages.iter().flat_map(|m| unpack(m).unwrap()).collect();
            assert_eq!(flat(&back), flat(&items));
        }
        assert_eq!(&pack(&items(1))[0].body[..], b"{\"n\":0}", "one response stays readable as it is");
    }

    #[test]
    fn large_responses_travel_alone() {
        let sizes = [10, MAX_BYTES + 1, 10, 20, MAX_BYTES - 30, 1, MAX_BYTES];
        let items: Vec<Item> =
            sizes.iter().map(|size| Item { id: size.to_string(), json: vec![b' '; *size].into() }).collect();
        let packed: Vec<usize> = pack(&items).iter().map(|m| unpack(m).unwrap().len()).collect();
        assert_eq!(packed, [1, 1, 3, 1, 1]);
    }

    #[test]
    fn a_stored_response_is_found_again() {
        let (stored, content) = Stored::place(&Bytes::from_static(b"{}"), Timestamp(1_700_000_000_000_000));
        assert_eq!((stored.key.day, stored.len, content.len()), (20_231_114, 2, 2));
        let mut message = stored.message("scan");
        assert_eq!(Stored::of(&message), Ok(Some(stored)));
        assert_eq!(Stored::of(&Message::new("scan", "{}")), Ok(None));
        for damaged in ["", "20231114", "20231114/00/2", "x/y/z", "20231114/00/99999999999"] {
            message.headers[0].1 = damaged.to_owned();
            assert!(Stored::of(&message).is_err(), "{damaged}");
        }
    }

    #[test]
    fn damage_is_told() {
        let whole = pack(&items(2)).remove(0);
        for cut in 0..whole.body.len() {
            let damaged = Message { body: whole.body.slice(..cut), ..whole.clone() };
            assert!(unpack(&damaged).is_err(), "cut at {cut}");
        }
        for count in ["0", "1", "3", "-1", "99999999999", "x"] {
            let headers = vec![(BATCH_HEADER.to_owned(), count.to_owned())];
            assert!(unpack(&Message { headers, ..whole.clone() }).is_err(), "count {count}");
        }
    }
}
