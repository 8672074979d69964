//! Hostile RAR archives, of the fifth version; their members are stored.

use super::{Sample, names, text};

const SIGNATURE: &[u8] = b"Rar!\x1a\x07\x01\0";

/// A number of variable length: seven bits a byte, the lowest first.
fn number(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A header with its checksum and size.
fn header(fields: &[u8]) -> Vec<u8> {
    let sized = [number(fields.len() as u64), fields.to_vec()].concat();
    [&crc32fast::hash(&sized).to_le_bytes()[..], &sized].concat()
}

/// What is said of one file.
#[derive(Clone, Copy)]
struct File<'a> {
    name: &'a [u8],
    /// Bytes that it has when unpacked, as stated.
    size: u64,
    /// Bytes that follow the header, as stated.
    packed: u64,
    /// Version, method and dictionary.
    compression: u64,
    /// Flags of the header: 2 says that data follow, 8 and 16 that they continue from or in another volume.
    flags: u64,
}

impl File<'_> {
    fn bytes(&self, data: &[u8]) -> Vec<u8> {
        let mut fields = [number(2), number(self.flags), number(self.packed)].concat();
        // Flags: a checksum is there. Attributes, checksum, system.
        fields.extend([number(4), number(self.size), number(0x20)].concat());
        fields.extend(crc32fast::hash(data).to_le_bytes());
        fields
            .extend([number(self.compression), number(1), number(self.name.len() as u64), self.name.to_vec()].concat());
        [header(&fields), data.to_vec()].concat()
    }
}

fn file(name: &[u8], data: &[u8]) -> Vec<u8> {
    let size = data.len() as u64;
    File { name, size, packed: size, compression: 0, flags: 2 }.bytes(data)
}

fn archive(parts: &[Vec<u8>]) -> Vec<u8> {
    let main = header(&[number(1), number(0), number(0)].concat());
    let end = header(&[number(5), number(0), number(0)].concat());
    [SIGNATURE, &main, &parts.concat(), &end].concat()
}

pub(super) fn good() -> Vec<u8> {
    archive(&[file(b"a.txt", &text()), file(b"dir/b", b"short")])
}

pub(super) fn samples() -> Vec<Sample> {
    let mut samples: Vec<Sample> = names()
        .iter()
        .enumerate()
        .map(|(i, name)| (format!("name {i}"), archive(&[file(&name[..name.len().min(1_000)], b"x")])))
        .collect();
    let mut add = |name: &str, bytes: Vec<u8>| samples.push((name.to_owned(), bytes));
    let plain = File { name: b"a", size: 4, packed: 4, compression: 0, flags: 2 };
    let next = || file(b"next", b"next");
    let with = |file: File<'_>, data: &[u8]| archive(&[file.bytes(data), next()]);
    for size in [0, 3, 5, 1 << 31, 1 << 62, u64::MAX] {
        add(&format!("size of {size}"), with(File { size, ..plain }, b"data"));
        add(&format!("packed size of {size}"), with(File { packed: size, ..plain }, b"data"));
        add(&format!("both sizes of {size}"), with(File { size, packed: size, ..plain }, b"data"));
    }
    for method in 1..=7 {
        let packed = File { size: 1 << 20, packed: 3_000, compression: method << 7, ..plain };
        add(&format!("method {method} of ones"), with(packed, &[0xff; 3_000]));
        add(&format!("method {method} of zeros"), with(packed, &[0; 3_000]));
        let text = &text()[..3_000];
        add(&format!("method {method} of text"), with(packed, text));
        let solid = File { compression: packed.compression | 0x40, ..packed };
        add(&format!("method {method}, solid"), archive(&[solid.bytes(text), solid.bytes(text), next()]));
        for power in [11, 15, 31] {
            let large = File { compression: packed.compression | power << 10, ..packed };
            add(&format!("method {method} with a dictionary of 2^{}", power + 17), with(large, text));
        }
    }
    for flags in [8, 16, 24] {
        add(&format!("continued, flags {flags}"), with(File { flags: 2 | flags, ..plain }, b"data"));
    }
    add("version 63", with(File { compression: 63, ..plain }, b"data"));
    add("three thousand members", archive(&vec![file(b"m", b""); 3_000]));
    add("the same name again and again", archive(&vec![file(b"same", b"x"); 200]));
    add(
        "a header that goes on for ever",
        [SIGNATURE, &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]].concat(),
    );
    add("a header of 2 MiB that is not there", [SIGNATURE, &[0; 4], &number(2 << 20)].concat());
    add(
        "an encryption header of 2^255 rounds",
        archive(&[header(&[number(4), number(0), number(0), number(0), vec![255; 17]].concat())]),
    );
    add("no end", archive(&[file(b"a", b"a")])[..40].to_vec());
    add("nothing but the signature", SIGNATURE.to_vec());
    add("signature of the fourth version", [&b"Rar!\x1a\x07\0"[..], &good()[8..]].concat());
    add("signature of the first version", [&b"RE~^"[..], &good()[8..]].concat());
    samples
}
