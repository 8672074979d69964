//! Sums: what one scan or many found, on one line.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount};
use stoq_api::Response;
use stoq_api::response::PayloadResults;
use stoq_runtime::escape::shortened;

use super::graph::hits;
use super::style::{Ink, Look};

/// Different rules that are counted by name.
const MAX_RULES: usize = 10_000;
/// Rules named on the line, the most frequent ones.
const MAX_NAMED: usize = 5;
/// Characters of a rule's name.
const MAX_NAME: usize = 60;

/// What scans found so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    /// Scans.
    pub(crate) scans: u64,
    /// Payloads.
    pub(crate) payloads: u64,
    /// Bytes of roots.
    pub(crate) bytes: u64,
    /// Payloads in which a plugin matched something.
    pub(crate) with_hits: u64,
    /// Errors.
    pub(crate) errors: u64,
    /// Findings.
    pub(crate) findings: u64,
    /// Scans that are not complete.
    pub(crate) partial: u64,
    rules: BTreeMap<String, u64>,
}

impl Totals {
    /// Adds one scan, but for its payloads and errors.
    pub(crate) fn scan(&mut self, response: &Response) {
        self.scans += 1;
        self.findings += response.findings.len() as u64;
        self.partial += u64::from(!response.complete);
    }

    /// Adds one payload of a scan.
    pub(crate) fn payload(&mut self, payload: &PayloadResults) {
        self.payloads += 1;
        self.bytes += if payload.depth == 0 { payload.size } else { 0 };
        self.findings += payload.findings.len() as u64;
        let hits = hits(payload);
        self.with_hits += u64::from(!hits.is_empty());
        hits.into_iter().for_each(|hit| self.rule(hit, 1));
    }

    /// Adds what others have summed up.
    pub(crate) fn add(&mut self, others: Self) {
        let Self { scans, payloads, bytes, with_hits, errors, findings, partial, rules } = others;
        self.scans += scans;
        self.payloads += payloads;
        self.bytes += bytes;
        self.with_hits += with_hits;
        self.errors += errors;
        self.findings += findings;
        self.partial += partial;
        rules.into_iter().for_each(|(rule, count)| self.rule(rule, count));
    }

    fn rule(&mut self, rule: String, count: u64) {
        if self.rules.len() < MAX_RULES || self.rules.contains_key(&rule) {
            *self.rules.entry(rule).or_default() += count;
        }
    }

    /// `2 files, 1.50 KiB, 14 payloads, 3 with hits (exe_packed 2, upx 1), 1 error in 0.4 s`.
    pub(crate) fn line(&self, elapsed: Option<Duration>, look: Look) -> String {
        let mut parts = Vec::new();
        if self.scans != 1 {
            parts.push(count(self.scans, "file", "files"));
        }
        parts.push(HumanBytes(self.bytes).to_string());
        parts.push(count(self.payloads, "payload", "payloads"));
        parts.push(match self.with_hits {
            0 => look.paint(Ink::Good, "no hits").to_string(),
            n => look.paint(Ink::Hit, format!("{} with hits{}", HumanCount(n), self.named())).to_string(),
        });
        for (number, one, many, ink) in [
            (self.errors, "error", "errors", Ink::Error),
            (self.findings, "finding", "findings", Ink::Finding),
            (self.partial, "partial scan", "partial scans", Ink::Finding),
        ] {
            if number > 0 {
                parts.push(look.paint(ink, count(number, one, many)).to_string());
            }
        }
        let mut line = parts.join(", ");
        if let Some(elapsed) = elapsed {
            line.push_str(&look.paint(Ink::Quiet, format!(" in {:.1} s", elapsed.as_secs_f64())).to_string());
        }
        line
    }

    fn named(&self) -> String {
        let mut rules: Vec<_> = self.rules.iter().collect();
        rules.sort_by_key(|(name, number)| (std::cmp::Reverse(**number), *name));
        let mut named: Vec<_> = rules
            .iter()
            .take(MAX_NAMED)
            .map(|(name, number)| format!("{} {number}", shortened(name, MAX_NAME)))
            .collect();
        if rules.len() > MAX_NAMED {
            named.push(format!("{} more", rules.len() - MAX_NAMED));
        }
        format!(" ({})", named.join(", "))
    }
}

fn count(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", HumanCount(number), if number == 1 { one } else { many })
}
