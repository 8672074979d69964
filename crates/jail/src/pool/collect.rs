//! What a slot's frames mean, checked against what it was asked.

use std::path::Path;

use bytes::Bytes;
use stoq_api::payload::nests_too_deep;
use stoq_api::{PackedMeta, PayloadMeta};

use crate::children::{Children, Refused};
use crate::job::{Answer, StopReason};
use crate::protocol::reply::Reply;
use crate::protocol::request::Outgoing;

/// Gathers the answers of one batch. Items are answered in the order in which they were sent.
pub(crate) struct Collector<'a> {
    items: &'a [Outgoing],
    spool_dir: &'a Path,
    children: Children,
    answers: Vec<Answer>,
    /// The plugin that a careful slot said it is at.
    current: Option<u16>,
}

/// Why a slot's answer is not taken.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: StopReason,
    pub(crate) detail: String,
}

impl<'a> Collector<'a> {
    pub(crate) fn new(items: &'a [Outgoing], spool_dir: &'a Path) -> Self {
        let children = Children::new(items[0].remaining);
        Self { items, spool_dir, children, answers: Vec::with_capacity(items.len()), current: None }
    }

    /// Takes one frame; true when the batch is answered.
    pub(crate) fn take(&mut self, reply: Reply<'_>) -> Result<bool, Refusal> {
        let Some(item) = self.items.get(self.answers.len()) else {
            return match reply {
                Reply::Done => Ok(true),
                _ => Err(protocol("more after the last item")),
            };
        };
        match reply {
            Reply::Open { plugin, meta } => {
                if item.excluded.contains(&plugin) {
                    return Err(protocol("a child of a plugin that was not to run"));
                }
                let parsed: PayloadMeta =
                    serde_json::from_slice(meta).map_err(|e| protocol(format!("metadata of a child: {e}")))?;
                if nests_too_deep(&parsed.extra_data) {
                    return Err(protocol("metadata of a child that is nested too deep"));
                }
                self.children.open(plugin, PackedMeta::from(&parsed), meta.len())?;
            }
            Reply::Starting { plugin } if item.excluded.contains(&plugin) => {
                return Err(protocol("the start of a plugin that was not to run"));
            }
            Reply::Starting { plugin } => self.current = Some(plugin),
            Reply::Data(bytes) => self.children.data(bytes, self.spool_dir)?,
            Reply::Close { keep } => self.children.close(keep)?,
            Reply::Report { item, report } => self.finish(item, report)?,
            Reply::Done => return Err(protocol("the end before the last item")),
            Reply::Ready { .. } | Reply::Failed(_) => return Err(protocol("a frame of a slot that starts")),
        }
        Ok(false)
    }

    fn finish(&mut self, item: u16, report: &[u8]) -> Result<(), Refusal> {
        if usize::from(item) != self.answers.len() {
            return Err(protocol(format!("an answer for item {item} in place of item {}", self.answers.len())));
        }
        if self.children.is_open() {
            return Err(protocol("the end of an item inside a child"));
        }
        let next = Children::new(self.items.get(self.answers.len() + 1).unwrap_or(&self.items[0]).remaining);
        self.current = None;
        let children = std::mem::replace(&mut self.children, next);
        let children = children.finish().map_err(Refused::Spool)?;
        self.answers.push(Answer { report: Some(Bytes::copy_from_slice(report)), children, stopped: Vec::new() });
        Ok(())
    }

    /// The plugin that the last frames came from, where a careful slot said so.
    pub(crate) fn current(&self) -> Option<u16> {
        self.current
    }

    pub(crate) fn into_answers(self) -> Vec<Answer> {
        self.answers
    }
}

