//! `stdout`: each response on standard output, one line of JSON, or indented.
//!
//! A response is written with one call, so that lines of several tasks never mix. Characters that a terminal would obey
//! leave as `\u` escapes: the same JSON, but no file name in it can move a cursor.

use std::io::{self, Write};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Map, Value};
use stoq_api::plugin::{Connector, Item, Verdict};
use stoq_api::scanner::{BuildError, OptionInfo, OptionKind, PluginInfo, PluginKind};
use stoq_api::{Fault, FaultKind};

use crate::common::text;
use crate::{ConnectorRegistration, Context, config_of};

/// The connector's entry in the registry.
pub(crate) fn registration() -> ConnectorRegistration {
    ConnectorRegistration {
        info: PluginInfo {
            name: "stdout",
            description: "Writes responses to standard output",
            kinds: &[PluginKind::Connector],
            options: &[OptionInfo {
                name: "compactly",
                kind: OptionKind::Bool,
                default: "true",
                help: "one line a response; false indents by 4",
            }],
            required_workers: &[],
        },
        build,
    }
}

fn build(options: &Map<String, Value>, _context: &Context) -> Result<Arc<dyn Connector>, BuildError> {
    let config: Config = config_of(options)?;
    Ok(Arc::new(Lines::new(io::stdout(), config.compactly)))
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    compactly: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { compactly: true }
    }
}

/// The connector, over any writer.
pub struct Lines<W> {
    out: Arc<Mutex<W>>,
    compactly: bool,
}

/// Whoever read the output has gone, as `head` does. There is nobody left to write for, and nothing is wrong.
#[derive(Debug, thiserror::Error)]
#[error("the reader of the output has gone")]
pub struct ReaderGone;

impl ReaderGone {
    /// Whether `fault` says so.
    pub fn is(fault: &Fault) -> bool {
        std::error::Error::source(fault).is_some_and(|e| e.is::<Self>())
    }
}

impl<W: Write + Send + 'static> Lines<W> {
    /// Writes to `out`, each response on one line if `compactly`.
    pub fn new(out: W, compactly: bool) -> Self {
        Self { out: Arc::new(Mutex::new(out)), compactly }
    }
}

/// The bytes of one response, with a new line at the end. `None` if it is not text.
fn encode(json: &[u8], compactly: bool) -> Option<Vec<u8>> {
    let safe = text::printable(std::str::from_utf8(json).ok()?);
    let mut bytes = if compactly { safe.into_owned().into_bytes() } else { text::indented(safe.as_bytes(), 4) };
    bytes.push(b'\n');
    Some(bytes)
}

/// Writes all of it at once.
pub(crate) fn write(out: &mut impl Write, bytes: &[u8]) -> Result<(), Fault> {
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|e| {
        if e.kind() == io::ErrorKind::BrokenPipe {
            Fault::because(FaultKind::Refused, "cannot write to standard output", ReaderGone)
        } else {
            Fault::because(FaultKind::Unavailable, "cannot write to standard output", e)
        }
    })
}

#[async_trait]
impl<W: Write + Send + 'static> Connector for Lines<W> {
    async fn deliver(&self, batch: &[Item]) -> Result<Vec<Verdict>, Fault> {
        let encoded: Vec<_> = batch.iter().map(|item| encode(&item.json, self.compactly)).collect();
        let out = Arc::clone(&self.out);
        // A pipe whose reader is slow blocks, and must not block a thread that others wait for.
        let written = tokio::task::spawn_blocking(move || {
            let mut out = out.lock();
            let mut verdicts = Vec::with_capacity(encoded.len());
            for bytes in encoded {
                verdicts.push(match bytes {
                    Some(bytes) => {
                        match write(&mut *out, &bytes) {
                            Ok(()) => Verdict::Delivered,
                            // What is out already must not be written again.
                            Err(e) if e.is_transient() && !verdicts.is_empty() => Verdict::Retry(e.to_string()),
                            Err(e) => return Err(e),
                        }
                    }
                    None => Verdict::Rejected("the response is not UTF-8".to_owned()),
                });
            }
            Ok(verdicts)
        });
        written.await.map_err(|e| Fault::because(FaultKind::Corrupt, "writing to standard output stopped", e))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps each write apart; fails after `room` of them.
    #[derive(Clone, Default)]
    struct Recorder {
        writes: Arc<Mutex<Vec<String>>>,
        room: Option<(usize, io::ErrorKind)>,
    }

    impl Write for Recorder {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut writes = self.writes.lock();
            match self.room {
                Some((room, kind)) if writes.len() >= room => Err(kind.into()),
                _ => {
                    writes.push(String::from_utf8(bytes.to_vec()).unwrap());
                    Ok(bytes.len())
                }
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn items(texts: &[&str]) -> Vec<Item> {
        texts.iter().map(|t| Item { id: "id".into(), json: t.as_bytes().to_vec().into() }).collect()
    }

    #[tokio::test]
    async fn one_write_a_response() {
        for (compactly, expected) in
            [(true, ["{\"a\":1}\n", "[2]\n"]), (false, ["{\n    \"a\": 1\n}\n", "[\n    2\n]\n"])]
        {
            let out = Recorder::default();
            let verdicts = Lines::new(out.clone(), compactly).deliver(&items(&["{\"a\":1}", "[2]"])).await.unwrap();
            assert_eq!(verdicts, [Verdict::Delivered, Verdict::Delivered]);
            assert_eq!(*out.writes.lock(), expected);
        }
    }

    #[tokio::test]
    async fn no_name_acts_on_a_terminal() {
        let out = Recorder::default();
        let hostile = "{\"filename\":\"\u{9b}2J\u{202e}fdp.exe\u{e0041}\"}";
        Lines::new(out.clone(), true).deliver(&items(&[hostile])).await.unwrap();
        let line = out.writes.lock()[0].clone();
        assert_eq!(line, "{\"filename\":\"\\u009b2J\\u202efdp.exe\\udb40\\udc41\"}\n");
        let (one, other): (Value, Value) =
            (serde_json::from_str(hostile).unwrap(), serde_json::from_str(&line).unwrap());
        assert_eq!(one, other);
    }

    #[tokio::test]
    async fn a_reader_that_went_away_is_told_from_a_full_disk() {
        let gone = Recorder { room: Some((1, io::ErrorKind::BrokenPipe)), ..Recorder::default() };
        let fault = Lines::new(gone, true).deliver(&items(&["1", "2"])).await.unwrap_err();
        assert!(ReaderGone::is(&fault) && !fault.is_transient());

        let full = Recorder { room: Some((1, io::ErrorKind::StorageFull)), ..Recorder::default() };
        let verdicts = Lines::new(full.clone(), true).deliver(&items(&["1", "2"])).await.unwrap();
        assert!(matches!(verdicts[..], [Verdict::Delivered, Verdict::Retry(_)]));
        let fault = Lines::new(full, true).deliver(&items(&["2"])).await.unwrap_err();
        assert!(fault.is_transient() && !ReaderGone::is(&fault));
    }
}
