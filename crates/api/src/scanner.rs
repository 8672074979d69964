//! Pure plugins: workers and dispatchers that read bytes and nothing else.
//!
//! They run in a jailed slot: no files, no network, no clock but the deadline they are given, one thread. Bytes go in,
//! results and children come out. Whatever else a plugin needs (rules, word lists) it gets when it is built.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use crate::budget::SpentKind;
use crate::digest::Sha256;
use crate::finding::Finding;
use crate::payload::{Ancestor, PayloadMeta, RequestMeta};

/// The payload in front of a plugin, with what earlier rounds found.
pub struct Payload<'a> {
    /// Distinct for each payload that this process scans: a plugin in two roles may keep one pass for both under it.
    pub serial: u64,
    /// The bytes.
    pub content: &'a [u8],
    /// Their digest, where whoever asks has computed it already over the very same bytes.
    pub sha256: Option<Sha256>,
    /// Its metadata.
    pub meta: &'a PayloadMeta,
    /// The request's metadata.
    pub request_meta: &'a RequestMeta,
    /// The payloads above it, root first.
    pub ancestors: &'a [Ancestor],
    /// What each dispatcher said of it, by dispatcher.
    pub dispatch_meta: &'a Map<String, Value>,
    /// Results of workers of earlier rounds, by worker.
    pub results: &'a Map<String, Value>,
}

/// A worker: looks at one payload.
pub trait Scanner: Send + Sync {
    /// Scans one payload. Children go out through `cx` as they are found.
    ///
    /// # Errors
    /// The payload cannot be scanned at all. What was emitted before stays, and so do findings put into `cx`; a partial
    /// answer is better returned as [`Output`] with errors in it.
    fn scan(&self, payload: &Payload<'_>, cx: &mut Context<'_>) -> Result<Output, ScanError>;

    /// Its part that looks at several payloads side by side, if it has one.
    fn ahead(&self) -> Option<&dyn Ahead> {
        None
    }
}

/// What a worker does for several payloads at once because it costs less than one by one.
pub trait Ahead {
    /// Called before the first of `upcoming` is scanned, on the same thread. What is found is kept under their serials for
    /// [`Scanner::scan`], for a while: not every one of them need come, and one that is not among them may.
    fn look(&self, upcoming: &[Upcoming<'_>]);
}

/// A payload that a worker is likely to be handed next.
pub struct Upcoming<'a> {
    /// As [`Payload::serial`].
    pub serial: u64,
    /// The bytes.
    pub content: &'a [u8],
}

/// A dispatcher: says which workers a payload needs.
pub trait Dispatcher: Send + Sync {
    /// Called in every round, so that it can react to results of earlier rounds.
    ///
    /// # Errors
    /// As for [`Scanner::scan`]; no names are added then.
    fn dispatch(&self, payload: &Payload<'_>, cx: &mut Context<'_>) -> Result<Dispatch, ScanError>;
}

/// What a worker answers.
#[derive(Debug, Default)]
pub struct Output {
    /// Stored under the worker's name; `None` stores nothing.
    pub results: Option<Value>,
    /// Errors that did not stop the worker, as plain sentences.
    pub errors: Vec<String>,
    /// Workers to run on the same payload.
    pub dispatch_to: Vec<String>,
}

impl Output {
    /// An answer with results only.
    pub fn of(results: impl Into<Value>) -> Self {
        Self { results: Some(results.into()), ..Self::default() }
    }
}

/// What a dispatcher answers.
#[derive(Debug, Default)]
pub struct Dispatch {
    /// Workers to run, each with the reason for a person (`rule pe_in_document`).
    pub plugins: Vec<(String, String)>,
    /// Kept for workers in `dispatch_meta` under the dispatcher's name.
    pub meta: Value,
    /// `Some(false)` keeps destination archivers away from the payload.
    pub should_archive: Option<bool>,
    /// Errors that did not stop the dispatcher.
    pub errors: Vec<String>,
}

/// Why a plugin gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The content is not what the plugin reads, or is broken beyond use.
    #[error("{0}")]
    Failed(String),
    /// The scan's budget is used up.
    #[error("the scan's budget of {0} is used up")]
    Spent(SpentKind),
    /// The plugin noticed its deadline.
    #[error("out of time")]
    Expired,
    /// Reading or writing inside the slot failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ScanError {
    /// A failure said in one sentence.
    pub fn failed(text: impl Into<String>) -> Self {
        Self::Failed(text.into())
    }
}

/// Where a plugin's children, findings and questions about limits go.
pub struct Context<'a> {
    sink: &'a mut dyn Sink,
    deadline: Option<Instant>,
    findings: Vec<Finding>,
    before: Duration,
}

