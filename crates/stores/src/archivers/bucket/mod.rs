//! What the archivers in buckets share: names of objects, putting them once, bringing them back.
//!
//! An object appears whole or not at all, and one that is there already is kept. What a task asks for is looked for in
//! the configured bucket, below the configured prefix, and nowhere else.

use std::io::Write as _;
use std::sync::Arc;

use async_trait::async_trait;
use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{Error, GetOptions};
use serde::Deserialize;
use serde_json::{Map, Value};
use sha1::{Digest as _, Sha1};
use stoq_api::plugin::Archiver;
use stoq_api::response::PayloadResults;
use stoq_api::scanner::{OptionInfo, OptionKind};
use stoq_api::store::ByteStream;
use stoq_api::{Content, Fault, FaultKind, Json, PayloadId, PayloadMeta, RequestMeta, Timestamp};
use time::OffsetDateTime;

use crate::kinds::option;
use crate::objects::Objects;

#[cfg(feature = "azure")]
pub(super) mod azure_blob;
#[cfg(feature = "gcs")]
pub(super) mod gcs;
#[cfg(feature = "s3")]
pub(super) mod s3;

/// First digits of a SHA-1 that name folders, one each.
const SHARDS: usize = 5;
/// Payloads up to this size are brought back in memory, larger ones in a file without a name.
const IN_MEMORY: usize = 64 << 10;

/// Options of all of them.
const ARCHIVE: [OptionInfo; 2] = [
    option("use_sha", OptionKind::Bool, "true", "name objects by their SHA-1; each content is kept once"),
    option("max_size", OptionKind::Size, "268435456", "the largest object that is brought back"),
];
/// An option that stoQ's S3 does not have.
#[cfg(any(feature = "gcs", feature = "azure"))]
const USE_DATETIME: OptionInfo = option(
    "use_datetime",
    OptionKind::Bool,
    "false",
    "without use_sha: put objects below their date, as in 2026/01/02",
);

/// What they make of their options.
#[derive(Deserialize)]
struct Keeping {
    #[serde(default = "yes")]
    use_sha: bool,
    #[serde(default)]
    use_datetime: bool,
    #[serde(default = "default_max_size")]
    max_size: u64,
}

impl Keeping {
    fn naming(&self) -> Naming {
        Naming::of(self.use_sha, self.use_datetime)
    }
}

fn yes() -> bool {
    true
}

fn default_max_size() -> u64 {
    256 << 20
}

/// What an object is called below the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Naming {
    /// `a/b/c/d/e/<sha1>`
    Sha1,
    /// `2026/01/02/<payload>`, the day in UTC.
    Date,
    /// `<payload>`
    Payload,
}

impl Naming {
    /// By stoQ's options: `use_sha` goes first.
    fn of(use_sha: bool, use_datetime: bool) -> Self {
        match (use_sha, use_datetime) {
            (true, _) => Self::Sha1,
            (false, true) => Self::Date,
            (false, false) => Self::Payload,
        }
    }

    fn name(self, payload: PayloadId, now: Timestamp, sha1: &str) -> String {
        match self {
            Self::Sha1 => {
                let shards: String = sha1.chars().take(SHARDS).flat_map(|digit| [digit, '/']).collect();
                format!("{shards}{sha1}")
            }
            Self::Date => {
                let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(now.0) * 1_000);
                let at = at.unwrap_or(OffsetDateTime::UNIX_EPOCH);
                format!("{:04}/{:02}/{:02}/{payload}", at.year(), u8::from(at.month()), at.day())
            }
            Self::Payload => payload.to_string(),
        }
    }
}

/// An archiver in one bucket.
struct BucketArchiver {
    objects: Objects,
    prefix: Path,
    naming: Naming,
    /// The server refuses to replace an object where it is asked to.
    conditional: bool,
    max_size: u64,
    /// The plugin's name.
    plugin: &'static str,
    /// What the bucket and the object are called in results and tasks.
    keys: (&'static str, &'static str),
    bucket: String,
    /// What else stands in results.
    more: Map<String, Value>,
}

impl BucketArchiver {
    fn refused(&self, why: impl std::fmt::Display) -> Fault {
        Fault::new(FaultKind::Refused, format!("{}: {why}", self.plugin))
    }

