//! The one thread that runs statements, and the transactions that its callers share.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use rusqlite::Connection;
use stoq_api::{Fault, FaultKind};
use tokio::sync::oneshot;

use crate::fault;
use crate::lane::{Fetch, Lane, Lanes};
use crate::lock::LockFile;

/// Work inside a transaction. It may run more than once, until one of the transactions in which it ran was committed.
pub(crate) trait Job: Send {
    /// What it does, to say that it cannot be done.
    fn what(&self) -> &'static str;
    fn run(&mut self, transaction: &mut Transaction<'_>) -> rusqlite::Result<()>;
    /// Answers: the last run is on the disk, or will never be.
    fn finish(self: Box<Self>, done: Result<(), Fault>);
}

enum Command {
    Job(Box<dyn Job>),
    /// Reads messages for a subscriber, after the jobs of the same turn.
    Fetch(Fetch),
    Stop(oneshot::Sender<()>),
}

/// One transaction and the subscriptions whose messages it changes.
pub(crate) struct Transaction<'c> {
    pub(crate) connection: &'c Connection,
    changed: Vec<Change>,
}

struct Change {
    lane: Arc<Lane>,
    /// Messages more, or fewer.
    messages: i64,
    mark: i64,
}

impl Transaction<'_> {
    /// `messages` more are in the lane, or fewer.
    pub(crate) fn count(&mut self, lane: &Arc<Lane>, messages: i64) {
        match self.changed.iter_mut().find(|c| Arc::ptr_eq(&c.lane, lane)) {
            Some(change) => change.messages += messages,
            None => self.changed.push(Change { lane: Arc::clone(lane), messages, mark: 0 }),
        }
    }

    fn save_lanes(&mut self) -> rusqlite::Result<()> {
        for change in &mut self.changed {
            change.mark = change.lane.next_mark();
            self.connection
                .prepare_cached("UPDATE subscription SET count = count + ?2, mark = max(mark, ?3) WHERE n = ?1")?
                .execute((change.lane.number, change.messages, change.mark))?;
        }
        Ok(())
    }
}

/// The way to the writer thread.
pub(crate) struct Writer {
    commands: Sender<Command>,
}

impl Writer {
    pub(crate) fn start(
        connection: Connection,
        lock: LockFile,
        group: usize,
        lanes: Arc<Lanes>,
    ) -> Result<Self, Fault> {
        let (commands, inbox) = channel();
        let state = Loop { connection, inbox, group, broken: None };
        let body = move || {
            let stopped = state.run();
            lanes.close_all();
            drop(lock);
            for answer in stopped {
                // Whoever asked may not wait for it.
                answer.send(()).ok();
            }
        };
        let spawned = thread::Builder::new().name("stoq-sqlite".to_owned()).spawn(body);
        spawned.map_err(|e| Fault::because(FaultKind::Unavailable, "cannot start the database's thread", e))?;
        Ok(Self { commands })
    }

    pub(crate) fn submit(&self, job: impl Job + 'static) {
        if let Err(refused) = self.commands.send(Command::Job(Box::new(job)))
            && let Command::Job(job) = refused.0
        {
            job.finish(Err(closed()));
        }
    }

    pub(crate) fn fetch(&self, fetch: Fetch) {
        if let Err(refused) = self.commands.send(Command::Fetch(fetch))
            && let Command::Fetch(fetch) = refused.0
        {
            fetch.fail(closed());
        }
    }

    /// Runs `work` in a transaction and gives its answer once that is on the disk. The work is done even if the caller
    /// does not wait.
    pub(crate) async fn call<T, F>(&self, what: &'static str, work: F) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: FnMut(&mut Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        self.submit(Call { what, work, last: None, answer });
        answered.await.unwrap_or_else(|_| Err(closed()))
    }

    pub(crate) async fn stop(&self) {
        let (answer, answered) = oneshot::channel();
        if self.commands.send(Command::Stop(answer)).is_ok() {
            // An error means that another caller has stopped it.
            drop(answered.await);
        }
    }
}

pub(crate) fn closed() -> Fault {
    Fault::new(FaultKind::Unavailable, "the database is closed")
}

struct Call<T, F> {
    what: &'static str,
    work: F,
    last: Option<T>,
    answer: oneshot::Sender<Result<T, Fault>>,
}

