//! Logs: lines for people or JSON objects, to standard error or a file.
//!
//! Whatever a field holds, one event is one line and acts on no terminal: the writer escapes the finished line, so that
//! no call can forget to.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use tracing::level_filters::LevelFilter;
use tracing::{Subscriber, subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;

use crate::config::{Log, LogFormat, LogLevel};
use crate::escape::{json_line, visible};

/// Why logs cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file of `core.log.file` cannot be opened for appending, or its folder cannot be made.
    #[error("cannot append to the log file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something else in this process has taken over logging before.
    #[error("logging is set up already")]
    Taken,
}

/// Sends this process's logs where `settings` say, from now on.
///
/// # Errors
/// See [`Error`].
pub fn init(settings: &Log) -> Result<(), Error> {
    let out = match &settings.file {
        None => BoxMakeWriter::new(io::stderr),
        Some(path) => {
            BoxMakeWriter::new(Arc::new(append(path).map_err(|e| Error::File { path: path.clone(), source: e })?))
        }
    };
    subscriber::set_global_default(subscriber_to(settings, out)).map_err(|_| Error::Taken)
}

fn append(path: &PathBuf) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

fn subscriber_to(settings: &Log, out: BoxMakeWriter) -> Box<dyn Subscriber + Send + Sync> {
    let json = settings.format == LogFormat::Json;
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(Lines { out, json });
    let registry = tracing_subscriber::registry().with(filter(settings.level));
    match settings.format {
        LogFormat::Text => Box::new(registry.with(layer)),
        LogFormat::Json => Box::new(registry.with(layer.json().flatten_event(true).with_span_list(false))),
    }
}

/// Our own crates at `level`; libraries a step quieter, since what they tell is seldom what an operator asks.
fn filter(level: LogLevel) -> Targets {
    let (own, others) = match level {
        LogLevel::Trace => (LevelFilter::TRACE, LevelFilter::DEBUG),
        LogLevel::Debug => (LevelFilter::DEBUG, LevelFilter::INFO),
        LogLevel::Info => (LevelFilter::INFO, LevelFilter::WARN),
        LogLevel::Warning => (LevelFilter::WARN, LevelFilter::WARN),
        LogLevel::Error => (LevelFilter::ERROR, LevelFilter::ERROR),
        LogLevel::Off => (LevelFilter::OFF, LevelFilter::OFF),
    };
    // Warns with the whole content of a message that nobody subscribes to, which is hostile and may be large.
    let quiet = others.min(LevelFilter::ERROR);
    Targets::new().with_default(others).with_target("stoq", own).with_target("lapin::returned_messages", quiet)
}

/// Makes writers that take one event each.
struct Lines {
    out: BoxMakeWriter,
    json: bool,
}

struct Line<W> {
    out: W,
    json: bool,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<<BoxMakeWriter as MakeWriter<'a>>::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { out: self.out.make_writer(), json: self.json }
    }
}

impl<W: Write> Write for Line<W> {
    /// Takes one whole event, as the formatting layer hands it over, and writes it in one go.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let mut line = if self.json { json_line(text) } else { visible(text) }.into_owned();
        line.push('\n');
        self.out.write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::Value;
    use tracing::{debug, info, info_span, warn};

    use super::*;
    use crate::escape::acts;

    const HOSTILE: &str = "a\x1b[2J\n2026 ERROR forged\u{202e}\u{9b}\u{2028}\"";

    fn logged(format: LogFormat, level: LogLevel, write: impl FnOnce()) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/stoq.log");
        let settings = Log { level, format, file: Some(path.clone()) };
        let out = BoxMakeWriter::new(Arc::new(append(&path).unwrap()));
        subscriber::with_default(subscriber_to(&settings, out), write);
        fs::read_to_string(path).unwrap()
    }

    fn hostile_events() {
        let _span = info_span!("scan", name = HOSTILE).entered();
        warn!(file = HOSTILE, debugged = ?HOSTILE, "read {HOSTILE}");
        info!(error = %HOSTILE, "second");
    }

    #[test]
    fn hostile_text_stays_on_its_line() {
        let text = logged(LogFormat::Text, LogLevel::Info, hostile_events);
        assert_eq!(text.lines().count(), 2, "{text:?}");
        assert!(text.lines().all(|line| !line.contains(acts)), "{text:?}");
        assert!(text.contains("\\u{202e}") && text.contains("second"), "{text:?}");
    }

    #[test]
    fn json_keeps_what_it_escapes() {
        let text = logged(LogFormat::Json, LogLevel::Info, hostile_events);
        let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(events.len(), 2);
        assert!(text.lines().all(|line| !line.contains(acts)), "{text:?}");
        assert_eq!(events[0]["file"], HOSTILE);
        assert_eq!(events[1]["span"]["name"], "scan");
    }

    #[test]
    fn a_file_that_cannot_be_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().join("stoq.log");
        let settings = Log { level: LogLevel::Info, format: LogFormat::Text, file: Some(path.clone()) };
        let error = init(&settings).unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }

    #[test]
    fn levels() {
        let write = || {
            debug!("own debug");
            info!(target: "lapin::channel", "library info");
            warn!(target: "lapin::channel", "library warning");
            warn!(target: "lapin::returned_messages", "a message's content");
        };
        let shown = |level| logged(LogFormat::Text, level, write).lines().count();
        assert_eq!(shown(LogLevel::Off), 0);
        assert_eq!(shown(LogLevel::Info), 1);
        assert_eq!(shown(LogLevel::Debug), 3);
    }
}
