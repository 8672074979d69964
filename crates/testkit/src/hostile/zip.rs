//! Hostile zip files.

use std::io::Write;

use super::{Sample, names, text};

/// An entry as its headers tell it; each field can lie on its own.
#[derive(Clone)]
struct Entry {
    name: Vec<u8>,
    flags: u16,
    method: u16,
    crc: u32,
    compressed: u32,
    size: u32,
    extra: Vec<u8>,
    attributes: u32,
    data: Vec<u8>,
}

impl Entry {
    fn stored(name: &[u8], data: &[u8]) -> Self {
        let size = data.len() as u32;
        Self {
            name: name[..name.len().min(0xffff)].to_vec(),
            flags: 0,
            method: 0,
            crc: crc32fast::hash(data),
            compressed: size,
            size,
            extra: Vec::new(),
            attributes: 0o100_644 << 16,
            data: data.to_vec(),
        }
    }

    fn packed(name: &[u8], method: u16, data: &[u8], packed: Vec<u8>) -> Self {
        Self { method, compressed: packed.len() as u32, data: packed, ..Self::stored(name, data) }
    }

    fn deflated(name: &[u8], data: &[u8]) -> Self {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(6));
        encoder.write_all(data).unwrap();
        Self::packed(name, 8, data, encoder.finish().unwrap())
    }

    /// Changed by `change`.
    fn but(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// What local header and directory have in common, from the flags to the sizes.
    fn common(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [self.flags, self.method, 0x1883, 0x5c22] {
            bytes.extend(word.to_le_bytes());
        }
        for long in [self.crc, self.compressed, self.size] {
            bytes.extend(long.to_le_bytes());
        }
        for len in [self.name.len(), self.extra.len()] {
            bytes.extend((len as u16).to_le_bytes());
        }
        bytes
    }

    fn local(&self) -> Vec<u8> {
        [b"PK\x03\x04\x14\0", &self.common()[..], &self.name, &self.extra, &self.data].concat()
    }

    fn central(&self, offset: usize) -> Vec<u8> {
        let (attributes, offset) = (self.attributes.to_le_bytes(), (offset as u32).to_le_bytes());
        let head = [b"PK\x01\x02\x14\x03\x14\0", &self.common()[..], &[0; 6], &attributes, &offset].concat();
        [head, self.name.clone(), self.extra.clone()].concat()
    }
}

/// An end record.
fn end(entries: usize, size: usize, offset: usize, comment: &[u8]) -> Vec<u8> {
    let count = (entries as u16).to_le_bytes();
    let comment_len = (comment.len() as u16).to_le_bytes();
    let (size, offset) = ((size as u32).to_le_bytes(), (offset as u32).to_le_bytes());
    [b"PK\x05\x06\0\0\0\0", &count[..], &count, &size, &offset, &comment_len, comment].concat()
}

/// An archive whose directory lists `listed`, at the offsets at which `bodies` has them.
fn archive(bodies: &[u8], listed: &[(Entry, usize)], comment: &[u8]) -> Vec<u8> {
    let directory: Vec<u8> = listed.iter().flat_map(|(entry, offset)| entry.central(*offset)).collect();
    [bodies, &directory, &end(listed.len(), directory.len(), bodies.len(), comment)].concat()
}

fn zip(entries: &[Entry]) -> Vec<u8> {
    let (mut bodies, mut listed) = (Vec::new(), Vec::new());
    for entry in entries {
        listed.push((entry.clone(), bodies.len()));
        bodies.extend(entry.local());
    }
    archive(&bodies, &listed, b"")
}

/// One entry whose directory and local header may differ.
fn two_faced(local: &Entry, listed: Entry) -> Vec<u8> {
    archive(&local.local(), &[(listed, 0)], b"")
}

pub(super) fn good() -> Vec<u8> {
    zip(&[Entry::deflated(b"a.txt", &text()), Entry::stored(b"b/c.bin", b"short"), Entry::stored(b"b/", b"")])
}

