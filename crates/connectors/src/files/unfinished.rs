//! A file that is not finished: written under another name, locked by its process, and found again after a crash.
//!
//! All of them lie in one folder, each named like the file that it will be, with `%` for `/`. Whoever holds the lock of one
//! may touch it; a lock goes with its process. On its way out a compressed one passes through `NAME.gz.part`, which can
//! always be thrown away, and `NAME.gz`, which is whole. At most one of `NAME` and its finished form is ever left, so what a
//! crash interrupts is neither lost nor doubled.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use time::OffsetDateTime;

use super::config::{Compress, Validated};
use crate::common::path::{MAX_SEQ, filled};

/// The folder of files that are not finished.
const FOLDER: &str = ".unfinished";
/// The end of the name of a compressed file that is being written.
const PART: &str = ".part";
/// All ends that finished files can have.
const ENDINGS: [&str; 3] = ["", ".gz", ".zst"];
/// Results may be read by the group, not by others: they quote what was scanned.
const MODE: u32 = 0o640;
/// The same for folders.
const DIR_MODE: u32 = 0o750;
/// Bytes that are gathered before they are handed to the kernel, and that are looked at in one go.
const CHUNK: usize = 256 << 10;
/// How old a file without a byte must be to be taken for what a crash left: whoever makes one locks it a moment later.
const FRESH: Duration = Duration::from_secs(60);
/// Names that are tried for a finished file whose own name somebody else took.
const OTHER_NAMES: usize = 1_000;

/// A file that lines are added to.
pub(super) struct Unfinished {
    path: PathBuf,
    file: File,
    /// What is durable, which is whole lines.
    len: u64,
    begun: Instant,
}

impl Unfinished {
    /// Begins the next file of a family.
    pub(super) fn begin(config: &Validated, family: &str) -> io::Result<Self> {
        let folder = folder(config)?;
        let now = OffsetDateTime::now_utc();
        for seq in 1..=MAX_SEQ {
            let name = filled(family, now, seq);
            let path = folder.join(name.replace('/', "%"));
            // First on its way out, then finished: it moves in that direction.
            let taken = || {
                let on_its_way = ENDINGS[1..].iter().map(|end| with_end(&path, end));
                let finished = ENDINGS.iter().map(|end| config.directory.join(format!("{name}{end}")));
                on_its_way.chain(finished).any(|path| fs::symlink_metadata(path).is_ok())
            };
            if taken() {
                continue;
            }
            let file = match OpenOptions::new().read(true).write(true).create_new(true).mode(MODE).open(&path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other?,
            };
            // Somebody who looks for what crashes left may have been faster.
            if lock(&file, &path)? {
                // The last file of that name may have gone out since it was asked: beside its compressed form, this one
                // would be taken for what that was made of.
                if taken() {
                    fs::remove_file(&path)?;
                    continue;
                }
                File::open(&folder)?.sync_all()?;
                return Ok(Self { path, file, len: 0, begun: Instant::now() });
            }
        }
        Err(io::Error::other(format!("all numbers up to {MAX_SEQ} are taken in {family}")))
    }

    /// Adds lines; when it returns, they are durable. After an error none of them counts.
    pub(super) fn add<'a>(&mut self, lines: impl Iterator<Item = &'a [u8]>) -> io::Result<()> {
        let mut at = self.len;
        let mut waiting = Vec::new();
        for line in lines {
            let start = waiting.len();
            waiting.extend_from_slice(line);
            // Line feeds can stand between JSON values only, where a blank says as much.
            waiting[start..].iter_mut().filter(|b| matches!(b, b'\n' | b'\r')).for_each(|b| *b = b' ');
            waiting.push(b'\n');
            if waiting.len() >= CHUNK {
                at = self.write(&waiting, at)?;
                waiting.clear();
            }
        }
        at = self.write(&waiting, at)?;
        self.file.sync_data().inspect_err(|_| self.cut_back())?;
        self.len = at;
        Ok(())
    }

    fn write(&self, bytes: &[u8], at: u64) -> io::Result<u64> {
        self.file.write_all_at(bytes, at).inspect_err(|_| self.cut_back())?;
        Ok(at + bytes.len() as u64)
    }

    /// Takes back what does not count. Should that fail, it is written over, or cut when the file is finished.
    fn cut_back(&self) {
        self.file.set_len(self.len).ok();
    }

    pub(super) fn is_due(&self, config: &Validated) -> bool {
        self.len >= config.max_size || self.begun.elapsed() >= config.max_age
    }

    /// Gives it its name. After an error it is found again by [`recover`], as it is when the process dies in between.
    pub(super) fn finish(self, config: &Validated) -> io::Result<()> {
        if self.len == 0 {
            return fs::remove_file(&self.path);
        }
        self.file.set_len(self.len)?;
        match config.compress {
            Compress::None => publish(config, &self.path, &self.file, ""),
            compress => {
                let whole = compressed(&self.path, &self.file, compress)?;
                fs::remove_file(&self.path)?;
                publish(config, &with_end(&self.path, compress.suffix()), &whole, compress.suffix())
            }
        }
    }
}

/// Finishes what processes left that are gone. Says how many files that were, and what could not be done.
pub(super) fn recover(config: &Validated) -> io::Result<(usize, Vec<String>)> {
    let folder = folder(config)?;
    let (mut done, mut failed) = (0, Vec::new());
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        match recover_one(config, &path) {
            Ok(found) => done += usize::from(found),
            // Somebody else finished it meanwhile.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => failed.push(format!("{}: {e}", path.display())),
        }
    }
    Ok((done, failed))
}

