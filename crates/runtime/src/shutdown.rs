//! Ending in order: the first signal drains, the second stops.
//!
//! Draining means that no new work is taken and what is in hand is finished and settled. Stopping means that what is in
//! hand is let go unsettled, so that it comes again.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

/// Says when to end. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    drain: CancellationToken,
    stop: CancellationToken,
}

/// Listens for signals until it is dropped.
#[derive(Debug)]
#[must_use = "signals are heard only as long as this is held"]
pub struct Signals {
    _task: AbortOnDropHandle<()>,
}

impl Shutdown {
    /// One that nothing has asked to end yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets SIGINT and SIGTERM drain, and a second one of either stop. Called within a runtime.
    ///
    /// # Errors
    /// The handlers cannot be installed.
    pub fn on_signals(&self) -> io::Result<Signals> {
        // Installed before the task runs, so that a signal right after the start is not lost.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let shutdown = self.clone();
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    Some(()) = interrupt.recv() => {}
                    Some(()) = terminate.recv() => {}
                    else => break,
                }
                if shutdown.is_draining() {
                    warn!("stopping now: work in hand is let go and comes again");
                    shutdown.stop();
                    break;
                }
                warn!("ending: work in hand is finished first, a second signal stops at once");
                shutdown.drain();
            }
        });
        Ok(Signals { _task: AbortOnDropHandle::new(task) })
    }

    /// Take no new work.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Let go of everything.
    pub fn stop(&self) {
        self.drain.cancel();
        self.stop.cancel();
    }

    /// No new work is to be taken.
    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Everything is to be let go.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Waits until no new work is to be taken.
    pub async fn draining(&self) {
        self.drain.cancelled().await;
    }

    /// Waits until everything is to be let go.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Cancelled when draining begins; for whatever takes in work.
    pub fn token(&self) -> CancellationToken {
        self.drain.clone()
    }

    /// Cancelled when everything is to be let go; for whatever finishes work.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Runs `work` to its end, but no longer than `grace` after draining began, and not beyond a stop; `None` if it was cut.
    pub async fn within<T>(&self, grace: Duration, work: impl Future<Output = T>) -> Option<T> {
        let late = async {
            self.draining().await;
            tokio::time::sleep(grace).await;
        };
        tokio::select! {
            biased;
            value = work => Some(value),
            () = self.stopping() => None,
            () = late => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_has_its_grace() {
        let grace = Duration::from_secs(30);
        let work = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
        let shutdown = Shutdown::new();
        assert!(shutdown.within(grace, work(3_600)).await.is_some(), "nobody asked to end");
        shutdown.drain();
        assert!(shutdown.is_draining() && !shutdown.is_stopping());
        assert!(shutdown.within(grace, work(29)).await.is_some());
        assert!(shutdown.within(grace, work(31)).await.is_none());
        shutdown.stop();
        assert!(shutdown.within(grace, work(1)).await.is_none());
        assert!(shutdown.within(grace, async {}).await.is_some(), "finished work counts");
    }

    #[tokio::test]
    async fn a_stop_drains_too() {
        let shutdown = Shutdown::new();
        shutdown.clone().stop();
        shutdown.draining().await;
        shutdown.stopping().await;
        assert!(shutdown.token().is_cancelled() && shutdown.stop_token().is_cancelled());
    }

    #[tokio::test]
    async fn signals() {
        let shutdown = Shutdown::new();
        let _signals = shutdown.on_signals().unwrap();
        let kill = || rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).unwrap();
        kill();
        shutdown.draining().await;
        assert!(!shutdown.is_stopping());
        kill();
        shutdown.stopping().await;
    }
}
