//! `stdin`: the whole of standard input as one payload.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use async_trait::async_trait;
use serde_json::{Map, Value};
use stoq_api::plugin::{NotTold, Provider, Reference, Root, RootBytes, Taking};
use stoq_api::scanner::{BuildError, PluginInfo, PluginKind};
use stoq_api::{Fault, FaultKind, PayloadMeta, RequestMeta};
use tokio::sync::oneshot;

use crate::spool::{Spooled, spool};
use crate::{Context, ProviderRegistration};

/// The provider's entry in the registry.
pub(crate) fn registration() -> ProviderRegistration {
    ProviderRegistration {
        info: PluginInfo {
            name: "stdin",
            description: "Scans standard input as one payload",
            kinds: &[PluginKind::Provider],
            options: &[],
            required_workers: &[],
        },
        build,
        fetcher: None,
    }
}

fn build(_: &Map<String, Value>, context: &Context) -> Result<Box<dyn Provider>, BuildError> {
    let terminal = std::io::stdin().is_terminal();
    Ok(Box::new(Stdin::new(std::io::stdin(), terminal, context)))
}

/// The provider, over any reader.
pub struct Stdin<R> {
    input: Option<R>,
    terminal: bool,
    reading: Option<oneshot::Receiver<Result<Spooled, Fault>>>,
    limits: Limits,
}

struct Limits {
    run_id: String,
    memory: u64,
    max_payload: u64,
    spool_dir: PathBuf,
}

impl<R: Read + Send + 'static> Stdin<R> {
    /// Reads `input`, unless it is a `terminal`, where nobody expects to type a payload.
    pub fn new(input: R, terminal: bool, context: &Context) -> Self {
        let limits = Limits {
            run_id: context.run_id.clone(),
            memory: context.inline_limit,
            max_payload: context.max_payload,
            spool_dir: context.data_dir.clone(),
        };
        Self { input: Some(input), terminal, reading: None, limits }
    }

    /// Reads in a thread of its own, which may wait for input for ever without holding up the end of the process.
    fn start(&mut self, input: R) -> Result<(), Fault> {
        let (sender, receiver) = oneshot::channel();
        let (memory, most, dir) = (self.limits.memory, self.limits.max_payload, self.limits.spool_dir.clone());
        std::thread::Builder::new()
            .name("stdin".to_owned())
            .spawn(move || sender.send(spool(input, memory, most, &dir)).ok())
            .map_err(|e| Fault::because(FaultKind::Unavailable, "cannot start a thread", e))?;
        self.reading = Some(receiver);
        Ok(())
    }

    fn reference(&self, spooled: Spooled) -> Result<Reference, Fault> {
        let bytes = match spooled {
            Spooled::Whole(content) if content.is_empty() => {
                return Err(Fault::new(
                    FaultKind::Refused,
                    "the provided content to scan was empty: nothing came from standard input",
                ));
            }
            Spooled::Whole(content) => RootBytes::Content(content),
            Spooled::TooLarge { read } => RootBytes::Unreadable {
                reason: format!("standard input has more bytes than max_payload allows ({})", self.limits.max_payload),
                size: read,
            },
        };
        Ok(Reference {
            identity: self.limits.run_id.clone().into_bytes(),
            roots: vec![Root { bytes, meta: PayloadMeta::with("filename", Value::Null) }],
            request_meta: RequestMeta::default(),
            taken: Box::new(NotTold),
        })
    }
}

#[async_trait]
impl<R: Read + Send + 'static> Provider for Stdin<R> {
    async fn next(&mut self) -> Result<Option<Taking>, Fault> {
        if let Some(input) = self.input.take() {
            if self.terminal {
                let text = "no content to scan was provided: name a file, or pipe one into standard input";
                return Err(Fault::new(FaultKind::Refused, text));
            }
            self.start(input)?;
        }
        let Some(reading) = &mut self.reading else { return Ok(None) };
        let spooled = reading.await;
        self.reading = None;
        let spooled =
            spooled.map_err(|e| Fault::because(FaultKind::Corrupt, "reading standard input stopped", e))??;
        self.reference(spooled).map(|reference| Some(reference.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{all, context, reference};

    fn stdin(input: &'static [u8], max_payload: u64) -> (tempfile::TempDir, Stdin<&'static [u8]>) {
        let dir = tempfile::tempdir().unwrap();
        let (mut context, _) = context(dir.path());
        context.max_payload = max_payload;
        let stdin = Stdin::new(input, false, &context);
        (dir, stdin)
    }

    #[tokio::test]
    async fn all_of_it_is_one_payload() {
        for input in [&b"small"[..], b"more than sixteen bytes"] {
            let (dir, mut stdin) = stdin(input, 100);
            let references = all(&mut stdin).await;
            assert_eq!(references.len(), 1);
            let root = &references[0].roots[0];
            assert!(root.meta.extra_data["filename"].is_null());
            let RootBytes::Content(content) = &root.bytes else { panic!("no content") };
            assert_eq!(content.to_bytes().unwrap(), input);
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the spool has no name");
        }
    }

    #[tokio::test]
    async fn nothing_and_too_much_are_said() {
        let (_dir, mut empty) = stdin(b"", 100);
        let error = empty.next().await.err().unwrap();
        assert_eq!(error.to_string(), "the provided content to scan was empty: nothing came from standard input");
        assert!(empty.next().await.unwrap().is_none());

        let (_dir, mut large) = stdin(b"123456", 5);
        let reference = reference(large.next().await.unwrap().unwrap());
        assert!(matches!(&reference.roots[0].bytes, RootBytes::Unreadable { size: 6, .. }));

        let dir = tempfile::tempdir().unwrap();
        let mut terminal = Stdin::new(&b"typed"[..], true, &context(dir.path()).0);
        assert!(terminal.next().await.err().unwrap().to_string().starts_with("no content to scan was provided"));
    }
}
