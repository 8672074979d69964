//! Hostile gzip, bzip2, xz, LZMA and zstd streams.

use std::io::Write;

use super::{Sample, text};

/// What most bombs are made of.
fn zeros(mebibytes: usize) -> Vec<u8> {
    vec![0; mebibytes << 20]
}

pub(super) fn gz(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn bz2(data: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn xz(data: &[u8]) -> Vec<u8> {
    let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn lzma(data: &[u8]) -> Vec<u8> {
    let options = lzma_rust2::LzmaOptions::with_preset(1);
    let mut encoder = lzma_rust2::LzmaWriter::new_use_header(Vec::new(), &options, Some(data.len() as u64)).unwrap();
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn zstd(data: &[u8]) -> Vec<u8> {
    zstd::encode_all(data, 3).unwrap()
}

/// `pack` applied over and over.
fn nested(mut data: Vec<u8>, times: usize, pack: fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    for _ in 0..times {
        data = pack(&data);
    }
    data
}

fn sample(name: &str, bytes: Vec<u8>) -> Sample {
    (name.to_owned(), bytes)
}

/// `good` with the bytes at `at` replaced.
fn with(good: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut changed = good.to_vec();
    changed[at..at + bytes.len()].copy_from_slice(bytes);
    changed
}

/// A gzip header with the given flags and what they announce, then the content of `body`.
fn gz_head(flags: u8, fields: &[u8], body: &[u8]) -> Vec<u8> {
    [&[0x1f, 0x8b, 8, flags, 0xff, 0xff, 0xff, 0xff, 0, 3], fields, &body[10..]].concat()
}

pub(super) fn gz_samples() -> Vec<Sample> {
    let good = gz(&text());
    let bomb = gz(&zeros(4));
    let end = good.len();
    vec![
        sample("bomb of zeros", bomb.clone()),
        sample("bomb of many members", bomb.repeat(20)),
        sample("nested bomb", nested(bomb, 3, gz)),
        sample("nested twenty deep", nested(text(), 20, gz)),
        sample("empty content", gz(b"")),
        sample("thousands of empty members", gz(b"").repeat(5_000)),
        sample("wrong crc", with(&good, end - 8, &[0; 4])),
        sample("size that lies", with(&good, end - 4, &[0xff; 4])),
        sample("without trailer", good[..end - 8].to_vec()),
        sample("unknown method", with(&good, 2, &[7])),
        sample("reserved flags", with(&good, 3, &[0xe0])),
        sample("name that leads out", gz_head(8, b"../../etc/passwd\0", &good)),
        sample("name with control characters", gz_head(8, b"a\x1b[2J\xe2\x80\xae.exe\0", &good)),
        sample("name without an end", gz_head(8, &vec![b'n'; 70_000], &good[..10])),
        sample("long name", gz_head(8, &[&vec![b'n'; 60_000][..], &[0]].concat(), &good)),
        sample("comment of 60 kB", gz_head(16, &[&vec![b'c'; 60_000][..], &[0]].concat(), &good)),
        sample("extra field longer than the file", gz_head(4, &[0xff, 0xff], &good)),
        sample("wrong header crc", gz_head(2, &[0, 0], &good)),
        sample("reserved block type", [&good[..10], &[0x07, 0xff, 0xff]].concat()),
        sample("distance before the start", [&good[..10], &[0x4b, 0x04, 0x42, 0xff, 0xff]].concat()),
        sample("stored block that lies", [&good[..10], &[1, 0xff, 0xff, 0, 0, b'x']].concat()),
        sample("endless empty blocks", [&good[..10], &[0, 0, 0, 0xff, 0xff].repeat(100_000)].concat()),
    ]
}

pub(super) fn bz2_samples() -> Vec<Sample> {
    let good = bz2(&text());
    let bomb = bz2(&zeros(4));
    vec![
        sample("bomb of zeros", bomb.clone()),
        sample("bomb of many streams", bomb.repeat(200)),
        sample("nested bomb", nested(bomb, 3, bz2)),
        sample("nested twenty deep", nested(text(), 20, bz2)),
        sample("empty content", bz2(b"")),
        sample("thousands of empty streams", bz2(b"").repeat(3_000)),
        sample("smaller block than the data need", with(&good, 3, b"1")),
        sample("block size 0", with(&good, 3, b"0")),
        sample("wrong block crc", with(&good, 10, &[0; 4])),
        sample("randomised block", with(&good, 14, &[0x80])),
        sample("origin pointer outside the block", with(&good, 14, &[0x7f, 0xff, 0xff])),
        sample("no symbols", with(&good, 17, &[0, 0])),
        sample("end without a block", [b"BZh9\x17rE8P\x90", &[0xff; 4][..]].concat()),
        sample("magic only", b"BZh91AY&SY".to_vec()),
        sample("version 1", b"BZ0910".to_vec()),
    ]
}

pub(super) fn xz_samples() -> Vec<Sample> {
    let good = xz(&text());
    let bomb = xz(&zeros(4));
    let header = |properties: u8| {
        // Block header: size 8 bytes, one filter, LZMA2, one byte of properties, padding, CRC-32.
        let block = [2, 0, 0x21, 1, properties, 0, 0, 0];
        [&good[..12], &block, &crc32fast::hash(&block).to_le_bytes(), &good[24..]].concat()
    };
    let filters = |id: u8| {
        let block = [2, 1, id, 0, 0x21, 1, 22, 0];
        [&good[..12], &block, &crc32fast::hash(&block).to_le_bytes(), &good[24..]].concat()
    };
    let check =
        |flags: [u8; 2]| [b"\xfd7zXZ\0", &flags[..], &crc32fast::hash(&flags).to_le_bytes(), &good[12..]].concat();
    let end = good.len();
    vec![
        sample("bomb of zeros", bomb.clone()),
        sample("bomb of many streams", bomb.repeat(20)),
        sample("nested bomb", nested(bomb, 3, xz)),
        sample("nested twenty deep", nested(text(), 20, xz)),
        sample("empty content", xz(b"")),
        sample("thousands of empty streams", xz(b"").repeat(3_000)),
        sample("dictionary of 4 GiB", header(40)),
        sample("dictionary of 1.5 GiB", header(37)),
        sample("dictionary of an unknown size", header(63)),
        sample("dictionary of 4 KiB", header(0)),
        sample("branch filter before LZMA2", filters(4)),
        sample("unknown filter", filters(0x30)),
        sample("delta filter without properties", filters(3)),
        sample("unknown check", check([0, 15])),
        sample("reserved flags", check([0x80, 1])),
        sample("no check", check([0, 0])),
        sample("backward size that lies", with(&good, end - 8, &[0xff; 4])),
        sample("without footer", good[..end - 12].to_vec()),
        sample("footer magic missing", with(&good, end - 2, b"XX")),
        sample("padding of a wrong length", [&good[..], &[0; 3], &good].concat()),
        sample("padding only", [b"\xfd7zXZ\0", &[0; 500][..]].concat()),
        sample("chunk that lies", with(&good, 25, &[0xff, 0xff])),
    ]
}

pub(super) fn lzma_samples() -> Vec<Sample> {
    let good = lzma(&text());
    let bomb = lzma(&zeros(4));
    let dictionary = |bytes: u32| with(&good, 1, &bytes.to_le_bytes());
    vec![
        sample("bomb of zeros", bomb.clone()),
        sample("nested bomb", nested(bomb.clone(), 3, lzma)),
        sample("nested twenty deep", nested(text(), 20, lzma)),
        sample("bomb of unknown size", with(&bomb, 5, &[0xff; 8])),
        sample("dictionary of 4 GiB", dictionary(u32::MAX)),
        sample("dictionary of 2 GiB", dictionary(1 << 31)),
        sample("dictionary of 1.5 GiB", dictionary(3 << 29)),
        sample("dictionary of 128 MiB", dictionary(128 << 20)),
        sample("dictionary of 4 KiB", dictionary(4096)),
        sample("dictionary of nothing", dictionary(0)),
        sample("size of nothing", with(&good, 5, &[0; 8])),
        sample("size of 256 GiB", with(&good, 5, &(1_u64 << 38).to_le_bytes())),
        sample("size of 255 GiB", with(&good, 5, &(255_u64 << 30).to_le_bytes())),
        sample("size of 1", with(&good, 5, &1_u64.to_le_bytes())),
        sample("largest model", with(&good, 0, &[224])),
        sample("properties out of range", with(&good, 0, &[225])),
        sample("range coder that starts with 1", with(&good, 13, &[1])),
        sample("range coder of ones", [&good[..14], &[0xff; 200]].concat()),
        sample("distance before the start", [&good[..14], &[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]].concat()),
        sample("empty content", lzma(b"")),
        sample("header only", good[..13].to_vec()),
    ]
}

/// A zstd frame of `blocks` blocks of 128 KiB that repeat one byte, with a window descriptor.
fn zstd_rle(blocks: usize, window: u8) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, window];
    for i in 0..blocks {
        let last = u32::from(i + 1 == blocks);
        frame.extend(&(last | 1 << 1 | (128 << 10) << 3).to_le_bytes()[..3]);
        frame.push(b'z');
    }
    frame
}

pub(super) fn zstd_samples() -> Vec<Sample> {
    let good = zstd(&text());
    let magic = &good[..4];
    let block = |head: u32, data: &[u8]| [magic, &[0, 0x50], &head.to_le_bytes()[..3], data].concat();
    vec![
        sample("bomb of repeated bytes", zstd_rle(1_000, 0x50)),
        sample("bomb of many frames", zstd_rle(10, 0x50).repeat(1_000)),
        sample("nested bomb", nested(zstd_rle(1_000, 0x50), 3, zstd)),
        sample("nested twenty deep", nested(text(), 20, zstd)),
        sample("window of 2 TiB", zstd_rle(1, 0xf8)),
        sample("window of 3.75 TiB", zstd_rle(1, 0xff)),
        sample("window of 256 MiB", zstd_rle(1, 0x90)),
        sample("window of 128 MiB", zstd_rle(1, 0x88)),
        sample("second frame with a window of 2 TiB", [zstd_rle(1, 0x50), zstd_rle(1, 0xf8)].concat()),
        sample("content size that lies", [magic, &[0xe0], &[0xff; 8], &[1, 0, 0]].concat()),
        sample("single segment of 4 GiB", [magic, &[0xa0], &[0xff; 4], &[1, 0, 0]].concat()),
        sample("dictionary that nobody has", [magic, &[0x03, 0x50], &[0xff; 4], &[1, 0, 0]].concat()),
        sample("reserved bit", [magic, &[0x08, 0x50, 1, 0, 0]].concat()),
        sample("reserved block type", block(0b111, &[])),
        sample("raw block longer than the file", block((1 << 20) << 3 | 1, b"short")),
        sample("compressed block of nothing", block(0b101, &[])),
        sample("compressed block of ones", block(16 << 3 | 0b101, &[0xff; 16])),
        sample("endless empty blocks", [magic, &[0, 0x50], &[0; 3].repeat(100_000)].concat()),
        sample("empty content", zstd(b"")),
        sample("thousands of empty frames", zstd(b"").repeat(5_000)),
        sample("skippable frame longer than the file", [&[0x50, 0x2a, 0x4d, 0x18], &[0xff; 4][..]].concat()),
        sample("skippable frames only", [0x5f, 0x2a, 0x4d, 0x18, 0, 0, 0, 0].repeat(2_000)),
        sample("old version of the format", [&[0x27, 0xb5, 0x2f, 0xfd], &good[4..]].concat()),
    ]
}
