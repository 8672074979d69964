//! Bodies of the fuzz targets of this crate under `fuzz/`, so that ordinary tests replay what fuzzing found.

use stoq_api::plugin::Item;
use stoq_api::queue::Message;

use crate::common::lane::{BATCH_HEADER, MAX_ITEMS, pack, unpack};
use crate::splunk::reply::{Answer, answer, is_acknowledged};

/// A target: takes whatever the fuzzer made.
type Target = fn(&[u8]);

/// Every target by the name of its file.
pub const TARGETS: [(&str, Target); 2] = [("lane_unpack", lane_unpack), ("splunk_reply", splunk_reply)];

/// Whatever lies on the result lane is read or refused, and what was read is read the same when it is packed again. Data
/// up to the first line feed are the batch header; without one, there is none.
///
/// # Panics
/// That does not hold.
pub fn lane_unpack(data: &[u8]) {
    let mut message = Message::new("id", data.to_vec());
    if let Some(at) = data.iter().position(|b| *b == b'\n') {
        let count = String::from_utf8_lossy(&data[..at]).into_owned();
        message = Message::new("id", data[at + 1..].to_vec());
        message.headers.push((BATCH_HEADER.to_owned(), count));
    }
    let Ok(items) = unpack(&message) else { return };
    assert!((1..=MAX_ITEMS).contains(&items.len()));
    let again = pack(&items).iter().map(unpack).collect::<Result<Vec<_>, _>>().map(|parts| parts.concat());
    assert_eq!(again.as_deref().map(flat), Ok(flat(&items)));
}

fn flat(items: &[Item]) -> Vec<(&str, &[u8])> {
    items.iter().map(|i| (i.id.as_str(), &i.json[..])).collect()
}

/// Whatever answers in Splunk's place: only 2xx counts as taken, with a number where one is wanted, and only a JSON object
/// that says yes to a number counts as its acknowledgement. The first two bytes are the status and whether a number is
/// wanted.
///
/// # Panics
/// That does not hold.
pub fn splunk_reply(data: &[u8]) {
    let [status, wanted, body @ ..] = data else { return };
    let (status, wanted) = (100 + 2 * u16::from(*status), wanted % 2 == 1);
    if let Answer::Taken(number) = answer(status, body, wanted) {
        assert!((200..300).contains(&status) && number.is_some() == wanted, "status {status}: {number:?}");
    }
    for number in [0, 7, u64::MAX] {
        if is_acknowledged(body, number) {
            let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
            assert_eq!(body["acks"][number.to_string()], true);
        }
    }
}
