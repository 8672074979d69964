//! `s3`, `gcs`, `azure_blob`: responses as objects of a bucket, partitioned by the date of their scans.
//!
//! An object is put unless one of its name is there, and names are made of what is in an object: of a scan's id, or of the
//! ids of all responses in it. So a batch that is tried again leaves what it would have left the first time.

mod config;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use futures::StreamExt as _;
use serde_json::{Map, Value};
use stoq_api::plugin::{Connector, Item, Verdict};
use stoq_api::queue::{Part, PartState};
use stoq_api::scanner::{BuildError, OptionInfo, PluginInfo, PluginKind};
use stoq_api::{Content, Fault, FaultKind, fault};
use stoq_stores::{Bucket, BucketKind, bucket_kinds};
use uuid::Uuid;

use self::config::{Config, OPTIONS, Per, Validated};
use crate::common::verdicts::Tally;
use crate::{ConnectorRegistration, config_of};

/// Objects that are on their way at a time.
const AT_ONCE: usize = 8;
/// Names of objects with several responses derive from this.
const BATCHES: Uuid = Uuid::from_u128(0x7a54_7c6f_2a5e_4a77_9d0c_1f6e_52b8_31c4);

/// Each kind of bucket with all options that a connector in it has.
static KINDS: LazyLock<Vec<(BucketKind, Vec<OptionInfo>)>> =
    LazyLock::new(|| bucket_kinds().into_iter().map(|kind| (kind, [kind.options, &OPTIONS].concat())).collect());

/// The connector's entries in the registry, one for each kind of bucket.
pub(crate) fn registrations() -> Vec<ConnectorRegistration> {
    let registration = |(kind, options): &'static (BucketKind, Vec<OptionInfo>)| ConnectorRegistration {
        info: PluginInfo {
            name: kind.name,
            description: "Puts responses into a bucket, as objects by date",
            kinds: &[PluginKind::Connector],
            options,
            required_workers: &[],
        },
        build: match kind.name {
            "azure_blob" => |options, _| build("azure_blob", options),
            "gcs" => |options, _| build("gcs", options),
            _ => |options, _| build("s3", options),
        },
    };
    KINDS.iter().map(registration).collect()
}

fn build(kind: &str, options: &Map<String, Value>) -> Result<Arc<dyn Connector>, BuildError> {
    let config = config_of::<Config>(options)?.validate()?;
    let known = bucket_kinds().into_iter().find(|known| known.name == kind);
    let known = known.ok_or_else(|| BuildError(format!("this build has no buckets of the kind {kind}")))?;
    Ok(Arc::new(Objects { bucket: (known.open)(options)?, config }))
}

struct Objects {
    bucket: Bucket,
    config: Validated,
}

/// One object on its way.
struct Object {
    name: String,
    /// The places in the batch of the responses in it.
    items: Vec<usize>,
    bytes: Vec<u8>,
}

impl Objects {
    /// The objects of a batch. Items that cannot be put into one are rejected in `tally`.
    fn objects(&self, batch: &[Item], tally: &mut Tally) -> Vec<Object> {
        let mut objects: BTreeMap<String, BTreeMap<&str, Object>> = BTreeMap::new();
        for (place, item) in batch.iter().enumerate() {
            match self.one(item) {
                Ok(None) => {}
                Ok(Some((folder, bytes))) => {
                    tally.made(place);
                    let object = Object { name: String::new(), items: Vec::new(), bytes };
                    objects.entry(folder).or_default().entry(&item.id).or_insert(object).items.push(place);
                }
                Err(reason) => tally.rejected(place, reason),
            }
        }
        let named = |(folder, items): (String, BTreeMap<&str, Object>)| match self.config.per {
            Per::Response => {
                let named = |(id, object): (&str, Object)| Object { name: self.name(&folder, id), ..object };
                items.into_iter().map(named).collect::<Vec<_>>()
            }
            Per::Batch => {
                let ids: Vec<&str> = items.keys().copied().collect();
                let id = Uuid::new_v5(&BATCHES, ids.join("\n").as_bytes()).to_string();
                let (mut all, mut bytes) = (Vec::new(), Vec::new());
                for object in items.into_values() {
                    all.extend(object.items);
                    bytes.extend(object.bytes);
                }
                vec![Object { name: self.name(&folder, &id), items: all, bytes }]
            }
        };
        objects.into_iter().flat_map(named).collect()
    }

