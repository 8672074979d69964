//! Shows responses as they come: the connector of `stoq scan`.

use std::borrow::Cow;
use std::cell::Cell;
use std::io::Write;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use stoq_api::plugin::{Connector, Item, Verdict};
use stoq_api::response::v2::to_v2;
use stoq_api::response::{PayloadResults, stream};
use stoq_api::{Fault, FaultKind, FindingKind, Response, RunStatus};
use stoq_engine::intake::Progress;
use stoq_jail::memfd;

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

    /// Reads a response and sums it up, keeping no more of it than is shown.
    fn read(&self, json: &[u8]) -> serde_json::Result<Seen> {
        let (lean, whole) = match (&self.style, self.schema) {
            _ if self.silent => (false, false),
            (Style::Tree(_), _) => (true, false),
            (Style::Json | Style::Lines, Schema::V2) => (false, true),
            // Shown as it came.
            (Style::Json | Style::Lines, Schema::V3) => (false, false),
        };
        let mut sums = view::Totals::default();
        let (mut name, mut matched, mut unscanned, mut errors) = (None, false, false, 0);
        // How far it is read nobody says; what is not yet is looked up again.
        let passed = Cell::new(0_usize);
        let pass = || {
            passed.update(|count| count + 1);
            if passed.get().is_multiple_of(LET_GO_EVERY) {
                memfd::let_go(json);
            }
        };
        let response = stream::read(
            json,
            |payload| {
                pass();
                sums.payload(&payload);
                name.get_or_insert_with(|| view::name(&payload));
                matched |= payload.has_match();
                unscanned |= was_left_out(&payload);
                if lean { Some(view::slim(payload)) } else { whole.then_some(payload) }
            },
            |error| {
                pass();
                errors += 1;
                (lean || whole).then_some(error)
            },
        )?;
        memfd::let_go(json);
        sums.errors += errors;
        sums.scan(&response);
        unscanned |= !response.complete || response.findings.iter().any(|finding| says_unscanned(finding.kind));
        Ok(Seen { response, sums, name, matched, unscanned })
    }

    fn text<'a>(&self, item: &'a Item, response: &Response) -> Result<Cow<'a, [u8]>, serde_json::Error> {
        Ok(match (&self.style, self.schema) {
            (Style::Tree(look), _) => view::tree(response, *look).into_bytes().into(),
            (Style::Lines, Schema::V3) => Cow::Borrowed(&item.json),
            (Style::Lines, Schema::V2) => serde_json::to_vec(&to_v2(response))?.into(),
            (Style::Json, Schema::V3) => stoq_connectors::common::text::indented(&item.json, INDENT).into(),
            (Style::Json, Schema::V2) => {
                stoq_connectors::common::text::indented(&serde_json::to_vec(&to_v2(response))?, INDENT).into()
            }
        })
    }
}

/// A response that was read.
struct Seen {
    /// With those of its payloads that are shown.
    response: Response,
    sums: view::Totals,
    name: Option<String>,
    matched: bool,
    unscanned: bool,
}

/// stoQ's indentation.
const INDENT: usize = 4;

/// A large response lies in a file. Of what is mapped of it, so much is held at a time: payloads or errors while it is read,
/// and bytes while it is written.
const LET_GO_EVERY: usize = 500;
const PIECE: usize = 512 << 10;

#[async_trait]
impl Connector for Show {
    async fn deliver(&self, batch: &[Item]) -> Result<Vec<Verdict>, Fault> {
        let mut verdicts = Vec::with_capacity(batch.len());
        for item in batch {
            let seen = match self.read(&item.json) {
                Ok(seen) => seen,
                Err(error) => {
                    verdicts.push(Verdict::Rejected(format!("not a response: {error}")));
                    continue;
                }
            };
            let text = if self.silent { None } else { Some(self.text(item, &seen.response).map_err(unwritable)?) };
            self.progress.scanned(seen.sums, seen.name.as_deref());
            let mut state = self.state.lock();
            state.matched |= seen.matched;
            state.unscanned |= seen.unscanned;
            if let Some(text) = text {
                self.progress.aside(|| state.write(&text)).map_err(unwritable)?;
            }
            verdicts.push(Verdict::Delivered);
        }
        Ok(verdicts)
    }
}

fn unwritable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
    Fault::because(FaultKind::Refused, "standard output cannot be written", error)
}

impl State {
    /// Writes a response's text at once, so that responses never mix, and ends its last line.
    fn write(&mut self, text: &[u8]) -> std::io::Result<()> {
        for piece in text.chunks(PIECE) {
            self.out.write_all(piece)?;
            memfd::let_go(piece);
        }
        if !text.ends_with(b"\n") {
            self.out.write_all(b"\n")?;
        }
        self.out.flush()
    }
}

/// Something in a payload's results says that something was not looked at.
fn was_left_out(payload: &PayloadResults) -> bool {
    payload.findings.iter().any(|finding| says_unscanned(finding.kind))
        || payload.runs.iter().any(|run| matches!(run.status, RunStatus::TimedOut | RunStatus::Killed | RunStatus::Cut))
}

fn says_unscanned(kind: FindingKind) -> bool {
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
}
