//! The payload store in a directory.

use std::fs;
use std::io;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore as _, PutMode};
use stoq_api::store::{ByteStream, Store, StoreKey};
use stoq_api::{Content, Fault, FaultKind};

use crate::layout::{day_of, free_name, on_shelf};
use crate::objects::Objects;

/// How a [`FileStore`] keeps its objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStoreOptions {
    /// Write each object through to the disk before saying that it is stored. Without it an object survives the end of
    /// the process but not a power cut, and costs a fraction.
    pub fsync: bool,
}

impl Default for FileStoreOptions {
    fn default() -> Self {
        Self { fsync: true }
    }
}

/// Keeps payloads beneath one directory: `YYYYMMDD/ab/<sha256>`, and free names beneath `quarantine`.
///
/// Objects are written under another name and then linked, so that a crash leaves whole objects only. Leftovers of a
/// crash (`<sha256>#<n>`) go with their day.
#[derive(Clone)]
pub struct FileStore {
    root: PathBuf,
    fsync: bool,
    objects: Objects,
}

impl FileStore {
    /// Opens the store in `root` and makes that directory if it is not there.
    ///
    /// # Errors
    /// [`FaultKind::Misconfigured`] if the directory cannot be made or is not one.
    pub fn open(root: &FsPath, options: FileStoreOptions) -> Result<Self, Fault> {
        let wrong = |e: Box<dyn std::error::Error + Send + Sync>| {
            let text = format!("cannot use {} as payload store: name a directory that can be written", root.display());
            Fault::because(FaultKind::Misconfigured, text, e)
        };
        fs::create_dir_all(root).map_err(|e| wrong(e.into()))?;
        let root = fs::canonicalize(root).map_err(|e| wrong(e.into()))?;
        let local = LocalFileSystem::new_with_prefix(&root).map_err(|e| wrong(e.into()))?.with_fsync(options.fsync);
        let place = root.display().to_string().into();
        Ok(Self { root, fsync: options.fsync, objects: Objects { inner: Arc::new(local), place } })
    }

    /// The directory.
    pub fn root(&self) -> &FsPath {
        &self.root
    }

    /// Another caller may have linked the object and not yet synced its directory: who finds it there syncs as well.
    async fn sync_existing(&self, path: &Path) -> Result<(), Fault> {
        if !self.fsync {
            return Ok(());
        }
        let file = self.root.join(path.as_ref());
        blocking(format!("cannot sync the directory of {}", file.display()), move || match file.parent() {
            Some(parent) => fs::File::open(parent)?.sync_all(),
            None => Ok(()),
        })
        .await
    }
}

#[async_trait]
impl Store for FileStore {
    async fn put(&self, key: &StoreKey, content: &Content) -> Result<(), Fault> {
        let path = Path::from(key.path());
        if self.objects.exists(&path).await? || !self.objects.put(&path, content, PutMode::Create).await? {
            return self.sync_existing(&path).await;
        }
        Ok(())
    }

    async fn get(&self, key: &StoreKey) -> Result<ByteStream, Fault> {
        let path = Path::from(key.path());
        self.objects.get(&path, GetOptions::default()).await.map_err(|e| self.objects.fault("get", &path, &e))
    }

    async fn keep(&self, name: &str, content: &Content) -> Result<(), Fault> {
        let path = free_name(name)?;
        self.objects.put(&path, content, PutMode::Overwrite).await?;
        Ok(())
    }

    async fn shelve(&self, name: &str, content: &Content) -> Result<(), Fault> {
        self.objects.put(&on_shelf(name)?, content, PutMode::Overwrite).await?;
        Ok(())
    }

    async fn shelved(&self, name: &str) -> Result<ByteStream, Fault> {
        let path = on_shelf(name)?;
        self.objects.get(&path, GetOptions::default()).await.map_err(|e| self.objects.fault("get", &path, &e))
    }

    async fn shelf(&self, area: &str, most: usize) -> Result<Vec<String>, Fault> {
        self.objects.names(&on_shelf(area)?, None, most).await
    }

    async fn unshelve(&self, name: &str) -> Result<(), Fault> {
        self.objects.remove(&on_shelf(name)?).await
    }

    async fn days(&self) -> Result<Vec<u32>, Fault> {
        let listed = self.objects.inner.list_with_delimiter(None).await;
        let listed = listed.map_err(|e| self.objects.fault("list", &Path::default(), &e))?;
        let mut days: Vec<u32> = listed.common_prefixes.iter().filter_map(|p| day_of(p.as_ref())).collect();
        days.sort_unstable();
        Ok(days)
    }

    async fn drop_day(&self, day: u32) -> Result<(), Fault> {
        let folder = self.root.join(format!("{day:08}"));
        let what = format!("cannot remove {}", folder.display());
        blocking(what, move || match fs::remove_dir_all(folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        })
        .await
    }

    async fn check(&self) -> Result<(), Fault> {
        self.days().await.map(drop)
    }
}

async fn blocking(what: String, work: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<(), Fault> {
    let done = tokio::task::spawn_blocking(work).await.map_err(io::Error::other).flatten();
    done.map_err(|e| Fault::because(FaultKind::Unavailable, what, e))
}
