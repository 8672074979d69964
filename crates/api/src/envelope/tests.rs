//! Round trips, hostile input, and the fixtures of every released version.

use proptest::prelude::*;

use super::*;
use crate::digest::Sha256;
use crate::payload::PayloadMeta;
use crate::stamp::Timestamp;
use crate::task::{FileRef, Location, Place, RawPath, RemoteRef, RootRef, ScanHead};

fn task(inline: &[u8], name: &str) -> Task {
    let scan_id = ScanId::derive("test", name.as_bytes(), &Sha256::of(inline));
    let payload_id = PayloadId::root(scan_id, 0);
    let root = RootRef {
        id: payload_id,
        sha256: Some(Sha256::of(inline)),
        size: inline.len() as u64,
        location: Location::File(FileRef {
            root: "samples".into(),
            path: RawPath::from_bytes(b"a/\xffb"),
            size: 3,
            mtime_ns: 1_767_323_045_678_901_234,
            inode: 7,
        }),
        payload_meta: PayloadMeta::with("filename", name),
    };
    Task {
        scan_id,
        payload_id,
        scan: std::sync::Arc::new(ScanHead {
            source: "test".into(),
            first_seen: Timestamp(1_767_323_045_678_901),
            roots: vec![root],
            budgets: crate::Budgets::default(),
            request_meta: crate::RequestMeta::default(),
            start_dispatch: vec!["hash".into()],
            tenant: None,
            allowed_plugins: None,
            replay_of: None,
            trace: None,
        }),
        parent: None,
        ancestors: Vec::new(),
        depth: 0,
        sha256: Some(Sha256::of(inline)),
        size: inline.len() as u64,
        location: Location::Inline,
        payload_meta: PayloadMeta::with("filename", name),
        inline: Bytes::copy_from_slice(inline),
    }
}

fn decoded(message: &Bytes) -> Vec<Task> {
    decode(message).unwrap().into_iter().map(|e| *e.task.unwrap()).collect()
}

#[test]
fn the_fixture_of_version_1_decodes() {
    let fixture = Bytes::from_static(include_bytes!("testdata/v1.bin"));
    assert_eq!(decoded(&fixture), [task(b"", "empty"), task(b"\x00\x01inline", "n\u{e4}me")]);
}

#[test]
fn this_build_writes_what_the_newest_fixture_holds() {
    let message = encode(&[task(b"", "empty"), task(b"\x00\x01inline", "n\u{e4}me")]).unwrap();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/envelope/testdata/v1.bin");
        std::fs::write(path, &message).unwrap();
    }
    assert_eq!(&message[..], &include_bytes!("testdata/v1.bin")[..]);
}

/// The roots of version 1 that lie behind a network, which the first fixture has none of.
fn remote() -> Vec<Task> {
    let version = Some("3HL4kqtJvjVBH40N".to_owned());
    let object =
        Place::Object { bucket: "carved".into(), key: "a b/\u{e4}".into(), version, etag: Some("d41d8cd9".into()) };
    let asked = PayloadMeta::with("path", "a/b").extra_data;
    let places = [
        Place::Url("https://files.example.org/a?b=c".into()),
        object,
        Place::Object { bucket: "carved".into(), key: "k".into(), version: None, etag: None },
        Place::Archive { archiver: "filedir".into(), task: asked },
    ];
    let remote = |place| {
        let location = Location::Remote(RemoteRef { via: "bucket".into(), place, size: Some(3) });
        let mut task = task(b"", "remote");
        std::sync::Arc::make_mut(&mut task.scan).roots[0].location = location.clone();
        Task { location, sha256: None, size: 3, ..task }
    };
    places.into_iter().map(remote).collect()
}

#[test]
fn the_fixture_of_remote_roots_decodes_and_is_what_this_build_writes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/envelope/testdata/v1-remote.bin");
    let message = encode(&remote()).unwrap();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(path, &message).unwrap();
    }
    let fixture = Bytes::from(std::fs::read(path).unwrap());
    assert_eq!(decoded(&fixture), remote());
    assert_eq!(message, fixture);
}

