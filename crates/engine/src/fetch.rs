//! A task's bytes, from wherever they are.

use std::io::{Read, Write};

use bytes::Bytes;
use futures::StreamExt;
use stoq_api::digest::Sha256Builder;
use stoq_api::fetch::{FetchedBytes, Fetching};
use stoq_api::store::StoreKey;
use stoq_api::task::{FileRef, RemoteRef};
use stoq_api::{Content, Fault, FaultKind, Finding, FindingKind, Location, Sha256, Task, fault};
use stoq_jail::memfd::Writer;
use stoq_runtime::files::FileRoots;

use crate::links::may_pass;
use crate::surroundings::Surroundings;

/// What fetching gave.
pub enum Fetched {
    /// The bytes.
    Ready {
        /// All of them.
        content: Content,
        /// Their digest, computed here or by our own provider; never a reference's claim.
        sha256: Sha256,
        /// How they differ from what the reference said.
        mismatch: Option<Finding>,
    },
    /// They cannot be had, and asking again will not help. The payload's outcome is this finding.
    Gone(Finding),
}

/// Bytes read at a time.
const CHUNK: usize = 128 << 10;

/// Fetches the bytes of `task`.
///
/// # Errors
/// Only [`FaultKind::Unavailable`]: what the bytes are in is away for now.
pub async fn fetch(around: &Surroundings, task: &Task) -> Result<Fetched, Fault> {
    match &task.location {
        Location::Inline => {
            let sha256 = task.sha256.unwrap_or_else(|| Sha256::of(&task.inline));
            Ok(Fetched::Ready { content: task.inline.clone().into(), sha256, mismatch: None })
        }
        Location::Store { day, sha256 } => {
            let key = StoreKey { day: *day, sha256: *sha256 };
            match around.patiently("fetch from the store", || from_store(around, &key)).await {
                Err(fault) if !may_pass(&fault) => Ok(gone(&fault)),
                other => other,
            }
        }
        Location::File(file) => {
            let files = std::sync::Arc::clone(&around.files);
            let (file, max) = (file.clone(), around.settings.max_payload);
            let read = tokio::task::spawn_blocking(move || from_file(&files, &file, max));
            match read.await {
                Ok(Ok(fetched)) => Ok(fetched),
                Ok(Err(fault)) if !fault.is_transient() => Ok(gone(&fault)),
                Ok(Err(fault)) => Err(fault),
                Err(_) => {
                    Ok(Fetched::Gone(Finding::new(FindingKind::Unfetched, "reading the file failed inside stoq")))
                }
            }
        }
        Location::Remote(remote) => {
            match around.patiently("fetch what a reference names", || from_remote(around, remote)).await {
                Err(fault) if !fault.is_transient() => Ok(gone(&fault)),
                other => other,
            }
        }
        Location::Unreadable { reason } => {
            let kind =
                if task.size > around.settings.max_payload { FindingKind::SizeLimit } else { FindingKind::Unfetched };
            Ok(Fetched::Gone(Finding::new(kind, reason.clone())))
        }
    }
}

fn gone(fault: &Fault) -> Fetched {
    Fetched::Gone(Finding::new(FindingKind::Unfetched, fault::chain(fault)))
}

async fn from_store(around: &Surroundings, key: &StoreKey) -> Result<Fetched, Fault> {
    let mut stream = around.store.get(key).await?;
    let mut gather = Gather::new();
    while let Some(chunk) = stream.next().await {
        gather.push(&chunk?)?;
        if gather.len > around.settings.max_payload {
            return Ok(too_large(gather.len, around.settings.max_payload));
        }
    }
    let (content, sha256) = gather.finish()?;
    if sha256 != key.sha256 {
        let detail = format!("the store has other bytes than expected under {}: they are {sha256}", key.path());
        return Ok(Fetched::Gone(Finding::new(FindingKind::ReferenceMismatch, detail)));
    }
    Ok(Fetched::Ready { content, sha256, mismatch: None })
}

