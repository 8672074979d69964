//! Files that appear whole.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use stoq_api::plugin::{Item, Verdict};
use time::PrimitiveDateTime;
use time::macros::format_description;

use super::config::Validated;
use crate::common::text;

/// Names of files that are being written begin so. One that is left behind by a crash can be removed.
const UNFINISHED: &str = ".unfinished-";
/// Results may be read by the group, not by others: they quote what was scanned.
const MODE: u32 = 0o640;

/// Writes all responses; blocks.
pub(super) fn all(config: &Validated, batch: &[Item]) -> Vec<Verdict> {
    let placed: Vec<_> = batch.iter().map(|item| place(config, item)).collect();
    let mut directories = BTreeSet::new();
    let mut verdicts: Vec<_> = batch
        .iter()
        .zip(&placed)
        .map(|(item, place)| match place {
            Ok((directory, name)) => {
                directories.insert(directory.as_path());
                verdict(&directory.join(name), one(directory, name, &item.json, config.compactly))
            }
            Err(reason) => Verdict::Rejected(reason.clone()),
        })
        .collect();
    // A name is durable once its directory is: one flush for all names in it.
    for directory in directories {
        if let Err(e) = flush(directory, &config.results_dir) {
            for (verdict, place) in verdicts.iter_mut().zip(&placed) {
                if place.as_ref().is_ok_and(|(d, _)| d == directory) && *verdict == Verdict::Delivered {
                    *verdict = Verdict::Retry(format!("cannot flush {directory:?}: {e}"));
                }
            }
        }
    }
    verdicts
}

/// Tries whether a file can be made where results go; blocks. It has no name, so nobody sees it.
pub(super) fn can_write(config: &Validated) -> io::Result<()> {
    std::fs::create_dir_all(&config.results_dir)?;
    tempfile::tempfile_in(&config.results_dir).map(drop)
}

/// The directory and the name of a response's file.
fn place<'a>(config: &Validated, item: &'a Item) -> Result<(PathBuf, &'a str), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if item.id.is_empty() || item.id.len() > 128 || !item.id.chars().all(plain) {
        return Err(format!("{:?} cannot be a file name", item.id));
    }
    let time = if config.by_date() { first_seen(&item.json)? } else { PrimitiveDateTime::MIN };
    Ok((config.directory(time), &item.id))
}

/// The time in a response; the file's date must not depend on when it is delivered.
fn first_seen(json: &[u8]) -> Result<PrimitiveDateTime, String> {
    #[derive(Deserialize)]
    struct Time<'a> {
        #[serde(borrow)]
        time: Cow<'a, str>,
    }
    let Time { time } = serde_json::from_slice(json).map_err(|e| format!("not a response: {e}"))?;
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond]");
    PrimitiveDateTime::parse(&time, &format).map_err(|e| format!("not a response: time {time:?}: {e}"))
}

fn verdict(path: &Path, written: io::Result<()>) -> Verdict {
    match written {
        Ok(()) => Verdict::Delivered,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Verdict::Delivered,
        // Disks are emptied, mounted and given rights again: nothing is lost by waiting.
        Err(e) => Verdict::Retry(format!("cannot write {path:?}: {e}")),
    }
}

fn one(directory: &Path, name: &str, json: &[u8], compactly: bool) -> io::Result<()> {
    // A file in the directory's place is no response that is there already.
    std::fs::create_dir_all(directory).map_err(io::Error::other)?;
    let path = directory.join(name);
    if std::fs::symlink_metadata(&path).is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let indented;
    let bytes = if compactly {
        json
    } else {
        indented = text::indented(json, 4);
        &indented
    };
    let mut file =
        tempfile::Builder::new().prefix(UNFINISHED).permissions(Permissions::from_mode(MODE)).tempfile_in(directory)?;
    file.write_all(bytes)?;
    file.write_all(b"\n")?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    Ok(())
}

/// Flushes a directory, and those above it up to `top`: each may be new.
fn flush(directory: &Path, top: &Path) -> io::Result<()> {
    for directory in directory.ancestors() {
        File::open(directory)?.sync_all()?;
        if directory == top {
            break;
        }
    }
    Ok(())
}
