//! What every store over `object_store` shares: puts in parts, gets in pieces, and what its errors ask for.

use std::error::Error as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path;
use object_store::{
    Error, GetResultPayload, MultipartUpload, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload,
};
use stoq_api::store::ByteStream;
use stoq_api::{Content, Fault, FaultKind};

/// Content up to this many bytes is put in one request, larger content in parts of this size. Object stores want parts
/// of at least 5 MiB.
const PART: u64 = 8 << 20;
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
            Err(e) => Err(self.fault("look for", path, e)),
        }
    }

    /// Puts an object; `mode` matters for small content only: large content replaces what is there, whole.
    ///
    /// Gives `false` if the object was there already and `mode` is [`PutMode::Create`].
    pub(crate) async fn put(&self, path: &Path, content: &Content, mode: PutMode) -> Result<bool, Fault> {
        match content {
            Content::File { file, offset, len } if *len > PART => {
                self.put_parts(path, file, *offset, *len).await?;
                Ok(true)
            }
            Content::Bytes(bytes) => self.put_whole(path, bytes.clone(), mode).await,
            Content::File { file, offset, len } => {
                let bytes = read_at(Arc::clone(file), *offset, *len).await?;
                self.put_whole(path, bytes, mode).await
            }
        }
    }

    async fn put_whole(&self, path: &Path, bytes: Bytes, mode: PutMode) -> Result<bool, Fault> {
        let options = PutOptions { mode, ..PutOptions::default() };
        match self.inner.put_opts(path, PutPayload::from(bytes), options).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. }) => Ok(false),
            Err(e) => Err(self.fault("put", path, e)),
        }
    }

    async fn put_parts(&self, path: &Path, file: &Arc<File>, offset: u64, len: u64) -> Result<(), Fault> {
        let mut upload = self.inner.put_multipart(path).await.map_err(|e| self.fault("put", path, e))?;
        let sent = self.send_parts(path, upload.as_mut(), file, offset, len).await;
        if sent.is_err()
            && let Err(error) = upload.abort().await
        {
            tracing::warn!(%path, %error, "cannot take back an unfinished upload");
        }
        sent
    }

    async fn send_parts(
        &self,
        path: &Path,
        upload: &mut dyn MultipartUpload,
        file: &Arc<File>,
        offset: u64,
        len: u64,
    ) -> Result<(), Fault> {
        let mut at = 0;
        while at < len {
            let want = PART.min(len - at);
            let part = read_at(Arc::clone(file), offset + at, want).await?;
            upload.put_part(part.into()).await.map_err(|e| self.fault("put", path, e))?;
            at += want;
        }
        upload.complete().await.map_err(|e| self.fault("put", path, e))?;
        Ok(())
    }

    /// Streams an object.
    pub(crate) async fn get(&self, path: &Path) -> Result<ByteStream, Fault> {
        let got = self.inner.get(path).await.map_err(|e| self.fault("get", path, e))?;
        match got.payload {
            GetResultPayload::File(file, _) => Ok(file_stream(file, format!("{}/{path}", self.place))),
            GetResultPayload::Stream(stream) => {
                let (objects, path) = (self.clone(), path.clone());
                Ok(stream.map_err(move |e| objects.fault("get", &path, e)).boxed())
            }
        }
    }

    /// What a failed operation asks of its caller, in words.
    pub(crate) fn fault(&self, what: &str, path: &Path, error: Error) -> Fault {
        let object = format!("{}/{path}", self.place);
        if matches!(error, Error::NotFound { .. }) {
            return Fault::because(FaultKind::NotFound, format!("{object} is not there"), error);
        }
        if is_full(&error) {
            let text = format!("cannot {what} {object}: no space left; free some, work goes on by itself then");
            return Fault::because(FaultKind::Unavailable, text, error);
        }
        Fault::because(FaultKind::Unavailable, format!("cannot {what} {object}"), error)
    }
}

/// Whether a full disk or a quota is among the causes.
fn is_full(error: &Error) -> bool {
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<io::Error>()
            && matches!(io.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        {
            return true;
        }
        next = cause.source();
    }
    false
}

/// Part of a file, read beside the runtime. `len` is at most [`PART`].
async fn read_at(file: Arc<File>, offset: u64, len: u64) -> Result<Bytes, Fault> {
    let read = move || {
        let mut bytes = BytesMut::zeroed(usize::try_from(len).map_err(io::Error::other)?);
        file.read_exact_at(&mut bytes, offset)?;
        Ok::<_, io::Error>(bytes.freeze())
    };
    let read = tokio::task::spawn_blocking(read).await.map_err(io::Error::other);
    read.flatten().map_err(|e| Fault::because(FaultKind::Unavailable, "cannot read content to store it", e))
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

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    /// As object_store wraps what a file system says.
    #[derive(Debug)]
    struct Wrapped(io::Error);

    impl std::fmt::Display for Wrapped {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("unable to copy data to file")
        }
    }

    impl std::error::Error for Wrapped {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn a_full_disk_is_for_later_and_says_so() {
        let objects = Objects { inner: Arc::new(InMemory::new()), place: "/data".into() };
        let fault = |kind: io::ErrorKind| {
            let source = Box::new(Wrapped(io::Error::from(kind)));
            objects.fault("put", &Path::from("a/b"), Error::Generic { store: "LocalFileSystem", source })
        };
        let full = fault(io::ErrorKind::StorageFull);
        assert_eq!(full.kind, FaultKind::Unavailable);
        assert_eq!(full.to_string(), "cannot put /data/a/b: no space left; free some, work goes on by itself then");
        let denied = fault(io::ErrorKind::PermissionDenied);
        assert_eq!((denied.kind, denied.to_string().as_str()), (FaultKind::Unavailable, "cannot put /data/a/b"));
    }
}
