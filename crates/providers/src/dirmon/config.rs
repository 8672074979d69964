//! Options of `dirmon`.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use stoq_api::scanner::BuildError;

/// As they stand in the configuration; durations in seconds.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The directory.
    pub source_dir: PathBuf,
    /// Watch directories below, too.
    pub recursive: bool,
    /// Take hidden files.
    pub hidden: bool,
    /// At the first start, take files that are there already.
    pub existing: bool,
    /// How long a file must not change.
    pub settle: f64,
    /// How long a file must not change that somebody seems to write still.
    pub open_wait: f64,
    /// Time between two listings.
    pub rescan_interval: f64,
    /// `keep`, `delete` or `move`.
    pub after: AfterTaken,
    /// Where to move files.
    pub move_to: PathBuf,
}

/// What to do with a file that was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterTaken {
    /// Leave it.
    #[default]
    Keep,
    /// Remove it.
    Delete,
    /// Move it to `move_to`.
    Move,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            source_dir: PathBuf::new(),
            recursive: true,
            hidden: false,
            existing: true,
            settle: 2.0,
            open_wait: 300.0,
            rescan_interval: 30.0,
            after: AfterTaken::Keep,
            move_to: PathBuf::new(),
        }
    }
}

/// As they are used.
pub(super) struct Validated {
    pub(super) config: Config,
    pub(super) settle: Duration,
    pub(super) open_wait: Duration,
    pub(super) rescan_interval: Duration,
}

impl Config {
    /// Checks the options, and resolves `source_dir`.
    pub(super) fn validate(mut self) -> Result<Validated, BuildError> {
        if self.source_dir.as_os_str().is_empty() {
            return Err(BuildError("source_dir is not set: name the directory to watch".to_owned()));
        }
        let resolved = self.source_dir.canonicalize().and_then(|path| path.read_dir().map(|_| path));
        self.source_dir =
            resolved.map_err(|e| BuildError(format!("source_dir {:?} cannot be watched: {e}", self.source_dir)))?;
        if (self.after == AfterTaken::Move) == self.move_to.as_os_str().is_empty() {
            return Err(BuildError("after = \"move\" and move_to go together: set both or neither".to_owned()));
        }
        Ok(Validated {
            settle: seconds("settle", self.settle)?,
            open_wait: seconds("open_wait", self.open_wait)?,
            rescan_interval: seconds("rescan_interval", self.rescan_interval)?,
            config: self,
        })
    }
}

/// Longest duration, in seconds: a year. More is a mistake, and would not fit the clock.
const MAX_SECONDS: f64 = 366.0 * 86_400.0;

fn seconds(option: &str, value: f64) -> Result<Duration, BuildError> {
    match Duration::try_from_secs_f64(value) {
        Ok(duration) if value <= MAX_SECONDS => Ok(duration),
        _ => Err(BuildError(format!("{option} = {value}: not a duration between 0 and a year"))),
    }
}