/// The construction of Fifield's bomb: each member's data begin with the next one's local header, in a stored block, so
/// that all of them share one kernel.
fn overlapping(count: usize) -> Vec<u8> {
    let kernel = Entry::deflated(b"kernel", &vec![0; 1 << 20]);
    let mut bodies = kernel.local();
    let mut starts = vec![(kernel.clone(), bodies.len())];
    let mut data = kernel.data;
    for i in (0..count).rev() {
        let quoted = bodies.len() - data.len();
        let header = bodies[..quoted].to_vec();
        let len = (header.len() as u16).to_le_bytes();
        let block = [&[0][..], &len, &(!u16::from_le_bytes(len)).to_le_bytes()].concat();
        data = [block, header, data].concat();
        let entry = Entry::packed(format!("{i}").as_bytes(), 8, b"", data.clone()).but(|e| e.size = 1 << 20);
        bodies = entry.local();
        starts.push((entry, bodies.len()));
    }
    let total = bodies.len();
    let listed: Vec<_> = starts.into_iter().rev().map(|(entry, len)| (entry, total - len)).collect();
    archive(&bodies, &listed, b"")
}

fn nested(mut data: Vec<u8>, times: usize) -> Vec<u8> {
    for i in 0..times {
        data = zip(&[Entry::deflated(format!("{i}.zip").as_bytes(), &data)]);
    }
    data
}

/// `widths` members, each a zip of as many, and so on.
fn tree(data: Vec<u8>, widths: &[usize]) -> Vec<u8> {
    widths.iter().fold(data, |data, width| {
        let entries: Vec<_> = (0..*width).map(|i| Entry::deflated(format!("{i}.zip").as_bytes(), &data)).collect();
        zip(&entries)
    })
}

/// The traditional cipher under a password that no list has; deterministic, unlike real archives.
fn encrypted(mut entry: Entry) -> Entry {
    let mut state = 0x9e37_79b9_u32;
    let mut noise = |n: usize| -> Vec<u8> {
        let step = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..n).map(step).collect()
    };
    entry.data = [noise(12), entry.data.iter().zip(noise(entry.data.len())).map(|(a, b)| a ^ b).collect()].concat();
    entry.compressed = entry.data.len() as u32;
    entry.flags |= 1;
    entry
}

fn aes(strength: u8, method: u16, data: &[u8]) -> Entry {
    let mut entry = Entry::stored(b"aes.bin", data);
    entry.extra = [&[0x01, 0x99, 7, 0, 2, 0, b'A', b'E', strength][..], &method.to_le_bytes()].concat();
    (entry.method, entry.flags, entry.crc) = (99, 1, 0);
    entry
}

fn zip64(extra: &[u8]) -> Entry {
    let mut entry = Entry::stored(b"zip64", b"data");
    (entry.compressed, entry.size) = (u32::MAX, u32::MAX);
    entry.extra = [&[1, 0][..], &(extra.len() as u16).to_le_bytes(), extra].concat();
    entry
}

pub(super) fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    for (i, name) in names().iter().enumerate() {
        samples.push((format!("name {i}"), zip(&[Entry::stored(name, b"x")])));
    }
    for method in [1, 2, 6, 7, 9, 10, 12, 14, 18, 19, 20, 93, 94, 95, 96, 97, 98, 99, 0xffff] {
        let entry = Entry::stored(b"m", &text()).but(|e| e.method = method);
        samples.push((format!("method {method} over something else"), zip(&[entry])));
    }
    bombs(&mut samples);
    lies(&mut samples);
    memory(&mut samples);
    encryption(&mut samples);
    samples
}

