//! The form in which a [`Header`] and a [`Report`] cross the slot's socket.
//!
//! A header is the 32 bytes of the content's digest and the rest of it as JSON.
//!
//! Of a report, runs with their results are nearly all, and a worker only passes results on. So they are laid out plainly,
//! lengths before texts, and everything else, which is mostly empty, follows as JSON. All numbers are little endian:
//!
//! | bytes | what |
//! |---|---|
//! | 2 | number of runs |
//! | … | each run: plugin, `u32` round, status, `u64` microseconds, `u16` number of reasons, the reasons, the result |
//! | 4 | rounds so far |
//! | 1 | 0 if the rest of the report is all empty, which it mostly is |
//! | … | unless that is 0, the rest of the report as JSON |
//!
//! A text is a `u32` length and that many bytes of UTF-8; a result is a text that is empty if there is none.

use bytes::{Buf, BufMut};
use stoq_api::{Json, Run, RunStatus, Sha256};

use super::wire::{Header, Report};

/// Most runs in a report: far more than there are plugins.
const MAX_RUNS: usize = 4_096;
/// Most reasons of one run.
const MAX_REASONS: usize = 4_096;
/// Every status by the number that stands for it.
const STATUS: [RunStatus; 5] =
    [RunStatus::Ok, RunStatus::Failed, RunStatus::TimedOut, RunStatus::Killed, RunStatus::Cut];

/// Room for a usual header; larger ones grow.
const HEADER_BYTES: usize = 128;

/// Writes a header. One that cannot be written is empty, which [`decode_header`] refuses; but it is made of what serde
/// wrote before.
pub(crate) fn encode_header(header: &Header<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES);
    out.put_slice(header.sha256.as_bytes());
    match serde_json::to_writer(&mut out, header) {
        Ok(()) => out,
        Err(_) => Vec::new(),
    }
}

/// Reads what the engine wrote. `None` if it is no header.
pub(crate) fn decode_header(bytes: &[u8]) -> Option<Header<'static>> {
    let (digest, json) = bytes.split_first_chunk()?;
    let header = serde_json::from_slice(json).ok()?;
    Some(Header { sha256: Sha256::from_bytes(*digest), ..header })
}

/// Writes a report. One that cannot be written is empty, which [`decode`] refuses.
pub(crate) fn encode(mut report: Report) -> Vec<u8> {
    let runs = std::mem::take(&mut report.state.runs);
    let round = std::mem::take(&mut report.state.round);
    let mut out = Vec::with_capacity(runs.iter().map(size).sum::<usize>() + 64);
    out.put_u16_le(u16::try_from(runs.len()).unwrap_or(u16::MAX));
    for run in &runs {
        put_text(&mut out, &run.plugin);
        out.put_u32_le(run.round);
        let status = STATUS.iter().position(|status| *status == run.status).unwrap_or_default();
        out.put_u8(status as u8);
        out.put_u64_le(run.micros);
        out.put_u16_le(u16::try_from(run.why.len()).unwrap_or(u16::MAX));
        run.why.iter().for_each(|why| put_text(&mut out, why));
        put_text(&mut out, run.result.as_ref().map_or("", Json::get));
    }
    out.put_u32_le(round);
    let more = report != Report::default();
    out.put_u8(u8::from(more));
    if !more {
        return out;
    }
    match serde_json::to_writer(&mut out, &report) {
        Ok(()) => out,
        Err(_) => Vec::new(),
    }
}

/// Reads what a slot says is a report. `None` if it is none.
pub(crate) fn decode(mut bytes: &[u8]) -> Option<Report> {
    let count = usize::from(bytes.try_get_u16_le().ok()?);
    if count > MAX_RUNS {
        return None;
    }
    let mut runs = Vec::new();
    for _ in 0..count {
        runs.push(run(&mut bytes)?);
    }
    let round = bytes.try_get_u32_le().ok()?;
    let mut report: Report = match bytes.try_get_u8().ok()? {
        0 if bytes.is_empty() => Report::default(),
        0 => return None,
        _ => serde_json::from_slice(bytes).ok()?,
    };
    (report.state.runs, report.state.round) = (runs, round);
    Some(report)
}

