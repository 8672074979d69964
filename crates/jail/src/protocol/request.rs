//! Requests: batches of items, written by the supervisor and read by a slot.

use std::io::IoSlice;
use std::ops::Range;

use bytes::{Buf, BufMut, Bytes};
use stoq_api::scanner::Remaining;

use super::{MAX_EXCLUDED, MAX_HEADER, MAX_INLINE, MAX_ITEMS};
use crate::memfd::Sealed;

/// Greatest request: an item's largest header and content, or a batch of small ones.
const MAX_REQUEST: usize = 64 << 20;
/// Room that is kept for the next request.
const KEPT: usize = 1 << 20;
/// Fixed part of an item.
const ITEM: usize = 4 + 1 + 8 + 8 + 8 + 8 + 2;

/// Where the supervisor has an item's bytes.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// To be sent along.
    Inline(Bytes),
    /// To be mapped; such an item travels alone.
    File(Sealed),
}

/// An item as the supervisor sends it.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) header: Bytes,
    pub(crate) body: Body,
    pub(crate) remaining: Remaining,
    pub(crate) excluded: Vec<u16>,
}

/// An item as a slot finds it in a request's bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Incoming {
    pub(crate) header: Range<usize>,
    pub(crate) body: Place,
    pub(crate) remaining: Remaining,
    pub(crate) excluded: Vec<u16>,
}

/// Where an item's bytes are for a slot.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the request.
    Inline(Range<usize>),
    /// In the file that came with it.
    File { offset: u64, len: u64 },
}

/// A batch ready to be sent, length included. Contents stay where they are: they are nearly all of it, and copying them
/// together first would cost as much as sending them.
#[derive(Default)]
pub(crate) struct Request {
    /// Everything but the contents.
    heads: Vec<u8>,
    /// Where in `heads` each item's content belongs.
    cuts: Vec<usize>,
}

impl Request {
    /// Lays out `items` in place of what was there. A `careful` slot says in its replies, too, which plugin starts.
    pub(crate) fn lay_out(&mut self, items: &[Outgoing], careful: bool) {
        let Self { heads: out, cuts } = self;
        out.clear();
        out.shrink_to(KEPT);
        cuts.clear();
        let mut contents = 0;
        out.put_u32_le(0);
        out.put_u8(u8::from(careful));
        out.put_u16_le(items.len() as u16);
        for item in items {
            out.put_u32_le(item.header.len() as u32);
            let (kind, offset, len) = match &item.body {
                Body::Inline(bytes) => (0, 0, bytes.len() as u64),
                Body::File(sealed) => (1, sealed.offset, sealed.len),
            };
            out.put_u8(kind);
            out.put_u64_le(offset);
            out.put_u64_le(len);
            out.put_u64_le(item.remaining.children);
            out.put_u64_le(item.remaining.bytes);
            out.put_u16_le(item.excluded.len() as u16);
            for plugin in &item.excluded {
                out.put_u16_le(*plugin);
            }
            out.put_slice(&item.header);
            cuts.push(out.len());
            contents += item.inline().len();
        }
        let len = (out.len() - 4 + contents) as u32;
        out[..4].copy_from_slice(&len.to_le_bytes());
    }

    /// The bytes of the same `items` that were laid out, in order.
    pub(crate) fn parts<'a>(&'a self, items: &'a [Outgoing]) -> Vec<IoSlice<'a>> {
        let mut parts = Vec::with_capacity(items.len() * 2 + 1);
        let mut start = 0;
        for (item, end) in items.iter().zip(&self.cuts) {
            parts.push(IoSlice::new(&self.heads[start..*end]));
            parts.push(IoSlice::new(item.inline()));
            start = *end;
        }
        parts.push(IoSlice::new(&self.heads[start..]));
        parts
    }
}

impl Outgoing {
    /// The content that is sent along.
    fn inline(&self) -> &[u8] {
        match &self.body {
            Body::Inline(bytes) => bytes,
            Body::File(_) => &[],
        }
    }
}

/// The length of the request that follows these four bytes; `None` if it is out of bounds.
pub(crate) fn length(prefix: [u8; 4]) -> Option<usize> {
    let len = u32::from_le_bytes(prefix) as usize;
    (3..=MAX_REQUEST).contains(&len).then_some(len)
}

/// Reads a request without its length: whether to be careful, and the items. `None` if it is not one.
pub(crate) fn decode(request: &[u8]) -> Option<(bool, Vec<Incoming>)> {
    let mut rest = request;
    let careful = rest.try_get_u8().ok()? != 0;
    let at = |rest: &[u8]| request.len() - rest.len();
    let count = usize::from(rest.try_get_u16_le().ok()?);
    if count > MAX_ITEMS {
        return None;
    }
    let mut items = Vec::with_capacity(count);
    for _ in 0..count {
        if rest.remaining() < ITEM {
            return None;
        }
        let header_len = rest.get_u32_le() as usize;
        let kind = rest.get_u8();
        let (offset, len) = (rest.get_u64_le(), rest.get_u64_le());
        let remaining = Remaining { children: rest.get_u64_le(), bytes: rest.get_u64_le() };
        let excluded_len = usize::from(rest.get_u16_le());
        if excluded_len > MAX_EXCLUDED || header_len > MAX_HEADER || rest.remaining() < excluded_len * 2 {
            return None;
        }
        let excluded = (0..excluded_len).map(|_| rest.get_u16_le()).collect();
        let header = at(rest)..at(rest).checked_add(header_len)?;
        rest = rest.get(header_len..)?;
        let body = match kind {
            0 => {
                let len = usize::try_from(len).ok().filter(|l| *l <= MAX_INLINE)?;
                let place = at(rest)..at(rest) + len;
                rest = rest.get(len..)?;
                Place::Inline(place)
            }
            1 => Place::File { offset, len },
            _ => return None,
        };
        items.push(Incoming { header, body, remaining, excluded });
    }
    rest.is_empty().then_some((careful, items))
}
