//! Hostile LHA archives.

use super::{Sample, names, text};

/// A header of level 0 and data.
fn member(name: &[u8], method: &[u8; 5], data: &[u8], size: u32) -> Vec<u8> {
    let name = &name[..name.len().min(200)];
    let mut header = method.to_vec();
    header.extend((data.len() as u32).to_le_bytes());
    header.extend(size.to_le_bytes());
    header.extend([0, 0x60, 0x21, 0x5c, 0x20, 0, name.len() as u8]);
    header.extend(name);
    header.extend(crc16(data).to_le_bytes());
    let sum = header.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    [&[header.len() as u8, sum], &header[..], data].concat()
}

fn stored(name: &[u8], data: &[u8]) -> Vec<u8> {
    member(name, b"-lh0-", data, data.len() as u32)
}

/// CRC-16 as ARC had it: polynomial 0xa001, reflected.
fn crc16(data: &[u8]) -> u16 {
    data.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xa001 } else { crc >> 1 })
    })
}

pub(super) fn good() -> Vec<u8> {
    [stored(b"a.txt", &text()), stored(b"dir\\b", b"short"), vec![0]].concat()
}

pub(super) fn samples() -> Vec<Sample> {
    let mut samples: Vec<Sample> =
        names().iter().enumerate().map(|(i, name)| (format!("name {i}"), stored(name, b"x"))).collect();
    let mut add = |name: &str, bytes: Vec<u8>| samples.push((name.to_owned(), bytes));
    let methods = [
        b"-lh1-", b"-lh4-", b"-lh5-", b"-lh6-", b"-lh7-", b"-lhd-", b"-lhx-", b"-lzs-", b"-lz4-", b"-lz5-", b"-pm0-",
        b"-pm1-", b"-pm2-", b"-lh9-",
    ];
    for method in methods {
        let name = String::from_utf8_lossy(method).into_owned();
        add(&format!("{name} of text"), member(b"a", method, &text(), 100_000));
        add(&format!("{name} of ones"), member(b"a", method, &[0xff; 3_000], u32::MAX));
        add(&format!("{name} of zeros"), member(b"a", method, &[0; 3_000], u32::MAX));
        add(&format!("{name} of nothing"), member(b"a", method, b"", 1 << 30));
    }
    for level in 1..=4 {
        let mut archive = good();
        archive[20] = level;
        add(&format!("level {level} that is 0"), archive);
    }
    add("size over the end", member(b"a", b"-lh0-", b"x", u32::MAX));
    add("another checksum", {
        let mut archive = good();
        let last = archive.len() - 3;
        archive[last] ^= 1;
        archive
    });
    add("three thousand members", stored(b"m", b"").repeat(3_000));
    add("no end mark", stored(b"a", b"a"));
    samples
}
