//! Hostile tar archives.

use super::{Sample, names, text};

const BLOCK: usize = 512;

/// A header of one member. Numbers are given as they stand in their fields.
#[derive(Clone)]
struct Header([u8; BLOCK]);

impl Header {
    fn new(name: &[u8], kind: u8, size: u64) -> Self {
        let mut header = Self([0; BLOCK]);
        let name = &name[..name.len().min(100)];
        header.0[..name.len()].copy_from_slice(name);
        header.put(100, b"0000644\0").put(108, b"0000000\0").put(116, b"0000000\0");
        header.put(124, format!("{size:011o}\0").as_bytes()).put(136, b"14752537106\0");
        header.put(156, &[kind]).put(257, b"ustar\x0000");
        header
    }

    fn put(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// The header with its checksum.
    fn bytes(&self) -> Vec<u8> {
        let mut header = self.clone();
        header.put(148, b"        ");
        let sum: u32 = header.0.iter().map(|b| u32::from(*b)).sum();
        header.put(148, format!("{sum:06o}\0 ").as_bytes());
        header.0.to_vec()
    }
}

/// A header and data, filled up to whole blocks.
fn member(name: &[u8], kind: u8, data: &[u8]) -> Vec<u8> {
    body(&Header::new(name, kind, data.len() as u64), data)
}

fn body(header: &Header, data: &[u8]) -> Vec<u8> {
    [&header.bytes()[..], data, &vec![0; data.len().next_multiple_of(BLOCK) - data.len()]].concat()
}

/// Members and the end mark.
fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    [&members.concat()[..], &[0; 2 * BLOCK]].concat()
}

/// A pax record: its own length, the key and the value.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while format!("{len}").len() + rest != len {
        len += 1;
    }
    [format!("{len} {key}=").as_bytes(), value, b"\n"].concat()
}

fn pax(records: &[u8], next: Vec<u8>) -> Vec<u8> {
    archive(&[member(b"pax", b'x', records), next])
}

pub(super) fn good() -> Vec<u8> {
    archive(&[member(b"a.txt", b'0', &text()), member(b"dir/", b'5', b""), member(b"dir/b", b'0', b"short")])
}

fn sized(field: &[u8]) -> Vec<u8> {
    let mut header = Header::new(b"sized", b'0', 0);
    header.put(124, field);
    archive(&[body(&header, b"x"), member(b"next", b'0', b"next")])
}

/// A GNU sparse member that claims `real` bytes, with these parts (offset, length).
fn sparse(real: &str, parts: &[(u64, u64)], data: &[u8]) -> Vec<u8> {
    let mut header = Header::new(b"sparse", b'S', data.len() as u64);
    header.put(257, b"ustar  \0").put(483, real.as_bytes());
    for (i, (offset, len)) in parts.iter().enumerate() {
        header.put(386 + i * 24, format!("{offset:011o}\0{len:011o}\0").as_bytes());
    }
    archive(&[body(&header, data)])
}

pub(super) fn samples() -> Vec<Sample> {
    let mut samples: Vec<Sample> = names()
        .iter()
        .enumerate()
        .map(|(i, name)| (format!("name {i}"), archive(&[member(b"L", b'L', name), member(name, b'0', b"x")])))
        .collect();
    let kinds =
        [b'1', b'2', b'3', b'4', b'5', b'6', b'7', b'D', b'M', b'N', b'S', b'V', b'g', b'x', b'K', b'L', 0, 0xff];
    samples.extend(kinds.iter().map(|kind| {
        let mut header = Header::new(b"kind", *kind, 4);
        header.put(157, b"/etc/passwd");
        (format!("kind {kind}"), archive(&[body(&header, b"data"), member(b"next", b'0', b"next")]))
    }));
    let mut add = |name: &str, bytes: Vec<u8>| samples.push((name.to_owned(), bytes));
    add("end mark only", vec![0; 2 * BLOCK]);
    add("no end mark", member(b"a", b'0', b"a"));
    add("three thousand members", member(b"m", b'0', b"").repeat(3_000));
    add("the same name again and again", archive(&vec![member(b"same", b'0', b"x"); 200]));
    add("size over the end", sized(b"77777777777\0"));
    add("size in base 256 of 2^63", sized(&[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]));
    add("size in base 256 of 2^95", sized(&[0xff; 12]));
    add("size that is negative", sized(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]));
    add("size that is no number", sized(b"not octal!!\0"));
    add("size that is empty", sized(&[0; 12]));
    add("checksum of another header", [Header::new(b"a", b'0', 1).0.to_vec(), vec![b'x'; BLOCK]].concat());
    add("pax size that differs", pax(&record("size", b"600"), member(b"a", b'0', b"x")));
    add("pax size of 2^64", pax(&record("size", b"18446744073709551615"), member(b"a", b'0', b"x")));
    add("pax path that leads out", pax(&record("path", b"../../x"), member(b"a", b'0', b"x")));
    add("pax path with a NUL", pax(&record("path", b"a\0b"), member(b"a", b'0', b"x")));
    add("pax record that lies about its length", pax(b"999 path=x\n", member(b"a", b'0', b"x")));
    add("pax record of length 0", pax(b"0 path=x\n", member(b"a", b'0', b"x")));
    add("pax records without end", pax(&record("comment", &vec![b'c'; 100_000]), member(b"a", b'0', b"x")));
    add("pax record without value", pax(b"6 path\n", member(b"a", b'0', b"x")));
    add("pax time of ages ago", pax(&record("mtime", b"-99999999999999999999.5"), member(b"a", b'0', b"x")));
    add("pax without a member", member(b"pax", b'x', &record("path", b"x")));
    add(
        "two pax headers",
        archive(&[
            member(b"p", b'x', &record("path", b"1")),
            member(b"p", b'x', &record("path", b"2")),
            member(b"a", b'0', b"x"),
        ]),
    );
    add("long name without a member", member(b"L", b'L', b"name\0"));
    add("long name of 300 kB", archive(&[member(b"L", b'L', &vec![b'n'; 300_000]), member(b"a", b'0', b"x")]));
    add("long names only", member(b"L", b'L', b"n\0").repeat(100));
    add("global pax size", archive(&[member(b"g", b'g', &record("size", b"0")), member(b"a", b'0', b"hidden?")]));
    add("sparse bomb", sparse("77777777777\0", &[(0o77_777_777_770, 7)], b"1234567"));
    add("sparse hole of 8 MiB", sparse("00040000001\0", &[(8 << 20, 1)], b"x"));
    add("sparse parts that overlap", sparse("00000000020\0", &[(0, 8), (4, 8)], b"0123456789abcdef"));
    add("sparse part beyond the data", sparse("00000010000\0", &[(0, 4096)], b"short"));
    add("sparse of another size", sparse("00000000003\0", &[(0, 8)], b"12345678"));
    let mut extended = Header::new(b"sparse", b'S', 0);
    extended.put(257, b"ustar  \0").put(482, &[1]);
    let mut chain = [0_u8; BLOCK];
    chain[504] = 1;
    add("sparse headers without end", [extended.bytes(), chain.repeat(500)].concat());
    let mut device = Header::new(b"dev/mem", b'3', 0);
    device.put(329, b"0000001\0").put(337, b"0000001\0");
    add("device", archive(&[device.bytes()]));
    let mut old = Header::new(b"v7", b'0', 1);
    old.put(257, &[0; 8]);
    add("version 7", archive(&[body(&old, b"x")]));
    add("behind the end mark", [good(), archive(&[member(b"hidden", b'0', b"x")])].concat());
    samples
}
