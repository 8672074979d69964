//! Which files of this run were taken already, so that a run that was cut off goes on where it was.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use stoq_api::Fault;
use stoq_api::plugin::{NotTold, Taken};
use stoq_api::scanner::BuildError;
use stoq_runtime::files::FileState;

use crate::Context;
use crate::memory::{self, Key, Memory};

/// What this run has taken; nothing is remembered where the data directory ends with the process.
pub(super) struct Remembered(Option<Arc<Mutex<Memory>>>);

impl Remembered {
    /// What is known of the run that `context` names. What another run took is forgotten.
    pub(super) fn open(context: &Context) -> Result<Self, BuildError> {
        if !context.lasting {
            return Ok(Self(None));
        }
        let path = memory::path(context, "filedir");
        let failed = |e| BuildError(format!("cannot remember which files were taken: {path:?}: {e}"));
        let run = key_of_run(context);
        let known = Memory::load(&path).map_err(failed)?.and_then(|mut memory| memory.knows(&run).then_some(memory));
        let memory = known.map_or_else(|| Memory::create(&path, [run]).map_err(failed), Ok)?;
        Ok(Self(Some(Arc::new(Mutex::new(memory)))))
    }

    /// Who is to be told when the file is taken; `None` if it was.
    pub(super) fn offer(&self, path: &Path, state: &FileState, run: &str) -> Option<Box<dyn Taken>> {
        let Some(memory) = &self.0 else { return Some(Box::new(NotTold)) };
        let key = memory::key(path, state, run);
        if memory.lock().knows(&key) {
            return None;
        }
        Some(Box::new(Told { memory: Arc::clone(memory), key }))
    }
}

/// Stands for the run itself, which no file can: its path is empty.
fn key_of_run(context: &Context) -> Key {
    memory::key(Path::new(""), &FileState { size: 0, mtime_ns: 0, inode: 0 }, &context.run_id)
}

struct Told {
    memory: Arc<Mutex<Memory>>,
    key: Key,
}

#[async_trait]
impl Taken for Told {
    async fn taken(self: Box<Self>) -> Result<(), Fault> {
        let mut memory = self.memory.lock();
        if memory.is_full() {
            return Ok(());
        }
        if let Err(error) = memory.add(self.key) {
            // Its task is safe. Forgetting it costs a second scan under the same ids, should this run be cut off.
            tracing::warn!(%error, "cannot remember that a file was taken");
        }
        Ok(())
    }
}
