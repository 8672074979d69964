//! A [`Sink`] that keeps children in memory: for scans without a jail, for tests and for fuzzing.

use std::io;

use stoq_api::budget::SpentKind;
use stoq_api::payload::PayloadMeta;
use stoq_api::scanner::{Remaining, Sink, Spent};

/// A child as a plugin emitted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryChild {
    /// How to treat it.
    pub meta: PayloadMeta,
    /// Its bytes.
    pub content: Vec<u8>,
}

/// Collects children and refuses those that are over the budget. A child that was discarded gives back what it used.
#[derive(Debug)]
pub struct MemorySink {
    remaining: Remaining,
    children: Vec<MemoryChild>,
    open: Option<MemoryChild>,
}

impl MemorySink {
    /// An empty sink with room for `remaining`.
    pub fn new(remaining: Remaining) -> Self {
        Self { remaining, children: Vec::new(), open: None }
    }

    /// The children kept so far, in order of emission.
    pub fn children(&self) -> &[MemoryChild] {
        &self.children
    }

    /// Takes the children kept so far, so that the sink can serve the next plugin; the budget stays used.
    pub fn take(&mut self) -> Vec<MemoryChild> {
        std::mem::take(&mut self.children)
    }
}

impl Sink for MemorySink {
    fn remaining(&self) -> Remaining {
        self.remaining
    }

    fn open(&mut self, meta: PayloadMeta) -> io::Result<()> {
        if self.open.is_some() {
            return Err(io::Error::other("a child is open already"));
        }
        if self.remaining.children == 0 {
            return Err(Spent(SpentKind::Payloads).into_io());
        }
        self.remaining.children -= 1;
        self.open = Some(MemoryChild { meta, content: Vec::new() });
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(child) = &mut self.open else {
            return Err(io::Error::other("no child is open"));
        };
        let size = bytes.len() as u64;
        if size > self.remaining.bytes {
            return Err(Spent(SpentKind::Bytes).into_io());
        }
        self.remaining.bytes -= size;
        child.content.extend_from_slice(bytes);
        Ok(())
    }

    fn close(&mut self, keep: bool) -> io::Result<()> {
        let Some(child) = self.open.take() else {
            return Err(io::Error::other("no child is open"));
        };
        if keep {
            self.children.push(child);
        } else {
            self.remaining.children += 1;
            self.remaining.bytes += child.content.len() as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use stoq_api::scanner::{Context, ScanError};

    use super::*;

    #[test]
    fn budget_is_enforced_and_discarded_children_cost_nothing() {
        let mut sink = MemorySink::new(Remaining { children: 2, bytes: 5 });
        let mut cx = Context::new(&mut sink, None);
        let mut discarded = cx.child(PayloadMeta::default()).unwrap();
        discarded.write_all(b"12345").unwrap();
        drop(discarded);
        cx.emit(b"123", PayloadMeta::default()).unwrap();
        assert!(matches!(cx.emit(b"456", PayloadMeta::default()), Err(ScanError::Spent(SpentKind::Bytes))));
        cx.emit(b"45", PayloadMeta::default()).unwrap();
        assert!(matches!(cx.emit(b"", PayloadMeta::default()), Err(ScanError::Spent(SpentKind::Payloads))));
        assert_eq!(cx.remaining(), Remaining { children: 0, bytes: 0 });
        let contents: Vec<_> = sink.take().into_iter().map(|c| c.content).collect();
        assert_eq!(contents, [b"123".to_vec(), b"45".to_vec()]);
    }

    #[test]
    fn only_one_child_is_open() {
        let mut sink = MemorySink::new(Remaining { children: 2, bytes: 5 });
        assert!(sink.write(b"x").is_err() && sink.close(true).is_err());
        sink.open(PayloadMeta::default()).unwrap();
        assert!(sink.open(PayloadMeta::default()).is_err());
        sink.close(true).unwrap();
        assert_eq!(sink.children().len(), 1);
    }
}
