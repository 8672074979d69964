//! Bodies of the fuzz targets of this crate under `fuzz/`, so that ordinary tests replay what fuzzing found.

use std::path::Path;

use bytes::Bytes;
use stoq_api::Sha256;
use stoq_api::scanner::Remaining;

use crate::pool::Collector;
use crate::protocol::reply::{Decoder, Reply};
use crate::protocol::request::{Body, Outgoing};

/// A target: takes whatever the fuzzer made.
type Target = fn(&[u8]);

/// Every target by the name of its file.
pub const TARGETS: [(&str, Target); 1] = [("jail_reply", jail_reply)];

/// Greatest report that the supervisor takes from the fuzzed slot.
const MAX_REPORT: usize = 10_000;
/// What each item of the fuzzed batch may emit; little enough that no spool file is needed.
const REMAINING: Remaining = Remaining { children: 8, bytes: 100_000 };
/// The plugin that may not run on the batch's last item.
const EXCLUDED: u16 = 9;
/// Most memory of the decoder: the largest frame and a read, 64 KiB each, in a vector that doubles as it grows.
const MAX_HELD: usize = 2 * (129 << 10);
/// Sizes of the pieces in which the same bytes arrive.
const PIECES: [usize; 3] = [1 << 16, 1000, 7];

/// Whatever a slot says is taken or refused in bounded memory and within the budgets, and the same however it is cut into
/// pieces.
///
/// # Panics
/// That does not hold.
pub fn jail_reply(data: &[u8]) {
    let whole = frames(data, PIECES[0]);
    for piece in &PIECES[1..] {
        assert_eq!(frames(data, *piece), whole);
    }
    collect(data);
}

/// All frames up to the first that is none, written again.
fn frames(data: &[u8], piece: usize) -> Vec<u8> {
    let mut out = Vec::new();
    each(data, piece, |reply| {
        reply.encode(&mut out);
        true
    });
    out
}

/// Hands frames to `take` while it says so.
fn each(data: &[u8], piece: usize, mut take: impl FnMut(Reply<'_>) -> bool) {
    let mut decoder = Decoder::new(MAX_REPORT);
    let mut rest = data;
    while !rest.is_empty() {
        let room = decoder.room();
        let n = piece.min(rest.len()).min(room.len());
        let (now, later) = rest.split_at(n);
        room[..n].copy_from_slice(now);
        decoder.filled(n);
        rest = later;
        loop {
            let Ok(next) = decoder.next() else { return };
            let Some(reply) = next else { break };
            if !take(reply) {
                return;
            }
        }
        assert!(decoder.held() <= MAX_HELD);
    }
}

/// The frames as the answer to a batch of two items.
fn collect(data: &[u8]) {
    let item =
        |excluded| Outgoing { header: Bytes::new(), body: Body::Inline(Bytes::new()), remaining: REMAINING, excluded };
    let items = [item(Vec::new()), item(vec![EXCLUDED])];
    let mut collector = Collector::new(&items, Path::new("/nowhere"));
    let mut done = false;
    each(data, PIECES[0], |reply| match collector.take(reply) {
        Ok(end) => {
            done = end;
            !end
        }
        Err(_) => false,
    });
    let answers = collector.into_answers();
    assert!(answers.len() <= items.len() && (!done || answers.len() == items.len()));
    for (answer, item) in answers.iter().zip(&items) {
        assert!(answer.report.as_ref().is_some_and(|r| r.len() <= MAX_REPORT));
        let bytes: u64 = answer.children.iter().map(|c| c.content.len()).sum();
        assert!(answer.children.len() as u64 <= REMAINING.children && bytes <= REMAINING.bytes);
        for child in &answer.children {
            assert!(!item.excluded.contains(&child.plugin));
            let Ok(content) = child.content.to_bytes() else { panic!("a child's bytes are lost") };
            assert_eq!(child.sha256, Sha256::of(&content));
        }
    }
}
