//! Traces: what happened to one scan, over all processes that had a part in it, as W3C trace context and OpenTelemetry
//! spans.
//!
//! The trace's id *is* the scan's id, and the id of the span that took the reference comes from it as well. So whoever has
//! a response finds its trace, a reference that comes again after a crash adds to the trace that it began, and a process
//! needs no memory to go on with it. Whether a scan is traced is decided once, by the provider, from the scan's id; its
//! `traceparent` travels with the tasks and with the message of its response.
//!
//! Spans never hold work up: where they are not taken away fast enough they are dropped, and counted.

use std::sync::OnceLock;
use std::time::SystemTime;

use stoq_api::ScanId;
use tokio::sync::mpsc;

use crate::metrics;

/// Header of messages that carry responses: the `traceparent` of each scan that is traced, with commas between them.
pub const TRACEPARENT: &str = "traceparent";
/// Spans that wait to be taken away.
const WAITING: usize = 8_192;
/// Bits of a scan id's beginning that the decision is made from: those before the version of the UUID, which is no chance.
const CHANCE_BITS: u32 = 48;
/// Characters of a failure's text.
const MAX_TEXT: usize = 1_000;

static TRACER: OnceLock<Tracer> = OnceLock::new();

struct Tracer {
    /// Of 2^[`CHANCE_BITS`] scans so many are traced.
    share: u64,
    spans: mpsc::Sender<Finished>,
}

/// A span that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The trace: the scan's id.
    pub trace: [u8; 16],
    /// The span.
    pub id: [u8; 8],
    /// The span that it is a part of, in another process as a rule; none for the one that took the reference.
    pub parent: Option<[u8; 8]>,
    /// What was done.
    pub name: &'static str,
    /// How it stands to the lanes.
    pub kind: Kind,
    /// When it began.
    pub start: SystemTime,
    /// When it ended.
    pub end: SystemTime,
    /// Ids and configured names; nothing that a payload says.
    pub attributes: Vec<(&'static str, String)>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// How a span stands to the lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It puts something on a lane.
    Producer,
    /// It takes something off a lane.
    Consumer,
}

/// Spans of this process are kept from now on, for whoever takes them; of the scans that providers of this process begin,
/// the share `ratio` is traced. `None` if that was said before.
pub fn start(ratio: f64) -> Option<mpsc::Receiver<Finished>> {
    let (spans, taken) = mpsc::channel(WAITING);
    let share = (ratio.clamp(0.0, 1.0) * (1_u64 << CHANCE_BITS) as f64) as u64;
    TRACER.set(Tracer { share, spans }).ok().map(|()| taken)
}

/// A span that is going on; it ends when it is dropped.
#[derive(Debug)]
pub struct Span(Finished);

impl Span {
    /// The span that takes the reference of a scan, if the scan is traced.
    pub fn root(scan: ScanId, source: &str) -> Option<Self> {
        let tracer = TRACER.get()?;
        let trace = *scan.0.as_bytes();
        if !is_chosen(&trace, tracer.share) {
            return None;
        }
        let mut span = Self::new(trace, half(&trace), None, "take reference", Kind::Producer);
        span.attribute("stoq.scan_id", scan.to_string());
        span.attribute("stoq.source", source.to_owned());
        Some(span)
    }

    /// A span that goes on with a scan's trace, if it has one and spans are kept here.
    pub fn of(traceparent: Option<&str>, name: &'static str) -> Option<Self> {
        TRACER.get()?;
        let (trace, parent) = parse(traceparent?)?;
        Some(Self::new(trace, fastrand::u64(1..).to_be_bytes(), Some(parent), name, Kind::Consumer))
    }

    fn new(trace: [u8; 16], id: [u8; 8], parent: Option<[u8; 8]>, name: &'static str, kind: Kind) -> Self {
        let now = SystemTime::now();
        Self(Finished { trace, id, parent, name, kind, start: now, end: now, attributes: Vec::new(), error: None })
    }

    /// Adds an id or a configured name.
    pub fn attribute(&mut self, name: &'static str, value: String) {
        self.0.attributes.push((name, value));
    }

    /// It failed.
    pub fn failed(&mut self, text: &str) {
        self.0.error = Some(text.chars().take(MAX_TEXT).collect());
    }

    /// The span as a parent, as it travels.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-01", hex(&self.0.trace), hex(&self.0.id))
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(tracer) = TRACER.get() else { return };
        self.0.end = SystemTime::now();
        if tracer.spans.try_send(self.0.clone()).is_err() {
            metrics::spans_dropped(1);
        }
    }
}

/// Whether a `traceparent` belongs to the scan of this id.
pub fn is_of(traceparent: &str, scan: &str) -> bool {
    let digits = scan.bytes().filter(|b| *b != b'-');
    traceparent.get(3..35).is_some_and(|trace| trace.bytes().eq(digits))
}

fn is_chosen(trace: &[u8; 16], share: u64) -> bool {
    let chance = trace[..6].iter().fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
    chance < share
}

/// The last half of a UUID; its variant makes sure that it is not zero.
fn half(trace: &[u8; 16]) -> [u8; 8] {
    let mut id = [0; 8];
    id.copy_from_slice(&trace[8..]);
    id
}

/// Trace and span of a W3C `traceparent` of version 00 that is sampled; see
/// <https://www.w3.org/TR/trace-context/#traceparent-header>.
fn parse(traceparent: &str) -> Option<([u8; 16], [u8; 8])> {
    let mut parts = traceparent.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if version != "00" || parts.next().is_some() {
        return None;
    }
    let (trace, span, [flags]) = (unhex(trace)?, unhex(span)?, unhex::<1>(flags)?);
    (flags & 1 == 1 && trace != [0; 16] && span != [0; 8]).then_some((trace, span))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != N * 2 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut bytes = [0; N];
    for (n, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(n * 2..n * 2 + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use stoq_api::Sha256;

    use super::*;

    fn scan(n: u32) -> ScanId {
        ScanId::derive("source", &n.to_be_bytes(), &Sha256::of(b""))
    }

    #[test]
    fn a_share_of_scans_is_chosen() {
        let chosen = |share: f64| {
            let share = (share * (1_u64 << CHANCE_BITS) as f64) as u64;
            (0..4_000).filter(|n| is_chosen(scan(*n).0.as_bytes(), share)).count()
        };
        assert_eq!((chosen(0.0), chosen(1.0)), (0, 4_000));
        assert!((800..1_200).contains(&chosen(0.25)), "{}", chosen(0.25));
    }

    #[test]
    fn traces_are_named_by_their_scans() {
        let mut spans = start(1.0).unwrap();
        assert!(start(1.0).is_none());
        let root = Span::root(scan(1), "source").unwrap();
        let again = Span::root(scan(1), "source").unwrap();
        assert_eq!(root.traceparent(), again.traceparent(), "taken again, it is the same span");
        assert!(is_of(&root.traceparent(), &scan(1).to_string()));
        assert!(!is_of(&root.traceparent(), &scan(2).to_string()));
        let mut child = Span::of(Some(&root.traceparent()), "work").unwrap();
        child.failed("broken");
        drop((child, root));
        let (child, root) = (spans.try_recv().unwrap(), spans.try_recv().unwrap());
        assert_eq!((child.trace, child.parent), (root.trace, Some(root.id)));
        assert_eq!(root.trace, *scan(1).0.as_bytes());
        assert_eq!(child.error.as_deref(), Some("broken"));
        assert!(Span::of(None, "work").is_none());
    }

    #[test]
    fn only_sampled_contexts_are_gone_on_with() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(parse(good).is_some());
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333-01",
            "00-\u{e9}af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
