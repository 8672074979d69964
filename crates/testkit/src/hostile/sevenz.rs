//! Hostile 7z archives.

use super::{Sample, names, text};

/// A number as 7z writes it: the first byte's leading ones tell how many bytes follow.
fn number(value: u64) -> Vec<u8> {
    if value < 0x80 {
        return vec![value as u8];
    }
    if value < 0x4000 {
        return vec![0x80 | (value >> 8) as u8, value as u8];
    }
    [&[0xff], &value.to_le_bytes()[..]].concat()
}

/// One coder of a block: method and properties.
#[derive(Clone)]
struct Coder(Vec<u8>, Vec<u8>);

impl Coder {
    fn bytes(&self) -> Vec<u8> {
        let Self(method, properties) = self;
        let flags = method.len() as u8 | if properties.is_empty() { 0 } else { 0x20 };
        let mut bytes = [&[flags], &method[..]].concat();
        if !properties.is_empty() {
            bytes.extend(number(properties.len() as u64));
            bytes.extend(properties);
        }
        bytes
    }
}

fn copy() -> Coder {
    Coder(vec![0], vec![])
}

fn lzma(dictionary: u32) -> Coder {
    Coder(vec![3, 1, 1], [&[93], &dictionary.to_le_bytes()[..]].concat())
}

/// An archive of one block, and what its header says; each part can lie on its own.
struct Archive {
    packed: Vec<u8>,
    coders: Vec<Coder>,
    /// After each coder.
    unpacked: Vec<u64>,
    /// Sizes of all members but the last, which takes what is left.
    sizes: Vec<u64>,
    crc: Option<u32>,
    names: Vec<Vec<u8>>,
    /// In place of the number of names.
    files: Option<u64>,
    attributes: Option<u32>,
}

impl Archive {
    fn stored(name: &[u8], data: &[u8]) -> Self {
        Self {
            packed: data.to_vec(),
            coders: vec![copy()],
            unpacked: vec![data.len() as u64],
            sizes: Vec::new(),
            crc: Some(crc32fast::hash(data)),
            names: vec![name.to_vec()],
            files: None,
            attributes: None,
        }
    }

    fn lzma(name: &[u8], data: &[u8]) -> Self {
        let packed = super::stream::lzma(data);
        let dictionary = u32::from_le_bytes([packed[1], packed[2], packed[3], packed[4]]);
        Self { packed: packed[13..].to_vec(), coders: vec![lzma(dictionary)], ..Self::stored(name, data) }
    }

    fn but(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Pack, unpack and substreams info.
    fn streams(&self, at: u64) -> Vec<u8> {
        let mut bytes = [&[0x06][..], &number(at), &[1, 0x09], &number(self.packed.len() as u64), &[0]].concat();
        bytes.extend([0x07, 0x0b, 1, 0]);
        bytes.extend(number(self.coders.len() as u64));
        self.coders.iter().for_each(|c| bytes.extend(c.bytes()));
        // Each coder reads what the one behind it in the list gives.
        for i in 1..self.coders.len() as u64 {
            bytes.extend([number(i - 1), number(i)].concat());
        }
        bytes.push(0x0c);
        self.unpacked.iter().for_each(|size| bytes.extend(number(*size)));
        if let Some(crc) = self.crc.filter(|_| self.names.len() == 1) {
            bytes.extend([&[0x0a, 1][..], &crc.to_le_bytes()].concat());
        }
        bytes.extend([0, 0x08]);
        if self.names.len() != 1 {
            bytes.extend([&[0x0d][..], &number(self.names.len() as u64)].concat());
            if !self.sizes.is_empty() {
                bytes.push(0x09);
                self.sizes.iter().for_each(|size| bytes.extend(number(*size)));
            }
        }
        bytes.extend([0, 0]);
        bytes
    }

    fn header(&self) -> Vec<u8> {
        let mut bytes = [&[1, 4][..], &self.streams(0), &[5]].concat();
        bytes.extend(number(self.files.unwrap_or(self.names.len() as u64)));
        let names: Vec<u8> = self.names.iter().flat_map(|n| utf16(n)).collect();
        bytes.extend([&[0x11][..], &number(names.len() as u64 + 1), &[0], &names].concat());
        if let Some(attributes) = self.attributes {
            bytes.extend([&[0x15, 6, 1, 0][..], &attributes.to_le_bytes()].concat());
        }
        bytes.extend([0, 0]);
        bytes
    }

    fn bytes(&self) -> Vec<u8> {
        file(&self.packed, &self.header())
    }

    /// The archive with its header packed by `coders` into `packed`.
    fn with_packed_header(&self, coders: Vec<Coder>, packed: &[u8], unpacked: u64) -> Vec<u8> {
        let header = Self {
            packed: packed.to_vec(),
            unpacked: vec![unpacked; coders.len()],
            coders,
            crc: None,
            sizes: Vec::new(),
            names: vec![Vec::new()],
            files: None,
            attributes: None,
        };
        let info = header.streams(self.packed.len() as u64);
        file(&[&self.packed[..], packed].concat(), &[&[0x17], &info[..]].concat())
    }
}

/// Names are UTF-16; what is no UTF-8 is taken as it is, so that it becomes broken UTF-16.
fn utf16(name: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(name) {
        Ok(text) => text.encode_utf16().filter(|u| *u != 0).chain([0]).flat_map(u16::to_le_bytes).collect(),
        Err(_) => name.iter().flat_map(|b| [*b, 0xd8]).chain([0, 0]).collect(),
    }
}

/// Signature header, packed streams, header.
fn file(packed: &[u8], header: &[u8]) -> Vec<u8> {
    located(packed, header, packed.len() as u64, header.len() as u64)
}

fn located(packed: &[u8], header: &[u8], offset: u64, size: u64) -> Vec<u8> {
    let start = [&offset.to_le_bytes()[..], &size.to_le_bytes(), &crc32fast::hash(header).to_le_bytes()].concat();
    [b"7z\xbc\xaf\x27\x1c\0\x04", &crc32fast::hash(&start).to_le_bytes()[..], &start, packed, header].concat()
}

pub(super) fn good() -> Vec<u8> {
    let text = text();
    let half = text.len() as u64 / 2;
    Archive::lzma(b"a.txt", &text)
        .but(|a| (a.names, a.sizes) = (vec![b"a.txt".to_vec(), b"d/b.txt".to_vec()], vec![half]))
        .bytes()
}

fn aes(power: u8) -> Coder {
    Coder(vec![6, 0xf1, 7, 1], [&[0xc0 | power, 0xff][..], &[7; 16], &[9; 16]].concat())
}

pub(super) fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    for (i, name) in names().iter().enumerate() {
        samples.push((format!("name {i}"), Archive::stored(name, b"x").bytes()));
    }
    bombs(&mut samples);
    coders(&mut samples);
    headers(&mut samples);
    samples
}

