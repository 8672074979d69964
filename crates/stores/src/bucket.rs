//! The payload store in a bucket or container.

use std::future::ready;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{Error, GetOptions, ObjectStore as _, PutMode};
use stoq_api::store::{ByteStream, Store, StoreKey};
use stoq_api::{Content, Fault, FaultKind};

use crate::faults;
use crate::layout::{day_of, free_name, on_shelf};
use crate::objects::{Objects, PART};

/// Content up to this many bytes is sent without asking first whether it is there: the question costs about as much.
const ASK_ABOVE: u64 = 1 << 20;

/// Nothing is ever kept below this name, so that listing it is cheap and tells whether the bucket can be used.
const NOTHING: &str = "quarantine/.nothing";

/// Keeps payloads in one bucket: `YYYYMMDD/ab/<sha256>`, and free names beneath `quarantine`, all below a prefix.
///
/// What a put leaves is whole, because a store shows an object only when its request, or the last of its requests, has
/// succeeded. Of an upload in parts that was never finished the parts stay until the bucket's lifecycle rule removes
/// them.
pub(crate) struct BucketStore {
    objects: Objects,
    prefix: Path,
    /// The server refuses to replace an object where it is asked to.
    conditional: bool,
}

impl BucketStore {
    /// The store in `objects`, below `prefix`.
    pub(crate) fn new(objects: Objects, prefix: Path, conditional: bool) -> Self {
        Self { objects, prefix, conditional }
    }

    fn path(&self, below: &str) -> Path {
        self.prefix.parts().chain(Path::from(below).parts()).collect()
    }

    fn list_fault(&self, path: &Path, error: &Error) -> Fault {
        self.objects.list_fault(path, error)
    }
}

/// Whether a bucket can be used.
pub(crate) async fn look(objects: &Objects, prefix: &Path) -> Result<(), Fault> {
    let nothing: Path = prefix.parts().chain(Path::from(NOTHING).parts()).collect();
    match objects.inner.list(Some(&nothing)).try_next().await {
        Ok(_) => Ok(()),
        Err(error) => Err(objects.list_fault(prefix, &error)),
    }
}

impl Objects {
    fn list_fault(&self, path: &Path, error: &Error) -> Fault {
        match error {
            Error::NotFound { .. } => faults::no_bucket(&self.place, error),
            other => self.fault("list", path, other),
        }
    }

    /// Puts an object that can be there already, and then stays. `conditional` says that the server itself refuses to
    /// replace one.
    pub(crate) async fn put_once(&self, path: &Path, content: &Content, conditional: bool) -> Result<(), Fault> {
        let (mode, ask) = match conditional {
            true => (PutMode::Create, content.len() > ASK_ABOVE),
            false => (PutMode::Overwrite, true),
        };
        if ask && self.exists(path).await? {
            return Ok(());
        }
        let put = self.put(path, content, mode).await;
        if matches!(put, Ok(true)) || (put.is_err() && content.len() <= PART) {
            return put.map(drop);
        }
        // Another put of the same object may have been faster: Azure then forgets the parts of ours. And an upload whose
        // completion was answered, but not heard, is gone for the next try.
        match (put, self.exists(path).await) {
            (_, Ok(true)) => Ok(()),
            (Err(fault), _) | (Ok(_), Err(fault)) => Err(fault),
            // Stores also say that it is there while another put, which can still fail, or a removal is under way.
            (Ok(_), Ok(false)) => {
                let text = format!("cannot put {}/{path}: another one is at it, and it is not there yet", self.place);
                Err(Fault::new(FaultKind::Unavailable, text))
            }
        }
    }

    /// What a get that found nothing misses: the object, or the whole bucket where the server says so.
    pub(crate) fn not_found(&self, path: &Path, error: &Error) -> Fault {
        match faults::is_bucket(error) {
            true => faults::no_bucket(&self.place, error),
            false => self.fault("get", path, error),
        }
    }
}

#[async_trait]
impl Store for BucketStore {
    async fn put(&self, key: &StoreKey, content: &Content) -> Result<(), Fault> {
        self.objects.put_once(&self.path(&key.path()), content, self.conditional).await
    }

    async fn get(&self, key: &StoreKey) -> Result<ByteStream, Fault> {
        let path = self.path(&key.path());
        match self.objects.get(&path, GetOptions::default()).await {
            Ok(stream) => Ok(stream),
            Err(error) => {
                if matches!(error, Error::NotFound { .. }) {
                    // A bucket that is not there has no objects either; a payload is not given up for that.
                    self.check().await?;
                }
                Err(self.objects.fault("get", &path, &error))
            }
        }
    }

    async fn keep(&self, name: &str, content: &Content) -> Result<(), Fault> {
        let path = self.path(free_name(name)?.as_ref());
        self.objects.put(&path, content, PutMode::Overwrite).await?;
        Ok(())
    }

    async fn shelve(&self, name: &str, content: &Content) -> Result<(), Fault> {
        self.objects.put(&self.path(on_shelf(name)?.as_ref()), content, PutMode::Overwrite).await?;
        Ok(())
    }

    async fn shelved(&self, name: &str) -> Result<ByteStream, Fault> {
        let path = self.path(on_shelf(name)?.as_ref());
        self.objects.get(&path, GetOptions::default()).await.map_err(|e| self.objects.fault("get", &path, &e))
    }

    async fn shelf(&self, area: &str, most: usize) -> Result<Vec<String>, Fault> {
        self.objects.names(&self.path(on_shelf(area)?.as_ref()), Some(&self.prefix), most).await
    }

    async fn unshelve(&self, name: &str) -> Result<(), Fault> {
        self.objects.remove(&self.path(on_shelf(name)?.as_ref())).await
    }

    async fn days(&self) -> Result<Vec<u32>, Fault> {
        let listed = self.objects.inner.list_with_delimiter(Some(&self.prefix)).await;
        let listed = listed.map_err(|e| self.list_fault(&self.prefix, &e))?;
        let mut days: Vec<u32> = listed.common_prefixes.iter().filter_map(|p| day_of(p.filename()?)).collect();
        days.sort_unstable();
        Ok(days)
    }

    async fn drop_day(&self, day: u32) -> Result<(), Fault> {
        let folder = self.path(&format!("{day:08}"));
        let objects = self.objects.inner.list(Some(&folder)).map_ok(|object| object.location).boxed();
        let gone = self.objects.inner.delete_stream(objects).filter_map(|deleted| {
            ready(match deleted {
                // Another process drops the same day.
                Ok(_) | Err(Error::NotFound { .. }) => None,
                Err(error) => Some(error),
            })
        });
        match std::pin::pin!(gone).next().await {
            None => Ok(()),
            Some(error) => Err(self.objects.fault("remove objects below", &folder, &error)),
        }
    }

    async fn check(&self) -> Result<(), Fault> {
        look(&self.objects, &self.prefix).await
    }
}
