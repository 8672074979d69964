//! Shows responses as they come: the connector of `stoq scan`.

use std::io::Write;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use stoq_api::plugin::{Connector, Item, Verdict};
use stoq_api::response::v2::to_v2;
use stoq_api::{Fault, FaultKind, FindingKind, Response, RunStatus};
use stoq_engine::intake::Progress;

use crate::cli::Schema;
use crate::exit::Exit;
use crate::view;

/// How responses are written.
pub(crate) enum Style {
    /// A tree for people.
    Tree(view::Look),
    /// Indented JSON.
    Json,
    /// One line each.
    Lines,
}

/// Writes responses to `out` and remembers what the exit code and the last line depend on.
pub(crate) struct Show {
    style: Style,
    schema: Schema,
    state: Mutex<State>,
    progress: view::Progress,
    /// Only the exit code is wanted: other connectors take the responses.
    silent: bool,
}

struct State {
    out: Box<dyn Write + Send>,
    matched: bool,
    unscanned: bool,
}

impl Show {
    /// Writes to `out`; `progress` is moved out of the way meanwhile.
    pub(crate) fn new(style: Style, schema: Schema, out: Box<dyn Write + Send>, progress: view::Progress) -> Self {
        let state = State { out, matched: false, unscanned: false };
        Self { style, schema, state: Mutex::new(state), progress, silent: false }
    }

    /// The same, writing nothing.
    pub(crate) fn silent(mut self) -> Self {
        self.silent = true;
        self
    }

    /// Shows how far these intakes are.
    pub(crate) fn follow(&self, intakes: Vec<Arc<Progress>>) {
        self.progress.follow(intakes);
    }

    /// Takes the progress away, and sums up where a person reads along.
    pub(crate) fn finish(&self) -> std::io::Result<()> {
        self.progress.finish();
        match &self.style {
            Style::Tree(look) if !self.silent => writeln!(self.state.lock().out, "{}", self.progress.summary(*look)),
            _ => Ok(()),
        }
    }

    /// What the responses so far say of the exit code.
    pub(crate) fn exit(&self, fail_on_match: bool) -> Exit {
        let state = self.state.lock();
        if state.unscanned {
            Exit::Unscanned
        } else if fail_on_match && state.matched {
            Exit::Matched
        } else {
            Exit::Clean
        }
    }

    fn text(&self, item: &Item, response: &Response) -> Result<Vec<u8>, serde_json::Error> {
        let mut text = match (&self.style, self.schema) {
            (Style::Tree(look), _) => view::tree(response, *look).into_bytes(),
            (Style::Lines, Schema::V3) => item.json.to_vec(),
            (Style::Lines, Schema::V2) => serde_json::to_vec(&to_v2(response))?,
            (Style::Json, Schema::V3) => stoq_connectors::common::text::indented(&item.json, INDENT),
            (Style::Json, Schema::V2) => {
                stoq_connectors::common::text::indented(&serde_json::to_vec(&to_v2(response))?, INDENT)
            }
        };
        if !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        Ok(text)
    }
}

/// stoQ's indentation.
const INDENT: usize = 4;

#[async_trait]
impl Connector for Show {
    async fn deliver(&self, batch: &[Item]) -> Result<Vec<Verdict>, Fault> {
        let mut verdicts = Vec::with_capacity(batch.len());
        for item in batch {
            let response: Response = match serde_json::from_slice(&item.json) {
                Ok(response) => response,
                Err(error) => {
                    verdicts.push(Verdict::Rejected(format!("not a response: {error}")));
                    continue;
                }
            };
            let text = if self.silent { Vec::new() } else { self.text(item, &response).map_err(unwritable)? };
            self.progress.response(&response);
            self.progress.aside(|| self.state.lock().take(&response, &text)).map_err(unwritable)?;
            verdicts.push(Verdict::Delivered);
        }
        Ok(verdicts)
    }
}

fn unwritable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
    Fault::because(FaultKind::Refused, "standard output cannot be written", error)
}

impl State {
    /// Notes a response and writes its text at once, so that responses never mix.
    fn take(&mut self, response: &Response, text: &[u8]) -> std::io::Result<()> {
        self.matched |= response.has_match();
        self.unscanned |= !scanned_in_full(response);
        self.out.write_all(text).and_then(|()| self.out.flush())
    }
}

/// Nothing in the response says that something was not looked at.
fn scanned_in_full(response: &Response) -> bool {
    let unscanned = |kind: FindingKind| {
        matches!(
            kind,
            FindingKind::Unfetched
                | FindingKind::SizeLimit
                | FindingKind::PluginStopped
                | FindingKind::Quarantined
                | FindingKind::Missing
                | FindingKind::DepthLimit
                | FindingKind::PayloadLimit
                | FindingKind::ByteLimit
                | FindingKind::ExpansionLimit
                | FindingKind::TimeLimit
        )
    };
    let mut findings = response.findings.iter().chain(response.results.iter().flat_map(|r| &r.findings));
    let mut runs = response.results.iter().flat_map(|r| &r.runs);
    response.complete
        && !findings.any(|finding| unscanned(finding.kind))
        && !runs.any(|run| matches!(run.status, RunStatus::TimedOut | RunStatus::Killed | RunStatus::Cut))
}
