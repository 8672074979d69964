//! Hostile cabinets.

use std::io::Write;

use flate2::Compression;
use flate2::write::DeflateEncoder;

use super::{Sample, names, text};

/// Bytes of a block when unpacked.
const BLOCK: usize = 32 << 10;

/// A cabinet of one folder.
struct Cab {
    /// Name, size, offset in the folder, and folder.
    files: Vec<(Vec<u8>, u32, u32, u16)>,
    method: u16,
    /// Packed bytes, and how many they are unpacked.
    blocks: Vec<(Vec<u8>, usize)>,
}

impl Cab {
    fn of(files: &[(&[u8], u32, u32, u16)], method: u16, blocks: Vec<(Vec<u8>, usize)>) -> Self {
        let files = files.iter().map(|(name, size, offset, folder)| (name.to_vec(), *size, *offset, *folder)).collect();
        Self { files, method, blocks }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut files = Vec::new();
        for (name, size, offset, folder) in &self.files {
            files.extend(size.to_le_bytes());
            files.extend(offset.to_le_bytes());
            files.extend([folder.to_le_bytes(), [0x21, 0x5c], [0, 0x60], [0x20, 0]].concat());
            files.extend(name);
            files.push(0);
        }
        let mut data = Vec::new();
        for (block, size) in &self.blocks {
            data.extend([0; 4]);
            data.extend([(block.len() as u16).to_le_bytes(), (*size as u16).to_le_bytes()].concat());
            data.extend(block);
        }
        let start = 36 + 8 + files.len();
        let mut cab = b"MSCF\0\0\0\0".to_vec();
        cab.extend(((start + data.len()) as u32).to_le_bytes());
        cab.extend([0, 0, 0, 0, 44, 0, 0, 0, 0, 0, 0, 0, 3, 1, 1, 0]);
        cab.extend([(self.files.len() as u16).to_le_bytes(), [0; 2], [7, 0], [0; 2]].concat());
        cab.extend((start as u32).to_le_bytes());
        cab.extend([(self.blocks.len() as u16).to_le_bytes(), self.method.to_le_bytes()].concat());
        [cab, files, data].concat()
    }
}

/// A block of MSZIP that needs none before it.
fn zipped(data: &[u8]) -> (Vec<u8>, usize) {
    let mut encoder = DeflateEncoder::new(b"CK".to_vec(), Compression::best());
    let written = encoder.write_all(data).and_then(|()| encoder.finish());
    (written.unwrap_or_default(), data.len())
}

fn one(method: u16, block: Vec<u8>, size: usize) -> Vec<u8> {
    Cab::of(&[(b"a.txt", size as u32, 0, 0)], method, vec![(block, size)]).bytes()
}

pub(super) fn good() -> Vec<u8> {
    let text = text();
    let size = text.len() as u32 - 5;
    Cab::of(&[(b"a.txt", size, 0, 0), (b"dir\\b", 5, size, 0)], 1, vec![zipped(&text)]).bytes()
}

pub(super) fn samples() -> Vec<Sample> {
    let mut samples: Vec<Sample> = names()
        .iter()
        .enumerate()
        .map(|(i, name)| (format!("name {i}"), Cab::of(&[(name, 1, 0, 0)], 0, vec![(vec![b'x'], 1)]).bytes()))
        .collect();
    let mut add = |name: &str, bytes: Vec<u8>| samples.push((name.to_owned(), bytes));
    let zeros = zipped(&[0; BLOCK]);
    let blocks = vec![zeros.clone(); 2_000];
    let all = (blocks.len() * BLOCK) as u32;
    add("bomb", Cab::of(&[(b"bomb", all, 0, 0)], 1, blocks.clone()).bytes());
    add("bomb of one file again and again", Cab::of(&[(b"bomb".as_slice(), all, 0, 0); 60], 1, blocks.clone()).bytes());
    let far: Vec<_> = (0..200).map(|i| (b"far".as_slice(), 1, all - 1 - i, 0)).collect();
    add("files from the end to the start", Cab::of(&far, 1, blocks).bytes());
    add("size of 4 GiB", Cab::of(&[(b"a", u32::MAX, 0, 0)], 1, vec![zeros.clone()]).bytes());
    add("offset of 4 GiB", Cab::of(&[(b"a", 1, u32::MAX, 0)], 1, vec![zeros.clone()]).bytes());
    add("a folder that is not there", Cab::of(&[(b"a", 1, 0, 9)], 1, vec![zeros.clone()]).bytes());
    for folder in [0xfffd, 0xfffe, 0xffff] {
        add(&format!("folder {folder:#x}"), Cab::of(&[(b"a", 1, 0, folder)], 1, vec![zeros.clone()]).bytes());
    }
    for method in [2, 3, 15 << 8 | 3, 21 << 8 | 3, 31 << 8 | 3, 4, 0xffff] {
        add(&format!("method {method:#x}"), one(method, vec![0x5a; 600], 2_000));
    }
    add("no blocks", Cab::of(&[(b"a", 9, 0, 0)], 1, Vec::new()).bytes());
    add("a block without its mark", one(1, zeros.0[2..].to_vec(), BLOCK));
    add("a block that unpacks to more", one(1, zeros.0.clone(), 100));
    add("a block that unpacks to less", one(1, zipped(b"short").0, BLOCK));
    add("a block of 64 KiB", one(0, vec![1; 65_535], 65_535));
    add("a block of nothing", one(0, Vec::new(), 0));
    add("ten thousand files", Cab::of(&[(b"m".as_slice(), 0, 0, 0); 10_000], 0, vec![(vec![1], 1)]).bytes());
    let mut reserved = good();
    reserved[30] = 4;
    add("a reserve that is not there", reserved);
    let mut named = good();
    named[30] = 3;
    add("names of others that are not there", named);
    samples
}