fn bombs(samples: &mut Vec<Sample>) {
    let mut add = |name: &str, bytes: Vec<u8>| samples.push((name.to_owned(), bytes));
    let zeros = Archive::lzma(b"zeros", &vec![0; 4 << 20]);
    add("bomb of zeros", zeros.bytes());
    let nested = (0..3).fold(zeros.bytes(), |inner, _| Archive::lzma(b"inner.7z", &inner).bytes());
    add("nested bomb", nested);
    let deep = (0..20).fold(text(), |inner, _| Archive::lzma(b"inner.7z", &inner).bytes());
    add("nested twenty deep", deep);
    add(
        "bomb in solid members",
        zeros.but(|a| (a.names, a.sizes) = (vec![b"z".to_vec(); 16], vec![1 << 18; 15])).bytes(),
    );
    let bomb = super::stream::bz2(&vec![0; 4 << 20]);
    let bzip2 = Archive::stored(b"b", b"").but(|a| {
        (a.packed, a.coders, a.crc, a.unpacked) = (bomb, vec![Coder(vec![4, 2, 2], vec![])], None, vec![4 << 20]);
    });
    add("bomb in bzip2", bzip2.bytes());
    let many = Archive::stored(b"", &[b'x'; 2_000])
        .but(|a| (a.names, a.sizes) = (vec![b"same".to_vec(); 2_000], vec![1; 1_999]));
    add("two thousand members of one name", many.bytes());
}