    /// The object that a task asks for.
    fn wanted(&self, task: &Map<String, Value>) -> Result<Path, Fault> {
        let (bucket, object) = self.keys;
        let text = |key: &str| {
            let text = task.get(key).and_then(Value::as_str);
            text.ok_or_else(|| self.refused(format_args!("the task has no text `{key}`")))
        };
        if text(bucket)? != self.bucket {
            return Err(self.refused(format_args!("{:?} is not the configured {bucket}", text(bucket)?)));
        }
        let name = text(object)?;
        let path = Path::parse(name).map_err(|e| self.refused(format_args!("{name:?} names no object: {e}")))?;
        if !path.prefix_matches(&self.prefix) || path.as_ref().is_empty() {
            return Err(self.refused(format_args!("{name:?} is not below the configured prefix")));
        }
        Ok(path)
    }

    async fn gather(&self, name: &Path, stream: ByteStream) -> Result<Content, Fault> {
        let mut stream = stream;
        let mut small = Vec::new();
        let mut large = None;
        let mut len = 0;
        let cannot = |e: std::io::Error| {
            Fault::because(FaultKind::Unavailable, format!("{}: cannot hold {name}", self.plugin), e)
        };
        while let Some(piece) = stream.try_next().await? {
            len += piece.len() as u64;
            if len > self.max_size {
                return Err(self.refused(format_args!("{name} has more than max_size = {} bytes", self.max_size)));
            }
            small.extend_from_slice(&piece);
            if small.len() > IN_MEMORY {
                let file = large.take();
                let bytes = std::mem::take(&mut small);
                let write = move || {
                    let mut file = file.map_or_else(tempfile::tempfile, Ok)?;
                    file.write_all(&bytes)?;
                    Ok(file)
                };
                let written = tokio::task::spawn_blocking(write).await.map_err(std::io::Error::other).flatten();
                large = Some(written.map_err(cannot)?);
            }
        }
        let Some(mut file) = large else { return Ok(small.into()) };
        file.write_all(&small).map_err(cannot)?;
        Ok(Content::File { file: Arc::new(file), offset: 0, len })
    }
}

#[async_trait]
impl Archiver for BucketArchiver {
    async fn archive(
        &self,
        content: &Content,
        results: &PayloadResults,
        _request: &RequestMeta,
    ) -> Result<Option<Json>, Fault> {
        let sha1 = match self.naming {
            Naming::Sha1 => sha1_of(content.clone()).await?,
            Naming::Date | Naming::Payload => String::new(),
        };
        let name = self.naming.name(results.payload_id, Timestamp::now(), &sha1);
        let path: Path = self.prefix.parts().chain(Path::from(name).parts()).collect();
        self.objects.put_once(&path, content, self.conditional).await?;
        let mut said = self.more.clone();
        said.insert(self.keys.0.to_owned(), self.bucket.clone().into());
        said.insert(self.keys.1.to_owned(), path.as_ref().into());
        Ok(Some(Json::of(&Value::Object(said))))
    }

    async fn get(&self, task: &Value) -> Result<(Content, PayloadMeta), Fault> {
        let fields = task.as_object().ok_or_else(|| self.refused("the task is not an object"))?;
        let path = self.wanted(fields)?;
        let stream = match self.objects.get(&path, GetOptions::default()).await {
            Ok(stream) => stream,
            Err(error @ Error::NotFound { .. }) => return Err(self.objects.not_found(&path, &error)),
            Err(error) => return Err(self.objects.fault("get", &path, &error)),
        };
        let content = self.gather(&path, stream).await?;
        Ok((content, PayloadMeta { extra_data: fields.clone(), ..PayloadMeta::default() }))
    }
}

async fn sha1_of(content: Content) -> Result<String, Fault> {
    let hash = move || {
        let mut hasher = Sha1::new();
        content.for_each_chunk(|chunk| {
            hasher.update(chunk);
            Ok(())
        })?;
        Ok(hex::encode(hasher.finalize()))
    };
    let hashed = tokio::task::spawn_blocking(hash).await.map_err(std::io::Error::other).flatten();
    hashed.map_err(|e| Fault::because(FaultKind::Unavailable, "cannot read a payload to archive it", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_named_as_stoq_named_them() {
        let payload = PayloadId::root(stoq_api::ScanId(uuid::Uuid::nil()), 0);
        let name = |naming: Naming| naming.name(payload, Timestamp(1_767_323_045_000_000), "a9993e364706816aba3e");
        assert_eq!(name(Naming::of(true, true)), "a/9/9/9/3/a9993e364706816aba3e");
        assert_eq!(name(Naming::of(false, true)), format!("2026/01/02/{payload}"));
        assert_eq!(name(Naming::of(false, false)), payload.to_string());
    }
}
