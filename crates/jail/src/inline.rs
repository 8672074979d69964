//! The same work without a jail: on plain threads of this process.
//!
//! For operators who switched the jail off, and for machines where there is none. A panic of a plugin is survived; an
//! endless loop, an abort or a stack overflow is not, and limits of time and memory are not enforced.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
use crate::pool::queue::{Batch, Job, Queue, Taken};
use crate::pool::{MAX_DEATHS, unanswered};
use crate::protocol::{MAX_INLINE, encode_meta};
use crate::work::{Builder, Hello, Item, Wire, Workload};

/// Items that a thread takes together, as far as they are small: plugins may look at them side by side.
const BATCH_ITEMS: usize = 16;
/// Bytes of content of them, unless it is one.
const BATCH_BYTES: u64 = 1 << 20;
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
        let threads = threads.max(1);
        let queue = Arc::new(Queue::new(BATCH_ITEMS, BATCH_BYTES, threads, sharing));
        let serials = Arc::new(AtomicU64::new(0));
        let spool_dir: Arc<Path> = spool_dir.into();
        let mut inline = Self { queue, threads: Vec::new(), hello: message.into() };
        for n in 0..threads + sharing.further(threads) {
            let worker = Worker {
                workload: Arc::clone(&workload),
                queue: Arc::clone(&inline.queue),
                serials: Arc::clone(&serials),
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
    /// The next serial, for all threads.
    serials: Arc<AtomicU64>,
    spool_dir: Arc<Path>,
}

impl Worker {
    fn run(self) {
        loop {
            match self.queue.take(IDLE) {
                Taken::Batch(Batch { jobs, turn, .. }) => {
                    let (started, items) = (Instant::now(), jobs.len());
                    self.batch(jobs);
                    self.queue.ended(turn, items, started.elapsed());
                }
                Taken::Nothing => {}
                Taken::Closed => return,
            }
        }
    }

    fn batch(&self, jobs: Vec<Job>) {
        let mut todo = Vec::with_capacity(jobs.len());
        for job in jobs.into_iter().filter(|job| !job.is_cancelled()) {
            match Body::of(&job.item) {
                Ok(content) => todo.push((self.serial(), job, content)),
                Err(error) => {
                    let detail = format!("its content cannot be read: {error}");
                    job.answer(stop(Vec::new(), None, StopReason::Unavailable, detail));
                }
            }
        }
        if todo.len() > 1 {
            let items: Vec<_> =
                todo.iter().map(|(serial, job, content)| item(*serial, &job.item, content, &[])).collect();
            // Whoever panics there does so again, or does without, when each item runs by itself.
            catch_unwind(AssertUnwindSafe(|| self.workload.ahead(&items, &mut |_| {}))).ok();
        }
        for (serial, job, content) in todo {
            let answer = self.item(serial, &job.item, &content);
            job.answer(answer);
        }
    }

    fn serial(&self) -> u64 {
        self.serials.fetch_add(1, Ordering::Relaxed)
    }

    fn item(&self, mut serial: u64, job: &JobItem, content: &Body) -> Answer {
        let (mut excluded, mut stopped) = (Vec::new(), Vec::new());
        for _ in 0..MAX_DEATHS {
            let mut wire = Memory { children: Children::new(job.remaining), plugin: None, spool_dir: &self.spool_dir };
            let todo = item(serial, job, content, &excluded);
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
                    serial = self.serial();
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

fn item<'a>(serial: u64, job: &'a JobItem, content: &'a Body, excluded: &'a [u16]) -> Item<'a> {
    Item { serial, header: &job.header, content: content.get(), excluded }
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