fn recover_one(config: &Validated, path: &Path) -> io::Result<bool> {
    let name = path.to_string_lossy();
    if let Some(whole) = ENDINGS[1..].iter().find(|end| name.ends_with(**end)) {
        let plain = PathBuf::from(name.strip_suffix(whole).unwrap_or(&name));
        // What it was made from is there: it belongs to that.
        if plain.exists() {
            return Ok(false);
        }
        let Some(file) = owned(path)? else { return Ok(false) };
        publish(config, path, &file, whole)?;
        return Ok(true);
    }
    if let Some(plain) = ENDINGS[1..].iter().find_map(|end| name.strip_suffix(&format!("{end}{PART}"))) {
        if !Path::new(plain).exists() && owned(path)?.is_some() {
            fs::remove_file(path)?;
        }
        return Ok(false);
    }
    if is_fresh(path)? {
        return Ok(false);
    }
    let Some(file) = owned(path)? else { return Ok(false) };
    for end in &ENDINGS[1..] {
        let whole = with_end(path, end);
        if let Ok(finished) = File::open(&whole) {
            fs::remove_file(path)?;
            publish(config, &whole, &finished, end)?;
            return Ok(true);
        }
    }
    let len = whole_lines(&file)?;
    file.set_len(len)?;
    file.sync_data()?;
    Unfinished { path: path.to_owned(), file, len, begun: Instant::now() }.finish(config)?;
    Ok(len > 0)
}

/// Whether somebody may be about to lock a file that was just made. There is nothing in it to be lost.
fn is_fresh(path: &Path) -> io::Result<bool> {
    let meta = fs::symlink_metadata(path)?;
    // Of another machine's clock, perhaps, and in the future by ours.
    Ok(meta.len() == 0 && meta.modified()?.elapsed().map_or(true, |age| age < FRESH))
}

/// Opens a file that nobody has, and takes its lock.
fn owned(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    Ok(lock(&file, path)?.then_some(file))
}

/// Locks a file, unless another process has it, or it is not the one of that name any more.
fn lock(file: &File, path: &Path) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(false),
        Err(e) => return Err(e.into()),
    }
    let own = file.metadata()?;
    let named = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    Ok((own.dev(), own.ino()) == (named.dev(), named.ino()))
}

/// Bytes up to the end of the last whole line.
fn whole_lines(file: &File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut chunk = vec![0; CHUNK];
    while end > 0 {
        let start = end.saturating_sub(CHUNK as u64);
        let part = &mut chunk[..usize::try_from(end - start).unwrap_or(CHUNK)];
        file.read_exact_at(part, start)?;
        if let Some(at) = part.iter().rposition(|b| *b == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Compresses a file beside itself, durably; what comes back is locked.
fn compressed(path: &Path, file: &File, compress: Compress) -> io::Result<File> {
    let whole = with_end(path, compress.suffix());
    let part = with_end(&whole, PART);
    let mut from = file.try_clone()?;
    io::Seek::rewind(&mut from)?;
    let to = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&part)?;
    if !lock(&to, &part)? {
        return Err(io::Error::other("another process compresses it"));
    }
    let written = match compress {
        Compress::None => return Err(io::ErrorKind::InvalidInput.into()),
        Compress::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(&to, flate2::Compression::default());
            io::copy(&mut from, &mut encoder).and_then(|_| encoder.finish()).map(drop)
        }
        Compress::Zstd => zstd::Encoder::new(&to, zstd::DEFAULT_COMPRESSION_LEVEL).and_then(|mut encoder| {
            io::copy(&mut from, &mut encoder)?;
            encoder.finish()?.flush()
        }),
    };
    let kept = written.and_then(|()| to.sync_all()).and_then(|()| fs::rename(&part, &whole));
    if let Err(e) = kept {
        // It would keep the space that is missing perhaps.
        fs::remove_file(&part).ok();
        return Err(e);
    }
    if let Some(folder) = whole.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(to)
}

/// Moves a finished file out of the folder, under its own name or, should somebody have taken that, one beside it.
fn publish(config: &Validated, path: &Path, _locked: &File, end: &str) -> io::Result<()> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
    let name = name.strip_suffix(end).unwrap_or(name).replace('%', "/");
    let target = config.directory.join(&name);
    let parent = target.parent().unwrap_or(&config.directory);
    make(parent)?;
    for other in 0..OTHER_NAMES {
        let name = match other {
            0 => format!("{name}{end}"),
            n => format!("{name}.{n}{end}"),
        };
        match rename(path, &config.directory.join(name)) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            other => {
                other?;
                return flush(parent, &config.directory);
            }
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} and names beside it are taken", target.display())))
}

/// Renames without replacing anything.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Network file systems cannot do that, but link.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        other => return other.map_err(Into::into),
    }
    match fs::hard_link(from, to) {
        // A crash came between the two steps below, last time.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && same(from, to)? => {}
        other => other?,
    }
    fs::remove_file(from)
}

fn same(one: &Path, other: &Path) -> io::Result<bool> {
    let (one, other) = (fs::symlink_metadata(one)?, fs::symlink_metadata(other)?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

/// The folder of files that are not finished; made if need be.
pub(super) fn folder(config: &Validated) -> io::Result<PathBuf> {
    let folder = config.directory.join(FOLDER);
    make(&folder)?;
    Ok(folder)
}

fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(folder)
}

/// Makes the names in a directory durable, and those above it up to `top`: each may be new.
fn flush(directory: &Path, top: &Path) -> io::Result<()> {
    for directory in directory.ancestors() {
        File::open(directory)?.sync_all()?;
        if directory == top {
            break;
        }
    }
    Ok(())
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}
