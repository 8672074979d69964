//! `dirmon`: watches a directory and takes each file once it is complete.
//!
//! The system's notices say when a writer closed a file or one was moved in; a listing of the whole directory now and then
//! finds what no notice told of, as on network file systems. A file for which nobody said that it is complete must stand
//! still for a while first. What was taken is remembered over restarts, so that nothing is taken twice and nothing that
//! came while the process was down is missed.

mod after;
mod config;
mod events;
mod pending;
mod signals;
#[cfg(test)]
mod tests;
mod watch;

use async_trait::async_trait;
use serde_json::{Map, Value};
use stoq_api::plugin::{Provider, Reference, Taking};
use stoq_api::scanner::{BuildError, OptionInfo, OptionKind, PluginInfo, PluginKind};
use stoq_api::{Fault, FaultKind};
use tokio::sync::mpsc;

pub use self::config::{AfterTaken, Config};
use self::signals::{Signal, Signals};
use self::watch::Watcher;
use crate::{Context, ProviderRegistration, config_of};

/// References that are ready before anyone asks for them.
const READ_AHEAD: usize = 16;

/// The provider's entry in the registry.
pub(crate) fn registration() -> ProviderRegistration {
    ProviderRegistration {
        info: PluginInfo {
            name: "dirmon",
            description: "Watches a directory for new files",
            kinds: &[PluginKind::Provider],
            options: OPTIONS,
            required_workers: &[],
        },
        build,
        fetcher: None,
    }
}

const fn option(name: &'static str, kind: OptionKind, default: &'static str, help: &'static str) -> OptionInfo {
    OptionInfo { name, kind, default, help }
}

const OPTIONS: &[OptionInfo] = &[
    option("source_dir", OptionKind::Text, "", "the directory to watch"),
    option("recursive", OptionKind::Bool, "true", "watch directories below, too"),
    option("hidden", OptionKind::Bool, "false", "take files, and watch directories, whose name starts with a dot"),
    option("existing", OptionKind::Bool, "true", "at the first start, take files that are there already"),
    option("settle", OptionKind::Duration, "\"2 s\"", "how long a file must not change, if nobody said it is complete"),
    option("open_wait", OptionKind::Duration, "\"5 min\"", "the same for a file that somebody seems to write still"),
    option("rescan_interval", OptionKind::Duration, "\"30 s\"", "time between two listings of the whole directory"),
    option("after", OptionKind::Text, "\"keep\"", "what to do with a file that was taken: keep, delete or move"),
    option("move_to", OptionKind::Text, "", "where to move files, on the same file system"),
];

fn build(options: &Map<String, Value>, context: &Context) -> Result<Box<dyn Provider>, BuildError> {
    Ok(Box::new(DirMon::new(config_of::<Config>(options)?, context)?))
}

/// The provider.
pub struct DirMon {
    ready: mpsc::Receiver<Result<Reference, Fault>>,
    signals: Signals,
}

impl DirMon {
    /// Starts to watch. Blocks while it lists the directory, if files that are there already are not to be taken.
    ///
    /// # Errors
    /// An option does not fit, the directory is not there, or what was taken cannot be remembered.
    pub fn new(config: Config, context: &Context) -> Result<Self, BuildError> {
        let (sender, ready) = mpsc::channel(READ_AHEAD);
        let (signals, received) = Signals::new();
        let watcher = Watcher::new(config.validate()?, context, sender, signals.clone())?;
        std::thread::Builder::new()
            .name("dirmon".to_owned())
            .spawn(move || watcher.run(&received))
            .map_err(|e| BuildError(format!("cannot start a thread: {e}")))?;
        Ok(Self { ready, signals })
    }
}

#[async_trait]
impl Provider for DirMon {
    async fn next(&mut self) -> Result<Option<Taking>, Fault> {
        match self.ready.recv().await {
            Some(reference) => reference.map(|reference| Some(reference.into())),
            // Watching never ends by itself, and must not look as if it did.
            None => Err(Fault::new(FaultKind::Corrupt, "dirmon stopped watching")),
        }
    }
}

impl Drop for DirMon {
    fn drop(&mut self) {
        self.signals.send(Signal::Stop);
    }
}
