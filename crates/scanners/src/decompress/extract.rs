//! What all formats share: limits, the way of a member's bytes into a child, and the report about it.

use std::io::{self, Read, Write};
use std::time::Instant;

use serde_json::{Map, Value, json};
use stoq_api::bounded::{BoundedReader, OverLimit};
use stoq_api::budget::SpentKind;
use stoq_api::finding::{Finding, FindingKind};
use stoq_api::payload::PayloadMeta;
use stoq_api::scanner::{Context, Output, Payload, ScanError, spent_or_io};

use super::codec::{self, MemberError};
use super::config::Config;
use super::names::{self, shown};

/// Members that results list; beyond that they are only counted.
const MAX_LISTED: usize = 1_000;
/// Bytes of that list as JSON.
const MAX_LISTED_BYTES: usize = 1 << 20;
/// Findings about single members; beyond that they are counted in one more.
const MAX_FINDINGS: usize = 32;
/// Kinds of oddities that results name.
const MAX_ANOMALIES: usize = 32;
/// Characters of a comment that are kept.
const MAX_COMMENT: usize = 4_096;
/// Characters of a member's error that are kept.
const MAX_ERROR: usize = 300;
/// Bytes that pass from a decompressor to a child at a time.
const CHUNK: usize = 32 << 10;
/// Bytes that any archive may give, whatever `max_ratio` says: small ones may expand a lot harmlessly.
const RATIO_FLOOR: u64 = 64 << 20;

/// The mark of a child that ends before its member does.
const TRUNCATED: &str = "truncated";

/// Why a format's reader stops before its end.
pub(super) enum Stop {
    /// A limit of this plugin, or the deadline, was reached and is already reported; what was found counts.
    Enough,
    /// The scan of the payload ends here.
    Scan(ScanError),
}

impl From<ScanError> for Stop {
    fn from(error: ScanError) -> Self {
        Self::Scan(error)
    }
}

/// A time as MS-DOS kept it: local, in steps of two seconds. Which zone is not known, so none is said.
pub(super) fn dos_time(date: u16, time: u16) -> Option<String> {
    let (year, month, day) = (1980 + (date >> 9), date >> 5 & 15, date & 31);
    let (hour, minute, second) = (time >> 11, time >> 5 & 63, (time & 31) * 2);
    let is_time = (1..=12).contains(&month) && day > 0 && hour < 24 && minute < 60 && second < 60;
    is_time.then(|| format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"))
}

/// What is known of a member before its bytes are read.
#[derive(Clone, Default)]
pub(super) struct Member {
    /// See [`names::path`].
    pub(super) path: String,
    pub(super) kind: Kind,
    /// As stated by the archive, in bytes.
    pub(super) size: Option<u64>,
    /// As stated by the archive, in bytes.
    pub(super) compressed_size: Option<u64>,
    pub(super) crc: Option<u32>,
    pub(super) mtime: Option<String>,
    pub(super) method: Option<String>,
    pub(super) encrypted: bool,
    /// Not in the archive's own list of members.
    pub(super) hidden: bool,
    /// Where a link leads to.
    pub(super) link: Option<String>,
    /// Opens the member.
    pub(super) password: Option<String>,
}

/// What a member is.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    File,
    Directory,
    Link,
    Device,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Link => "link",
            Self::Device => "device",
        }
    }
}

/// What became of a member.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Extracted {
    /// All of it is a child.
    Whole,
    /// A part of it, or damaged data, is a child.
    Partly,
    /// It is not.
    Not,
}

/// A member's data, from the start each time that it is called.
pub(super) type Open<'o, 'm> = &'o mut dyn FnMut() -> io::Result<Box<dyn Read + 'm>>;

/// The run over one archive.
pub(super) struct Extraction<'a, 'c> {
    cx: &'a mut Context<'c>,
    config: &'a Config,
    report: Report,
    /// Tried in this order; [`Extraction::opened_with`] moves one to the front.
    passwords: Vec<String>,
    stream_name: Option<String>,
    buffer: Vec<u8>,
    /// Bytes that may still come out of this archive.
    ratio_left: u64,
    findings: usize,
    /// What is wrong with the archive as a whole.
    broken: Option<String>,
}

#[derive(Default)]
struct Report {
    format: &'static str,
    members: u64,
    extracted: u64,
    encrypted: bool,
    password: Option<String>,
    comment: Option<String>,
    anomalies: Vec<String>,
    files: Vec<Value>,
    /// Bytes of `files` as JSON.
    listed: usize,
    truncated: bool,
}

