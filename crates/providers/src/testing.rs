//! What tests of several providers need.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{CWD, FileType, Mode, OFlags};
use stoq_api::backend::OpenQueue;
use stoq_api::fetch::{Buckets, Fetching, ObjectName};
use stoq_api::plugin::{Archiver, Provider, Reference, Taking};
use stoq_api::queue::Queue;
use stoq_api::scanner::BuildError;
use stoq_api::{Fault, FaultKind};
use stoq_runtime::files::FileRoots;

use crate::{Context, Open, Skip};

pub(crate) fn dir_fd(path: &Path) -> OwnedFd {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

pub(crate) fn fifo(path: &Path) {
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

/// Opens nothing.
pub(crate) struct Nothing;

impl OpenQueue for Nothing {
    fn queue(&self, broker: &str, _: &str) -> Result<Arc<dyn Queue>, BuildError> {
        Err(BuildError(format!("no broker is called {broker:?}")))
    }
}

impl Open for Nothing {
    fn archiver(&self, name: &str) -> Result<Arc<dyn Archiver>, BuildError> {
        Err(BuildError(format!("no archiver is called {name:?}")))
    }

    fn buckets(&self, _: &str) -> Result<Arc<dyn Buckets>, BuildError> {
        Ok(Arc::new(Empty))
    }
}

/// Buckets without objects.
struct Empty;

#[async_trait::async_trait]
impl Buckets for Empty {
    async fn get(&self, object: ObjectName<'_>) -> Result<Fetching, Fault> {
        Err(Fault::new(FaultKind::NotFound, format!("{object:?} is not there")))
    }
}

/// A context whose inline limit is 16 bytes and whose largest payload has 4 GiB, and what it was told to skip.
pub(crate) fn context(data_dir: &Path) -> (Context, Arc<Mutex<Vec<Skip>>>) {
    let skips = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&skips);
    let context = Context {
        name: "src".to_owned(),
        data_dir: data_dir.to_owned(),
        lasting: false,
        run_id: "run".to_owned(),
        roots: Arc::new(FileRoots::default()),
        workers_see_files: true,
        inline_limit: 16,
        max_payload: 4 << 30,
        open: Arc::new(Nothing),
        on_skip: Arc::new(move |skip| sink.lock().push(skip)),
    };
    (context, skips)
}

/// The names of what is skipped.
pub(crate) fn skipped(skips: &Mutex<Vec<Skip>>) -> Vec<PathBuf> {
    skips.lock().iter().map(|s| PathBuf::from(s.path.file_name().unwrap())).collect()
}

/// `extra_data.filename` of a reference's first root.
pub(crate) fn name_of(reference: &Reference) -> String {
    reference.roots[0].meta.filename().unwrap().to_owned()
}

/// All that a provider brings until it ends.
pub(crate) async fn all(provider: &mut dyn Provider) -> Vec<Reference> {
    let mut references = Vec::new();
    while let Some(taking) = provider.next().await.unwrap() {
        references.push(reference(taking));
    }
    references
}

/// What was taken, as the reference that it is expected to be.
pub(crate) fn reference(taking: Taking) -> Reference {
    match taking {
        Taking::Reference(reference) => reference,
        Taking::Refused(refused) => panic!("refused: {}", refused.reason),
    }
}

/// Runs `work` in a thread that may not read everything, even where tests run as root.
pub(crate) fn as_nobody<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if rustix::process::geteuid().is_root() {
                let nobody = rustix::thread::Uid::from_raw(65_534);
                rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
            }
            work()
        });
        thread.join().unwrap()
    })
}