fn bombs(samples: &mut Vec<Sample>) {
    let mut add = |name: &str, bytes: Vec<u8>| samples.push((name.to_owned(), bytes));
    let zeros = Entry::deflated(b"zeros", &vec![0; 4 << 20]);
    add("bomb of zeros", zip(std::slice::from_ref(&zeros)));
    add("bomb of many members", zip(&vec![zeros.clone(); 50]));
    add("bomb whose size lies", zip(&[zeros.clone().but(|e| e.size = 10)]));
    add("bomb in bzip2", zip(&[Entry::packed(b"b", 12, &[0; 9], super::stream::bz2(&vec![0; 4 << 20]))]));
    add("bomb in zstd", zip(&[Entry::packed(b"z", 93, &[0; 9], super::stream::zstd(&vec![0; 4 << 20]))]));
    add("bomb in xz", zip(&[Entry::packed(b"x", 95, &[0; 9], super::stream::xz(&vec![0; 4 << 20]))]));
    add("nested twenty deep", nested(text(), 20));
    add("nested bomb", nested(zip(&[zeros]), 3));
    add("tree of 16 to the fourth", tree(text(), &[16; 4]));
    add("overlapping members", overlapping(100));
    let one = Entry::deflated(b"one", &text());
    let same: Vec<_> = (0..500).map(|_| (one.clone(), 0)).collect();
    add("five hundred names for one member", archive(&one.local(), &same, b""));
    add("three thousand empty members", zip(&vec![Entry::stored(b"e", b""); 3_000]));
    add("the same name again and again", zip(&vec![Entry::stored(b"same", b"x"); 200]));
}

fn lies(samples: &mut Vec<Sample>) {
    let mut add = |name: &str, bytes: Vec<u8>| samples.push((name.to_owned(), bytes));
    let a = Entry::deflated(b"a", &text());
    let plain = zip(std::slice::from_ref(&a));
    let body = a.local();
    let directory = a.central(0);
    let ending = |entries, size, offset| [&body[..], &directory, &end(entries, size, offset, b"")].concat();
    add("no members", end(0, 0, 0, b""));
    add("no members, but said to be 65,535", end(0xffff, 0, 0, b""));
    add("more entries announced than there are", ending(60_000, directory.len(), body.len()));
    add("fewer entries announced than there are", ending(0, directory.len(), body.len()));
    add("directory offset beyond the end", ending(1, directory.len(), 0x7fff_ffff));
    add("directory offset and size of ones", ending(1, 0xffff_ffff, 0xffff_ffff));
    add("directory in the middle of data", ending(1, 10, 20));
    add("no directory", body.clone());
    add("no end record", plain[..plain.len() - 22].to_vec());
    add("comment longer than the file", [&plain[..plain.len() - 2], &[0xff, 0xff]].concat());
    add("end record in the comment", archive(&body, &[(a.clone(), 0)], &end(0, 0, 0, b"")));
    add("archive in the comment", archive(&body, &[(a.clone(), 0)], &good()));
    add(
        "only in the local header",
        archive(&[&Entry::stored(b"hidden", b"hi").local()[..], &body].concat(), &[(a.clone(), 44)], b""),
    );
    add("other names in the directory", two_faced(&a, a.clone().but(|e| e.name = b"b".to_vec())));
    add("other method in the directory", two_faced(&a, a.clone().but(|e| e.method = 0)));
    add("other sizes in the directory", two_faced(&a, a.clone().but(|e| (e.compressed, e.size) = (3, 3))));
    add("encrypted only in the directory", two_faced(&a, a.clone().but(|e| e.flags = 1)));
    add("larger than the file", zip(&[a.clone().but(|e| e.compressed = 0x7fff_ffff)]));
    add("sizes of ones", zip(&[a.clone().but(|e| (e.compressed, e.size) = (u32::MAX, u32::MAX))]));
    add("wrong crc", zip(&[a.clone().but(|e| e.crc ^= 1)]));
    add("member at the end of the file", archive(&body, &[(a.clone(), 0xffff_fff0)], b""));
    add("member without a local header", archive(&body, &[(a.clone(), 1)], b""));
    add("folder with content", zip(&[Entry::stored(b"folder/", b"MZ not a folder")]));
    add("link", zip(&[Entry::stored(b"link", b"/etc/passwd").but(|e| e.attributes = 0o120_777 << 16)]));
    add("link that is a program", zip(&[Entry::stored(b"link", b"MZ\0\x01").but(|e| e.attributes = 0o120_777 << 16)]));
    add("device", zip(&[Entry::stored(b"device", b"").but(|e| e.attributes = 0o020_666 << 16)]));
    add("extra field that lies", zip(&[a.clone().but(|e| e.extra = vec![1, 0, 0xff, 0xff, 0])]));
    add("extra fields without end", zip(&[a.clone().but(|e| e.extra = vec![0; 60_000])]));
    add("unicode name of another file", zip(&[a.clone().but(|e| e.extra = b"up\x09\0\x01\0\0\0\0evil".to_vec())]));
    add("zip64 of 2^64", zip(&[zip64(&[0xff; 16])]));
    add("zip64 cut short", zip(&[zip64(&[0xff; 3])]));
    add("zip64 as it should be", zip(&[zip64(&[4, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0])]));
    let locator =
        [b"PK\x06\x07\0\0\0\0", &[0xff; 8][..], &[1, 0, 0, 0], &end(0xffff, 0xffff_ffff, 0xffff_ffff, b"")].concat();
    add("zip64 end record beyond the end", [&body[..], &directory, &locator].concat());
    let described = a.clone().but(|e| (e.flags, e.crc, e.compressed, e.size) = (8, 0, 0, 0)).local();
    let descriptor =
        [b"PK\x07\x08", &a.crc.to_le_bytes()[..], &a.compressed.to_le_bytes(), &a.size.to_le_bytes()].concat();
    add("sizes in a descriptor, no directory", [&described[..], &descriptor].concat());
    add("sizes nowhere", described.repeat(5));
    let nowhere = Entry::stored(b"n", b"").but(|e| (e.flags, e.method) = (8, 8)).local();
    add("many headers before one tail", [nowhere.repeat(2_000), [0, 0, 0, 0xff, 0xff].repeat(100_000)].concat());
    add("descriptor that lies", [&described[..], &[0xff; 16]].concat());
}

