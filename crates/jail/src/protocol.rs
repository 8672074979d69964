//! What goes over the socket between the supervisor and a slot.
//!
//! Both ways: frames of a `u32` length and that many bytes; all numbers little endian. The supervisor sends batches of
//! items ([`request`]) and reads replies ([`reply`]). A slot may be in the hands of a payload, so replies are parsed as
//! hostile: every length is checked before a byte of it is kept, and what they mean is checked by `pool::collect`.
//!
//! Which plugin runs is said on a pipe of its own ([`Hint`]), which the supervisor reads only on a tick of its clock or
//! over a corpse: telling it costs a slot one system call and wakes nobody. Most plugins take less time than that call. So
//! of those that start on one item within a millisecond only the first is told, unless the slot was asked to be careful:
//! the supervisor's clock is not finer, and whom it blames is only settled by a slot that was.

pub(crate) mod reply;
pub(crate) mod request;
#[cfg(test)]
mod tests;

use std::io;

use stoq_api::PayloadMeta;
use stoq_api::payload::{MAX_NESTING, nests_too_deep};

/// Content up to this size travels inside the request; above, as a sealed memory file.
pub const MAX_INLINE: usize = 4 << 20;
/// Greatest header of an item.
pub const MAX_HEADER: usize = 4 << 20;
/// Greatest number of items in a request.
pub const MAX_ITEMS: usize = 64;
/// Greatest number of plugins that can be taken off an item.
pub const MAX_EXCLUDED: usize = 256;
/// Greatest metadata of one child, as JSON.
pub const MAX_META: usize = 64 << 10;
/// Greatest metadata of all children of an item together, as JSON.
pub const MAX_META_TOTAL: usize = 8 << 20;
/// Greatest piece of a child in one frame.
pub(crate) const MAX_DATA: usize = 64 << 10;
/// Greatest text with which a slot says why it did not start.
pub(crate) const MAX_FAILED: usize = 4 << 10;

/// Which plugin starts on which item of the batch; four bytes on the pipe. Written by hostile code: a hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hint {
    pub(crate) item: u16,
    pub(crate) plugin: u16,
}

impl Hint {
    /// Bytes on the pipe.
    pub(crate) const SIZE: usize = 4;

    pub(crate) fn encode(self) -> [u8; Self::SIZE] {
        let [a, b] = self.item.to_le_bytes();
        let [c, d] = self.plugin.to_le_bytes();
        [a, b, c, d]
    }

    pub(crate) fn decode([a, b, c, d]: [u8; Self::SIZE]) -> Self {
        Self { item: u16::from_le_bytes([a, b]), plugin: u16::from_le_bytes([c, d]) }
    }
}

/// A child's metadata as it goes over the wire.
///
/// # Errors
/// It is larger than [`MAX_META`], or nested deeper than [`MAX_NESTING`].
pub(crate) fn encode_meta(meta: &PayloadMeta) -> io::Result<Vec<u8>> {
    if nests_too_deep(&meta.extra_data) {
        let why = format!("metadata of a child is nested deeper than {MAX_NESTING}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let text = serde_json::to_vec(meta)?;
    if text.len() > MAX_META {
        let why = format!("metadata of {} bytes for a child, at most {MAX_META} are taken", text.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    Ok(text)
}
