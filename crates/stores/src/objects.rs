//! What every store over `object_store` shares: puts in parts, gets in pieces.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, FuturesUnordered};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetResultPayload, MultipartUpload, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions,
    PutPayload,
};
use stoq_api::store::ByteStream;
use stoq_api::{Content, Fault, FaultKind};

use crate::faults;

/// Content up to this many bytes is put in one request, larger content in parts of this size. S3 wants parts of at least
/// 5 MiB and at most 10,000 of them.
pub(crate) const PART: u64 = 8 << 20;
/// Parts of one object that are on their way at a time, each in memory.
const PARTS_AT_ONCE: usize = 2;
/// Objects of one listing.
const MAX_LISTED: usize = 200_000;
/// Bytes read at a time from a local object.
const CHUNK: usize = 256 << 10;

/// An object store and its name in messages.
#[derive(Clone)]
pub(crate) struct Objects {
    pub(crate) inner: Arc<dyn ObjectStore>,
    pub(crate) place: Arc<str>,
}

impl Objects {
    /// Whether an object is there.
    pub(crate) async fn exists(&self, path: &Path) -> Result<bool, Fault> {
        match self.inner.head(path).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(e) => Err(self.fault("look for", path, &e)),
        }
    }

    /// Puts an object; `mode` matters for small content only: large content replaces what is there, whole.
    ///
    /// Gives `false` if the object was there already and `mode` is [`PutMode::Create`].
    pub(crate) async fn put(&self, path: &Path, content: &Content, mode: PutMode) -> Result<bool, Fault> {
        if content.len() > PART {
            self.put_parts(path, content).await?;
            return Ok(true);
        }
        let bytes = part_of(content, 0, content.len()).await?;
        let options = PutOptions { mode, ..PutOptions::default() };
        match self.inner.put_opts(path, PutPayload::from(bytes), options).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. }) => Ok(false),
            Err(e) => Err(self.put_fault(path, &e)),
        }
    }

    async fn put_parts(&self, path: &Path, content: &Content) -> Result<(), Fault> {
        let mut upload = self.inner.put_multipart(path).await.map_err(|e| self.put_fault(path, &e))?;
        let sent = self.send_parts(path, upload.as_mut(), content).await;
        if sent.is_err()
            && let Err(error) = upload.abort().await
        {
            tracing::warn!(%path, %error, "cannot take back an unfinished upload");
        }
        sent
    }

    async fn send_parts(&self, path: &Path, upload: &mut dyn MultipartUpload, content: &Content) -> Result<(), Fault> {
        let len = content.len();
        let mut on_their_way = FuturesUnordered::new();
        let mut at = 0;
        while at < len {
            let part = part_of(content, at, PART.min(len - at)).await?;
            at += part.len() as u64;
            on_their_way.push(upload.put_part(part.into()));
            if on_their_way.len() >= PARTS_AT_ONCE {
                on_their_way.next().await.transpose().map_err(|e| self.put_fault(path, &e))?;
            }
        }
        on_their_way.try_collect::<()>().await.map_err(|e| self.put_fault(path, &e))?;
        upload.complete().await.map_err(|e| self.put_fault(path, &e))?;
        Ok(())
    }

    /// Streams an object that `options` allow.
    pub(crate) async fn get(&self, path: &Path, options: GetOptions) -> Result<ByteStream, Error> {
        let got = self.inner.get_opts(path, options).await?;
        match got.payload {
            GetResultPayload::File(file, _) => Ok(file_stream(file, format!("{}/{path}", self.place))),
            GetResultPayload::Stream(stream) => {
                let (objects, path) = (self.clone(), path.clone());
                Ok(stream.map_err(move |e| objects.fault("get", &path, &e)).boxed())
            }
        }
    }

    /// Names of objects below `folder`, in order and without `prefix`: the first `most`, of the first [`MAX_LISTED`] where
    /// a store lists them in no order.
    pub(crate) async fn names(&self, folder: &Path, prefix: Option<&Path>, most: usize) -> Result<Vec<String>, Fault> {
        let skip = prefix.map_or(0, |prefix| prefix.parts().count());
        let mut names = Vec::new();
        let mut objects = self.inner.list(Some(folder)).take(MAX_LISTED);
        while let Some(object) = objects.next().await {
            let object = match object {
                Ok(object) => object,
                Err(Error::NotFound { .. }) => break,
                Err(e) => return Err(self.fault("list", folder, &e)),
            };
            let path: Path = object.location.parts().skip(skip).collect();
            // Objects that are being written have a name that none of ours can have.
            if !path.as_ref().contains('#') {
                names.push(path.to_string());
            }
        }
        names.sort_unstable();
        names.truncate(most);
        Ok(names)
    }

    /// Removes an object, if it is there.
    pub(crate) async fn remove(&self, path: &Path) -> Result<(), Fault> {
        match self.inner.delete(path).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(self.fault("remove", path, &e)),
        }
    }

    /// What a failed operation asks of its caller, in words.
    pub(crate) fn fault(&self, what: &str, path: &Path, error: &Error) -> Fault {
        faults::fault(&self.place, what, path, error)
    }

    /// The same for a put: if that misses something, it misses the bucket.
    fn put_fault(&self, path: &Path, error: &Error) -> Fault {
        match error {
            Error::NotFound { .. } => faults::no_bucket(&self.place, error),
            other => self.fault("put", path, other),
        }
    }
}

/// Some bytes of `content`, at most [`PART`]: those of a file are read beside the runtime.
async fn part_of(content: &Content, at: u64, len: u64) -> Result<Bytes, Fault> {
    let cannot = |e| Fault::because(FaultKind::Unavailable, "cannot read content to store it", e);
    let size = usize::try_from(len).map_err(|e| cannot(io::Error::other(e)))?;
    match content {
        Content::Bytes(bytes) => {
            let start = usize::try_from(at).map_err(|e| cannot(io::Error::other(e)))?;
            Ok(bytes.slice(start..start + size))
        }
        Content::File { file, offset, .. } => {
            let (file, offset) = (Arc::clone(file), offset + at);
            let read = move || {
                let mut bytes = BytesMut::zeroed(size);
                file.read_exact_at(&mut bytes, offset)?;
                Ok::<_, io::Error>(bytes.freeze())
            };
            tokio::task::spawn_blocking(read).await.map_err(io::Error::other).flatten().map_err(cannot)
        }
    }
}

/// A local object in pieces, each read beside the runtime.
pub(crate) fn file_stream(file: File, name: String) -> ByteStream {
    stream::try_unfold(file, move |mut file| {
        let name = name.clone();
        async move {
            let read = move || {
                let mut bytes = BytesMut::zeroed(CHUNK);
                let got = file.read(&mut bytes)?;
                bytes.truncate(got);
                Ok::<_, io::Error>((bytes.freeze(), file))
            };
            let read = tokio::task::spawn_blocking(read).await.map_err(io::Error::other).flatten();
            let (bytes, file) =
                read.map_err(|e| Fault::because(FaultKind::Unavailable, format!("cannot read {name}"), e))?;
            Ok((!bytes.is_empty()).then_some((bytes, file)))
        }
    })
    .boxed()
}
