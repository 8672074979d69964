//! What the watching thread hears, from the system and from whoever takes references.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;

use async_trait::async_trait;
use parking_lot::Mutex;
use stoq_api::plugin::Taken;
use stoq_api::{Fault, FaultKind};
use stoq_runtime::escape::visible_bytes;
use stoq_runtime::files::FileState;

use super::after::After;
use super::events::Seen;
use crate::memory::{Key, Memory};

/// Notices that wait for the thread; when there are more, a listing replaces them.
const MAX_NOTICES: usize = 65_536;

/// What the thread hears.
pub(super) enum Signal {
    /// From the system.
    Seen(Seen),
    /// A reference was taken, and that is remembered.
    Taken(Key),
    /// A reference was given up by its receiver: offer it again.
    Released(Key, PathBuf),
    /// Nobody wants more.
    Stop,
}

/// The receiving end of [`Signals`].
pub(super) type Received = mpsc::Receiver<Signal>;

/// The sending end.
#[derive(Clone)]
pub(super) struct Signals {
    sender: mpsc::Sender<Signal>,
    /// Notices on their way; verdicts are as few as references and not counted.
    notices: Arc<AtomicUsize>,
    unclear: Arc<AtomicBool>,
}

impl Signals {
    pub(super) fn new() -> (Self, Received) {
        let (sender, received) = mpsc::channel();
        (Self { sender, notices: Arc::default(), unclear: Arc::default() }, received)
    }

    pub(super) fn send(&self, signal: Signal) {
        // It fails only when the thread has ended, and then nothing matters any more.
        self.sender.send(signal).ok();
    }

    /// Passes on what the system says, as long as the thread keeps up.
    pub(super) fn notice(&self, seen: Seen) {
        if seen == Seen::Unclear || self.notices.load(Relaxed) >= MAX_NOTICES {
            self.need_listing();
        } else {
            self.notices.fetch_add(1, Relaxed);
            self.send(Signal::Seen(seen));
        }
    }

    /// A notice was heard.
    pub(super) fn heard(&self) {
        self.notices.fetch_sub(1, Relaxed);
    }

    /// Only a listing can tell what there is.
    pub(super) fn need_listing(&self) {
        self.unclear.store(true, Relaxed);
    }

    /// Whether a listing was asked for since the last call.
    pub(super) fn take_need(&self) -> bool {
        self.unclear.swap(false, Relaxed)
    }
}

/// Remembers that a file was taken, tells the watching thread, and does with the file what was configured. It works after
/// the thread has ended, too: a role may still hold references then.
pub(super) struct Told {
    pub(super) signals: Signals,
    pub(super) memory: Arc<Mutex<Memory>>,
    pub(super) after: Arc<After>,
    pub(super) key: Key,
    pub(super) state: FileState,
    /// Beneath the root; taken out once the thread was told.
    pub(super) path: Option<PathBuf>,
}

#[async_trait]
impl Taken for Told {
    async fn taken(mut self: Box<Self>) -> Result<(), Fault> {
        let Some(path) = self.path.take() else { return Ok(()) };
        let (memory, after, key, state) = (Arc::clone(&self.memory), Arc::clone(&self.after), self.key, self.state);
        let done = tokio::task::spawn_blocking(move || {
            if let Err(e) = memory.lock().add(key) {
                tracing::warn!(path = visible_bytes(path.as_os_str().as_encoded_bytes()), error = %e,
                    "a taken file will be scanned again after a restart");
            }
            after.apply(&path, &state)
        });
        let done = done.await;
        self.signals.send(Signal::Taken(self.key));
        done.map_err(|e| Fault::because(FaultKind::Corrupt, "putting a taken file away stopped", e))?
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            self.signals.send(Signal::Released(self.key, path));
        }
    }
}