fn from_file(roots: &FileRoots, file: &FileRef, max: u64) -> Result<Fetched, Fault> {
    let unreadable = |e| Fault::because(FaultKind::Refused, "the file cannot be read", e);
    let (mut open, mut difference) = roots.open_ref(file)?;
    if open.state.size > max {
        return Ok(too_large(open.state.size, max));
    }
    let mut gather = Gather::new();
    let mut buffer = vec![0_u8; CHUNK.min(usize::try_from(open.state.size).unwrap_or(CHUNK) + 1)];
    loop {
        match open.file.read(&mut buffer).map_err(unreadable)? {
            0 => break,
            got => gather.push(&buffer[..got])?,
        }
        if gather.len > max {
            return Ok(too_large(gather.len, max));
        }
    }
    if difference.is_none() && gather.len != file.size {
        difference = Some(format!("{} bytes were read instead of {}", gather.len, file.size));
    }
    let mismatch = difference.map(|what| {
        let detail = format!("the file changed after its reference was taken: {what}");
        Finding::new(FindingKind::ReferenceMismatch, detail)
    });
    let (content, sha256) = gather.finish()?;
    Ok(Fetched::Ready { content, sha256, mismatch })
}

async fn from_remote(around: &Surroundings, remote: &RemoteRef) -> Result<Fetched, Fault> {
    let Some(fetcher) = around.fetchers.get(&remote.via) else {
        let text =
            format!("this worker has no intake {:?} configured, whose rules say what may be fetched", remote.via);
        return Err(Fault::new(FaultKind::Misconfigured, text));
    };
    let max = around.settings.max_payload;
    let Fetching { bytes, size, mismatch } = fetcher.fetch(remote).await?;
    if let Some(size) = size.filter(|size| *size > max) {
        return Ok(too_large(size, max));
    }
    let gather = match bytes {
        FetchedBytes::Stream(mut stream) => {
            let mut gather = Gather::new();
            while let Some(chunk) = stream.next().await {
                gather.push(&chunk?)?;
                if gather.len > max {
                    return Ok(too_large(gather.len, max));
                }
            }
            gather
        }
        FetchedBytes::Whole(content) => {
            if content.len() > max {
                return Ok(too_large(content.len(), max));
            }
            let copied = tokio::task::spawn_blocking(move || copy(&content)).await;
            copied.map_err(|e| Fault::because(FaultKind::Unavailable, "copying a payload stopped", e))??
        }
    };
    let mismatch = mismatch.or_else(|| {
        let claimed = remote.size.filter(|size| *size != gather.len)?;
        Some(format!("{} bytes are there instead of {claimed}", gather.len))
    });
    let mismatch = mismatch.map(|what| {
        Finding::new(FindingKind::ReferenceMismatch, format!("what is there is not what the reference says: {what}"))
    });
    let (content, sha256) = gather.finish()?;
    Ok(Fetched::Ready { content, sha256, mismatch })
}

fn copy(content: &Content) -> Result<Gather, Fault> {
    let mut gather = Gather::new();
    let mut failed = None;
    let read = content.for_each_chunk(|chunk| {
        gather.push(chunk).map_err(|fault| {
            failed = Some(fault);
            std::io::Error::other("full")
        })
    });
    match (failed, read) {
        (Some(fault), _) => Err(fault),
        (None, Err(e)) => Err(Fault::because(FaultKind::Refused, "what an archiver brought back cannot be read", e)),
        (None, Ok(())) => Ok(gather),
    }
}

fn too_large(size: u64, max: u64) -> Fetched {
    let detail =
        format!("the payload has {size} bytes or more; payloads above {max} bytes are not scanned (scan.max_payload)");
    Fetched::Gone(Finding::new(FindingKind::SizeLimit, detail))
}

/// Bytes as they arrive: in memory up to what a slot takes in line, above that in a sealed memfd, so that a large payload
/// is in memory once.
struct Gather {
    small: Vec<u8>,
    large: Option<Writer>,
    digest: Sha256Builder,
    len: u64,
}

impl Gather {
    fn new() -> Self {
        Self { small: Vec::new(), large: None, digest: Sha256Builder::default(), len: 0 }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let full = |e| Fault::because(FaultKind::Unavailable, "a large payload cannot be held in memory", e);
        self.digest.update(bytes);
        self.len += bytes.len() as u64;
        if let Some(large) = &mut self.large {
            return large.write_all(bytes).map_err(full);
        }
        self.small.extend_from_slice(bytes);
        if self.small.len() > stoq_jail::MAX_INLINE {
            let mut large = Writer::new().map_err(full)?;
            large.write_all(&self.small).map_err(full)?;
            self.small = Vec::new();
            self.large = Some(large);
        }
        Ok(())
    }

    fn finish(self) -> Result<(Content, Sha256), Fault> {
        let content = match self.large {
            None => Content::Bytes(Bytes::from(self.small)),
            Some(large) => large
                .finish()
                .map_err(|e| Fault::because(FaultKind::Unavailable, "a large payload cannot be sealed", e))?,
        };
        Ok((content, self.digest.finish()))
    }
}
