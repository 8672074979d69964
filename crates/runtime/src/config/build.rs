//! What a plugin is built from: its options and the files that they name.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;
use stoq_api::scanner::{Build, OptionKind, PluginInfo, SourceFile};

use super::settings::Options;
use super::tree::{Origins, join};
use crate::fail::Problem;

/// Files that one plugin may be built from.
const MAX_FILES: usize = 20_000;
/// Bytes that one plugin may be built from.
const MAX_BYTES: u64 = 512 << 20;
/// Folders within folders that are looked into.
const MAX_NESTING: usize = 16;

/// Reads the files that options of `plugin` name, whole folders in order of path without hidden files, and puts them
/// beside the options. `options` are those of [`Settings::plugins`](super::Settings::plugins) or of a
/// [`Component`](super::Component).
///
/// # Errors
/// A file that is named is not there or cannot be read, or there is too much.
pub fn build(plugin: &PluginInfo, options: &Options, origins: &Origins) -> Result<Build, Box<Problem>> {
    let mut out = Build::default();
    let mut left = MAX_BYTES;
    for option in plugin.options {
        let Some(value) = options.0.get(option.name) else { continue };
        out.options.insert(option.name.to_owned(), value.clone());
        if option.kind != OptionKind::Files {
            continue;
        }
        for name in value.as_array().into_iter().flatten().filter_map(Value::as_str).filter(|n| !n.is_empty()) {
            read_all(Path::new(name), option.name, &mut left, &mut out.files).map_err(|message| {
                let path = join(&join("plugins", plugin.name), option.name);
                Box::new(Problem::error(origins.place(&path), path, message))
            })?;
        }
    }
    Ok(out)
}

fn read_all(path: &Path, option: &str, left: &mut u64, files: &mut Vec<SourceFile>) -> Result<(), String> {
    let mut paths = Vec::new();
    collect(path, 0, &mut paths)?;
    for path in paths {
        if files.len() >= MAX_FILES {
            return Err(format!("more than {MAX_FILES} files for one plugin"));
        }
        let mut content = Vec::new();
        let file = File::open(&path).map_err(|e| cannot(&path, &e))?;
        file.take(*left + 1).read_to_end(&mut content).map_err(|e| cannot(&path, &e))?;
        *left = left
            .checked_sub(content.len() as u64)
            .ok_or_else(|| format!("more than {} MiB of files for one plugin", MAX_BYTES >> 20))?;
        files.push(SourceFile { option: option.to_owned(), name: path.to_string_lossy().into_owned(), content });
    }
    Ok(())
}

/// The file, or all files in the folder and below.
fn collect(path: &Path, depth: usize, out: &mut Vec<PathBuf>) -> Result<(), String> {
    let meta = fs::metadata(path).map_err(|e| cannot(path, &e))?;
    if meta.is_file() {
        out.push(path.to_owned());
        return Ok(());
    }
    if !meta.is_dir() {
        return Err(format!("{} is neither a file nor a folder", path.display()));
    }
    if depth >= MAX_NESTING {
        return Err(format!("more than {MAX_NESTING} folders within one another at {}", path.display()));
    }
    let mut inside = Vec::new();
    for entry in fs::read_dir(path).map_err(|e| cannot(path, &e))?.take(MAX_FILES + 1) {
        let entry = entry.map_err(|e| cannot(path, &e))?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            inside.push(entry.path());
        }
    }
    inside.sort();
    for path in inside {
        // Sockets and the like in a folder of rules are nobody's rules; a file that was named must be one.
        let kind = fs::metadata(&path).map_err(|e| cannot(&path, &e))?;
        if kind.is_file() || kind.is_dir() {
            collect(&path, depth + 1, out)?;
        }
        if out.len() > MAX_FILES {
            return Err(format!("more than {MAX_FILES} files for one plugin"));
        }
    }
    Ok(())
}

fn cannot(path: &Path, error: &std::io::Error) -> String {
    format!("{} cannot be read: {error}", path.display())
}