impl<T, F> Job for Call<T, F>
where
    T: Send,
    F: FnMut(&mut Transaction<'_>) -> rusqlite::Result<T> + Send,
{
    fn what(&self) -> &'static str {
        self.what
    }

    fn run(&mut self, transaction: &mut Transaction<'_>) -> rusqlite::Result<()> {
        self.last = Some((self.work)(transaction)?);
        Ok(())
    }

    fn finish(self: Box<Self>, done: Result<(), Fault>) {
        let Self { last, answer, .. } = *self;
        let done = done.and_then(|()| last.ok_or_else(closed));
        // The caller may have stopped waiting.
        drop(answer.send(done));
    }
}

struct Loop {
    connection: Connection,
    inbox: Receiver<Command>,
    group: usize,
    /// Why nothing is done any more.
    broken: Option<String>,
}

/// What is ready at one time.
#[derive(Default)]
struct Turn {
    jobs: Vec<Box<dyn Job>>,
    fetches: Vec<Fetch>,
    stops: Vec<oneshot::Sender<()>>,
}

impl Turn {
    fn add(&mut self, command: Command) {
        match command {
            Command::Job(job) => self.jobs.push(job),
            Command::Fetch(fetch) => self.fetches.push(fetch),
            Command::Stop(answer) => self.stops.push(answer),
        }
    }
}

impl Loop {
    /// Works until it is stopped or nobody is left who could ask; gives who waits for the end.
    fn run(mut self) -> Vec<oneshot::Sender<()>> {
        while let Ok(command) = self.inbox.recv() {
            let mut turn = Turn::default();
            turn.add(command);
            for command in self.inbox.try_iter().take(self.group - 1) {
                turn.add(command);
            }
            self.write(turn.jobs);
            for fetch in turn.fetches {
                self.fetch(fetch);
            }
            if !turn.stops.is_empty() {
                return turn.stops;
            }
        }
        Vec::new()
    }

    /// All jobs in one transaction. If that fails, each in one of its own, so that one job's trouble is only its own.
    fn write(&mut self, mut jobs: Vec<Box<dyn Job>>) {
        if jobs.len() > 1 && self.broken.is_none() {
            let error = match self.transact(&mut jobs) {
                Ok(()) => return jobs.into_iter().for_each(|job| job.finish(Ok(()))),
                Err(error) => error,
            };
            if fault::concerns_all(&error) {
                for job in jobs {
                    let fault = self.fault(&format!("cannot {}", job.what()), fault::again(&error));
                    job.finish(Err(fault));
                }
                return;
            }
        }
        for mut job in jobs {
            let done = self.check().and_then(|()| {
                let one = self.transact(std::slice::from_mut(&mut job));
                one.map_err(|e| self.fault(&format!("cannot {}", job.what()), e))
            });
            job.finish(done);
        }
    }

    fn transact(&mut self, jobs: &mut [Box<dyn Job>]) -> rusqlite::Result<()> {
        let connection = &self.connection;
        let done = (|| {
            connection.prepare_cached("BEGIN")?.execute([])?;
            let mut transaction = Transaction { connection, changed: Vec::new() };
            for job in jobs {
                job.run(&mut transaction)?;
            }
            transaction.save_lanes()?;
            connection.prepare_cached("COMMIT")?.execute([])?;
            for change in &transaction.changed {
                change.lane.saved(change.mark);
            }
            Ok(())
        })();
        if !connection.is_autocommit()
            && let Err(error) = connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "cannot take back a transaction");
        }
        done
    }

    fn fetch(&mut self, mut fetch: Fetch) {
        let done = self.check().and_then(|()| {
            let read = fetch.read(&self.connection);
            read.map_err(|e| self.fault("cannot read messages", e))
        });
        match done {
            Ok(()) => fetch.finish(),
            Err(fault) => fetch.fail(fault),
        }
    }

    fn check(&self) -> Result<(), Fault> {
        self.broken.as_ref().map_or(Ok(()), |why| Err(Fault::new(FaultKind::Unavailable, why.clone())))
    }

    fn fault(&mut self, what: &str, error: rusqlite::Error) -> Fault {
        if fault::is_fatal(&error) {
            let why = "the disk failed to keep the database: check it, then start stoq again".to_owned();
            tracing::error!(%error, "{why}");
            self.broken = Some(why);
        }
        fault::of(what, error)
    }
}