/// Takes children away from a plugin: the slot's wire, or memory when nothing is jailed. At most one child is open.
pub trait Sink {
    /// Bytes and children that the scan may still produce.
    fn remaining(&self) -> Remaining;
    /// Opens a child.
    ///
    /// # Errors
    /// No further child is allowed ([`SpentKind`] inside), or the way out is closed.
    fn open(&mut self, meta: PayloadMeta) -> io::Result<()>;
    /// The open child's next bytes.
    ///
    /// # Errors
    /// As for `open`.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Closes the open child; `keep` says whether it counts.
    ///
    /// # Errors
    /// The way out is closed.
    fn close(&mut self, keep: bool) -> io::Result<()>;
}

/// What the scan's budgets leave for this payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Remaining {
    /// Children.
    pub children: u64,
    /// Bytes of children.
    pub bytes: u64,
}

/// A budget that a [`Sink`] refused to exceed, carried inside an [`io::Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the scan's budget of {0} is used up")]
pub struct Spent(pub SpentKind);

impl Spent {
    /// As an [`io::Error`], for a [`Sink`].
    pub fn into_io(self) -> io::Error {
        io::Error::new(io::ErrorKind::QuotaExceeded, self)
    }

    /// The budget, if `error` came from one.
    pub fn in_io(error: &io::Error) -> Option<SpentKind> {
        error.get_ref().and_then(|e| e.downcast_ref::<Self>()).map(|s| s.0)
    }
}

impl<'a> Context<'a> {
    /// A context over `sink` that expires at `deadline`.
    pub fn new(sink: &'a mut dyn Sink, deadline: Option<Instant>) -> Self {
        Self { sink, deadline, findings: Vec::new(), before: Duration::ZERO }
    }

    /// The deadline has passed: stop and return what there is. The supervisor kills a slot some time after it.
    pub fn expired(&self) -> bool {
        self.deadline.is_some_and(|d| Instant::now() >= d)
    }

    /// The deadline, for engines that take one.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Says how much of the time before this call was work on this payload ([`Ahead::look`]); it counts as the plugin's.
    pub fn worked_before(&mut self, time: Duration) {
        self.before = time;
    }

    /// What [`Context::worked_before`] was told.
    pub fn before(&self) -> Duration {
        self.before
    }

    /// What the scan's budgets leave.
    pub fn remaining(&self) -> Remaining {
        self.sink.remaining()
    }

    /// Emits a whole child.
    ///
    /// # Errors
    /// The budget is used up, or the slot's wire is gone.
    pub fn emit(&mut self, content: &[u8], meta: PayloadMeta) -> Result<(), ScanError> {
        let mut child = self.child(meta)?;
        child.write_all(content).map_err(spent_or_io)?;
        child.keep()
    }

    /// Opens a child whose bytes are written as they come.
    ///
    /// # Errors
    /// As for [`Context::emit`].
    pub fn child(&mut self, meta: PayloadMeta) -> Result<ChildWriter<'_>, ScanError> {
        self.sink.open(meta).map_err(spent_or_io)?;
        Ok(ChildWriter { sink: self.sink, written: 0, open: true })
    }

    /// Notes a finding about the scan of this payload.
    pub fn find(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// The findings so far.
    pub fn into_findings(self) -> Vec<Finding> {
        self.findings
    }
}

/// A child that is being written. Dropping it without [`ChildWriter::keep`] discards the child.
pub struct ChildWriter<'a> {
    sink: &'a mut dyn Sink,
    written: u64,
    open: bool,
}

impl ChildWriter<'_> {
    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The child is complete.
    ///
    /// # Errors
    /// The slot's wire is gone.
    pub fn keep(mut self) -> Result<(), ScanError> {
        self.open = false;
        self.sink.close(true).map_err(spent_or_io)
    }
}

impl Write for ChildWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sink.write(bytes)?;
        self.written += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for ChildWriter<'_> {
    fn drop(&mut self) {
        if self.open {
            // The wire being gone ends the slot anyway; there is nobody left to tell.
            self.sink.close(false).ok();
        }
    }
}

/// Turns a sink's error into the scan's: a spent budget stays one.
pub fn spent_or_io(error: io::Error) -> ScanError {
    match Spent::in_io(&error) {
        Some(kind) => ScanError::Spent(kind),
        None => ScanError::Io(error),
    }
}

/// A plugin as it is known before it is built.
#[derive(Clone, Debug)]
pub struct PluginInfo {
    /// Name used in configuration, routes and results.
    pub name: &'static str,
    /// One line for `stoq list`.
    pub description: &'static str,
    /// The roles it can take.
    pub kinds: &'static [PluginKind],
    /// Its options with their defaults.
    pub options: &'static [OptionInfo],
    /// Workers that must have run on a payload before it.
    pub required_workers: &'static [&'static str],
}

