//! `filedir`: the files of a directory, or single files, each once.
//!
//! A thread walks and reads ahead of whoever scans, by a few files. Files come in the order of their names. Links
//! are not followed; hidden names are skipped unless asked for. What cannot be read still becomes a scan, which says why.

mod config;
mod taken;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde_json::{Map, Value};
use stoq_api::plugin::{Provider, Reference, RootBytes, Taking};
use stoq_api::scanner::{BuildError, OptionInfo, OptionKind, PluginInfo, PluginKind};
use stoq_api::{Fault, FaultKind, RequestMeta, fault};
use stoq_runtime::files::FileState;
use tokio::sync::mpsc;

pub use self::config::Config;
use self::taken::Remembered;
use crate::take::{self, Limits, NotTaken};
use crate::walk::{Filter, Found, Walk};
use crate::{Context, ProviderRegistration, Skip, config_of};

/// References that are ready before anyone asks for them.
const READ_AHEAD: usize = 16;

/// The provider's entry in the registry.
pub(crate) fn registration() -> ProviderRegistration {
    const fn option(name: &'static str, kind: OptionKind, default: &'static str, help: &'static str) -> OptionInfo {
        OptionInfo { name, kind, default, help }
    }
    ProviderRegistration {
        info: PluginInfo {
            name: "filedir",
            description: "Scans the files of a directory, or one file",
            kinds: &[PluginKind::Provider],
            options: &const {
                [
                    option("source_dir", OptionKind::Text, "", "the file or directory to scan"),
                    option("recursive", OptionKind::Bool, "false", "go into directories below"),
                    option(
                        "hidden",
                        OptionKind::Bool,
                        "false",
                        "take files, and go into directories, whose name starts with a dot",
                    ),
                ]
            },
            required_workers: &[],
        },
        build,
        fetcher: None,
    }
}

fn build(options: &Map<String, Value>, context: &Context) -> Result<Box<dyn Provider>, BuildError> {
    Ok(Box::new(FileDir::new(&config_of::<Config>(options)?, context)?))
}

/// The provider.
pub struct FileDir {
    ready: mpsc::Receiver<Step>,
    ended: bool,
}

/// What the reading thread says.
enum Step {
    One(Box<Reference>),
    End,
}

impl FileDir {
    /// Starts to read.
    ///
    /// # Errors
    /// A source is not there, or is neither a file nor a directory.
    pub fn new(config: &Config, context: &Context) -> Result<Self, BuildError> {
        if config.source_dir.is_empty() {
            return Err(BuildError("source_dir is not set: name the file or directory to scan".to_owned()));
        }
        let sources =
            config.source_dir.iter().map(|path| Source::resolve(path, context)).collect::<Result<Vec<_>, _>>()?;
        let filter = Filter { recursive: config.recursive, hidden: config.hidden };
        let (sender, ready) = mpsc::channel(READ_AHEAD);
        let remembered = Remembered::open(context)?;
        let reader = Reader { context: context.clone(), filter, bare: config.bare, remembered, sender };
        std::thread::Builder::new()
            .name("filedir".to_owned())
            .spawn(move || reader.run(sources))
            .map_err(|e| BuildError(format!("cannot start a thread: {e}")))?;
        Ok(Self { ready, ended: false })
    }
}

#[async_trait]
impl Provider for FileDir {
    async fn next(&mut self) -> Result<Option<Taking>, Fault> {
        if self.ended {
            return Ok(None);
        }
        match self.ready.recv().await {
            Some(Step::One(reference)) => Ok(Some((*reference).into())),
            Some(Step::End) => {
                self.ended = true;
                Ok(None)
            }
            // An end that nobody announced must not look like one.
            None => Err(Fault::new(FaultKind::Corrupt, "filedir stopped reading before its sources ended")),
        }
    }
}

/// One configured source.
struct Source {
    /// The name of the root that workers know.
    root: String,
    /// Where that root is.
    root_path: PathBuf,
    /// The source's directory beneath it.
    base: PathBuf,
    /// The file in it, if the source is one.
    file: Option<OsString>,
}

impl Source {
    /// Finds out what `path` is. It is the operator's, so links on the way to it are followed, once, here.
    fn resolve(path: &Path, context: &Context) -> Result<Self, BuildError> {
        let at_fault = |e: &dyn std::fmt::Display| BuildError(format!("source_dir {path:?}: {e}"));
        let resolved = path.canonicalize().map_err(|e| at_fault(&e))?;
        let (dir, file) = if resolved.is_dir() {
            (resolved.as_path(), None)
        } else {
            match (resolved.parent(), resolved.file_name()) {
                (Some(dir), Some(name)) => (dir, Some(name.to_owned())),
                _ => return Err(at_fault(&"is neither a file nor a directory")),
            }
        };
        let (root, root_path, base) = root_for(dir, context).map_err(|e| at_fault(&fault::chain(&e)))?;
        Ok(Self { root, root_path, base, file })
    }

