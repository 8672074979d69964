//! A content as blocks, and its way through a lane.

use crate::kernel::Block;

const BLOCK: usize = size_of::<Block>();
/// Bytes of the length that ends a padded message.
const LENGTH: usize = 8;

/// A content with its padding (RFC 1321, 3.1 and 3.2).
pub(crate) struct Message<'a> {
    /// The blocks that the content fills.
    whole: &'a [Block],
    /// What is left of it, a one bit, zeros, and its length in bits: one block or two.
    end: [Block; 2],
    end_blocks: usize,
}

impl<'a> Message<'a> {
    pub(crate) fn new(content: &'a [u8]) -> Self {
        let (whole, rest) = content.as_chunks();
        let mut end = [[0; BLOCK]; 2];
        let end_blocks = if rest.len() < BLOCK - LENGTH { 1 } else { 2 };
        let bytes = end.as_flattened_mut();
        bytes[..rest.len()].copy_from_slice(rest);
        bytes[rest.len()] = 0x80;
        // The length counts modulo 2^64.
        let bits = (content.len() as u64).wrapping_mul(8);
        bytes[end_blocks * BLOCK - LENGTH..][..LENGTH].copy_from_slice(&bits.to_le_bytes());
        Self { whole, end, end_blocks }
    }

    pub(crate) fn blocks(&self) -> usize {
        self.whole.len() + self.end_blocks
    }
}

/// What a lane has still to do.
#[derive(Default)]
pub(crate) struct Lane<'a> {
    number: Option<usize>,
    whole: &'a [Block],
    end: &'a [Block],
}

impl<'a> Lane<'a> {
    pub(crate) fn of(number: usize, message: &'a Message<'a>) -> Self {
        Self { number: Some(number), whole: message.whole, end: &message.end[..message.end_blocks] }
    }

    /// The content in it, by its place among all.
    pub(crate) fn number(&self) -> Option<usize> {
        self.number
    }

    pub(crate) fn is_over(&self) -> bool {
        self.next().is_empty()
    }

    /// Blocks that come next and lie together.
    pub(crate) fn next(&self) -> &'a [Block] {
        if self.whole.is_empty() { self.end } else { self.whole }
    }

    /// Goes on behind so many of [`Lane::next`].
    pub(crate) fn took(&mut self, count: usize) {
        let part = if self.whole.is_empty() { &mut self.end } else { &mut self.whole };
        *part = part.get(count..).unwrap_or_default();
    }
}
