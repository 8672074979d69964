//! The watching thread: notices and listings in, complete files out.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use parking_lot::Mutex;
use stoq_api::plugin::{Reference, RootBytes};
use stoq_api::scanner::BuildError;
use stoq_api::{Fault, FaultKind, RequestMeta, fault};
use stoq_runtime::files::{self, FileState};
use tokio::sync::mpsc;

use super::after::After;
use super::config::Validated;
use super::events::{self, Seen};
use super::pending::{Pending, Writer};
use super::signals::{Received, Signal, Signals, Told};
use crate::filedir::root_for;
use crate::memory::{self, Memory};
use crate::take::{self, Limits, NotTaken};
use crate::walk::{Filter, Found, Walk};
use crate::{Context, Skip};

/// What was said once and is not said again.
const MAX_SAID: usize = 10_000;
/// Longest sleep, after which the thread looks whether anybody wants more.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// The thread's state. Paths are beneath the file root, unless they are said to be whole.
pub(super) struct Watcher {
    options: Validated,
    context: Context,
    root: String,
    root_path: PathBuf,
    /// The watched directory.
    base: PathBuf,
    after: Arc<After>,
    sender: mpsc::Sender<Result<Reference, Fault>>,
    signals: Signals,
    pending: Pending,
    memory: Arc<Mutex<Memory>>,
    /// Offered and not yet taken or released.
    offered: HashSet<memory::Key>,
    said: HashSet<(PathBuf, String)>,
    /// The system's watch, and the inode that it is on.
    notices: Option<(RecommendedWatcher, u64)>,
    next_listing: Instant,
}

/// Nobody wants more.
struct Stopped;

impl Watcher {
    pub(super) fn new(
        options: Validated,
        context: &Context,
        sender: mpsc::Sender<Result<Reference, Fault>>,
        signals: Signals,
    ) -> Result<Self, BuildError> {
        let at_fault = |e: Fault| BuildError(fault::chain(&e));
        let (root, root_path, base) = root_for(&options.config.source_dir, context).map_err(at_fault)?;
        let after = After::new(&options.config, Arc::clone(&context.roots), root.clone(), base.clone())?;
        let open = context.roots.open_root(&root).map_err(at_fault)?;
        let memory = remember(context, &options, open, &root_path, &base)?;
        Ok(Self {
            context: context.clone(),
            pending: Pending::new(options.settle, options.open_wait),
            options,
            root,
            root_path,
            base,
            after: Arc::new(after),
            sender,
            signals,
            memory: Arc::new(Mutex::new(memory)),
            offered: HashSet::new(),
            said: HashSet::new(),
            notices: None,
            next_listing: Instant::now(),
        })
    }

    /// Watches until nobody wants more.
    pub(super) fn run(mut self, received: &Received) {
        while self.turn(received).is_ok() {}
    }

    fn turn(&mut self, received: &Received) -> Result<(), Stopped> {
        let now = Instant::now();
        let next = self.pending.next().map_or(self.next_listing, |at| at.min(self.next_listing));
        let mut signal = received.recv_timeout(next.saturating_duration_since(now).min(LONGEST_SLEEP)).ok();
        while let Some(one) = signal {
            self.hear(one)?;
            signal = received.try_recv().ok();
        }
        if self.sender.is_closed() {
            return Err(Stopped);
        }
        if self.signals.take_need() {
            // Whatever made this necessary may go on: many such notices make one listing.
            self.next_listing = self.next_listing.min(Instant::now() + self.options.settle);
        }
        if self.next_listing <= Instant::now() {
            self.list()?;
        }
        while let Some(path) = self.pending.due(Instant::now()) {
            self.look(&path)?;
        }
        Ok(())
    }

    fn hear(&mut self, signal: Signal) -> Result<(), Stopped> {
        match signal {
            Signal::Seen(seen) => {
                self.signals.heard();
                self.see(seen);
            }
            Signal::Taken(key) => {
                self.offered.remove(&key);
            }
            Signal::Released(key, path) => {
                self.offered.remove(&key);
                self.pending.see(path, Writer::Unknown, Instant::now());
            }
            Signal::Stop => return Err(Stopped),
        }
        Ok(())
    }

