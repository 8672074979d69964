//! The supervisor: a pool of slots, a thread for each, one queue for all.

mod collect;
pub(crate) mod queue;
mod slot;
mod watch;
mod worker;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

pub(crate) use self::collect::Collector;
use self::queue::Queue;
use self::slot::Slot;
pub use self::worker::MAX_DEATHS;
use self::worker::Worker;
use crate::error::JailError;
use crate::job::{Answer, JobItem, Limits, Runner, Sharing, StopReason, Stopped};
use crate::protocol::{MAX_INLINE, MAX_ITEMS};
use crate::sandbox::{Applied, Mode, Rules};
use crate::spawn::{ForkServer, Keeper};

/// CPU time of a slot's whole life, as a multiple of what one plugin may use on one item.
const LIFETIME_FACTOR: u32 = 32;

/// How a pool is set up.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// Slots, each a process and a thread of the supervisor.
    pub slots: usize,
    /// Limits of a slot.
    pub limits: Limits,
    /// Most items in one request, at most [`MAX_ITEMS`].
    pub batch_items: usize,
    /// Most bytes of content in a request of several items, at most [`MAX_INLINE`].
    pub batch_bytes: usize,
    /// Payloads after which a slot is replaced. A slot that a payload has taken over lies about the later ones: 1 gives a
    /// fresh process to each payload, for about a millisecond each.
    pub recycle_after: u32,
    /// Where children go that are too many for memory. The files there have no name and vanish with their last user.
    pub spool_dir: PathBuf,
    /// Whether slots may run with less than a whole sandbox.
    pub mode: Mode,
    /// Least level of Landlock; 0 takes a kernel without it.
    pub landlock_min: u8,
    /// Who shares the slots. With tenants some more of them may be at work for a moment, and processes stay around for
    /// several tenants.
    pub sharing: Sharing,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            slots: thread::available_parallelism().map_or(1, NonZeroUsize::get),
            limits: Limits::default(),
            batch_items: 16,
            batch_bytes: 1 << 20,
            recycle_after: 1_000,
            spool_dir: std::env::temp_dir(),
            mode: Mode::Require,
            landlock_min: 0,
            sharing: Sharing::default(),
        }
    }
}

/// A pool of slots. Dropping it ends them.
pub struct Pool {
    shared: Arc<Shared>,
    applied: Applied,
    threads: Vec<JoinHandle<()>>,
}

/// What the threads of a pool share.
struct Shared {
    config: PoolConfig,
    rules: Rules,
    queue: Queue,
    keeper: Keeper,
    serving: RwLock<Serving>,
    /// Held while a fork server is started, so that only one thread replaces a dead one.
    starting: Mutex<()>,
    closing: AtomicBool,
}

struct Serving {
    generation: u64,
    server: Arc<ForkServer>,
    config: Bytes,
}

impl Pool {
    /// Starts the fork server with the workload's configuration, and the slots. Blocks while the workload is built.
    ///
    /// # Errors
    /// The workload cannot be built, or this kernel or container does not give what `config` asks for.
    pub fn start(config: PoolConfig, workload_config: Bytes) -> Result<Self, JailError> {
        check(&config)?;
        tempfile::tempfile_in(&config.spool_dir).map_err(JailError::start("a file in the spool directory"))?;
        let rules = Rules {
            mode: config.mode,
            landlock_min: config.landlock_min,
            memory: config.limits.memory,
            cpu_seconds: lifetime_cpu(&config.limits).as_secs(),
            supervisor: i32::try_from(std::process::id()).unwrap_or(0),
        };
        let keeper = Keeper::start().map_err(JailError::start("a thread"))?;
        let server = ForkServer::start(&keeper, &rules, &workload_config)?;
        let applied = probe(&server, &config.limits)?;
        let shared = Arc::new(Shared {
            queue: Queue::new(config.batch_items, config.batch_bytes as u64, config.slots, &config.sharing),
            config,
            rules,
            keeper,
            serving: RwLock::new(Serving { generation: 0, server, config: workload_config }),
            starting: Mutex::new(()),
            closing: AtomicBool::new(false),
        });
        let mut pool = Self { shared, applied, threads: Vec::new() };
        let PoolConfig { slots, sharing, .. } = &pool.shared.config;
        for n in 0..slots + sharing.further(*slots) {
            let worker = Worker::new(Arc::clone(&pool.shared));
            let thread = thread::Builder::new().name(format!("slot-{n}")).spawn(move || worker.run());
            pool.threads.push(thread.map_err(JailError::start("a slot's thread"))?);
        }
        Ok(pool)
    }