#[test]
fn what_an_archiver_is_asked_for_is_metadata_too() {
    let mut task = remote().remove(3);
    let deep = format!("{}{}", "[".repeat(70), "]".repeat(70));
    let Location::Remote(RemoteRef { place: Place::Archive { task: asked, .. }, .. }) = &mut task.location else {
        panic!("another place")
    };
    asked.insert("deep".into(), serde_json::from_str(&deep).unwrap());
    let error = decode(&encode(&[task]).unwrap()).unwrap().remove(0).task.unwrap_err();
    assert!(matches!(&error, EnvelopeError::Header(text) if text.contains("nested deeper")), "{error}");
}

#[test]
fn newer_and_broken_headers_keep_their_ids() {
    let mut message = encode(&[task(b"abc", "a")]).unwrap().to_vec();
    let ids = (task(b"abc", "a").scan_id, task(b"abc", "a").payload_id);
    message[4] = 9;
    let newer = decode(&message.clone().into()).unwrap().remove(0);
    assert_eq!((newer.scan_id, newer.payload_id), ids);
    assert_eq!(newer.task.unwrap_err(), EnvelopeError::Newer(9));
    message[4] = 1;
    message[PRELUDE] = b'x';
    let broken = decode(&message.into()).unwrap().remove(0);
    assert!(matches!(broken.task, Err(EnvelopeError::Header(_))));
}

#[test]
fn a_scan_is_said_once_and_belongs_to_its_own_tasks_only() {
    let one = task(b"a", "a");
    let two = Task { payload_id: PayloadId::root(one.scan_id, 1), parent: Some(one.payload_id), ..one.clone() };
    let other = task(b"b", "b");
    let tasks = [one.clone(), two.clone(), other.clone(), two.clone()];
    let message = encode(&tasks).unwrap();
    assert_eq!(decoded(&message), tasks);
    let said = message.windows(8).filter(|w| w == b"\"scan\":{").count();
    assert_eq!(said, 3, "once for the first two, and again after another scan's");
    let first = encode(std::slice::from_ref(&one)).unwrap().len();
    let second = encode(&[one, two]).unwrap().slice(first..);
    let alone = decode(&second).unwrap().remove(0).task;
    assert!(matches!(alone, Err(EnvelopeError::Header(why)) if why.contains("no frame before")));
    let after_another = [encode(&[other]).unwrap(), second].concat();
    assert!(decode(&after_another.into()).unwrap()[1].task.is_err());
}

#[test]
fn lengths_are_bounded_before_anything_is_read() {
    let mut message = encode(&[task(b"abc", "a")]).unwrap().to_vec();
    message[38..42].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(decode(&message.into()).unwrap_err(), EnvelopeError::TooLarge("header"));
}

proptest! {
    #[test]
    fn any_tasks_survive(bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..5), name in ".{0,40}") {
        let tasks: Vec<Task> = bodies.iter().map(|b| task(b, &name)).collect();
        prop_assert_eq!(decoded(&encode(&tasks).unwrap()), tasks);
    }

    #[test]
    fn any_cut_is_an_error_and_never_a_wrong_task(cut in 1_usize..600) {
        let whole = encode(&[task(b"inline bytes", "a")]).unwrap();
        let cut = whole.len().saturating_sub(cut);
        if cut > 0 {
            prop_assert!(decode(&whole.slice(..cut)).is_err());
        }
    }

    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200), flips in proptest::collection::vec((0_usize..700, any::<u8>()), 0..8)) {
        decode(&bytes.into()).ok();
        let mut message = encode(&[task(b"inline", "b")]).unwrap().to_vec();
        for (at, value) in flips {
            let at = at % message.len();
            message[at] = value;
        }
        decode(&message.into()).ok();
    }
}
