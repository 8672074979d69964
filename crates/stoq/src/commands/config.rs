//! `stoq config show`: the effective configuration, with the source of each value.

use std::io::Write;

use anyhow::Result;
use stoq_runtime::config::{effective, reference as all_keys};

use crate::cli::CommonArgs;
use crate::exit::Exit;
use crate::wiring::{app, config};

pub(crate) fn show(common: &CommonArgs, out: &mut dyn Write) -> Result<Exit> {
    let loaded = config::read(common, Vec::new())?;
    crate::warn(&loaded.warnings);
    out.write_all(effective(&loaded.settings, &loaded.origins).as_bytes())?;
    Ok(Exit::Clean)
}

/// `stoq config reference`: every key there is.
pub(crate) fn reference(out: &mut dyn Write) -> Result<Exit> {
    out.write_all(all_keys(&app::infos()).as_bytes())?;
    Ok(Exit::Clean)
}