    /// What the slots are locked in by on this kernel.
    pub fn applied(&self) -> Applied {
        self.applied
    }

    /// Builds the workload anew from another configuration and goes over to it: batches that run now end with the old
    /// one, all later ones run with the new. Blocks while the workload is built.
    ///
    /// # Errors
    /// As for [`Pool::start`]; the old one stays in use then.
    pub fn reload(&self, workload_config: Bytes) -> Result<(), JailError> {
        let _one = self.shared.starting.lock();
        self.shared.replace(workload_config)
    }
}

impl Shared {
    fn generation(&self) -> u64 {
        self.serving.read().generation
    }

    fn lifetime_cpu(&self) -> Duration {
        lifetime_cpu(&self.config.limits)
    }

    /// A new slot of the current fork server, which is replaced first if it is gone.
    fn fork(&self) -> Result<(Slot, u64), JailError> {
        let (server, generation) = self.current();
        let (forked, generation) = match server.fork() {
            Ok(forked) => (forked, generation),
            Err(error) if is_gone(&error) => {
                let (server, generation) = self.revive(generation)?;
                (server.fork().map_err(JailError::start("a slot"))?, generation)
            }
            Err(error) => return Err(JailError::start("a slot")(error)),
        };
        let (slot, _) = Slot::ready(forked, &self.config.limits).map_err(JailError::Sandbox)?;
        Ok((slot, generation))
    }

    fn current(&self) -> (Arc<ForkServer>, u64) {
        let serving = self.serving.read();
        (Arc::clone(&serving.server), serving.generation)
    }

    /// Replaces the fork server of `generation`, unless another thread has done so meanwhile.
    fn revive(&self, generation: u64) -> Result<(Arc<ForkServer>, u64), JailError> {
        let _one = self.starting.lock();
        let config = {
            let serving = self.serving.read();
            (serving.generation == generation).then(|| serving.config.clone())
        };
        if let Some(config) = config {
            tracing::warn!("the fork server is gone; it is started again");
            self.replace(config)?;
        }
        Ok(self.current())
    }

    fn replace(&self, config: Bytes) -> Result<(), JailError> {
        let server = ForkServer::start(&self.keeper, &self.rules, &config)?;
        probe(&server, &self.config.limits)?;
        let mut serving = self.serving.write();
        let generation = serving.generation + 1;
        *serving = Serving { generation, server, config };
        Ok(())
    }
}

#[async_trait]
impl Runner for Pool {
    async fn run(&self, items: Vec<JobItem>) -> Vec<Answer> {
        let n = items.len();
        match self.shared.queue.push(items).await {
            Ok(answers) => answers,
            // A thread of ours panicked over the items: a bug here, which must not look like "nothing found".
            Err(_) => (0..n).map(|_| unanswered()).collect(),
        }
    }

    fn hello(&self) -> Bytes {
        self.shared.serving.read().server.hello().clone()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        self.shared.queue.close();
        for thread in self.threads.drain(..) {
            // A panic of that thread was reported when it happened.
            thread.join().ok();
        }
    }
}

pub(crate) fn unanswered() -> Answer {
    let detail = "the jail gave no answer".to_owned();
    Answer { stopped: vec![Stopped { plugin: None, reason: StopReason::Unavailable, detail }], ..Answer::default() }
}

fn lifetime_cpu(limits: &Limits) -> Duration {
    (limits.plugin_cpu * LIFETIME_FACTOR).max(Duration::from_secs(60))
}

/// Forks a slot only to see whether it can be locked in.
fn probe(server: &Arc<ForkServer>, limits: &Limits) -> Result<Applied, JailError> {
    let forked = server.fork().map_err(JailError::start("a slot"))?;
    Slot::ready(forked, limits).map(|(_, applied)| applied).map_err(JailError::Sandbox)
}

fn is_gone(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof, WouldBlock};
    // One that does not answer in time is as good as gone.
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof | WouldBlock)
}

fn check(config: &PoolConfig) -> Result<(), JailError> {
    let wrong = |what| Err(JailError::Config(what));
    if config.slots == 0 {
        return wrong("slots must be at least 1");
    }
    if config.batch_items == 0 || config.batch_items > MAX_ITEMS {
        return wrong("batch items must be between 1 and 64");
    }
    if config.batch_bytes > MAX_INLINE {
        return wrong("batch bytes must be at most 4 MiB");
    }
    if config.recycle_after == 0 {
        return wrong("a slot must be used for at least one payload");
    }
    Ok(())
}