fn coders(samples: &mut Vec<Sample>) {
    let mut add = |name: &str, archive: Archive| samples.push((name.to_owned(), archive.bytes()));
    let plain = || Archive::stored(b"a", &text());
    let under = |coder: Coder| plain().but(|a| a.coders = vec![coder]);
    add("lzma dictionary of 4 GiB", under(lzma(u32::MAX)));
    add("lzma dictionary of 1 GiB", under(lzma(1 << 30)));
    add("lzma properties out of range", under(Coder(vec![3, 1, 1], vec![255, 0, 0, 1, 0])));
    add("lzma properties cut short", under(Coder(vec![3, 1, 1], vec![93])));
    add("lzma2 dictionary of 4 GiB", under(Coder(vec![0x21], vec![40])));
    add("lzma2 dictionary of an unknown size", under(Coder(vec![0x21], vec![63])));
    add("ppmd memory of 4 GiB", under(Coder(vec![3, 4, 1], vec![6, 0xff, 0xff, 0xff, 0xff])));
    add("ppmd memory of 1 GiB", under(Coder(vec![3, 4, 1], vec![6, 0, 0, 0, 0x40])));
    add("ppmd order 255", under(Coder(vec![3, 4, 1], vec![255, 0, 0, 1, 0])));
    add("ppmd of text", under(Coder(vec![3, 4, 1], vec![6, 0, 0, 1, 0])));
    add("bzip2 of text", under(Coder(vec![4, 2, 2], vec![])));
    add("deflate of text", under(Coder(vec![4, 1, 8], vec![])));
    add("zstd of text", under(Coder(vec![4, 0xf7, 0x11, 1], vec![])));
    add("brotli", under(Coder(vec![4, 0xf7, 0x11, 2], vec![1; 3])));
    add("bcj2 with one input", under(Coder(vec![3, 3, 1, 0x1b], vec![])));
    add("delta of distance 256", under(Coder(vec![3], vec![255])));
    add("unknown method", under(Coder(vec![0x7f, 0x7f], vec![])));
    add("method of fifteen bytes", under(Coder(vec![1; 15], vec![])));
    add("thirty coders", plain().but(|a| (a.coders, a.unpacked) = (vec![copy(); 30], vec![a.unpacked[0]; 30])));
    add("sixty-five coders", plain().but(|a| (a.coders, a.unpacked) = (vec![copy(); 65], vec![a.unpacked[0]; 65])));
    add("no coders", plain().but(|a| (a.coders, a.unpacked) = (vec![], vec![])));
    add("AES", under(aes(4)));
    add("AES with 2^24 rounds", under(aes(24)));
    add("AES with 2^62 rounds", under(aes(62)));
    add("AES without properties", under(Coder(vec![6, 0xf1, 7, 1], vec![])));
    add("size that is too large", plain().but(|a| a.unpacked = vec![1 << 40]));
    add("size of ones", plain().but(|a| a.unpacked = vec![u64::MAX]));
    add("size of nothing", plain().but(|a| a.unpacked = vec![0]));
    add("wrong crc", plain().but(|a| a.crc = Some(7)));
    add(
        "member sizes that overflow",
        plain().but(|a| (a.names, a.sizes) = (vec![b"a".to_vec(); 3], vec![u64::MAX; 2])),
    );
    add(
        "member sizes over that of the block",
        plain().but(|a| (a.names, a.sizes) = (vec![b"a".to_vec(); 2], vec![1 << 40])),
    );
    add("link", Archive::stored(b"link", b"/etc/passwd").but(|a| a.attributes = Some(0o120_777 << 16 | 0x8000)));
    add(
        "link that is a program",
        Archive::stored(b"link", b"MZ\0\x01").but(|a| a.attributes = Some(0o120_777 << 16 | 0x8000)),
    );
}

fn headers(samples: &mut Vec<Sample>) {
    let mut add = |name: &str, bytes: Vec<u8>| samples.push((name.to_owned(), bytes));
    let plain = Archive::stored(b"a", &text());
    let header = plain.header();
    let data = &plain.packed;
    add("more files than names", Archive::stored(b"a", b"x").but(|a| a.files = Some(50)).bytes());
    add("2^62 files", Archive::stored(b"a", b"x").but(|a| a.files = Some(1 << 62)).bytes());
    add("no files", Archive::stored(b"a", b"x").but(|a| a.files = Some(0)).bytes());
    add(
        "a million files that are not there",
        file(b"", &[&[1, 5][..], &number(1_000_000), &vec![0; 1_000_000]].concat()),
    );
    add("no header", located(data, b"", data.len() as u64, 0));
    add("header beyond the end", located(data, &header, 1 << 40, header.len() as u64));
    add("header offset of ones", located(data, &header, u64::MAX, header.len() as u64));
    add("header size of ones", located(data, &header, data.len() as u64, u64::MAX));
    add("header in the start header", located(data, &header, u64::MAX - 31, 32));
    add("start header of zeros", [b"7z\xbc\xaf\x27\x1c\0\x04", &[0; 24][..], data, &header].concat());
    add("version 9.9", [b"7z\xbc\xaf\x27\x1c\x09\x09", &plain.bytes()[8..]].concat());
    add("header of nothing", file(data, &[1, 0]));
    add("header of another kind", file(data, &[0x42; 40]));
    add("archive properties that lie", file(data, &[&[1, 2, 7], &number(u64::MAX)[..], &[0, 0]].concat()));
    add("property that lies", file(b"", &[&[1, 5, 1, 0x77], &number(u64::MAX)[..], &[0, 0]].concat()));
    add(
        "folders only",
        file(
            b"",
            &[&[1, 5][..], &number(3), &[0x0e, 1, 0xe0, 0x11, 13, 0], &[b'a', 0, 0, 0].repeat(3), &[0, 0]].concat(),
        ),
    );
    let zeros = super::stream::lzma(&vec![0; 4 << 20]);
    add("packed header that is a bomb", plain.with_packed_header(vec![lzma(1 << 20)], &zeros[13..], 4 << 20));
    add("packed header of 2^62 bytes", plain.with_packed_header(vec![copy()], &header, 1 << 62));
    add("packed header with a dictionary of 4 GiB", plain.with_packed_header(vec![lzma(u32::MAX)], &zeros[13..], 99));
    add("packed header that is stored", plain.with_packed_header(vec![copy()], &header, header.len() as u64));
    add("packed header that is packed", plain.with_packed_header(vec![copy()], &[0x17; 64], 64));
    add("encrypted header", plain.with_packed_header(vec![aes(4)], &[7; 64], 64));
    add("encrypted header with 2^24 rounds", plain.with_packed_header(vec![aes(24)], &[7; 64], 64));
    add("behind a program", [b"MZ", &[0x90; 400][..], &plain.bytes()].concat());
}