fn memory(samples: &mut Vec<Sample>) {
    let mut add = |name: &str, entry: Entry| samples.push((name.to_owned(), zip(&[entry])));
    let with = |method, data: &[u8]| Entry::packed(b"m", method, &[0; 99], data.to_vec());
    add("lzma dictionary of 4 GiB", with(14, &[9, 20, 5, 0, 93, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0]));
    add("lzma properties out of range", with(14, &[9, 20, 5, 0, 255, 0, 0, 1, 0, 0, 0, 0, 0, 0]));
    add("lzma header cut short", with(14, &[9, 20, 5]));
    add("ppmd memory of 256 MiB", with(98, &[0xff, 0x0f, 0, 0, 0, 0, 0]));
    add("ppmd order 1", with(98, &[0x00, 0x00, 0, 0, 0, 0, 0]));
    add("ppmd restore method 15", with(98, &[0x05, 0xf0, 0, 0, 0, 0, 0]));
    add("ppmd of noise", with(98, &[0x15, 0x00, 0, 7, 77, 177, 9, 8, 200, 201, 202, 3]));
    add("zstd window of 2 TiB", with(93, &[0x28, 0xb5, 0x2f, 0xfd, 0, 0xf8, 1, 0, 0]));
    add("endless empty deflate blocks", with(8, &[0, 0, 0, 0xff, 0xff].repeat(100_000)));
    add("deflate64 of ones", with(9, &[0xff; 500]));
}

fn encryption(samples: &mut Vec<Sample>) {
    let mut add = |name: &str, entries: &[Entry]| samples.push((name.to_owned(), zip(entries)));
    let secret = encrypted(Entry::deflated(b"secret", &text()));
    add("encrypted", std::slice::from_ref(&secret));
    add("two hundred encrypted members", &vec![secret.clone(); 200]);
    add("encrypted, header cut short", &[secret.clone().but(|e| (e.data, e.compressed) = (vec![1; 5], 5))]);
    add("strong encryption", &[secret.but(|e| e.flags |= 1 << 6)]);
    add("AES-256", &[aes(3, 8, &text())]);
    add("AES-128, twenty members", &vec![aes(1, 0, &text()); 20]);
    add("AES of unknown strength", &[aes(9, 8, &text())]);
    add("AES over AES", &[aes(3, 99, &text())]);
    add("AES without its extra field", &[aes(3, 8, &text()).but(|e| e.extra.clear())]);
    add("AES with no data", &[aes(3, 8, b"")]);
    add("AES shorter than its salt", &[aes(3, 8, b"12345")]);
    add("AES shorter than its code", &[aes(1, 8, b"123456789abcde")]);
}