    fn see(&mut self, seen: Seen) {
        let (whole, writer) = match seen {
            Seen::Complete(path) => (path, Writer::Done),
            Seen::Written(path) => (path, Writer::Writing),
            Seen::Unclear => return self.signals.need_listing(),
        };
        let Ok(below) = whole.strip_prefix(&self.options.config.source_dir) else { return };
        let hidden = || below.iter().any(|name| name.as_encoded_bytes().starts_with(b"."));
        let wanted = self.options.config.recursive || below.iter().count() == 1;
        if !wanted || (!self.options.config.hidden && hidden()) {
            return;
        }
        if !self.pending.see(self.base.join(below), writer, Instant::now()) {
            self.signals.need_listing();
        }
    }

    /// Lists the whole directory for what no notice told of.
    fn list(&mut self) -> Result<(), Stopped> {
        if !self.pending.has_room() {
            self.next_listing = Instant::now() + self.options.settle;
            return Ok(());
        }
        self.next_listing = Instant::now() + self.options.rescan_interval;
        if self.memory.lock().is_full() {
            let most = memory::MAX_KNOWN;
            let text = format!("{:?} holds more than {most} files: clear it, or set after", self.root_path);
            self.sender.blocking_send(Err(Fault::new(FaultKind::Misconfigured, text))).ok();
            return Err(Stopped);
        }
        let opened = self.context.roots.open_root(&self.root);
        let (root, for_walk) = match opened.and_then(|root| Ok((clone(&root)?, root))) {
            Ok(roots) => roots,
            Err(e) => {
                self.skip(&self.base.clone(), fault::chain(&e));
                return Ok(());
            }
        };
        self.watch(&root);
        self.memory.lock().begin_listing();
        let mut whole = true;
        for found in Walk::new(for_walk, self.base.clone(), filter(&self.options)) {
            match found {
                Found::File(path) => whole &= self.found(&root, path),
                Found::Not(path, reason) => self.skip(&path, reason),
                Found::Unlisted(path, reason) => {
                    whole = false;
                    self.skip(&path, reason);
                }
            }
            if self.pending.is_full() {
                // The rest comes when there is room again.
                self.next_listing = Instant::now() + self.options.settle;
                return Ok(());
            }
        }
        if whole && let Err(e) = self.memory.lock().end_listing() {
            tracing::warn!(source = &*self.context.name, error = %e, "the list of taken files cannot be written");
        }
        Ok(())
    }

    /// A listing saw a file. `false` if it could not be looked at.
    fn found(&mut self, root: &OwnedFd, path: PathBuf) -> bool {
        match files::state_beneath(root, &path) {
            Ok(state) => {
                let key = memory::key(&self.root_path.join(&path), &state, "");
                if !self.memory.lock().knows(&key) && !self.offered.contains(&key) && !self.pending.contains(&path) {
                    self.pending.see(path, Writer::Unknown, Instant::now());
                }
                true
            }
            Err(e) => e.kind == FaultKind::NotFound,
        }
    }

