//! Options of `filedir`.

use std::fs;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use stoq_api::scanner::BuildError;
use stoq_api::{PayloadId, Timestamp};
use time::OffsetDateTime;
use time::format_description::{OwnedFormatItem, parse_strftime_owned};
use time::macros::utc_datetime;

/// First digits of a SHA-1 that name directories, one each.
const SHARDS: usize = 5;

/// As they stand in the configuration.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Config {
    pub(super) archive_dir: PathBuf,
    pub(super) use_sha: bool,
    pub(super) date_mode: bool,
    pub(super) date_format: String,
    pub(super) max_size: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            archive_dir: "archive".into(),
            use_sha: true,
            date_mode: false,
            date_format: "%Y/%m/%d".to_owned(),
            max_size: 256 << 20,
        }
    }
}

/// As they are used.
pub(super) struct Validated {
    /// Absolute and resolved.
    pub(super) archive_dir: PathBuf,
    pub(super) naming: Naming,
    pub(super) max_size: u64,
}

/// What a file is called.
pub(super) enum Naming {
    /// `a/b/c/d/e/<sha1>`
    Sha1,
    /// The date, if it is wanted, and the payload's id.
    Payload(Option<OwnedFormatItem>),
}

impl Config {
    /// Makes the directory as well.
    pub(super) fn validate(self) -> Result<Validated, BuildError> {
        let naming = match (self.use_sha, self.date_mode) {
            (true, _) => Naming::Sha1,
            (false, true) => Naming::Payload(Some(date_format(&self.date_format)?)),
            (false, false) => Naming::Payload(None),
        };
        let made = fs::create_dir_all(&self.archive_dir).and_then(|()| fs::canonicalize(&self.archive_dir));
        let archive_dir =
            made.map_err(|e| BuildError(format!("archive_dir {:?} cannot be used: {e}", self.archive_dir)))?;
        if archive_dir.to_str().is_none() {
            // Responses name the files of an archive in JSON.
            return Err(BuildError(format!("archive_dir {archive_dir:?} is not UTF-8: name another directory")));
        }
        Ok(Validated { archive_dir, naming, max_size: self.max_size })
    }
}

/// Reads a date format, and makes sure that what it gives stays below `archive_dir`.
fn date_format(text: &str) -> Result<OwnedFormatItem, BuildError> {
    let wrong = |why: String| BuildError(format!("date_format {text:?}: {why}"));
    let format = parse_strftime_owned(text).map_err(|e| wrong(e.to_string()))?;
    let sample = utc_datetime!(2026-01-02 03:04:05.678).format(&format).map_err(|e| wrong(e.to_string()))?;
    if Path::new(&sample).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
        Ok(format)
    } else {
        Err(wrong("must name directories below archive_dir, without .. or a leading /".to_owned()))
    }
}

impl Naming {
    /// Where a file lies below `archive_dir`; `sha1` is asked for only if it is needed.
    pub(super) fn path<E>(
        &self,
        payload: PayloadId,
        now: Timestamp,
        sha1: impl FnOnce() -> Result<String, E>,
    ) -> Result<PathBuf, E> {
        match self {
            Self::Sha1 => {
                let digest = sha1()?;
                let shards = digest.chars().take(SHARDS).map(String::from);
                Ok(shards.chain([digest.clone()]).collect())
            }
            Self::Payload(date) => {
                let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(now.0) * 1_000);
                let at = at.unwrap_or(OffsetDateTime::UNIX_EPOCH);
                // The format was tried when it was read, and depends on nothing but the time.
                let date = date.as_ref().and_then(|format| at.format(format).ok()).unwrap_or_default();
                Ok(Path::new(&date).join(payload.to_string()))
            }
        }
    }
}
