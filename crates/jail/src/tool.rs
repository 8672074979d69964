//! Tool slots: programs of other people that read hostile bytes.
//!
//! A tool runs in a sandbox of its own kind (`sandbox::tool`): one program, its own files to read, a working directory
//! that is made for it and removed after it, no network, no further process. It gets the payload as a file of a fixed
//! name, so that nothing of the payload's own names reaches a command line, and gives back what it printed and, where the
//! profile asks for them, the files that it left. A [`Conversation`] keeps one process for many payloads.

mod helper;
mod process;
mod scratch;
mod session;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use stoq_api::{Content, Sha256};
use tokio::sync::Semaphore;

pub(crate) use self::helper::{MARKER, become_tool};
use self::session::Session;
use crate::error::JailError;
use crate::job::{StopReason, Stopped, Tenant};
use crate::sandbox::Mode;
use crate::spawn::Keeper;

/// Name of the payload in the tool's working directory.
pub const INPUT: &str = "input";
/// What almost any program reads before it does its work: its loader, libraries, what belongs to its locale.
pub const LIBRARIES: &[&str] = &["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"];
/// What perl reads beside [`LIBRARIES`].
pub const PERL: &[&str] = &["/etc/perl", "/usr/share/perl", "/usr/share/perl5", "/usr/local/share/perl"];
/// Bytes of a script that are read to find its interpreter.
const MAX_SHEBANG: usize = 256;

/// A tool, and what it may do.
#[derive(Clone, Debug)]
pub struct ToolProfile {
    /// The program or script, as an absolute path.
    pub program: PathBuf,
    /// Its arguments. The payload is the file [`INPUT`] in the working directory.
    pub arguments: Vec<String>,
    /// Its environment, as `NAME=value`; nothing else is in it.
    pub environment: Vec<String>,
    /// Files and directories that it may read: its libraries, the loader, what it is made of. The program itself and its
    /// interpreter and `/dev/null` are open to it anyway; what does not exist is passed over.
    pub read: Vec<PathBuf>,
    /// How many may run at the same time.
    pub slots: usize,
    /// Where working directories are made.
    pub scratch_dir: PathBuf,
    /// Its limits.
    pub limits: ToolLimits,
    /// Set for a tool that takes one payload after the other.
    pub conversation: Option<Conversation>,
    /// Whether it may run with less than a whole sandbox.
    pub mode: Mode,
    /// Least level of Landlock. [`Mode::Require`] asks for 1 at least: it is what keeps other files from a tool.
    pub landlock_min: u8,
}

/// Limits of a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolLimits {
    /// Wall clock for one payload.
    pub wall: Duration,
    /// CPU time for one payload.
    pub cpu: Duration,
    /// Memory for data, in bytes.
    pub memory: u64,
    /// Greatest standard output for one payload, in bytes; more stops it.
    pub stdout: usize,
    /// Standard error that is kept for one payload, in bytes.
    pub stderr: usize,
    /// Bytes of all files that it may leave in its working directory together; 0 lets it write nothing.
    pub scratch_bytes: u64,
    /// Files and directories that it may leave there.
    pub scratch_files: usize,
}

impl Default for ToolLimits {
    fn default() -> Self {
        Self {
            wall: Duration::from_secs(60),
            cpu: Duration::from_secs(30),
            memory: 512 << 20,
            stdout: 8 << 20,
            stderr: 64 << 10,
            scratch_bytes: 0,
            scratch_files: 0,
        }
    }
}

/// How to talk with a tool that reads requests from its standard input. `{nonce}` stands for a number that is another
/// one each time, so that what a payload makes the tool print cannot be taken for the end of an answer.
#[derive(Clone, Debug)]
pub struct Conversation {
    /// Lines that ask for the payload's answer.
    pub request: Vec<String>,
    /// The line that ends the answer.
    pub ready: String,
    /// Payloads after which the process is replaced.
    pub payloads: u32,
}

/// What a tool gave.
#[derive(Debug)]
pub struct ToolOutput {
    /// Its exit code; `None` in a conversation, where it goes on running.
    pub code: Option<i32>,
    /// What it printed; in a conversation, without the line that ends it.
    pub stdout: Bytes,
    /// What it complained about, cut at [`ToolLimits::stderr`].
    pub stderr: Bytes,
    /// Regular files that it left, by their path.
    pub files: Vec<ToolFile>,
}

/// A file that a tool left.
#[derive(Debug)]
pub struct ToolFile {
    /// Its path in the working directory. The names are the payload's.
    pub path: PathBuf,
    /// Its bytes.
    pub content: Content,
    /// Their digest.
    pub sha256: Sha256,
}

/// A tool gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ToolStop {
    /// It was stopped, or ended, over this payload.
    #[error("the tool was stopped ({:?}): {}", .0.reason, .0.detail)]
    Stopped(Stopped),
    /// It could not be run at all.
    #[error("the tool cannot be run")]
    Unavailable(#[source] JailError),
}

impl ToolStop {
    pub(crate) fn over(reason: StopReason, detail: impl Into<String>) -> Self {
        stoq_runtime::metrics::slot_killed(reason.name());
        Self::Stopped(Stopped { plugin: None, reason, detail: detail.into() })
    }

    pub(crate) fn unavailable(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Unavailable(JailError::start(what)(source))
    }
}

/// Runs one tool over payloads. Clones share its processes.
#[derive(Clone)]
pub struct Tool(Arc<Inner>);

struct Inner {
    profile: ToolProfile,
    keeper: Keeper,
    turns: Semaphore,
    /// Processes of a conversation that wait for their tenant's next payload; those that were used last at the end.
    idle: Mutex<Vec<(Tenant, Session)>>,
}