    fn name(&self, folder: &str, id: &str) -> String {
        let gz = if self.config.gzip { ".gz" } else { "" };
        format!("{folder}{id}.{}{gz}", self.config.ending())
    }

    /// The folder and the documents of one response, a line each; `None` if it has none.
    fn one(&self, item: &Item) -> Result<Option<(String, Vec<u8>)>, String> {
        item.id.parse::<Uuid>().map_err(|_| format!("{:?} is not the id of a scan", item.id))?;
        let (mut folder, mut bytes) = (None, Vec::new());
        for document in self.config.model.documents(item)? {
            let document = document?;
            folder.get_or_insert_with(|| self.config.partition.family(&(&document).into()));
            let start = bytes.len();
            bytes.extend_from_slice(&document.json);
            // Line feeds can stand between JSON values only, where a blank says as much.
            bytes[start..].iter_mut().filter(|b| matches!(b, b'\n' | b'\r')).for_each(|b| *b = b' ');
            bytes.push(b'\n');
        }
        Ok(folder.map(|folder| (folder, bytes)))
    }

    async fn put(&self, object: &mut Object) -> Result<(), Fault> {
        let bytes = std::mem::take(&mut object.bytes);
        let bytes = if self.config.gzip { compressed(bytes).await? } else { bytes };
        self.bucket.put(&object.name, &Content::from(bytes)).await
    }
}

/// The same bytes give the same bytes: the header tells no time.
async fn compressed(bytes: Vec<u8>) -> Result<Vec<u8>, Fault> {
    let compress = move || {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(&bytes)?;
        encoder.finish()
    };
    let done = tokio::task::spawn_blocking(compress).await.map_err(std::io::Error::other).flatten();
    done.map_err(|e| Fault::because(FaultKind::Unavailable, "cannot compress responses", e))
}

#[async_trait]
impl Connector for Objects {
    async fn deliver(&self, batch: &[Item]) -> Result<Vec<Verdict>, Fault> {
        let mut tally = Tally::new(batch.len());
        let objects = self.objects(batch, &mut tally);
        let puts = objects.into_iter().map(|mut object| async move {
            let put = self.put(&mut object).await;
            (object, put)
        });
        let mut puts = futures::stream::iter(puts).buffer_unordered(AT_ONCE);
        while let Some((object, put)) = puts.next().await {
            match put {
                Ok(()) => object.items.iter().for_each(|item| tally.delivered(*item)),
                Err(e) if e.is_transient() => {
                    object.items.iter().for_each(|item| tally.retry(*item, || fault::chain(&e)));
                }
                Err(e) if e.kind == FaultKind::Refused => {
                    let reason = format!("object {}: {}", object.name, fault::chain(&e));
                    object.items.iter().for_each(|item| tally.rejected(*item, reason.clone()));
                }
                // The bucket as a whole; what was put by now is put again without effect.
                Err(e) => return Err(e),
            }
        }
        Ok(tally.verdicts())
    }

    async fn check(&self) -> Result<(), Fault> {
        self.bucket.check().await
    }

    /// Says whether the bucket can be used, and makes nothing: it is somebody else's.
    async fn setup(&self, _make: bool) -> Result<Vec<Part>, Fault> {
        let state = match self.bucket.check().await {
            Ok(()) => PartState::Present,
            Err(e) if e.kind == FaultKind::Misconfigured => {
                PartState::Different(format!("{}; its owner has to make it or let us in", fault::chain(&e)))
            }
            Err(e) => return Err(e),
        };
        Ok(vec![Part { what: self.bucket.place().to_owned(), state }])
    }
}
