//! The one way to read something that may be larger than it claims.

use std::io::{self, Read};

/// A reader that fails once more than `limit` bytes were read from it, instead of pretending that the input ended.
///
/// Every decompressor in the project reads through this type, so that no format can produce more than it was allowed.
#[derive(Debug)]
pub struct BoundedReader<R> {
    inner: R,
    left: u64,
    limit: u64,
}

/// More bytes were there than allowed. Carried inside an [`io::Error`] of kind `FileTooLarge`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {limit} bytes")]
pub struct OverLimit {
    /// The bytes allowed.
    pub limit: u64,
}

impl<R: Read> BoundedReader<R> {
    /// Allows `limit` bytes of `inner`.
    pub fn new(inner: R, limit: u64) -> Self {
        Self { inner, left: limit, limit }
    }

    /// Bytes that may still be read.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The reader inside.
    pub fn into_inner(self) -> R {
        self.inner
    }
}

impl OverLimit {
    /// Whether `error` came from a [`BoundedReader`] that was asked for too much.
    pub fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|e| e.is::<Self>())
    }
}

impl<R: Read> Read for BoundedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            // Only the end of the input may follow; one more byte is one too many.
            let mut probe = [0_u8; 1];
            return match self.inner.read(&mut probe)? {
                0 => Ok(0),
                _ => Err(io::Error::new(io::ErrorKind::FileTooLarge, OverLimit { limit: self.limit })),
            };
        }
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let got = self.inner.read(&mut buffer[..most])?;
        self.left -= got as u64;
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_fits_and_one_more_fails() {
        let mut out = Vec::new();
        BoundedReader::new(&b"12345"[..], 5).read_to_end(&mut out).unwrap();
        assert_eq!(out, b"12345");
        out.clear();
        let error = BoundedReader::new(&b"123456"[..], 5).read_to_end(&mut out).unwrap_err();
        assert!(OverLimit::is(&error));
        assert_eq!(out, b"12345");
    }
}
