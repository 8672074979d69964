//! Decryption of members: the traditional cipher (APPNOTE 6.1) and WinZip's AES (AE-1, AE-2).

use std::io::{self, Read};

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use hmac::{Hmac, Mac};
use sha1::Sha1;

use super::directory::{Entry, HAS_DESCRIPTOR, extras, u16_at};
use crate::decompress::codec::MemberError;

/// The extra field that tells AES.
const AES_EXTRA: u16 = 0x9901;
/// The method of members that are encrypted with AES.
pub(super) const AES_METHOD: u16 = 99;
/// Rounds of PBKDF2 that the format fixes.
const ROUNDS: u32 = 1_000;
/// Bytes of the authentication code behind the data.
const CODE: usize = 10;
/// Bytes before data of the traditional cipher.
const HEADER: usize = 12;
const BLOCK: usize = 16;

/// How a member is encrypted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cipher {
    Traditional {
        /// What the last byte of the decrypted header has to be.
        check: u8,
    },
    Aes {
        /// Key length in bytes.
        key: usize,
        /// The data are not covered by the member's CRC-32.
        without_crc: bool,
    },
}

/// Opens one member: its cipher's state at the start of the data.
pub(super) enum Key {
    Traditional(Keys),
    Aes(Box<AesKey>),
}

/// The keys of WinZip's AES.
pub(super) struct AesKey {
    cipher: AesCipher,
    mac: Hmac<Sha1>,
}

#[derive(Clone)]
enum AesCipher {
    Aes128(aes::Aes128),
    Aes192(aes::Aes192),
    Aes256(aes::Aes256),
}

impl Cipher {
    /// The member's cipher, and the method under it.
    pub(super) fn of(entry: &Entry<'_>) -> Option<(Self, u16)> {
        if entry.method != AES_METHOD {
            let check = if entry.flags & HAS_DESCRIPTOR != 0 { entry.time >> 8 } else { (entry.crc >> 24) as u16 };
            return Some((Self::Traditional { check: check as u8 }, entry.method));
        }
        let (_, value) = extras(entry.extra).find(|(id, _)| *id == AES_EXTRA)?;
        let key = match value.get(4)? {
            1 => 16,
            2 => 24,
            3 => 32,
            _ => return None,
        };
        Some((Self::Aes { key, without_crc: u16_at(value, 0)? == 2 }, u16_at(value, 5)?))
    }

    /// Bytes around the data that the cipher adds.
    fn overhead(self) -> (usize, usize) {
        match self {
            Self::Traditional { .. } => (HEADER, 0),
            Self::Aes { key, .. } => (key / 2 + 2, CODE),
        }
    }

    /// The key, if the password passes the cipher's quick check (1 of 256, or of 65,536, wrong ones do).
    pub(super) fn try_password(self, password: &str, data: &[u8]) -> Option<Key> {
        match self {
            Self::Traditional { check } => {
                let mut keys = Keys::of(password.as_bytes());
                let mut header = *data.first_chunk::<HEADER>()?;
                keys.decrypt(&mut header);
                (header[HEADER - 1] == check).then_some(Key::Traditional(keys))
            }
            Self::Aes { key, .. } => {
                let salt = data.get(..key / 2)?;
                let verifier = data.get(key / 2..key / 2 + 2)?;
                let mut derived = vec![0; key * 2 + 2];
                pbkdf2::pbkdf2_hmac::<Sha1>(password.as_bytes(), salt, ROUNDS, &mut derived);
                if derived[key * 2..] != *verifier {
                    return None;
                }
                let cipher = AesCipher::new(&derived[..key])?;
                let mac = Hmac::new_from_slice(&derived[key..key * 2]).ok()?;
                Some(Key::Aes(Box::new(AesKey { cipher, mac })))
            }
        }
    }