    fn open(&self, context: &Context) -> Result<OwnedFd, Fault> {
        context.roots.open_root(&self.root)
    }
}

/// The root that holds `dir`, which becomes one itself if there is none.
pub(crate) fn root_for(dir: &Path, context: &Context) -> Result<(String, PathBuf, PathBuf), Fault> {
    if let Some((root, base)) = context.roots.holding(dir) {
        let path = context.roots.path(&root).unwrap_or_default();
        return Ok((root, path, base));
    }
    let mut root = context.name.clone();
    let mut count = 1_u32;
    while context.roots.path(&root).is_some() {
        count += 1;
        root = format!("{}-{count}", context.name);
    }
    context.roots.add(&root, dir)?;
    Ok((root, dir.to_owned(), PathBuf::new()))
}

/// The reading thread.
struct Reader {
    context: Context,
    filter: Filter,
    bare: bool,
    remembered: Remembered,
    sender: mpsc::Sender<Step>,
}

/// Nobody wants more.
struct Stopped;

impl Reader {
    fn run(&self, sources: Vec<Source>) {
        for source in &sources {
            if self.source(source).is_err() {
                return;
            }
        }
        // Fails only if nobody listens any more.
        self.sender.blocking_send(Step::End).ok();
    }

    fn source(&self, source: &Source) -> Result<(), Stopped> {
        let root = match source.open(&self.context) {
            Ok(root) => root,
            Err(e) => {
                self.skip(source, &source.base, fault::chain(&e));
                return Ok(());
            }
        };
        if let Some(name) = &source.file {
            return self.file(source, &root, &source.base.join(name));
        }
        let for_walk = match root.try_clone() {
            Ok(root) => root,
            Err(e) => {
                self.skip(source, &source.base, e.to_string());
                return Ok(());
            }
        };
        for found in Walk::new(for_walk, source.base.clone(), self.filter) {
            match found {
                Found::File(path) => self.file(source, &root, &path)?,
                Found::Not(path, reason) => self.skip(source, &path, reason),
                Found::Unlisted(path, reason) => self.unread(source, &path, reason)?,
            }
        }
        Ok(())
    }

    fn file(&self, source: &Source, root: &OwnedFd, path: &Path) -> Result<(), Stopped> {
        let limits = Limits { inline: self.context.inline_limit, max_payload: self.context.max_payload };
        let file = match take::take(root, &source.root, path, &limits) {
            Ok(file) => file,
            Err(NotTaken::Gone) => {
                self.skip(source, path, "was removed before it was read".to_owned());
                return Ok(());
            }
            // Whoever fetches it reads what is there then, and says that it changed.
            Err(NotTaken::Changing(state)) => take::File { state, bytes: take::in_place(&source.root, path, state) },
        };
        let bytes = match file.bytes {
            RootBytes::File(_) if !self.context.workers_see_files => take::copy(root, path, &file.state, &self.context)
                .unwrap_or_else(|e| RootBytes::Unreadable { reason: fault::chain(&e), size: file.state.size }),
            bytes => bytes,
        };
        let file = take::File { bytes, ..file };
        self.offer(source, path, file)
    }

    fn offer(&self, source: &Source, path: &Path, file: take::File) -> Result<(), Stopped> {
        let whole = source.root_path.join(path);
        let Some(taken) = self.remembered.offer(&whole, &file.state, &self.context.run_id) else { return Ok(()) };
        let dir = whole.parent().filter(|_| !(self.bare && source.file.is_some()));
        let name = Path::new(whole.file_name().unwrap_or_default());
        let reference = Reference {
            identity: take::identity(&whole, &file.state, &self.context.run_id),
            roots: vec![take::root_of(dir, name, file.bytes)],
            request_meta: RequestMeta::default(),
            taken,
        };
        self.sender.blocking_send(Step::One(Box::new(reference))).map_err(|_| Stopped)
    }

    /// A directory that cannot be listed: payloads may be in it, and nobody looked.
    fn unread(&self, source: &Source, path: &Path, reason: String) -> Result<(), Stopped> {
        let state = FileState { size: 0, mtime_ns: 0, inode: 0 };
        self.offer(source, path, take::File { state, bytes: RootBytes::Unreadable { reason, size: 0 } })
    }

    fn skip(&self, source: &Source, path: &Path, reason: String) {
        (self.context.on_skip)(Skip { path: source.root_path.join(path), reason });
    }
}
