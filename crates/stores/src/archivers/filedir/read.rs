//! Files brought back, from beneath `archive_dir` only.

use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags};
use stoq_api::{Content, Fault, FaultKind};
use stoq_runtime::files::open_beneath;

use super::config::Validated;

/// Files up to this size are read at once, larger ones where they are.
const READ_AT_ONCE: u64 = 64 << 10;

/// Opens what a task names, an absolute path below `archive_dir` or one relative to it; blocks.
pub(super) fn open(config: &Validated, path: &str) -> Result<Content, Fault> {
    let top = &config.archive_dir;
    let asked = Path::new(path);
    let below = if asked.is_absolute() { asked.strip_prefix(top).ok() } else { Some(asked) };
    let Some(below) = below else {
        return Err(Fault::new(FaultKind::Refused, format!("filedir: {path:?} is not below archive_dir {top:?}")));
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(CWD, top, flags, Mode::empty())
        .map_err(|e| Fault::because(FaultKind::Unavailable, format!("filedir: archive_dir {top:?}"), e))?;
    let open = open_beneath(&directory, below)?;
    let len = open.state.size;
    if len > config.max_size {
        let max = config.max_size;
        return Err(Fault::new(FaultKind::Refused, format!("filedir: {path:?} has {len} bytes, max_size is {max}")));
    }
    let content = Content::File { file: Arc::new(open.file), offset: 0, len };
    if len > READ_AT_ONCE {
        return Ok(content);
    }
    let read = content.to_bytes();
    read.map(Content::from)
        .map_err(|e| Fault::because(FaultKind::Unavailable, format!("filedir: cannot read {path:?}"), e))
}
