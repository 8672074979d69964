//! `decompress`: opens archives and compressed streams, and emits what is in them.
//!
//! Everything happens in memory: no tool is started, nothing is written to disk, links and devices are listed and never
//! followed. Each format is a submodule behind [`Unpack`]; it finds members and hands a reader for each to
//! [`Extraction`], which alone decides what is read, how far, and what becomes a child.
//!
//! Read are zip, 7z, RAR, CAB, LHA, tar, ar (Debian packages), gzip, bzip2, xz, LZMA alone and zstd. Left out are ARJ,
//! ACE and compress, for want of readers that bear hostile files. Members that continue in another volume or cabinet are
//! listed; of a RAR that is cut short nothing is read, because its reader wants all headers.
//!
//! # Results
//!
//! ```json
//! {"format": "zip", "members": 3, "extracted": 1, "encrypted": true, "password": "infected", "comment": "…",
//!  "anomalies": ["members are missing in the central directory"],
//!  "files": [{"path": "a/b.exe", "kind": "link", "link": "…", "size": 9, "compressed_size": 7, "crc": "89abcdef",
//!             "mtime": "2026-01-02T03:04:06", "method": "deflate", "encrypted": true, "hidden": true,
//!             "extracted": false, "error": "…"}],
//!  "truncated": false}
//! ```
//!
//! Members of `files` that say nothing are absent; `kind` is, for files. `hidden` members stand in no list of the archive.
//! `truncated`: members are missing in `files`, or something ended before its time. A child's metadata have `filename`,
//! `path` as the archive has it, and `password` where one was needed. The password is tried on what lies below, too.
//!
//! # What goes on when something is wrong
//!
//! * A member that cannot be opened (unknown method, no password fits, a dictionary over [`codec::MAX_DICTIONARY`]) is
//!   listed with its error and said in a finding; the others are extracted.
//! * A member whose data end early or are damaged half-way is emitted as far as it could be read, with `truncated` in
//!   its metadata; one that is complete but has another checksum than stated, with `checksum_mismatch`. Most tools show
//!   such files to their users, so they must be scanned. Members of 7z archives and encrypted members are left out
//!   instead: there a wrong checksum mostly means a wrong password.
//! * A member over `maximum_size` is left out. A spent budget of the scan ends the plugin with
//!   [`ScanError::Spent`]; `max_members`, `max_ratio` and the deadline end the reading, and results say so.

mod ar;
mod cab;
mod codec;
mod config;
mod detect;
mod extract;
mod lha;
mod names;
mod passwords;
mod rar;
mod sevenz;
mod stream;
mod tar;
#[cfg(test)]
mod tests;
mod zip;

use std::sync::Arc;

use serde_json::Value;
use stoq_api::finding::{Finding, FindingKind};
use stoq_api::scanner::{
    Build, BuildError, Built, Context, Output, Payload, PluginInfo, PluginKind, Registration, ScanError, Scanner,
};

use self::config::Config;
use self::detect::Format;
use self::extract::{Extraction, Stop};

/// The plugin's entry in the registry.
pub(crate) fn registration() -> Registration {
    Registration {
        info: PluginInfo {
            name: "decompress",
            description: "Members of archives and compressed streams",
            kinds: &[PluginKind::Worker],
            options: config::OPTIONS,
            required_workers: &["mimetype"],
        },
        build,
    }
}

fn build(build: &Build) -> Result<Built, BuildError> {
    let config: Config = build.config()?;
    for (name, value) in [("maximum_size", config.maximum_size), ("max_members", config.max_members)] {
        if value == 0 {
            return Err(BuildError(format!("{name} is 0, so nothing would ever be extracted")));
        }
    }
    Ok(Built { scanner: Some(Arc::new(Decompress(config))), ..Built::default() })
}

struct Decompress(Config);

/// One archive format.
trait Unpack {
    /// Hands every member to `out`. What is wrong with single members, or with the archive around them, goes there too.
    ///
    /// # Errors
    /// Only for what ends the whole run; see [`Stop`].
    fn unpack(&self, input: &[u8], out: &mut Extraction<'_, '_>) -> Result<(), Stop>;
}

impl Scanner for Decompress {
    fn scan(&self, payload: &Payload<'_>, cx: &mut Context<'_>) -> Result<Output, ScanError> {
        let (size, most) = (payload.content.len() as u64, self.0.maximum_size);
        if size > most {
            let text = format!("compressed file too large: {size} bytes, maximum_size is {most}");
            cx.find(Finding::new(FindingKind::SizeLimit, text.clone()));
            return Err(ScanError::Failed(text));
        }
        let mimetype = payload.results.get("mimetype").and_then(|r| r.get("mimetype")).and_then(Value::as_str);
        let format = Format::of(payload, mimetype).inspect_err(|_| {
            if let Some(name) = detect::unread(payload.content) {
                let text = format!("{name} is not read: what is inside was not looked at");
                cx.find(Finding::new(FindingKind::Unsupported, text));
            }
        })?;
        let passwords = passwords::candidates(payload, &self.0.passwords);
        let mut out = Extraction::new(cx, &self.0, payload, format.name(), passwords);
        let ended = format.reader().unpack(payload.content, &mut out);
        out.finish(ended)
    }
}
