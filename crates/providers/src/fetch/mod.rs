//! What an intake's references may name, and how it is fetched: by the provider or by a worker, under the same rules.
//!
//! A worker does not trust that a provider has checked anything: it builds the same [`Fetch`] from the same configuration and
//! checks again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use stoq_api::fetch::{Buckets, FetchedBytes, Fetcher, Fetching, ObjectName};
use stoq_api::plugin::Archiver;
use stoq_api::task::{Place, RemoteRef};
use stoq_api::{Fault, FaultKind};

#[cfg(feature = "http")]
mod address;
#[cfg(feature = "http")]
mod hosts;
#[cfg(test)]
#[cfg(feature = "http")]
mod tests;
#[cfg(feature = "http")]
mod web;

#[cfg(feature = "http")]
pub(crate) use self::hosts::Hosts;
#[cfg(feature = "http")]
pub(crate) use self::web::{System, Web};

/// Fetches for one intake.
pub(crate) struct Fetch {
    /// Archivers that references may name.
    pub(crate) archivers: BTreeMap<String, Arc<dyn Archiver>>,
    /// Buckets that references may name.
    pub(crate) buckets: BTreeSet<String>,
    /// What reads them, where there are any.
    pub(crate) reader: Option<Arc<dyn Buckets>>,
    /// What asks servers; hosts that references may name.
    #[cfg(feature = "http")]
    pub(crate) web: Web,
}

impl Fetch {
    /// Whether a reference may name `place`.
    ///
    /// # Errors
    /// [`FaultKind::Refused`].
    pub(crate) fn check(&self, place: &Place) -> Result<(), Fault> {
        let why = match place {
            #[cfg(feature = "http")]
            Place::Url(url) => return self.web.check(url).map_err(|why| Fault::new(FaultKind::Refused, why)),
            #[cfg(not(feature = "http"))]
            Place::Url(_) => "this build of stoq fetches no URLs".to_owned(),
            Place::Object { bucket, .. } if self.buckets.contains(bucket) => return Ok(()),
            Place::Object { bucket, .. } => format!("the bucket {bucket:?} is not in allow_buckets"),
            Place::Archive { archiver, .. } if self.archivers.contains_key(archiver) => return Ok(()),
            Place::Archive { archiver, .. } => format!("the archiver {archiver:?} is not in allow_archivers"),
        };
        Err(Fault::new(FaultKind::Refused, why))
    }
}

#[async_trait]
impl Fetcher for Fetch {
    async fn fetch(&self, reference: &RemoteRef) -> Result<Fetching, Fault> {
        self.check(&reference.place)?;
        match &reference.place {
            #[cfg(feature = "http")]
            Place::Url(url) => self.web.get(url).await,
            Place::Archive { archiver, task } => {
                let Some(known) = self.archivers.get(archiver) else {
                    return Err(Fault::new(FaultKind::Refused, format!("there is no archiver {archiver:?}")));
                };
                let (content, _) = known.get(&serde_json::Value::Object(task.clone())).await?;
                Ok(Fetching { size: Some(content.len()), bytes: FetchedBytes::Whole(content), mismatch: None })
            }
            Place::Object { bucket, key, version, etag } => {
                let Some(reader) = &self.reader else {
                    return Err(Fault::new(FaultKind::Refused, "no store is named for the buckets of this intake"));
                };
                let (version, etag) = (version.as_deref(), etag.as_deref());
                reader.get(ObjectName { bucket, key, version, etag }).await
            }
            #[cfg(not(feature = "http"))]
            Place::Url(_) => Err(Fault::new(FaultKind::Refused, "this build of stoq fetches no URLs")),
        }
    }
}
