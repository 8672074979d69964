//! Workers that run beside the slots, because they drive a program of their own.

mod exif;

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use stoq_api::plugin::ExternalWorker;
use stoq_runtime::config::Loaded;

use crate::wiring::app::Externals;

/// The external workers that this machine can run. Where a tool is missing, the built-in reader of the same name answers.
pub(crate) fn workers(loaded: &Loaded, scratch_dir: &Path) -> Result<Externals> {
    let mut all = Externals::new();
    if let Some(worker) = exif::worker(loaded, scratch_dir)? {
        all.insert(exif::NAME.to_owned(), Arc::new(worker) as Arc<dyn ExternalWorker>);
    }
    Ok(all)
}