fn run(bytes: &mut &[u8]) -> Option<Run> {
    let plugin = text(bytes)?.to_owned();
    let round = bytes.try_get_u32_le().ok()?;
    let status = *STATUS.get(usize::from(bytes.try_get_u8().ok()?))?;
    let micros = bytes.try_get_u64_le().ok()?;
    let reasons = usize::from(bytes.try_get_u16_le().ok()?);
    if reasons > MAX_REASONS {
        return None;
    }
    let why = (0..reasons).map(|_| text(bytes).map(str::to_owned)).collect::<Option<_>>()?;
    let result = match text(bytes)? {
        "" => None,
        // Checked here, once: it goes into the response as it is.
        said => Some(Json::parse(said.to_owned()).ok()?),
    };
    Some(Run { plugin, round, why, status, micros, result })
}

fn size(run: &Run) -> usize {
    let why = run.why.iter().map(|why| why.len() + 4).sum::<usize>();
    run.plugin.len() + why + run.result.as_ref().map_or(0, |json| json.get().len()) + 32
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    // A report as a whole is far below 4 GiB.
    out.put_u32_le(u32::try_from(text.len()).unwrap_or(u32::MAX));
    out.put_slice(text.as_bytes());
}

fn text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let len = usize::try_from(bytes.try_get_u32_le().ok()?).ok()?;
    let (text, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    std::str::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stoq_api::NotRun;

    use super::*;

    fn report(runs: usize) -> Report {
        let run = |n: usize| Run {
            plugin: format!("plugin{n}"),
            round: n as u32 + 1,
            why: (0..n).map(|n| format!("reason {n}")).collect(),
            status: STATUS[n % STATUS.len()],
            micros: n as u64,
            result: n.is_multiple_of(2).then(|| Json::parse(format!("{{\"n\": {n}}}")).unwrap()),
        };
        let mut report = Report { errors: vec![("a".into(), "b".into())], ..Report::default() };
        report.state.runs = (0..runs).map(run).collect();
        report.state.not_run = vec![NotRun { plugin: "x".into(), reason: "y".into() }];
        report
    }

    #[test]
    fn reports_come_back_as_they_were() {
        for runs in [0, 1, 7] {
            let report = report(runs);
            let back = decode(&encode(report.clone())).unwrap();
            assert_eq!(back.state.runs, report.state.runs);
            assert_eq!(back.state.not_run, report.state.not_run);
            assert_eq!(back.errors, report.errors);
        }
    }

    #[test]
    fn what_is_empty_takes_no_room() {
        let mut plain = Report::default();
        plain.state.round = 7;
        let bytes = encode(plain.clone());
        assert_eq!(bytes.len(), 7);
        assert_eq!(decode(&bytes).unwrap(), plain);
    }

    #[test]
    fn what_is_no_report_is_refused() {
        let whole = encode(report(3));
        for cut in 0..whole.len() {
            assert!(decode(&whole[..cut]).is_none(), "cut at {cut}");
        }
        assert!(decode(&[&whole[..], b"x"].concat()).is_none());
        let mut broken = report(1);
        broken.state.runs[0].result = Some(Json::parse("[1]".into()).unwrap());
        let mut bytes = encode(broken);
        let at = bytes.windows(3).position(|w| w == b"[1]").unwrap();
        bytes[at] = b'{';
        assert!(decode(&bytes).is_none(), "a result that is not JSON");
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..300), flips in proptest::collection::vec((0_usize..400, any::<u8>()), 0..6)) {
            decode(&bytes);
            let mut damaged = encode(report(4));
            for (at, value) in flips {
                let at = at % damaged.len();
                damaged[at] = value;
            }
            decode(&damaged);
        }
    }
}
