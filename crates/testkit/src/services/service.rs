//! A server with its own data and ports, which outlive its restarts.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use futures::future::BoxFuture;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::{Port, Process};

/// How long a server may take to be ready, on a machine that is busy with other tests.
const START_LIMIT: Duration = Duration::from_secs(180);
/// How long a server may take to end when asked to.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// A server that ends while it starts is started again so often: some find their old port taken for a while after they
/// were killed.
const START_TRIES: usize = 20;
/// Between two tries.
const START_PAUSE: Duration = Duration::from_millis(500);
/// Between two questions whether a server is ready.
const ASK_PAUSE: Duration = Duration::from_millis(20);
/// How much of its log is shown when it does not start.
const LOG_TAIL: usize = 4_000;

/// Where a server lives.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its directory: empty before the first start, kept over restarts.
    pub directory: PathBuf,
    /// Its ports.
    pub ports: Vec<u16>,
    /// What it writes to its outputs; emptied at each start.
    pub log: PathBuf,
}

type MakeCommand = Box<dyn Fn(&Place) -> Command + Send + Sync>;
type Ask = Box<dyn Fn(Place) -> BoxFuture<'static, bool> + Send + Sync>;

/// A server that can be started, killed, stopped and started again on the same data and ports. Ends when dropped.
pub struct Service {
    name: String,
    command: MakeCommand,
    ready: Ask,
    process: Option<Process>,
    place: Place,
    _directory: TempDir,
    _ports: Vec<Port>,
}

impl Service {
    /// A server that is not started yet. `command` says how it is started, `ready` asks it whether it can be used: an
    /// open port is no sign of that.
    ///
    /// # Panics
    /// There is no room for a temporary directory, or no free port.
    pub fn new(
        name: &str,
        ports: usize,
        command: impl Fn(&Place) -> Command + Send + Sync + 'static,
        ready: impl Fn(Place) -> BoxFuture<'static, bool> + Send + Sync + 'static,
    ) -> Self {
        let directory = tempfile::Builder::new().prefix(&format!("stoq-{name}-")).tempdir().unwrap();
        let ports: Vec<Port> = (0..ports).map(|_| Port::claim()).collect();
        let place = Place {
            directory: directory.path().join("data"),
            ports: ports.iter().map(Port::number).collect(),
            log: directory.path().join("log"),
        };
        std::fs::create_dir(&place.directory).unwrap();
        Self {
            name: name.to_owned(),
            command: Box::new(command),
            ready: Box::new(ready),
            process: None,
            place,
            _directory: directory,
            _ports: ports,
        }
    }

    /// Starts it, if it does not run, and waits until it can be used.
    ///
    /// # Panics
    /// It cannot be used within three minutes; shows the end of its log.
    pub async fn start(&mut self) {
        if self.is_running() {
            return;
        }
        let end = Instant::now() + START_LIMIT;
        for _ in 0..START_TRIES {
            let mut process = Process::spawn((self.command)(&self.place), &self.place.log);
            while process.exited().is_none() {
                if (self.ready)(self.place.clone()).await {
                    self.process = Some(process);
                    return;
                }
                assert!(Instant::now() < end, "{} is not ready in {START_LIMIT:?}:\n{}", self.name, self.log_tail());
                sleep(ASK_PAUSE).await;
            }
            sleep(START_PAUSE).await;
        }
        panic!("{} ended {START_TRIES} times while it started:\n{}", self.name, self.log_tail());
    }

    /// Kills it as a crash would, if it runs.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Stops it in good order, if it runs.
    ///
    /// # Panics
    /// It does not end within a minute.
    pub async fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop(STOP_LIMIT).await;
        }
    }

    /// Kills it and starts it again on the same data and ports.
    ///
    /// # Panics
    /// As for [`Service::start`].
    pub async fn crash(&mut self) {
        self.kill();
        self.start().await;
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|p| p.exited().is_none())
    }

    /// Its process.
    ///
    /// # Panics
    /// It is not started.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the server is started")
    }

    /// Where it lives.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The port of that index.
    ///
    /// # Panics
    /// It has fewer.
    pub fn port(&self, index: usize) -> u16 {
        self.place.ports[index]
    }

    /// What it has written since it was started last.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.place.log).unwrap_or_default()).into_owned()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let from = log.char_indices().rev().take(LOG_TAIL).last().map_or(0, |(at, _)| at);
        log[from..].to_owned()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Before the directory goes.
        self.kill();
    }
}
