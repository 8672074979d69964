//! Buckets that documents are put into: what a connector of objects writes with.

use object_store::path::Path;
use stoq_api::backend::Options;
use stoq_api::scanner::{BuildError, OptionInfo, OptionKind};
use stoq_api::{Content, Fault};

use crate::bucket::look;
use crate::kinds::{self, config_of, option};
use crate::objects::Objects;

/// A kind of bucket, under the name and with the options of stoQ's plugin.
#[derive(Clone, Copy)]
pub struct BucketKind {
    /// The plugin's name.
    pub name: &'static str,
    /// The options that say where the bucket is and how it is reached.
    pub options: &'static [OptionInfo],
    /// Opens it; connects to nothing, and leaves options alone that it does not know.
    pub open: fn(&Options) -> Result<Bucket, BuildError>,
}

/// A bucket, or a container, below a prefix.
pub struct Bucket {
    objects: Objects,
    prefix: Path,
    conditional: bool,
}

impl Bucket {
    /// Puts an object, unless there is one of that name. When this returns, it is there, whole.
    ///
    /// # Errors
    /// As for [`stoq_api::store::Store::put`].
    pub async fn put(&self, name: &str, content: &Content) -> Result<(), Fault> {
        let path: Path = self.prefix.parts().chain(Path::from(name).parts()).collect();
        self.objects.put_once(&path, content, self.conditional).await
    }

    /// Where it is, for people.
    pub fn place(&self) -> &str {
        &self.objects.place
    }

    /// Whether it can be used: address, credentials, the bucket.
    ///
    /// # Errors
    /// As for [`stoq_api::store::Store::check`].
    pub async fn check(&self) -> Result<(), Fault> {
        look(&self.objects, &self.prefix).await
    }
}

#[cfg(feature = "s3")]
const S3: [OptionInfo; 13] = OptionInfo::joined(&[
    &[option("connector_bucket", OptionKind::Text, "", "the bucket, which must be there")],
    &kinds::s3::PLUGIN,
]);

#[cfg(feature = "gcs")]
const GCS: [OptionInfo; 7] = OptionInfo::joined(&[
    &[
        option("project_id", OptionKind::Text, "", "not needed; read for the sake of stoQ's configurations"),
        option("connector_bucket", OptionKind::Text, "", "the bucket, which must be there"),
    ],
    &kinds::gcs::CONNECTION,
]);

#[cfg(feature = "azure")]
const AZURE: [OptionInfo; 12] = OptionInfo::joined(&[
    &[option("results_container", OptionKind::Text, "\"stoq-results\"", "the container, which must be there")],
    &kinds::azure::CONNECTION,
]);

/// All kinds of bucket that this build holds.
pub fn bucket_kinds() -> Vec<BucketKind> {
    vec![
        #[cfg(feature = "azure")]
        BucketKind { name: "azure_blob", options: &AZURE, open: open_azure },
        #[cfg(feature = "gcs")]
        BucketKind { name: "gcs", options: &GCS, open: open_gcs },
        #[cfg(feature = "s3")]
        BucketKind { name: "s3", options: &S3, open: open_s3 },
    ]
}

#[cfg(feature = "s3")]
fn open_s3(options: &Options) -> Result<Bucket, BuildError> {
    let config: kinds::s3::Config = config_of(options)?;
    kinds::remote::required("connector_bucket", &config.bucket)?;
    Ok(Bucket {
        objects: Objects { inner: config.client()?, place: config.place().into() },
        prefix: Path::from(config.common.prefix),
        conditional: config.conditional_put,
    })
}

#[cfg(feature = "gcs")]
fn open_gcs(options: &Options) -> Result<Bucket, BuildError> {
    let config: kinds::gcs::Config = config_of(options)?;
    kinds::remote::required("connector_bucket", &config.bucket)?;
    let objects = Objects { inner: config.client()?, place: config.place().into() };
    Ok(Bucket { objects, prefix: Path::from(config.common.prefix), conditional: true })
}

#[cfg(feature = "azure")]
fn open_azure(options: &Options) -> Result<Bucket, BuildError> {
    let mut config = config_of::<kinds::azure::Config>(options)?.resolved()?;
    if config.container.is_empty() {
        config.container = "stoq-results".to_owned();
    }
    let objects = Objects { inner: config.client()?, place: config.place().into() };
    Ok(Bucket { objects, prefix: Path::from(config.common.prefix), conditional: true })
}