    /// The member's decrypted data.
    pub(super) fn reader<'a>(self, key: &Key, data: &'a [u8]) -> Box<dyn Read + 'a> {
        let (before, behind) = self.overhead();
        let end = data.len().saturating_sub(behind).max(before.min(data.len()));
        let body = &data[before.min(data.len())..end];
        match key {
            Key::Traditional(keys) => Box::new(Traditional { keys: keys.clone(), data: body }),
            Key::Aes(key) => Box::new(Aes {
                cipher: key.cipher.clone(),
                mac: Some(key.mac.clone()),
                data: body,
                code: &data[end..],
                counter: 0,
                stream: [0; BLOCK],
                used: BLOCK,
            }),
        }
    }
}

/// The three keys of the traditional cipher.
#[derive(Clone)]
pub(super) struct Keys([u32; 3]);

impl Keys {
    fn of(password: &[u8]) -> Self {
        let mut keys = Self([0x1234_5678, 0x2345_6789, 0x3456_7890]);
        password.iter().for_each(|b| keys.update(*b));
        keys
    }

    fn update(&mut self, byte: u8) {
        let [a, b, c] = &mut self.0;
        *a = crc(*a, byte);
        *b = b.wrapping_add(*a & 0xff).wrapping_mul(0x0808_8405).wrapping_add(1);
        *c = crc(*c, (*b >> 24) as u8);
    }

    fn decrypt(&mut self, data: &mut [u8]) {
        for byte in data {
            let t = (self.0[2] | 2) & 0xffff;
            *byte ^= (t.wrapping_mul(t ^ 1) >> 8) as u8;
            self.update(*byte);
        }
    }
}

/// One step of CRC-32 without the inversions around it.
fn crc(crc: u32, byte: u8) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0_u32; 256];
        let mut i = 0;
        while i < 256 {
            let (mut value, mut bit) = (i as u32, 0);
            while bit < 8 {
                value = if value & 1 == 1 { 0xedb8_8320 ^ (value >> 1) } else { value >> 1 };
                bit += 1;
            }
            table[i] = value;
            i += 1;
        }
        table
    };
    TABLE[((crc ^ u32::from(byte)) & 0xff) as usize] ^ (crc >> 8)
}

struct Traditional<'a> {
    keys: Keys,
    data: &'a [u8],
}

impl Read for Traditional<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.data.read(buffer)?;
        self.keys.decrypt(&mut buffer[..n]);
        Ok(n)
    }
}

impl AesCipher {
    fn new(key: &[u8]) -> Option<Self> {
        match key.len() {
            16 => aes::Aes128::new_from_slice(key).ok().map(Self::Aes128),
            24 => aes::Aes192::new_from_slice(key).ok().map(Self::Aes192),
            _ => aes::Aes256::new_from_slice(key).ok().map(Self::Aes256),
        }
    }

    /// A block of key stream: the encrypted counter, little-endian, counting from 1.
    fn stream(&self, counter: u128) -> [u8; BLOCK] {
        let mut block = counter.to_le_bytes().into();
        match self {
            Self::Aes128(c) => c.encrypt_block(&mut block),
            Self::Aes192(c) => c.encrypt_block(&mut block),
            Self::Aes256(c) => c.encrypt_block(&mut block),
        }
        block.into()
    }
}

/// Decrypts, and compares the authentication code once the data have ended.
struct Aes<'a> {
    cipher: AesCipher,
    mac: Option<Hmac<Sha1>>,
    data: &'a [u8],
    code: &'a [u8],
    counter: u128,
    stream: [u8; BLOCK],
    used: usize,
}

impl Read for Aes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.data.read(buffer)?;
        if n > 0 {
            if let Some(mac) = &mut self.mac {
                mac.update(&buffer[..n]);
            }
        } else if let Some(mac) = self.mac.take_if(|_| !buffer.is_empty())
            && (self.code.len() != CODE || mac.verify_truncated_left(self.code).is_err())
        {
            return Err(MemberError::Authentication.io());
        }
        for byte in &mut buffer[..n] {
            if self.used == BLOCK {
                self.counter += 1;
                (self.stream, self.used) = (self.cipher.stream(self.counter), 0);
            }
            *byte ^= self.stream[self.used];
            self.used += 1;
        }
        Ok(n)
    }
}
