//! Files that appear whole.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sha1::{Digest as _, Sha1};
use stoq_api::{Content, Fault, FaultKind, PayloadId, Timestamp};

use super::config::Validated;

/// Names of files that are being written begin so. One that is left behind by a crash can be removed.
const UNFINISHED: &str = ".unfinished-";
/// Archived payloads are hostile: nobody runs them, and only the group reads them.
const MODE: u32 = 0o640;

/// Keeps a payload and gives the absolute path of its file; blocks.
pub(super) fn keep(
    config: &Validated,
    content: &Content,
    payload: PayloadId,
    now: Timestamp,
) -> Result<PathBuf, Fault> {
    let below = config.naming.path(payload, now, || sha1_of(content));
    let below = below.map_err(|e| Fault::because(FaultKind::Unavailable, "filedir: cannot read a payload", e))?;
    let path = config.archive_dir.join(below);
    match write(&path, content, &config.archive_dir) {
        Ok(()) => Ok(path),
        Err(e) => {
            let advice = match e.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    ": no space left; free some, work goes on by itself then"
                }
                _ => "",
            };
            Err(Fault::because(FaultKind::Unavailable, format!("filedir: cannot write {path:?}{advice}"), e))
        }
    }
}

fn sha1_of(content: &Content) -> io::Result<String> {
    let mut hasher = Sha1::new();
    content.for_each_chunk(|chunk| {
        hasher.update(chunk);
        Ok(())
    })?;
    Ok(hex::encode(hasher.finalize()))
}

fn write(path: &Path, content: &Content, top: &Path) -> io::Result<()> {
    let Some(directory) = path.parent() else { return Err(io::ErrorKind::InvalidInput.into()) };
    if fs::symlink_metadata(path).is_err() {
        fs::create_dir_all(directory)?;
        let mut file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .permissions(Permissions::from_mode(MODE))
            .tempfile_in(directory)?;
        content.for_each_chunk(|chunk| file.write_all(chunk))?;
        file.as_file().sync_all()?;
        match file.persist_noclobber(path) {
            Ok(_) => {}
            Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e.error),
        }
    }
    // Also for a file that was there: whoever wrote it may not have come to this yet.
    for directory in directory.ancestors() {
        File::open(directory)?.sync_all()?;
        if directory == top {
            break;
        }
    }
    Ok(())
}
