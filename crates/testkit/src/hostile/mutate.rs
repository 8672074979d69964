//! Damage that any file can have.

use super::Sample;

/// Places at which a file is cut, and at which bits are turned.
const PLACES: usize = 14;

/// Damaged versions of a file that is in order, and what remains of it in the end.
pub(super) fn all(good: &[u8]) -> Vec<Sample> {
    let mut samples = vec![
        ("good".to_owned(), good.to_vec()),
        ("garbage behind".to_owned(), [good, b"garbage \x00\xff\x50\x4b\x03\x04 behind"].concat()),
        ("zeros behind".to_owned(), [good, &[0; 4096]].concat()),
        ("garbage before".to_owned(), [b"#!/bin/sh\nexit 0\n", good].concat()),
        ("twice".to_owned(), good.repeat(2)),
        ("many times".to_owned(), good.repeat((64 << 10) / good.len().max(1) + 2)),
        ("head only".to_owned(), good[..good.len().min(32)].to_vec()),
        ("one byte".to_owned(), good[..1].to_vec()),
        ("last byte missing".to_owned(), good[..good.len() - 1].to_vec()),
        ("zeros after the head".to_owned(), filled(good, 0)),
        ("ones after the head".to_owned(), filled(good, 0xff)),
    ];
    for place in 1..PLACES {
        samples.push((format!("cut {place} of {PLACES}"), good[..good.len() * place / PLACES].to_vec()));
        samples.push((format!("flip {place} of {PLACES}"), flipped(good, good.len() * place / PLACES, place % 8)));
        // Heads hold sizes, versions and methods, so they get closer attention.
        samples.push((format!("flip in the head at {place}"), flipped(good, place * 3, (place * 5) % 8)));
        samples.push((format!("ones in the head at {place}"), ones(good, place * 2)));
    }
    samples
}

/// The first bytes, then only `byte`.
fn filled(good: &[u8], byte: u8) -> Vec<u8> {
    let head = good.len().min(20);
    [&good[..head], &vec![byte; good.len() - head]].concat()
}

fn flipped(good: &[u8], at: usize, bit: usize) -> Vec<u8> {
    let mut bytes = good.to_vec();
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << bit;
    }
    bytes
}

/// Four bytes of ones: the largest number that a field can hold.
fn ones(good: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = good.to_vec();
    bytes.iter_mut().skip(at).take(4).for_each(|b| *b = 0xff);
    bytes
}
