//! Buckets of other people: objects that references name, read with the endpoint and the credentials of a configured store.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{Error, GetOptions, GetResultPayload, ObjectStore};
use parking_lot::Mutex;
use stoq_api::backend::Options;
use stoq_api::fetch::{Buckets, FetchedBytes, Fetching, ObjectName};
use stoq_api::scanner::BuildError;
use stoq_api::{Fault, FaultKind};

use crate::objects::Objects;
use crate::{faults, kinds};

/// Opens the client of one bucket.
type Connect = fn(&Options) -> Result<Arc<dyn ObjectStore>, BuildError>;

/// What reads buckets beside the one that a store of this `kind` is configured with.
///
/// # Errors
/// The kind has no buckets that others could write to, or its options cannot be used.
pub fn buckets(kind: &str, options: &Options) -> Result<Arc<dyn Buckets>, BuildError> {
    let (scheme, connect): (_, Connect) = match kind {
        #[cfg(feature = "s3")]
        "s3" => ("s3", |options| kinds::config_of::<kinds::s3::Config>(options)?.client()),
        #[cfg(feature = "gcs")]
        "gcs" => ("gs", |options| kinds::config_of::<kinds::gcs::Config>(options)?.client()),
        other => {
            return Err(BuildError(format!("a store of kind {other} holds no buckets that references could name")));
        }
    };
    // What is wrong with the options is said at the start, and not by the first reference.
    connect(options)?;
    Ok(Arc::new(Others { scheme, connect, options: options.clone(), open: Mutex::default() }))
}

struct Others {
    scheme: &'static str,
    connect: Connect,
    options: Options,
    /// Clients by bucket; whoever asks has a list of the buckets that may be named.
    open: Mutex<BTreeMap<String, Objects>>,
}

impl Others {
    fn objects(&self, bucket: &str) -> Result<Objects, Fault> {
        if let Some(objects) = self.open.lock().get(bucket) {
            return Ok(objects.clone());
        }
        let mut options = self.options.clone();
        options.insert("bucket".to_owned(), bucket.into());
        let place = format!("{}://{bucket}", self.scheme);
        let inner = (self.connect)(&options)
            .map_err(|e| Fault::because(FaultKind::Misconfigured, format!("{place} cannot be reached"), e))?;
        let objects = Objects { inner, place: place.into() };
        self.open.lock().insert(bucket.to_owned(), objects.clone());
        Ok(objects)
    }
}

#[async_trait]
impl Buckets for Others {
    async fn get(&self, object: ObjectName<'_>) -> Result<Fetching, Fault> {
        let objects = self.objects(object.bucket)?;
        // Keys may hold empty parts and dots, which the client would not send as they are.
        let path = Path::parse(object.key).map_err(|e| {
            Fault::because(FaultKind::Refused, format!("the key {:?} cannot be asked for", object.key), e)
        })?;
        let options = GetOptions { version: object.version.map(str::to_owned), ..GetOptions::default() };
        let mut gone = None;
        let got = match objects.inner.get_opts(&path, options).await {
            // What replaced it is looked at instead, and the scan says so.
            Err(Error::NotFound { .. }) if object.version.is_some() => {
                gone = object.version.map(|version| format!("version {version:?} of the object is not there any more"));
                objects.inner.get_opts(&path, GetOptions::default()).await
            }
            other => other,
        };
        let got = got.map_err(|error| match &error {
            Error::NotFound { .. } => objects.not_found(&path, &error),
            _ if faults::is_bad_request(&error) => {
                let text = format!("{} takes no such request: {object:?}", objects.place);
                Fault::because(FaultKind::Refused, text, objects.fault("get", &path, &error))
            }
            _ => objects.fault("get", &path, &error),
        })?;
        let there = got.meta.e_tag.as_deref().map(|etag| etag.trim_matches('"'));
        let mismatch = match (object.etag, there) {
            (Some(expected), Some(there)) if expected != there => {
                Some(format!("the object's entity tag is {there:?} instead of {expected:?}"))
            }
            _ => None,
        };
        let mismatch = gone.or(mismatch);
        let size = got.meta.size;
        let GetResultPayload::Stream(stream) = got.payload else {
            return Err(Fault::new(FaultKind::Corrupt, format!("{} gives files instead of streams", objects.place)));
        };
        let stream = stream.map_err(move |e| objects.fault("get", &path, &e)).boxed();
        Ok(Fetching { bytes: FetchedBytes::Stream(stream), size: Some(size), mismatch })
    }
}
