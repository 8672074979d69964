//! `stoq scan -S`: payloads that source archivers bring back, asked for as stoQ's tasks ask: `{"ARCHIVER": {…}, …}`, where
//! the inner object is what the archiver said when it kept the payload.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::io::{BufRead, Read};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use serde_json::{Map, Value};
use stoq_api::plugin::{Archiver, NotTold, Provider, Reference, Root, RootBytes, Taking};
use stoq_api::{Fault, PayloadMeta, RequestMeta, fault};
use stoq_providers::Open;
use stoq_runtime::escape::visible;

use crate::exit::UsageError;
use crate::wiring::base::Base;
use crate::wiring::open::Opener;

/// Greatest task on a line of standard input, in bytes.
const MAX_LINE: u64 = 1 << 20;
/// Tasks that are read from standard input.
const MAX_TASKS: usize = 1_000_000;
/// Characters of a task that a message quotes.
const MAX_QUOTED: usize = 80;

/// What is to be brought back, in order.
pub(crate) struct Archived {
    archivers: BTreeMap<String, Arc<dyn Archiver>>,
    asked: VecDeque<(String, Map<String, Value>)>,
    run_id: String,
    number: u64,
}

impl Archived {
    /// Tasks of the command line, and those on the lines of `stdin` where an input is `-`, or there is none.
    ///
    /// # Errors
    /// An archiver is not configured, or an input asks none of them.
    pub(crate) fn new(
        inputs: &[OsString],
        names: &[String],
        base: &Base,
        stdin: impl BufRead,
        run_id: &str,
    ) -> Result<Self> {
        let open = Opener::new(&base.brokers, &base.loaded.settings);
        let mut archivers = BTreeMap::new();
        for name in names {
            let archiver = open.archiver(name).map_err(|e| UsageError(format!("-S {name}: {e}")))?;
            archivers.insert(name.clone(), archiver);
        }
        let mut archived = Self { archivers, asked: VecDeque::new(), run_id: run_id.to_owned(), number: 0 };
        let (lines, tasks): (Vec<_>, Vec<_>) = inputs.iter().partition(|input| *input == "-");
        for task in tasks {
            archived.ask(&task.to_string_lossy())?;
        }
        if !lines.is_empty() || inputs.is_empty() {
            archived.read(stdin)?;
        }
        if archived.asked.is_empty() {
            return Err(UsageError(
                "Error: No content to scan was provided; with -S, give tasks such as \
                 '{\"filedir\": {\"path\": \"…\"}}', or one a line on standard input"
                    .into(),
            )
            .into());
        }
        Ok(archived)
    }

    fn read(&mut self, mut lines: impl BufRead) -> Result<()> {
        let mut line = Vec::new();
        while lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).context("cannot read standard input")? > 0 {
            let task = String::from_utf8_lossy(&line).trim().to_owned();
            if !task.is_empty() {
                self.ask(&task)?;
            }
            if self.asked.len() > MAX_TASKS {
                return Err(UsageError(format!("more than {MAX_TASKS} tasks on standard input")).into());
            }
            line.clear();
        }
        Ok(())
    }

    fn ask(&mut self, task: &str) -> Result<()> {
        let wrong = |why: &str| {
            let quoted: String = task.chars().take(MAX_QUOTED).collect();
            UsageError(format!(
                "{}: with -S, inputs are tasks such as '{{\"filedir\": {{\"path\": \"…\"}}}}': {why}",
                visible(&quoted)
            ))
        };
        let members: Map<String, Value> =
            serde_json::from_str(task).map_err(|e| wrong(&format!("not a JSON object: {e}")))?;
        if members.is_empty() {
            return Err(wrong("it names no archiver").into());
        }
        for (archiver, asked) in members {
            if !self.archivers.contains_key(&archiver) {
                return Err(wrong(&format!("the archiver {archiver:?} is not named by -S")).into());
            }
            let Value::Object(asked) = asked else {
                return Err(wrong(&format!("what {archiver:?} is asked for is not an object")).into());
            };
            self.asked.push_back((archiver, asked));
        }
        Ok(())
    }
}

#[async_trait]
impl Provider for Archived {
    async fn next(&mut self) -> Result<Option<Taking>, Fault> {
        // Taken out only when it is there: this may be dropped while the archiver is asked.
        let Some((name, asked)) = self.asked.front() else { return Ok(None) };
        let task = Value::Object(asked.clone());
        let root = match self.archivers.get(name) {
            Some(archiver) => match archiver.get(&task).await {
                Ok((content, meta)) => Root { bytes: RootBytes::Content(content), meta },
                Err(fault) => {
                    let reason = format!("the archiver {name} does not bring it back: {}", fault::chain(&fault));
                    let meta = PayloadMeta { extra_data: asked.clone(), ..PayloadMeta::default() };
                    Root { bytes: RootBytes::Unreadable { reason, size: 0 }, meta }
                }
            },
            None => return Ok(None),
        };
        self.asked.pop_front();
        self.number += 1;
        let identity = format!("{}/{}", self.run_id, self.number).into_bytes();
        let reference =
            Reference { identity, roots: vec![root], request_meta: RequestMeta::default(), taken: Box::new(NotTold) };
        Ok(Some(reference.into()))
    }
}
