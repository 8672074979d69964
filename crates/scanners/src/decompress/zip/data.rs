//! From a member's stored bytes to its content.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};

use super::crypto::{Cipher, Key};
use super::directory::{Entry, u16_at, u32_at};
use crate::decompress::codec::{self, Checked, MemberError};

/// The name of a compression method, as APPNOTE has it.
pub(super) fn method_name(method: u16) -> String {
    let name = match method {
        0 => "stored",
        1 => "shrunk",
        2..=5 => "reduced",
        6 => "imploded",
        8 => "deflate",
        9 => "deflate64",
        12 => "bzip2",
        14 => "lzma",
        20 | 93 => "zstd",
        95 => "xz",
        98 => "ppmd",
        other => return format!("method {other}"),
    };
    name.to_owned()
}

/// How to read one member.
pub(super) struct Plan<'a> {
    /// Compressed, and perhaps encrypted.
    pub(super) data: &'a [u8],
    pub(super) method: u16,
    /// General purpose bit 1, which LZMA has a meaning for.
    pub(super) end_marked: bool,
    pub(super) cipher: Option<Cipher>,
    /// `None` where the archive does not tell it.
    pub(super) crc: Option<u32>,
    /// `None` where the archive does not tell it.
    pub(super) size: Option<u64>,
}

impl<'a> Plan<'a> {
    /// The plan for a member whose bytes are `data`; `described` says whether the entry's sizes and checksum hold.
    ///
    /// # Errors
    /// It is encrypted in a way that is not known.
    pub(super) fn new(entry: &Entry<'_>, data: &'a [u8], described: bool) -> io::Result<Self> {
        let mut plan = Self {
            data,
            method: entry.method,
            end_marked: entry.flags & 2 != 0,
            cipher: None,
            crc: described.then_some(entry.crc),
            size: described.then_some(entry.size),
        };
        if entry.flags & super::directory::STRONG != 0 {
            return Err(MemberError::Unsupported("strong encryption".into()).io());
        }
        if entry.flags & super::directory::ENCRYPTED != 0 {
            let unknown = || MemberError::Unsupported("this encryption".into()).io();
            let (cipher, method) = Cipher::of(entry).ok_or_else(unknown)?;
            (plan.cipher, plan.method) = (Some(cipher), method);
            if matches!(cipher, Cipher::Aes { without_crc: true, .. }) {
                plan.crc = None;
            }
        }
        Ok(plan)
    }

    /// The content, from the start. How many bytes of `data` it takes is left in `used` where that can be told.
    ///
    /// # Errors
    /// The method is not known, its parameters are invalid, or it asks for too much memory.
    pub(super) fn open(&self, key: Option<&Key>, used: &'a Cell<usize>) -> io::Result<Box<dyn Read + 'a>> {
        used.set(0);
        let data: Box<dyn BufRead + 'a> = match (self.cipher, key) {
            (Some(cipher), Some(key)) => Box::new(BufReader::new(cipher.reader(key, self.data))),
            _ => Box::new(Tail { data: self.data, used }),
        };
        let content = decoder(self, data)?;
        Ok(Box::new(Checked::new(content, self.crc, self.size)))
    }
}

fn decoder<'a>(plan: &Plan<'_>, mut data: Box<dyn BufRead + 'a>) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match plan.method {
        0 => Box::new(data),
        8 => codec::deflate(data),
        9 => codec::deflate64(data),
        12 => codec::bzip2(data),
        14 => {
            // SDK version, length of the properties, the properties: one byte and the dictionary.
            let mut head = [0; 9];
            data.read_exact(&mut head)?;
            let dictionary = u32_at(&head, 5).unwrap_or(0);
            let size = plan.size.filter(|_| !plan.end_marked).unwrap_or(u64::MAX);
            codec::lzma(data, head[4], dictionary, size)?
        }
        20 | 93 => Box::new(codec::zstd(data, true)?),
        95 => Box::new(codec::Xz::new(data, true)),
        98 => {
            let mut head = [0; 2];
            data.read_exact(&mut head)?;
            let word = u16_at(&head, 0).unwrap_or(0);
            let (order, memory) = (u32::from(word & 15) + 1, (u32::from(word >> 4 & 255) + 1) << 20);
            let ppmd = codec::ppmd(data, order, memory, word >> 12)?;
            // It has no end mark in zip files: the size says where it ends.
            Box::new(ppmd.take(plan.size.unwrap_or(u64::MAX)))
        }
        other => return Err(MemberError::Unsupported(format!("compression {}", method_name(other))).io()),
    })
}

/// A slice that tells how much of it was used.
struct Tail<'a> {
    data: &'a [u8],
    used: &'a Cell<usize>,
}

impl Read for Tail<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.data.read(buffer)?;
        self.used.set(self.used.get() + n);
        Ok(n)
    }
}

impl BufRead for Tail<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(self.data)
    }

    fn consume(&mut self, n: usize) {
        self.data.consume(n);
        self.used.set(self.used.get() + n);
    }
}
