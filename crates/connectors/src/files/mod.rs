//! `files`: responses as lines of JSON, in files that end by size and age.
//!
//! A response counts as delivered once its line is on the disk. A file is written under another name and gets its own when
//! it is finished, so whoever reads finished files never sees half of one. What a crash leaves is finished by the next
//! process that uses the directory: its last line is cut off if it is not whole, as nobody was told that it is there.

mod config;
#[cfg(test)]
mod tests;
mod unfinished;
mod writer;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use stoq_api::plugin::{Connector, Item, Verdict};
use stoq_api::scanner::{BuildError, PluginInfo, PluginKind};
use stoq_api::{Fault, FaultKind};
use tokio::task::spawn_blocking;

use self::config::{Config, OPTIONS, Validated};
use self::unfinished::Unfinished;
use self::writer::Writer;
use crate::model::Document;
use crate::{ConnectorRegistration, Context, config_of};

/// How often files are looked at whose time may have come; and longer ago, what crashed processes may have left.
const LOOK: Duration = Duration::from_secs(1);
/// Looks between two searches for what crashed processes left.
const RECOVER_EVERY: u32 = 60;
/// Files that are compressed beside the writing of others; a further one holds up its batch.
const COMPRESSING: usize = 2;

/// The connector's entry in the registry.
pub(crate) fn registration() -> ConnectorRegistration {
    ConnectorRegistration {
        info: PluginInfo {
            name: "files",
            description: "Writes responses as lines of JSON into files that end by size and age",
            kinds: &[PluginKind::Connector],
            options: &OPTIONS,
            required_workers: &[],
        },
        build,
    }
}

fn build(options: &Map<String, Value>, context: &Context) -> Result<Arc<dyn Connector>, BuildError> {
    let config = Arc::new(config_of::<Config>(options)?.validate()?);
    Ok(Arc::new(Files(Arc::new(Shared {
        name: context.name.clone(),
        writer: Mutex::new(Writer::new(Arc::clone(&config))),
        compressing: AtomicUsize::new(0),
        looked_after: AtomicBool::new(false),
        config,
    }))))
}

struct Files(Arc<Shared>);

struct Shared {
    name: String,
    config: Arc<Validated>,
    writer: Mutex<Writer>,
    compressing: AtomicUsize,
    /// Somebody finishes files whose time has come.
    looked_after: AtomicBool,
}

impl Shared {
    /// Writes a batch; blocks.
    fn write(self: &Arc<Self>, batch: &[Item]) -> Result<Vec<Verdict>, Fault> {
        let mut verdicts = vec![Verdict::Delivered; batch.len()];
        // The documents of one response all go into files of one family.
        let mut families: BTreeMap<String, Vec<(usize, Vec<Document>)>> = BTreeMap::new();
        for (place, item) in batch.iter().enumerate() {
            match self.config.model.documents(item).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
                Ok(documents) => {
                    // A response without a document of this model has nothing to be written.
                    let Some(first) = documents.first() else { continue };
                    let family = self.config.name.family(&first.into());
                    families.entry(family).or_default().push((place, documents));
                }
                Err(reason) => verdicts[place] = Verdict::Rejected(reason),
            }
        }
        let mut ended = Vec::new();
        let (mut written, mut trouble) = (families.is_empty(), None);
        for (family, items) in families {
            let lines = items.iter().flat_map(|(_, documents)| documents).map(|document| &document.json[..]);
            match self.writer.lock().add(&family, lines, &mut ended) {
                Ok(()) => written = true,
                Err(e) => {
                    let reason = format!("cannot write below {}: {e}", self.config.directory.display());
                    items.iter().for_each(|(place, _)| verdicts[*place] = Verdict::Retry(reason.clone()));
                    trouble = Some((reason, e));
                }
            }
        }
        self.finish(ended);
        match trouble {
            Some((reason, e)) if !written && !verdicts.iter().any(|v| matches!(v, Verdict::Rejected(_))) => {
                Err(Fault::because(FaultKind::Unavailable, reason, e))
            }
            _ => Ok(verdicts),
        }
    }

    /// Gives files their names: at once if that is quick, else beside the writing of others.
    fn finish(self: &Arc<Self>, ended: Vec<Unfinished>) {
        for file in ended {
            let beside = self.config.compress != config::Compress::None
                && self.compressing.fetch_update(Ordering::AcqRel, Ordering::Acquire, free).is_ok();
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) if beside => {
                    let shared = Arc::clone(self);
                    runtime.spawn_blocking(move || {
                        shared.finish_one(file);
                        shared.compressing.fetch_sub(1, Ordering::AcqRel);
                    });
                }
                _ => self.finish_one(file),
            }
        }
    }

    fn finish_one(&self, file: Unfinished) {
        if let Err(e) = file.finish(&self.config) {
            tracing::warn!(connector = self.name, error = %e, "a file cannot be finished now; it is tried again");
        }
    }

    /// Finishes what others left.
    fn recover(&self) {
        match unfinished::recover(&self.config) {
            Ok((done, failed)) => {
                if done > 0 {
                    tracing::info!(connector = self.name, files = done, "finished files that were left open");
                }
                for error in failed {
                    tracing::warn!(connector = self.name, error, "a file that was left open cannot be finished now");
                }
            }
            Err(e) => {
                let directory = self.config.directory.display();
                tracing::warn!(connector = self.name, %directory, error = %e, "cannot look for files that were left open");
            }
        }
    }
}

fn free(compressing: usize) -> Option<usize> {
    (compressing < COMPRESSING).then_some(compressing + 1)
}

impl Drop for Shared {
    fn drop(&mut self) {
        for file in self.writer.get_mut().all() {
            self.finish_one(file);
        }
    }
}

/// Ends files whose time has come, also while nothing is delivered, for as long as the connector is there.
async fn look_after(shared: Weak<Shared>) {
    for look in 0_u32.. {
        let Some(now) = shared.upgrade() else { return };
        let looked = spawn_blocking(move || {
            if look.is_multiple_of(RECOVER_EVERY) {
                now.recover();
            }
            let due = now.writer.lock().due();
            now.finish(due);
        });
        if let Err(e) = looked.await {
            tracing::error!(error = %e, "looking after files stopped in the middle");
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[async_trait]
impl Connector for Files {
    async fn deliver(&self, batch: &[Item]) -> Result<Vec<Verdict>, Fault> {
        if !self.0.looked_after.swap(true, Ordering::AcqRel) {
            tokio::spawn(look_after(Arc::downgrade(&self.0)));
        }
        let (shared, batch) = (Arc::clone(&self.0), batch.to_vec());
        let written = spawn_blocking(move || shared.write(&batch)).await;
        written.map_err(|e| Fault::because(FaultKind::Corrupt, "writing files stopped", e))?
    }

    async fn check(&self) -> Result<(), Fault> {
        let shared = Arc::clone(&self.0);
        let made = spawn_blocking(move || unfinished::folder(&shared.config)).await.map_err(std::io::Error::other);
        let text = format!("cannot use the directory {}", self.0.config.directory.display());
        made.flatten().map(drop).map_err(|e| Fault::because(FaultKind::Unavailable, text, e))
    }
}
