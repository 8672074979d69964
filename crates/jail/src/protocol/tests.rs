//! The wire's parsers, with the bytes they expect and with any bytes at all.

use bytes::Bytes;
use proptest::prelude::*;
use stoq_api::scanner::Remaining;

use super::reply::{Decoder, Reply, append_data};
use super::request::{Body, Outgoing, Place, Request, decode, length};
use super::{MAX_DATA, MAX_META};

const MAX_REPORT: usize = 100_000;

fn feed(decoder: &mut Decoder, mut bytes: &[u8], piece: usize) -> usize {
    let mut frames = 0;
    while !bytes.is_empty() {
        let room = decoder.room();
        let n = piece.min(bytes.len()).min(room.len());
        room[..n].copy_from_slice(&bytes[..n]);
        decoder.filled(n);
        bytes = &bytes[n..];
        loop {
            match decoder.next() {
                Ok(Some(_)) => frames += 1,
                Ok(None) => break,
                Err(_) => return frames,
            }
        }
    }
    frames
}

#[test]
fn replies_round_trip_whatever_the_pieces() {
    let report = vec![9; 70_000];
    let sent = [
        Reply::Ready { landlock: 6, seccomp: true, unprivileged: false },
        Reply::Failed(b"no"),
        Reply::Starting { plugin: 700 },
        Reply::Open { plugin: 7, meta: b"{}" },
        Reply::Data(b"abc"),
        Reply::Close { keep: true },
        Reply::Report { item: 3, report: &report },
        Reply::Done,
    ];
    let mut bytes = Vec::new();
    for reply in &sent {
        reply.encode(&mut bytes);
    }
    for piece in [1, 7, 1 << 16] {
        let mut decoder = Decoder::new(MAX_REPORT);
        let mut got = 0;
        for chunk in bytes.chunks(piece) {
            decoder.room()[..chunk.len()].copy_from_slice(chunk);
            decoder.filled(chunk.len());
            while let Some(reply) = decoder.next().unwrap() {
                assert_eq!(reply, sent[got]);
                got += 1;
            }
        }
        assert_eq!(got, sent.len());
        assert!(decoder.is_empty());
        decoder.relax();
    }
}

#[test]
fn small_writes_share_a_frame_and_large_ones_are_split() {
    let (mut out, mut last) = (Vec::new(), None);
    for _ in 0..10 {
        append_data(&mut out, &mut last, b"ab");
    }
    assert_eq!(out.len(), 5 + 20);
    append_data(&mut out, &mut last, &vec![1; MAX_DATA * 2]);
    let mut decoder = Decoder::new(MAX_REPORT);
    let (mut frames, mut total) = (0, 0);
    for chunk in out.chunks(1000) {
        decoder.room()[..chunk.len()].copy_from_slice(chunk);
        decoder.filled(chunk.len());
        while let Some(reply) = decoder.next().unwrap() {
            let Reply::Data(bytes) = reply else { panic!("{reply:?}") };
            frames += 1;
            total += bytes.len();
        }
    }
    assert_eq!((frames, total), (3, 20 + MAX_DATA * 2));
}

#[test]
fn a_length_above_its_limit_is_refused_before_the_bytes_come() {
    for (kind, len) in [(3_u8, MAX_META + 4), (4, MAX_DATA + 2), (6, MAX_REPORT + 4), (7, 2), (1, 5), (5, 0)] {
        let mut decoder = Decoder::new(MAX_REPORT);
        let mut head = (len as u32).to_le_bytes().to_vec();
        head.push(kind);
        decoder.room()[..5].copy_from_slice(&head);
        decoder.filled(5);
        assert!(decoder.next().is_err(), "kind {kind} with {len}");
    }
}

fn outgoing() -> impl Strategy<Value = Outgoing> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..50).prop_map(Bytes::from);
    (bytes(), bytes(), any::<u64>(), any::<u64>(), proptest::collection::vec(any::<u16>(), 0..4)).prop_map(
        |(header, body, children, bytes, excluded)| Outgoing {
            header,
            body: Body::Inline(body),
            remaining: Remaining { children, bytes },
            excluded,
        },
    )
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_in_bounded_memory(
        bytes in proptest::collection::vec(any::<u8>(), 0..4096),
        piece in 1_usize..5000,
    ) {
        let mut decoder = Decoder::new(MAX_REPORT);
        feed(&mut decoder, &bytes, piece);
        prop_assert!(decoder.held() <= 4 * (MAX_REPORT + (64 << 10)));
        decode(&bytes);
    }

    #[test]
    fn frames_with_any_body_are_parsed_in_bounded_memory(
        frames in proptest::collection::vec((0_u8..10, 0_u32..200_000, proptest::collection::vec(any::<u8>(), 0..64)), 0..40),
    ) {
        let mut bytes = Vec::new();
        for (kind, len, body) in frames {
            // Half of the frames say their true length.
            let len = if len % 2 == 0 { body.len() as u32 + 1 } else { len };
            bytes.extend(len.to_le_bytes());
            bytes.push(kind);
            bytes.extend(body);
        }
        let mut decoder = Decoder::new(MAX_REPORT);
        feed(&mut decoder, &bytes, 1 << 16);
        prop_assert!(decoder.held() <= 4 * (MAX_REPORT + (64 << 10)));
    }

    #[test]
    fn requests_round_trip_and_cut_ones_are_refused(items in proptest::collection::vec(outgoing(), 0..5), cut in 1_usize..20) {
        let mut laid_out = Request::default();
        laid_out.lay_out(&items, cut > 9);
        let out: Vec<u8> = laid_out.parts(&items).iter().flat_map(|part| part.to_vec()).collect();
        let (prefix, request) = out.split_first_chunk::<4>().unwrap();
        prop_assert_eq!(length(*prefix), Some(request.len()));
        let (careful, back) = decode(request).unwrap();
        prop_assert_eq!(careful, cut > 9);
        prop_assert_eq!(back.len(), items.len());
        for (item, sent) in back.iter().zip(&items) {
            prop_assert_eq!(&request[item.header.clone()], &sent.header[..]);
            let (Place::Inline(place), Body::Inline(body)) = (&item.body, &sent.body) else { panic!("not inline") };
            prop_assert_eq!(&request[place.clone()], &body[..]);
            prop_assert_eq!(&item.excluded, &sent.excluded);
            prop_assert_eq!(item.remaining, sent.remaining);
        }
        prop_assert!(decode(&request[..request.len().saturating_sub(cut)]).is_none());
    }
}