fn protocol(detail: impl Into<String>) -> Refusal {
    Refusal { reason: StopReason::Protocol, detail: detail.into() }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Spent(kind) => {
                Self { reason: StopReason::Budget, detail: format!("went on beyond the scan's budget of {kind}") }
            }
            Refused::Order(what) => protocol(what),
            Refused::Spool(error) => Self {
                reason: StopReason::Unavailable,
                detail: format!("children cannot be kept in the spool directory: {error}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use stoq_api::scanner::Remaining;

    use super::*;
    use crate::protocol::request::Body;

    fn item(children: u64, excluded: Vec<u16>) -> Outgoing {
        let remaining = Remaining { children, bytes: 100 };
        Outgoing { header: Bytes::new(), body: Body::Inline(Bytes::new()), remaining, excluded }
    }

    fn refused(items: &[Outgoing], frames: &[Reply<'_>]) -> StopReason {
        let dir = tempfile::tempdir().unwrap();
        let mut collector = Collector::new(items, dir.path());
        let (last, before) = frames.split_last().unwrap();
        for frame in before {
            assert!(!collector.take(copy(frame)).unwrap());
        }
        collector.take(copy(last)).unwrap_err().reason
    }

    fn copy<'a>(reply: &Reply<'a>) -> Reply<'a> {
        match *reply {
            Reply::Open { plugin, meta } => Reply::Open { plugin, meta },
            Reply::Starting { plugin } => Reply::Starting { plugin },
            Reply::Data(d) => Reply::Data(d),
            Reply::Close { keep } => Reply::Close { keep },
            Reply::Report { item, report } => Reply::Report { item, report },
            Reply::Failed(f) => Reply::Failed(f),
            Reply::Ready { landlock, seccomp, unprivileged } => Reply::Ready { landlock, seccomp, unprivileged },
            Reply::Done => Reply::Done,
        }
    }

    #[test]
    fn an_orderly_batch_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let items = [item(1, vec![]), item(1, vec![])];
        let mut collector = Collector::new(&items, dir.path());
        for _ in 0..2 {
            let n = collector.answers.len() as u16;
            for frame in [
                Reply::Open { plugin: 4, meta: br#"{"extra_data":{"filename":"a"}}"# },
                Reply::Data(b"xy"),
                Reply::Close { keep: true },
                Reply::Report { item: n, report: b"r" },
            ] {
                assert!(!collector.take(frame).unwrap());
            }
        }
        assert!(collector.take(Reply::Done).unwrap());
        let answers = collector.into_answers();
        assert_eq!(answers.len(), 2);
        assert_eq!(answers[1].children[0].meta.get().filename(), Some("a"));
        assert_eq!(answers[1].children[0].plugin, 4);
    }

    #[test]
    fn frames_that_do_not_fit_are_refused() {
        let one = [item(1, vec![9])];
        let open = || Reply::Open { plugin: 1, meta: b"{}" };
        assert_eq!(refused(&one, &[Reply::Report { item: 1, report: b"" }]), StopReason::Protocol);
        assert_eq!(refused(&one, &[Reply::Report { item: 0, report: b"" }, open()]), StopReason::Protocol);
        assert_eq!(refused(&one, &[Reply::Done]), StopReason::Protocol);
        assert_eq!(refused(&one, &[Reply::Data(b"x")]), StopReason::Protocol);
        assert_eq!(refused(&one, &[Reply::Close { keep: true }]), StopReason::Protocol);
        assert_eq!(refused(&one, &[open(), open()]), StopReason::Protocol);
        assert_eq!(refused(&one, &[open(), Reply::Report { item: 0, report: b"" }]), StopReason::Protocol);
        assert_eq!(refused(&one, &[Reply::Open { plugin: 1, meta: b"[" }]), StopReason::Protocol);
        let deep = format!("{{\"extra_data\":{{\"a\":{}{}}}}}", "[".repeat(70), "]".repeat(70));
        assert_eq!(refused(&one, &[Reply::Open { plugin: 1, meta: deep.as_bytes() }]), StopReason::Protocol);
        assert_eq!(refused(&one, &[Reply::Open { plugin: 9, meta: b"{}" }]), StopReason::Protocol);
        assert_eq!(refused(&one, &[Reply::Starting { plugin: 9 }]), StopReason::Protocol);
        assert_eq!(refused(&one, &[open(), Reply::Close { keep: true }, open()]), StopReason::Budget);
        assert_eq!(refused(&one, &[open(), Reply::Data(&[0; 101])]), StopReason::Budget);
    }
}
