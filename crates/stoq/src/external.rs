//! Workers that run beside the slots.

use anyhow::Result;
use stoq_runtime::config::Loaded;

use crate::wiring::app::Externals;

/// The external workers that this machine can run.
pub(crate) fn workers(_loaded: &Loaded) -> Result<Externals> {
    Ok(Externals::new())
}
