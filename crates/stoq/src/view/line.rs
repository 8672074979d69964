//! One payload on one line, and what else is to say of it.

use std::fmt::Write;

use indicatif::HumanBytes;
use serde_json::Value;
use stoq_api::Response;
use stoq_api::outcome::RunStatus;
use stoq_api::response::PayloadResults;
use stoq_runtime::escape::{shortened, visible};

use super::graph::Node;
use super::style::{Ink, Look, fit, width};

/// Rules named on a payload's line.
const MAX_HITS: usize = 4;
/// Remarks below a payload.
const MAX_REMARKS: usize = 6;
/// Characters of a remark.
const MAX_REMARK: usize = 300;
/// Characters of a plugin's, rule's or type's name.
const MAX_WORD: usize = 60;
/// The plugin whose word on a payload's type is shown.
pub(super) const TYPED: &str = "mimetype";
/// Columns that a payload's own name always gets.
const LEAST_NAME: usize = 16;

/// The payload's line, behind `indent` columns.
pub(super) fn payload(node: &Node<'_>, look: Look, indent: usize) -> String {
    let payload = node.payload;
    let size = HumanBytes(payload.size).to_string();
    let kind = mimetype(payload).map(|kind| shortened(&kind, MAX_WORD));
    let by = payload.extracted_by.first().map(|by| shortened(by, MAX_WORD));
    let hits = hit_list(&node.hits);

    let plain = [Some(&size), kind.as_ref(), by.as_ref(), hits.as_ref()];
    let rest: usize =
        plain.into_iter().flatten().map(|text| width(text) + 2).sum::<usize>() + if hits.is_some() { 2 } else { 0 };
    let room = look.width().saturating_sub(indent + rest).max(LEAST_NAME);
    let mut line = look.paint(Ink::Name, fit(&name(payload), room)).to_string();
    if let Some(kind) = kind {
        line.push_str("  ");
        line.push_str(&kind);
    }
    // Writing to a `String` cannot fail.
    write!(line, "  {}", look.paint(Ink::Quiet, size)).ok();
    if let Some(by) = by {
        write!(line, "  {}", look.paint(Ink::Quiet, by)).ok();
    }
    if let Some(hits) = hits {
        write!(line, "  {}", look.paint(Ink::Hit, format!("● {hits}"))).ok();
    }
    line
}

/// What the payload is called: its file name, or the beginning of its digest.
pub(crate) fn name(payload: &PayloadResults) -> String {
    let named = payload.payload_meta.filename().or(payload.names.first().map(String::as_str)).filter(|n| !n.is_empty());
    match (named, &payload.sha256) {
        (Some(name), _) => visible(name).into_owned(),
        (None, Some(sha256)) => format!("({})", &sha256.to_string()[..12]),
        (None, None) => "(not read)".to_owned(),
    }
}

fn mimetype(payload: &PayloadResults) -> Option<String> {
    let value = payload.workers.get(TYPED)?.value();
    value.get("mimetype").and_then(Value::as_str).map(str::to_owned)
}

fn hit_list(hits: &[String]) -> Option<String> {
    let shown: Vec<_> = hits.iter().take(MAX_HITS).map(|hit| shortened(hit, MAX_WORD)).collect();
    match hits.len() {
        0 => None,
        n if n > MAX_HITS => Some(format!("{} +{}", shown.join(", "), n - MAX_HITS)),
        _ => Some(shown.join(", ")),
    }
}

/// Errors, findings and plugins that did not do their work, one line each.
pub(super) fn remarks(response: &Response, payload: &PayloadResults, look: Look) -> Vec<String> {
    let mut all: Vec<(Ink, char, Option<&str>, String)> = Vec::new();
    for error in response.errors.iter().filter(|e| e.payload_id == Some(payload.payload_id)) {
        all.push((Ink::Error, '✗', error.plugin_name.as_deref(), error.error.clone()));
    }
    for finding in &payload.findings {
        all.push((Ink::Finding, '!', finding.plugin.as_deref(), finding.detail.clone()));
    }
    for run in &payload.runs {
        let told = all.iter().any(|(_, _, plugin, _)| *plugin == Some(run.plugin.as_str()));
        if let Some(what) = ended_badly(run.status).filter(|_| !told) {
            all.push((Ink::Finding, '!', Some(&run.plugin), what.to_owned()));
        }
    }
    for missing in &payload.not_run {
        all.push((Ink::Quiet, '-', Some(&missing.plugin), format!("did not run: {}", missing.reason)));
    }
    lines(&all, look)
}

/// Errors and findings of the response as a whole.
pub(super) fn general(response: &Response, look: Look) -> Vec<String> {
    let known: std::collections::HashSet<_> = response.results.iter().map(|r| r.payload_id).collect();
    let mut all = Vec::new();
    for error in response.errors.iter().filter(|e| e.payload_id.is_none_or(|id| !known.contains(&id))) {
        all.push((Ink::Error, '✗', error.plugin_name.as_deref(), error.error.clone()));
    }
    for finding in &response.findings {
        all.push((Ink::Finding, '!', finding.plugin.as_deref(), finding.detail.clone()));
    }
    lines(&all, look)
}

fn lines(all: &[(Ink, char, Option<&str>, String)], look: Look) -> Vec<String> {
    let mut lines: Vec<_> = all
        .iter()
        .take(MAX_REMARKS)
        .map(|(ink, sign, plugin, text)| {
            let of = plugin.map(|p| format!("{}: ", shortened(p, MAX_WORD))).unwrap_or_default();
            look.paint(*ink, format!("{sign} {of}{}", shortened(text, MAX_REMARK))).to_string()
        })
        .collect();
    if all.len() > MAX_REMARKS {
        lines.push(look.paint(Ink::Quiet, format!("… {} more remarks", all.len() - MAX_REMARKS)).to_string());
    }
    lines
}

pub(super) fn ended_badly(status: RunStatus) -> Option<&'static str> {
    match status {
        RunStatus::Ok => None,
        RunStatus::Failed => Some("failed"),
        RunStatus::TimedOut => Some("was stopped for its time"),
        RunStatus::Killed => Some("was stopped"),
        RunStatus::Cut => Some("was cut short by a budget"),
    }
}