/// stoQ's six kinds of plugins, and the three kinds of what stands around them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PluginKind {
    /// Brings payloads.
    Provider,
    /// Keeps or fetches payloads.
    Archiver,
    /// Chooses workers.
    Dispatcher,
    /// Looks at payloads.
    Worker,
    /// Adds to a finished response.
    Decorator,
    /// Takes responses away.
    Connector,
    /// Holds queues: a broker.
    Queue,
    /// Keeps open scans.
    Ledger,
    /// Keeps payloads on their way.
    Store,
}

impl PluginKind {
    /// The name that stoQ prints, and ours for what it has no word for.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Provider => "Provider",
            Self::Archiver => "Archiver",
            Self::Dispatcher => "Dispatcher",
            Self::Worker => "Worker",
            Self::Decorator => "Decorator",
            Self::Connector => "Connector",
            Self::Queue => "Queue",
            Self::Ledger => "Ledger",
            Self::Store => "Store",
        }
    }
}

/// One option of a plugin.
#[derive(Clone, Copy, Debug)]
pub struct OptionInfo {
    /// Its key.
    pub name: &'static str,
    /// How its text form (`stoq.cfg`, `--plugin-opts`, environment) is read.
    pub kind: OptionKind,
    /// Its default as it would stand in a TOML file; empty when there is none.
    pub default: &'static str,
    /// One line of help.
    pub help: &'static str,
}

impl OptionInfo {
    /// Several lists as one, whose length is `N`: what plugins have in common is said once.
    ///
    /// # Panics
    /// The lists together are longer or shorter; while compiling, where lists are constants.
    pub const fn joined<const N: usize>(lists: &[&[Self]]) -> [Self; N] {
        let mut all = [Self { name: "", kind: OptionKind::Bool, default: "", help: "" }; N];
        let (mut list, mut at) = (0, 0);
        while list < lists.len() {
            let mut one = 0;
            while one < lists[list].len() {
                all[at] = lists[list][one];
                at += 1;
                one += 1;
            }
            list += 1;
        }
        assert!(at == N, "the length of a list of options");
        all
    }
}

/// Types of options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionKind {
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Int,
    /// A number.
    Float,
    /// Text.
    Text,
    /// A list of texts; in text form separated by commas.
    List,
    /// Bytes, with a unit such as `50 MB` or `64 KiB`, or a plain number.
    Size,
    /// Seconds, with a unit such as `45 s`, or a plain number.
    Duration,
    /// Files or folders that are read when the plugin is built; see [`Build::files`].
    Files,
    /// Any JSON.
    Json,
}

/// A file named by an option, read by the process that starts the slots.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct SourceFile {
    /// The option that named it.
    pub option: String,
    /// Its path as shown in messages.
    pub name: String,
    /// Its bytes.
    pub content: Vec<u8>,
}

/// What a plugin is built from.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Build {
    /// Its options, checked against [`PluginInfo::options`] and of their types; sizes are bytes, durations seconds.
    pub options: Map<String, Value>,
    /// The files that options of kind [`OptionKind::Files`] name, in order of path.
    pub files: Vec<SourceFile>,
}

impl Build {
    /// Reads the options into a plugin's own configuration type.
    ///
    /// # Errors
    /// An option is unknown or of the wrong type; the text names it.
    pub fn config<T: serde::de::DeserializeOwned>(&self) -> Result<T, BuildError> {
        serde_json::from_value(Value::Object(self.options.clone())).map_err(|e| BuildError(e.to_string()))
    }

    /// The files that `option` names.
    pub fn files_of(&self, option: &str) -> impl Iterator<Item = &SourceFile> {
        self.files.iter().filter(move |f| f.option == option)
    }
}

/// A plugin cannot be built; the text says what is wrong with which option or file.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BuildError(pub String);

/// A plugin that is ready to run.
#[derive(Clone, Default)]
pub struct Built {
    /// Its worker role.
    pub scanner: Option<Arc<dyn Scanner>>,
    /// Its dispatcher role.
    pub dispatcher: Option<Arc<dyn Dispatcher>>,
    /// Workers that must run before it, beside those of its [`PluginInfo`].
    pub required_workers: BTreeSet<String>,
    /// What was left out while building, for a person: a rule that does not compile, with its place.
    pub warnings: Vec<String>,
    /// Identifies the rules in use (a digest), where there are any.
    pub ruleset: Option<String>,
}

/// One entry of the list of built-in plugins.
#[derive(Clone)]
pub struct Registration {
    /// What is known before building.
    pub info: PluginInfo,
    /// Builds it.
    pub build: fn(&Build) -> Result<Built, BuildError>,
}