    /// Asks the system for notices, anew if the directory is another one than before.
    fn watch(&mut self, root: &OwnedFd) {
        let dir = files::open_dir_beneath(root, &self.base).ok();
        let Some(stat) = dir.and_then(|dir| rustix::fs::fstat(dir).ok()) else { return };
        let inode = FileState::of(&stat).inode;
        if self.notices.as_ref().is_some_and(|(_, watched)| *watched == inode) {
            return;
        }
        let signals = self.signals.clone();
        let hear = move |event: notify::Result<notify::Event>| match event {
            Ok(event) => events::seen(event).into_iter().for_each(|seen| signals.notice(seen)),
            Err(e) => {
                tracing::warn!(error = %e, "notices of new files are incomplete; listings find them later");
                signals.need_listing();
            }
        };
        let mode = if self.options.config.recursive { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
        let config = notify::Config::default().with_follow_symlinks(false);
        let watcher = RecommendedWatcher::new(hear, config).and_then(|mut watcher| {
            watcher.watch(&self.options.config.source_dir, mode)?;
            Ok(watcher)
        });
        match watcher {
            Ok(watcher) => self.notices = Some((watcher, inode)),
            Err(e) => self.skip(&self.base.clone(), format!("only listings find new files here, no notices: {e}")),
        }
    }

    /// Looks at a file that may be complete, and takes it if it is.
    fn look(&mut self, path: &Path) -> Result<(), Stopped> {
        let found = self.context.roots.open_root(&self.root);
        let found = found.and_then(|root| files::state_beneath(&root, path).map(|state| (root, state)));
        let (root, state) = match found {
            Ok(found) => found,
            Err(e) => {
                self.pending.forget(path);
                if e.kind != FaultKind::NotFound {
                    // A directory that was moved in, perhaps, or a link: a listing tells.
                    self.signals.need_listing();
                }
                return Ok(());
            }
        };
        let key = memory::key(&self.root_path.join(path), &state, "");
        if self.memory.lock().knows(&key) || self.offered.contains(&key) {
            self.pending.forget(path);
        } else if self.pending.judge(path, state, Instant::now()) {
            return self.take(&root, path);
        }
        Ok(())
    }

    fn take(&mut self, root: &OwnedFd, path: &Path) -> Result<(), Stopped> {
        let limits = Limits { inline: self.context.inline_limit, max_payload: self.context.max_payload };
        let file = match take::take(root, &self.root, path, &limits) {
            Ok(file) => file,
            Err(NotTaken::Gone) => return Ok(()),
            Err(NotTaken::Changing(_)) => {
                self.pending.see(path.to_owned(), Writer::Unknown, Instant::now());
                return Ok(());
            }
        };
        let bytes = match file.bytes {
            // A file that will not stay, or that workers do not see, cannot be left to them.
            RootBytes::File(_) if !self.after.keeps() || !self.context.workers_see_files => {
                match take::copy(root, path, &file.state, &self.context) {
                    Ok(bytes) => bytes,
                    Err(e) => {
                        self.skip(path, format!("not taken yet: {}", fault::chain(&e)));
                        self.pending.see(path.to_owned(), Writer::Unknown, Instant::now());
                        return Ok(());
                    }
                }
            }
            bytes => bytes,
        };
        self.offer(path, file.state, bytes)
    }

    fn offer(&mut self, path: &Path, state: FileState, bytes: RootBytes) -> Result<(), Stopped> {
        let whole = self.root_path.join(path);
        let key = memory::key(&whole, &state, "");
        self.offered.insert(key);
        let (signals, memory, after) = (self.signals.clone(), Arc::clone(&self.memory), Arc::clone(&self.after));
        let name = Path::new(whole.file_name().unwrap_or_default());
        let reference = Reference {
            identity: take::identity(&whole, &state, ""),
            roots: vec![take::root_of(whole.parent(), name, bytes)],
            request_meta: RequestMeta::default(),
            taken: Box::new(Told { signals, memory, after, key, state, path: Some(path.to_owned()) }),
        };
        self.sender.blocking_send(Ok(reference)).map_err(|_| Stopped)
    }

    /// Says once what is not taken, and why.
    fn skip(&mut self, path: &Path, reason: String) {
        if self.said.len() >= MAX_SAID {
            self.said.clear();
        }
        if self.said.insert((path.to_owned(), reason.clone())) {
            (self.context.on_skip)(Skip { path: self.root_path.join(path), reason });
        }
    }
}

fn filter(options: &Validated) -> Filter {
    Filter { recursive: options.config.recursive, hidden: options.config.hidden }
}

fn clone(root: &OwnedFd) -> Result<OwnedFd, Fault> {
    root.as_fd().try_clone_to_owned().map_err(|e| Fault::because(FaultKind::Unavailable, "out of file descriptors", e))
}

/// What was taken before. At the first start that is nothing, or all that is there if `existing` files are not wanted.
fn remember(
    context: &Context,
    options: &Validated,
    root: OwnedFd,
    root_path: &Path,
    base: &Path,
) -> Result<Memory, BuildError> {
    let path = memory::path(context, "dirmon");
    let failed = |e| BuildError(format!("cannot remember which files were taken: {path:?}: {e}"));
    if let Some(memory) = Memory::load(&path).map_err(failed)? {
        return Ok(memory);
    }
    let mut keys = Vec::new();
    if !options.config.existing {
        let for_walk = clone(&root).map_err(|e| BuildError(fault::chain(&e)))?;
        for found in Walk::new(for_walk, base.to_owned(), filter(options)).take(memory::MAX_KNOWN) {
            if let Found::File(file) = found
                && let Ok(state) = files::state_beneath(&root, &file)
            {
                keys.push(memory::key(&root_path.join(file), &state, ""));
            }
        }
    }
    Memory::create(&path, keys).map_err(failed)
}
