//! The same work without a jail: on plain threads of this process.
//!
//! For operators who switched the jail off, and for machines where there is none. A panic of a plugin is survived; an
//! endless loop, an abort or a stack overflow is not, and limits of time and memory are not enforced.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use stoq_api::scanner::{Remaining, Sink, Spent};
use stoq_api::{PackedMeta, PayloadMeta};

use crate::children::{Children, Refused};
use crate::error::JailError;
use crate::job::{Answer, JobItem, Runner, Sharing, StopReason, Stopped};
use crate::memfd::{Map, Sealed};
use crate::pool::queue::{Batch, Queue, Taken};
use crate::pool::{MAX_DEATHS, unanswered};
use crate::protocol::{MAX_INLINE, encode_meta};
use crate::work::{Builder, Hello, Item, Wire, Workload};

/// How long a thread waits for work before it looks whether there will be any.
const IDLE: Duration = Duration::from_secs(60);

/// Runs a workload on a fixed number of threads. Dropping it ends them, after the item that each is at.
pub struct Inline {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
    hello: Bytes,
}

impl Inline {
    /// Builds the workload and starts `threads` threads, at least one, and some more for those who share them. Children that are too many for memory go to
    /// `spool_dir`.
    ///
    /// # Errors
    /// The workload cannot be built, or threads cannot be had.
    pub fn start(
        builder: Builder,
        config: &[u8],
        threads: usize,
        spool_dir: PathBuf,
        sharing: &Sharing,
    ) -> Result<Self, JailError> {
        tempfile::tempfile_in(&spool_dir).map_err(JailError::start("a file in the spool directory"))?;
        let Hello { workload, message } = builder(config).map_err(JailError::Build)?;
        let workload: Arc<dyn Workload> = workload.into();
        // One item at a time: there is no hand-over whose price a batch would share.
        let threads = threads.max(1);
        let queue = Arc::new(Queue::new(1, 0, threads, sharing));
        let spool_dir: Arc<Path> = spool_dir.into();
        let mut inline = Self { queue, threads: Vec::new(), hello: message.into() };
        for n in 0..threads + sharing.further(threads) {
            let worker = Worker {
                workload: Arc::clone(&workload),
                queue: Arc::clone(&inline.queue),
                spool_dir: Arc::clone(&spool_dir),
            };
            let thread = thread::Builder::new().name(format!("scan-{n}")).spawn(move || worker.run());
            inline.threads.push(thread.map_err(JailError::start("a scanning thread"))?);
        }
        Ok(inline)
    }
}

#[async_trait]
impl Runner for Inline {
    async fn run(&self, items: Vec<JobItem>) -> Vec<Answer> {
        let n = items.len();
        match self.queue.push(items).await {
            Ok(answers) => answers,
            Err(_) => (0..n).map(|_| unanswered()).collect(),
        }
    }

    fn hello(&self) -> Bytes {
        self.hello.clone()
    }
}

impl Drop for Inline {
    fn drop(&mut self) {
        self.queue.close();
        for thread in self.threads.drain(..) {
            // A panic of that thread was reported when it happened.
            thread.join().ok();
        }
    }
}

struct Worker {
    workload: Arc<dyn Workload>,
    queue: Arc<Queue>,
    spool_dir: Arc<Path>,
}

impl Worker {
    fn run(self) {
        loop {
            match self.queue.take(IDLE) {
                Taken::Batch(Batch { jobs, turn, .. }) => {
                    let (started, items) = (Instant::now(), jobs.len());
                    for job in jobs.into_iter().filter(|job| !job.is_cancelled()) {
                        let answer = self.item(&job.item);
                        job.answer(answer);
                    }
                    self.queue.ended(turn, items, started.elapsed());
                }
                Taken::Nothing => {}
                Taken::Closed => return,
            }
        }
    }

    fn item(&self, item: &JobItem) -> Answer {
        let content = match Body::of(item) {
            Ok(content) => content,
            Err(error) => {
                return stop(Vec::new(), None, StopReason::Unavailable, format!("its content cannot be read: {error}"));
            }
        };
        let (mut excluded, mut stopped) = (Vec::new(), Vec::new());
        for _ in 0..MAX_DEATHS {
            let mut wire = Memory { children: Children::new(item.remaining), plugin: None, spool_dir: &self.spool_dir };
            let todo = Item { header: &item.header, content: content.get(), excluded: &excluded };
            match catch_unwind(AssertUnwindSafe(|| self.workload.run(&todo, &mut wire))) {
                Ok(report) => {
                    return match wire.finish() {
                        Ok(children) => Answer { report: Some(report.into()), children, stopped },
                        Err(error) => {
                            stop(stopped, None, StopReason::Unavailable, format!("children cannot be kept: {error}"))
                        }
                    };
                }
                Err(panic) => {
                    let detail = format!("it panicked: {}", message(&*panic));
                    match wire.plugin.filter(|p| !excluded.contains(p)) {
                        Some(plugin) => {
                            excluded.push(plugin);
                            stopped.push(Stopped { plugin: Some(plugin), reason: StopReason::Crash, detail });
                        }
                        None => return stop(stopped, wire.plugin, StopReason::Crash, detail),
                    }
                }
            }
        }
        stop(stopped, None, StopReason::Crash, format!("given up after {MAX_DEATHS} panics"))
    }
}

fn stop(mut stopped: Vec<Stopped>, plugin: Option<u16>, reason: StopReason, detail: String) -> Answer {
    stopped.push(Stopped { plugin, reason, detail });
    Answer { report: None, children: Vec::new(), stopped }
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// An item's bytes: in memory, or a mapped view of a sealed file.
enum Body {
    Memory(Bytes),
    Mapped(Map),
}

impl Body {
    fn of(item: &JobItem) -> io::Result<Self> {
        if item.content.len() <= MAX_INLINE as u64 {
            return item.content.to_bytes().map(Self::Memory);
        }
        let Sealed { file, offset, len } = Sealed::of(&item.content)?;
        Map::new(&*file, offset, len).map(Self::Mapped)
    }

    fn get(&self) -> &[u8] {
        match self {
            Self::Memory(bytes) => bytes,
            Self::Mapped(map) => map.bytes(),
        }
    }
}

/// Takes children into memory and the spool directory.
struct Memory<'a> {
    children: Children,
    plugin: Option<u16>,
    spool_dir: &'a Path,
}

impl Memory<'_> {
    fn finish(mut self) -> io::Result<Vec<crate::job::Child>> {
        if self.children.is_open() {
            self.close(false)?;
        }
        self.children.finish()
    }
}

fn refused(refused: Refused) -> io::Error {
    match refused {
        Refused::Spent(kind) => Spent(kind).into_io(),
        Refused::Order(what) => io::Error::new(io::ErrorKind::InvalidInput, what),
        Refused::Spool(error) => error,
    }
}

impl Sink for Memory<'_> {
    fn remaining(&self) -> Remaining {
        self.children.remaining()
    }

    fn open(&mut self, meta: PayloadMeta) -> io::Result<()> {
        if self.children.is_open() {
            self.close(false)?;
        }
        let size = encode_meta(&meta)?.len();
        self.children.open(self.plugin.unwrap_or(0), PackedMeta::from(&meta), size).map_err(refused)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.children.data(bytes, self.spool_dir).map_err(refused)
    }

    fn close(&mut self, keep: bool) -> io::Result<()> {
        self.children.close(keep).map_err(refused)
    }
}

impl Wire for Memory<'_> {
    fn starting(&mut self, plugin: u16) {
        self.plugin = Some(plugin);
    }

    fn sink(&mut self) -> &mut dyn Sink {
        self
    }
}
