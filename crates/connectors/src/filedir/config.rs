//! Options of `filedir`.

use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use stoq_api::scanner::BuildError;
use time::PrimitiveDateTime;
use time::format_description::OwnedFormatItem;
use time::format_description::parse_strftime_owned;
use time::macros::datetime;

/// As they stand in the configuration.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Config {
    results_dir: PathBuf,
    date_mode: bool,
    date_format: String,
    compactly: bool,
}

impl Default for Config {
    fn default() -> Self {
        let date_format = "%Y/%m/%d".to_owned();
        Self { results_dir: "results".into(), date_mode: false, date_format, compactly: true }
    }
}

/// As they are used.
pub(super) struct Validated {
    pub(super) results_dir: PathBuf,
    pub(super) compactly: bool,
    date: Option<OwnedFormatItem>,
}

impl Config {
    pub(super) fn validate(self) -> Result<Validated, BuildError> {
        let date = if self.date_mode { Some(date_format(&self.date_format)?) } else { None };
        Ok(Validated { results_dir: self.results_dir, compactly: self.compactly, date })
    }
}

/// Reads a date format, and makes sure that what it gives stays below `results_dir`.
fn date_format(text: &str) -> Result<OwnedFormatItem, BuildError> {
    let wrong = |why: String| BuildError(format!("date_format {text:?}: {why}"));
    let format = parse_strftime_owned(text).map_err(|e| wrong(e.to_string()))?;
    let sample = datetime!(2026-01-02 03:04:05.678).format(&format).map_err(|e| wrong(e.to_string()))?;
    if Path::new(&sample).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
        Ok(format)
    } else {
        Err(wrong("must name directories below results_dir, without .. or a leading /".to_owned()))
    }
}

impl Validated {
    /// The directory for a response of this time.
    pub(super) fn directory(&self, first_seen: PrimitiveDateTime) -> PathBuf {
        // The format was tried when it was read, and depends on nothing but the time.
        match self.date.as_ref().and_then(|format| first_seen.format(format).ok()) {
            Some(date) => self.results_dir.join(date),
            None => self.results_dir.clone(),
        }
    }

    /// Whether the directory depends on the time.
    pub(super) fn by_date(&self) -> bool {
        self.date.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(date_format: &str) -> Result<String, String> {
        let config = Config { date_mode: true, date_format: date_format.into(), ..Config::default() };
        let config = config.validate().map_err(|e| e.to_string())?;
        Ok(config.directory(datetime!(2026-11-04 05:06:07)).display().to_string())
    }

    #[test]
    fn dates_become_directories_below() {
        assert_eq!(directory("%Y/%m/%d").unwrap(), "results/2026/11/04");
        assert_eq!(directory("%Y-%m-%dT%H").unwrap(), "results/2026-11-04T05");
        assert_eq!(directory("").unwrap(), "results/");
        for format in ["../%Y", "/%Y", "%Y/../..", "%Q"] {
            assert!(directory(format).is_err(), "{format}");
        }
    }
}
