//! Long-lived tasks: each has a name, and what happens when it fails is said where it is started.

use std::collections::HashMap;
use std::error::Error;
use std::future::Future;
use std::time::Duration;

use stoq_api::fault::chain;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use crate::backoff::Backoff;
use crate::shutdown::Shutdown;

/// What a task ends with.
pub type Ending = Result<(), Box<dyn Error + Send + Sync>>;

/// What a failed task does to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// Everything drains: without this task the process is of no use.
    Drain,
    /// It is said, and the others go on.
    Log,
}

/// The tasks of a process. Dropping it aborts them all.
#[derive(Debug)]
pub struct Supervisor {
    shutdown: Shutdown,
    tasks: JoinSet<Ending>,
    known: HashMap<Id, (String, OnError)>,
}

/// A task whose failure ended the process.
#[derive(Debug, thiserror::Error)]
#[error("{task} failed: {reason}")]
pub struct Failed {
    /// Its name.
    pub task: String,
    /// Its error with all causes, or what it panicked with.
    pub reason: String,
}

/// The shortest and the longest time before a task is started again.
const RESTART: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

impl Supervisor {
    /// No tasks yet.
    pub fn new(shutdown: Shutdown) -> Self {
        Self { shutdown, tasks: JoinSet::new(), known: HashMap::new() }
    }

    /// Starts a task. It ends on its own: by being done, by failing, or because it heeds the shutdown.
    pub fn spawn(
        &mut self,
        name: impl Into<String>,
        on_error: OnError,
        task: impl Future<Output = Ending> + Send + 'static,
    ) {
        let id = self.tasks.spawn(task).id();
        self.known.insert(id, (name.into(), on_error));
    }

    /// Starts a task that is made again after it failed or panicked, with growing waits, until draining begins.
    pub fn spawn_restarting<F>(&mut self, name: impl Into<String>, mut make: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = Ending> + Send + 'static,
    {
        let name = name.into();
        let (shutdown, label) = (self.shutdown.clone(), name.clone());
        self.spawn(name, OnError::Log, async move {
            let mut backoff = Backoff::new(RESTART.0, RESTART.1);
            loop {
                let ending = AbortOnDropHandle::new(tokio::spawn(make())).await;
                let Err(reason) = flat(ending) else { return Ok(()) };
                warn!(task = label, reason, tries = backoff.tries(), "task failed and is started again");
                if !backoff.wait(&shutdown.token()).await {
                    return Ok(());
                }
            }
        });
    }

    /// Waits for all tasks: until they are done, or draining began and they are done or `grace` is over, or a stop. Then
    /// what still runs is aborted.
    ///
    /// # Errors
    /// The first failure of a task started with [`OnError::Drain`].
    pub async fn run(mut self, grace: Duration) -> Result<(), Failed> {
        let shutdown = self.shutdown.clone();
        let mut first = None;
        let all = shutdown.within(grace, async {
            while let Some(ended) = self.tasks.join_next_with_id().await {
                self.ended(ended, &mut first);
            }
        });
        if all.await.is_none() {
            let mut left: Vec<_> = self.known.values().map(|(name, _)| name.as_str()).collect();
            left.sort_unstable();
            warn!(tasks = left.join(", "), "tasks did not end in time");
            // Whatever serves the tasks that are cut now must not wait for them either.
            shutdown.stop();
            self.tasks.shutdown().await;
        }
        first.map_or(Ok(()), Err)
    }

    fn ended(&mut self, ended: Result<(Id, Ending), JoinError>, first: &mut Option<Failed>) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let (task, on_error) = self.known.remove(&id).unwrap_or_else(|| ("a task".to_owned(), OnError::Log));
        let reason = match flat(ended.map(|(_, ending)| ending)) {
            Ok(()) => {
                info!(task, "task ended");
                return;
            }
            Err(reason) => reason,
        };
        error!(task, reason, "task failed");
        if on_error == OnError::Drain {
            self.shutdown.drain();
            first.get_or_insert(Failed { task, reason });
        }
    }
}

/// A failure as text, whether the task said so or panicked.
fn flat(ended: Result<Ending, JoinError>) -> Result<(), String> {
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(chain(&*error)),
        Err(panicked) => Err(panicked.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_failure_drains_the_others() {
        let shutdown = Shutdown::new();
        let mut supervisor = Supervisor::new(shutdown.clone());
        let token = shutdown.token();
        supervisor.spawn("worker", OnError::Drain, async move {
            token.cancelled().await;
            Ok(())
        });
        supervisor.spawn("metrics", OnError::Log, async { Err("port in use".into()) });
        supervisor.spawn("provider", OnError::Drain, async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Err("mailbox is gone".into())
        });
        let failed = supervisor.run(GRACE).await.unwrap_err();
        assert_eq!(failed.to_string(), "provider failed: mailbox is gone");
        assert!(!shutdown.is_stopping(), "everything ended in time");
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_a_failure() {
        let mut supervisor = Supervisor::new(Shutdown::new());
        supervisor.spawn("worker", OnError::Drain, async { panic!("boom") });
        assert!(supervisor.run(GRACE).await.unwrap_err().reason.contains("boom"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_is_aborted() {
        struct Dropped(Arc<AtomicUsize>);
        impl Drop for Dropped {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let shutdown = Shutdown::new();
        let mut supervisor = Supervisor::new(shutdown.clone());
        let dropped = Arc::new(AtomicUsize::new(0));
        for _ in 0..2 {
            let guard = Dropped(Arc::clone(&dropped));
            supervisor.spawn("stuck", OnError::Drain, async move {
                let _guard = guard;
                std::future::pending().await
            });
        }
        shutdown.drain();
        supervisor.run(GRACE).await.unwrap();
        assert_eq!(dropped.load(Ordering::SeqCst), 2);
        assert!(shutdown.is_stopping());
    }

    #[tokio::test(start_paused = true)]
    async fn restarted_until_it_succeeds() {
        let mut supervisor = Supervisor::new(Shutdown::new());
        let starts = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&starts);
        supervisor.spawn_restarting("watcher", move || {
            let start = count.fetch_add(1, Ordering::SeqCst);
            async move {
                match start {
                    0 => Err("away".into()),
                    1 => panic!("boom"),
                    _ => Ok(()),
                }
            }
        });
        supervisor.run(GRACE).await.unwrap();
        assert_eq!(starts.load(Ordering::SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn not_restarted_while_draining() {
        let shutdown = Shutdown::new();
        let mut supervisor = Supervisor::new(shutdown.clone());
        supervisor.spawn_restarting("watcher", move || {
            shutdown.drain();
            async { Err("away".into()) }
        });
        supervisor.run(GRACE).await.unwrap();
    }
}