impl<'a, 'c> Extraction<'a, 'c> {
    pub(super) fn new(
        cx: &'a mut Context<'c>,
        config: &'a Config,
        payload: &Payload<'_>,
        format: &'static str,
        passwords: Vec<String>,
    ) -> Self {
        let allowed = (payload.content.len() as u64).saturating_mul(config.max_ratio).max(RATIO_FLOOR);
        Self {
            cx,
            config,
            report: Report { format, ..Report::default() },
            passwords,
            stream_name: payload.meta.filename().map(str::to_owned),
            buffer: vec![0; CHUNK],
            ratio_left: allowed,
            findings: 0,
            broken: None,
        }
    }

    /// The archive's own name, if it has one.
    pub(super) fn archive_name(&self) -> Option<&str> {
        self.stream_name.as_deref()
    }

    /// Candidates, the one that opened the last member first.
    pub(super) fn passwords(&self) -> &[String] {
        &self.passwords
    }

    /// Bytes of the largest member that is extracted.
    pub(super) fn largest(&self) -> u64 {
        self.config.maximum_size.min(self.ratio_left)
    }

    /// When this run has to end.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.cx.deadline()
    }

    /// Why a member that states `size` is left out, if that is too much.
    pub(super) fn over_size(&self, size: u64) -> Option<io::Error> {
        let limit = self.largest();
        (size > limit).then(|| io::Error::new(io::ErrorKind::FileTooLarge, OverLimit { limit }))
    }

    /// `password` opened something: it is tried first from now on.
    pub(super) fn opened_with(&mut self, password: &str) {
        if let Some(at) = self.passwords.iter().position(|p| p == password) {
            self.passwords[..=at].rotate_right(1);
        }
        self.report.password.get_or_insert_with(|| password.to_owned());
    }

    /// The archive's comment.
    pub(super) fn comment(&mut self, text: String) {
        if !text.is_empty() {
            self.report.comment = Some(names::cut(text, MAX_COMMENT));
        }
    }

    /// Something odd about the archive that does not keep anything from being read. Each is noted once.
    pub(super) fn anomaly(&mut self, text: impl Into<String>) {
        let text = text.into();
        if self.report.anomalies.len() < MAX_ANOMALIES && !self.report.anomalies.contains(&text) {
            self.report.anomalies.push(text);
        }
    }

    /// The archive as a whole is damaged; `text` says how. Members found before or after still count.
    pub(super) fn broken(&mut self, text: impl Into<String>) {
        self.unreadable(FindingKind::MemberUnreadable, text.into());
    }

    /// The archive as a whole asks for more than is spent on it; `text` gives the figures.
    pub(super) fn too_much(&mut self, text: impl Into<String>) {
        self.unreadable(FindingKind::PluginLimit, text.into());
    }

    fn unreadable(&mut self, kind: FindingKind, text: String) {
        let text = names::cut(text, MAX_ERROR);
        self.report.truncated = true;
        self.find(kind, format!("{}: {text}", self.report.format));
        self.broken.get_or_insert(text);
    }

    /// The archive's list of members is encrypted, and no password opens it.
    pub(super) fn locked(&mut self, text: impl Into<String>) {
        self.report.encrypted = true;
        self.report.truncated = true;
        self.find(FindingKind::MemberUnreadable, format!("{}: {}", self.report.format, text.into()));
    }

    /// A limit ends the reading; `text` says which, with the figures.
    pub(super) fn enough(&mut self, text: impl Into<String>) -> Stop {
        self.report.truncated = true;
        self.cx.find(Finding::new(FindingKind::PluginLimit, text));
        Stop::Enough
    }

    /// To be called before each member is read: counts it, and looks at the clock.
    ///
    /// # Errors
    /// There are too many members, or no time is left.
    pub(super) fn next(&mut self) -> Result<(), Stop> {
        if self.report.members >= self.config.max_members {
            let text = format!("more members than max_members ({}); the rest was not read", self.config.max_members);
            return Err(self.enough(text));
        }
        self.on_time()?;
        self.report.members += 1;
        Ok(())
    }

    /// Looks at the clock.
    ///
    /// # Errors
    /// No time is left.
    pub(super) fn on_time(&mut self) -> Result<(), Stop> {
        if !self.cx.expired() {
            return Ok(());
        }
        self.report.truncated = true;
        let text = format!("out of time after {} members; the rest was not read", self.report.members);
        self.cx.find(Finding::new(FindingKind::TimeLimit, text));
        Err(Stop::Enough)
    }

    /// Lists what is not a file.
    pub(super) fn list(&mut self, member: &Member) {
        self.entry(member, Extracted::Not, None);
    }

    /// Lists a member that cannot be read, and says so in a finding.
    pub(super) fn refuse(&mut self, member: &Member, error: &io::Error) {
        let (kind, text) = describe(error, self.config.maximum_size);
        self.find(kind, format!("member {}: {text}", shown(&member.path)));
        self.entry(member, Extracted::Not, Some(&text));
    }

    /// Reads a member into a child; see the module's documentation for what becomes of damaged ones. `open` may be called
    /// a second time.
    ///
    /// # Errors
    /// The scan's budget is spent, or a limit ends the reading.
    pub(super) fn extract(&mut self, member: &Member, open: Open<'_, '_>) -> Result<Extracted, Stop> {
        let (written, error) = match self.stream(self.meta(member, None), open, None)? {
            Ok(()) => {
                self.report.extracted += 1;
                self.entry(member, Extracted::Whole, None);
                return Ok(Extracted::Whole);
            }
            Err(broken) => broken,
        };
        let (kind, text) = describe(&error, self.config.maximum_size);
        let mut kept = Extracted::Not;
        if let Some(mark) = salvage(&error).filter(|_| written > 0 && member.password.is_none())
            && self.stream(self.meta(member, Some(mark)), open, Some(written))?.is_ok()
        {
            self.report.extracted += 1;
            self.report.truncated |= mark == TRUNCATED;
            kept = Extracted::Partly;
        }
        let part = if kept == Extracted::Partly { format!(" ({written} bytes of it are kept)") } else { String::new() };
        self.find(kind, format!("member {}: {text}{part}", shown(&member.path)));
        self.entry(member, kept, Some(&text));
        Ok(kept)
    }

    /// Reads a member to its end without keeping anything: whether it can be read, and with the checksum that it states.
    ///
    /// # Errors
    /// No time is left.
    pub(super) fn proves(&mut self, open: Open<'_, '_>) -> Result<bool, Stop> {
        let Ok(reader) = open() else { return Ok(false) };
        let mut reader = BoundedReader::new(reader, self.config.maximum_size);
        loop {
            self.on_time()?;
            match reader.read(&mut self.buffer) {
                Ok(0) => return Ok(true),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // It would be left out for its size, but the password is right so far.
                Err(error) => return Ok(OverLimit::is(&error)),
            }
        }
    }

    /// Reads over what is left of a member that stands before others. It counts as output.
    ///
    /// # Errors
    /// No time is left, or the archive has given as much as it may.
    pub(super) fn skip(&mut self, reader: &mut dyn Read) -> Result<(), Stop> {
        loop {
            self.on_time()?;
            let n = match reader.read(&mut self.buffer) {
                Ok(n) => n as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // Whoever reads on meets it again.
                Err(_) => return Ok(()),
            };
            if n == 0 {
                return Ok(());
            }
            self.ratio_left = self.ratio_left.saturating_sub(n);
            if self.ratio_left == 0 {
                return Err(self.over_ratio());
            }
        }
    }

    fn over_ratio(&mut self) -> Stop {
        let ratio = self.config.max_ratio;
        self.enough(format!("the archive expands to over {ratio} times its size (max_ratio)"))
    }

    /// Writes what `open` gives into a child, or its first `most` bytes. On trouble with the data the child is
    /// discarded, and the answer is how much there was.
    fn stream(
        &mut self,
        meta: PayloadMeta,
        open: Open<'_, '_>,
        most: Option<u64>,
    ) -> Result<Result<(), (u64, io::Error)>, Stop> {
        let reader = match open() {
            Ok(reader) => reader.take(most.unwrap_or(u64::MAX)),
            Err(error) => return Ok(Err((0, error))),
        };
        // One byte more than the budget, so that the sink sees the excess and says which budget it is.
        let budget = self.cx.remaining().bytes.saturating_add(1);
        let limit = self.config.maximum_size.min(budget).min(self.ratio_left);
        let mut reader = BoundedReader::new(reader, limit);
        let deadline = self.cx.deadline();
        let mut child = self.cx.child(meta)?;
        let ended = loop {
            if deadline.is_some_and(|d| Instant::now() >= d) {
                break None;
            }
            match reader.read(&mut self.buffer) {
                Ok(0) => break Some(Ok(())),
                Ok(n) => child.write_all(&self.buffer[..n]).map_err(spent_or_io)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Some(Err(error)),
            }
        };
        let written = child.written();
        match ended {
            Some(Ok(())) => {
                child.keep()?;
                self.ratio_left -= written;
                Ok(Ok(()))
            }
            Some(Err(error)) => {
                drop(child);
                if OverLimit::is(&error) && limit < self.config.maximum_size {
                    if limit == budget {
                        return Err(ScanError::Spent(SpentKind::Bytes).into());
                    }
                    return Err(self.over_ratio());
                }
                Ok(Err((written, error)))
            }
            None => {
                drop(child);
                self.on_time()?;
                Ok(Err((written, io::Error::from(io::ErrorKind::TimedOut))))
            }
        }
    }

    /// A child's metadata.
    fn meta(&self, member: &Member, mark: Option<&str>) -> PayloadMeta {
        let mut extra_data = Map::new();
        let name = names::base(&member.path).unwrap_or_else(|| "unnamed".to_owned());
        extra_data.insert("filename".into(), name.into());
        extra_data.insert("path".into(), member.path.as_str().into());
        if let Some(password) = &member.password {
            extra_data.insert("password".into(), password.as_str().into());
        }
        if let Some(mark) = mark {
            extra_data.insert(mark.into(), true.into());
        }
        PayloadMeta {
            should_archive: self.config.archive_extracted,
            should_scan: true,
            extra_data,
            dispatch_to: self.config.always_dispatch.clone(),
        }
    }

    fn find(&mut self, kind: FindingKind, text: String) {
        self.findings += 1;
        if self.findings <= MAX_FINDINGS {
            self.cx.find(Finding::new(kind, text));
        }
    }

    /// One line of the list of members.
    fn entry(&mut self, member: &Member, extracted: Extracted, error: Option<&str>) {
        self.report.encrypted |= member.encrypted;
        if names::leads_out(&member.path) {
            self.anomaly("a path leads out of the folder that it is unpacked into");
        }
        if self.report.files.len() >= MAX_LISTED || self.report.listed >= MAX_LISTED_BYTES {
            self.report.truncated = true;
            return;
        }
        let mut entry = Map::new();
        entry.insert("path".into(), member.path.as_str().into());
        if member.kind != Kind::File {
            entry.insert("kind".into(), member.kind.name().into());
        }
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                entry.insert(key.to_owned(), value);
            }
        };
        put("link", member.link.as_deref().map(Value::from));
        put("size", member.size.map(Value::from));
        put("compressed_size", member.compressed_size.map(Value::from));
        put("crc", member.crc.map(|c| format!("{c:08x}").into()));
        put("mtime", member.mtime.as_deref().map(Value::from));
        put("method", member.method.as_deref().map(Value::from));
        put("encrypted", Some(member.encrypted.into()));
        put("hidden", member.hidden.then_some(Value::Bool(true)));
        put("extracted", Some((extracted != Extracted::Not).into()));
        put("error", error.map(Value::from));
        let entry = Value::from(entry);
        self.report.listed += entry.to_string().len();
        self.report.files.push(entry);
    }

    /// The plugin's answer.
    ///
    /// # Errors
    /// The scan ends here, or there was not one member to be found.
    pub(super) fn finish(self, ended: Result<(), Stop>) -> Result<Output, ScanError> {
        if let Err(Stop::Scan(error)) = ended {
            return Err(error);
        }
        if self.findings > MAX_FINDINGS {
            let text = format!("{} more members could not be read", self.findings - MAX_FINDINGS);
            self.cx.find(Finding::new(FindingKind::MemberUnreadable, text));
        }
        let report = self.report;
        if let Some(text) = self.broken.filter(|_| report.members == 0) {
            return Err(ScanError::Failed(format!("{} archive cannot be read: {text}", report.format)));
        }
        let mut results = json!({
            "format": report.format,
            "members": report.members,
            "extracted": report.extracted,
            "encrypted": report.encrypted,
        });
        if let Some(password) = report.password {
            results["password"] = password.into();
        }
        if let Some(comment) = report.comment {
            results["comment"] = comment.into();
        }
        if !report.anomalies.is_empty() {
            results["anomalies"] = report.anomalies.into();
        }
        results["files"] = report.files.into();
        results["truncated"] = report.truncated.into();
        Ok(Output::of(results))
    }
}

