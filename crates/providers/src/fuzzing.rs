//! Bodies of the fuzz targets of this crate under `fuzz/`, so that ordinary tests replay what fuzzing found.

use bytes::Bytes;
use stoq_api::payload::nests_too_deep;
use stoq_api::queue::Message;
use stoq_api::task;

use crate::decode::{Decoded, Format, MAX_ROOTS, Meaning, Place, Settings, decode};

/// A target: takes whatever the fuzzer made.
type Target = fn(&[u8]);

/// Every target by the name of its file.
pub const TARGETS: [(&str, Target); 1] = [("reference", reference)];

/// The formats, by the first byte of a sample modulo their number.
const FORMATS: [Format; 9] = [
    Format::Auto,
    Format::Native,
    Format::StoqTask,
    Format::StoqPayload,
    Format::Raw,
    Format::S3,
    Format::Gcs,
    Format::Suricata,
    Format::Zeek,
];

/// Whatever lies on an intake is read or refused; what was read is within its bounds, survives the way over a lane, and is
/// the same for every reader. The first byte chooses the format, and in the second half of its range Google's attributes.
///
/// # Panics
/// That does not hold.
pub fn reference(data: &[u8]) {
    let Some((&first, body)) = data.split_first() else { return };
    let format = FORMATS[usize::from(first) % FORMATS.len()];
    let mut message = Message::new("1", Bytes::copy_from_slice(body));
    if first >= 128 {
        let attributes = [("eventType", "OBJECT_FINALIZE"), ("bucketId", "b"), ("objectId", "k"), ("filename", "f")];
        message.headers = attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    }
    let settings = |format| Settings { format, max_message: 1 << 20, strip_prefix: "/x/".to_owned() };
    let meaning = decode(&message, &settings(format));
    assert_eq!(meaning, decode(&message, &settings(format)), "read twice");
    let Ok(Meaning::Reference(decoded)) = meaning else { return };
    within_bounds(&decoded, body);
    let chosen = decode(&message, &settings(Format::Auto));
    if let Ok(Meaning::Reference(chosen)) = chosen
        && format != Format::Raw
    {
        assert_eq!(chosen, decoded, "auto reads it as another format, and both take it");
    }
}

fn within_bounds(decoded: &Decoded, body: &[u8]) {
    assert!((1..=MAX_ROOTS).contains(&decoded.roots.len()));
    assert!(!nests_too_deep(&decoded.request_meta.extra_data));
    assert_eq!(again(&decoded.request_meta), decoded.request_meta);
    for root in &decoded.roots {
        assert!(!nests_too_deep(&root.meta.extra_data));
        assert_eq!(again(&root.meta), root.meta);
        match &root.place {
            Place::Content(content) => assert!(content.len() <= body.len()),
            Place::Remote { place, .. } => {
                if let task::Place::Archive { task, .. } = place {
                    assert!(!nests_too_deep(task));
                }
                assert_eq!(&again(place), place);
            }
            Place::File { path, .. } => assert!(path.len() <= crate::decode::MAX_NAME),
        }
    }
}

/// As a worker reads it off a lane.
fn again<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    let written = serde_json::to_vec(value);
    match written.as_deref().map(serde_json::from_slice) {
        Ok(Ok(read)) => read,
        other => panic!("it cannot be carried: {:?}", other.map(|_| ())),
    }
}