impl Tool {
    /// Whether this kernel can lock a tool in as [`Mode::Require`] asks for.
    pub fn is_supported() -> bool {
        crate::sandbox::has_landlock()
    }

    /// Prepares a tool. A script is run by the interpreter that it names.
    ///
    /// # Errors
    /// The program is not there, or its interpreter; or no thread can be had.
    pub fn new(mut profile: ToolProfile) -> Result<Self, JailError> {
        if profile.slots == 0 {
            return Err(JailError::Config("a tool needs at least 1 slot"));
        }
        if profile.conversation.is_some() && profile.limits.scratch_bytes > 0 {
            return Err(JailError::Config("a tool that takes one payload after the other cannot write files"));
        }
        let name = profile.program.to_string_lossy().into_owned();
        let mut arguments = vec![name.clone()];
        if let Some((interpreter, option)) = interpreter(&profile.program)? {
            arguments = vec![interpreter.to_string_lossy().into_owned()];
            arguments.extend(option);
            arguments.push(name);
            profile.read.push(std::mem::replace(&mut profile.program, interpreter));
        }
        arguments.append(&mut profile.arguments);
        profile.arguments = arguments;
        let keeper = Keeper::start().map_err(JailError::start("a thread"))?;
        let turns = Semaphore::new(profile.slots);
        Ok(Self(Arc::new(Inner { profile, keeper, turns, idle: Mutex::new(Vec::new()) })))
    }

    /// Runs the tool over one payload of a tenant, or of none, when it is its turn. No process sees payloads of two.
    ///
    /// # Errors
    /// It was stopped, or could not be run. A tool that fails over a payload by its exit code is an answer, not an error.
    pub async fn run(&self, content: &Content, tenant: Option<&str>) -> Result<ToolOutput, ToolStop> {
        let closed = || ToolStop::Unavailable(JailError::Config("the tool was shut down"));
        let _turn = self.0.turns.acquire().await.map_err(|_| closed())?;
        let (inner, content, tenant) = (Arc::clone(&self.0), content.clone(), tenant.map(Into::into));
        // As many blocking threads as there are turns; each does little but wait for its process.
        tokio::task::spawn_blocking(move || inner.run(&content, &tenant)).await.map_err(|_| closed())?
    }
}

impl Inner {
    fn run(&self, content: &Content, tenant: &Tenant) -> Result<ToolOutput, ToolStop> {
        let Some(conversation) = &self.profile.conversation else {
            return session::run_once(&self.profile, &self.keeper, content);
        };
        // A process that has seen other payloads may have been spoilt by them: only a fresh one's failure counts.
        if let Some(mut session) = self.used(tenant)
            && let Ok(output) = session.ask(&self.profile, conversation, content)
        {
            self.keep(tenant, session, conversation);
            return Ok(output);
        }
        let mut session = Session::start(&self.profile, &self.keeper)?;
        let output = session.ask(&self.profile, conversation, content)?;
        self.keep(tenant, session, conversation);
        Ok(output)
    }

    /// A process that has seen payloads of this tenant and of no other.
    fn used(&self, tenant: &Tenant) -> Option<Session> {
        let mut idle = self.idle.lock();
        let place = idle.iter().rposition(|(of, _)| of == tenant)?;
        Some(idle.remove(place).1)
    }

    /// Keeps a process for later: as many as may run at the same time, whoever they are for.
    fn keep(&self, tenant: &Tenant, session: Session, conversation: &Conversation) {
        if session.payloads < conversation.payloads && !session.is_worn(&self.profile.limits) {
            let mut idle = self.idle.lock();
            idle.push((tenant.clone(), session));
            let unused = (idle.len() > self.profile.slots).then(|| idle.remove(0));
            drop(idle);
            // It ends here, and others need not wait for that.
            drop(unused);
        }
    }
}

/// The interpreter of a script and its option, as `execve(2)` reads its first line; `None` for a program.
fn interpreter(program: &Path) -> Result<Option<(PathBuf, Option<String>)>, JailError> {
    let mut head = Vec::new();
    std::fs::File::open(program)
        .and_then(|file| file.take(MAX_SHEBANG as u64).read_to_end(&mut head))
        .map_err(|source| JailError::Tool { path: program.to_owned(), source })?;
    let Some(line) = head.strip_prefix(b"#!").and_then(|rest| rest.split(|b| *b == b'\n').next()) else {
        return Ok(None);
    };
    let line = String::from_utf8_lossy(line);
    let mut words = line.trim().splitn(2, [' ', '\t']);
    let interpreter = words.next().filter(|path| path.starts_with('/'));
    let interpreter = interpreter.ok_or(JailError::Config("a tool's script names no interpreter by its path"))?;
    if interpreter.ends_with("/env") {
        return Err(JailError::Config("a tool's script must name its interpreter itself, not /usr/bin/env"));
    }
    Ok(Some((interpreter.into(), words.next().map(|option| option.trim().to_owned()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_are_read_as_the_kernel_does() {
        let dir = tempfile::tempdir().unwrap();
        let of = |text: &str| {
            let path = dir.path().join("script");
            std::fs::write(&path, text).unwrap();
            interpreter(&path)
        };
        let perl = PathBuf::from("/usr/bin/perl");
        assert_eq!(of("#!/usr/bin/perl -w\nprint").unwrap(), Some((perl.clone(), Some("-w".into()))));
        assert_eq!(of("#! /usr/bin/perl\n").unwrap(), Some((perl, None)));
        assert_eq!(of("\x7fELF").unwrap(), None);
        assert!(of("#!/usr/bin/env perl\n").is_err());
        assert!(of("#!perl\n").is_err());
        assert!(interpreter(&dir.path().join("none")).is_err());
    }
}