/// What a trouble with a member's data is called, and the kind of finding that it makes.
fn describe(error: &io::Error, maximum_size: u64) -> (FindingKind, String) {
    if OverLimit::is(error) {
        let text = format!("larger than maximum_size ({maximum_size} bytes)");
        return (FindingKind::PluginLimit, text);
    }
    if codec::is_memory(error) {
        return (FindingKind::PluginLimit, format!("needs a dictionary of more than {} bytes", codec::MAX_DICTIONARY));
    }
    let member = error.get_ref().and_then(|e| e.downcast_ref::<MemberError>());
    let kind = if member.is_some_and(MemberError::is_limit) {
        FindingKind::PluginLimit
    } else {
        FindingKind::MemberUnreadable
    };
    (kind, names::cut(shown(&error.to_string()).into_owned(), MAX_ERROR))
}

/// The mark in a child's metadata under which incomplete or wrong data are kept; `None` if they are not.
fn salvage(error: &io::Error) -> Option<&'static str> {
    if OverLimit::is(error) || codec::is_memory(error) {
        return None;
    }
    match error.get_ref().and_then(|e| e.downcast_ref::<MemberError>()) {
        Some(MemberError::Checksum { .. }) => Some("checksum_mismatch"),
        Some(MemberError::Size { .. }) | None => Some(TRUNCATED),
        Some(_) => None,
    }
}
