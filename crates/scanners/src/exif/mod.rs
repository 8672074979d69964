//! `exif`: facts that a file tells of itself, under ExifTool's names.
//!
//! Two readers answer under this name. Where ExifTool is installed, the tool slot runs it with unconverted values on the
//! payload, and [`parse_exiftool`] reads what it prints. Elsewhere the reader in this folder answers: fewer formats, the
//! same names and values as `exiftool -n` where it knows a fact, and `Reader` of `"stoq"` where ExifTool says its version,
//! so that nobody takes one for the other. Times without a zone in the file are told as they stand; a PE's time stamp is
//! UTC.
//!
//! It knows PE images (headers, version resource), OLE documents (summary information, custom properties, Word's file
//! information block), JPEG, TIFF and PNG (size, Exif), GIF and PDF (version, pages); of others the file type. Like
//! ExifTool it tells `Error` of a payload that is empty or of no known type.

mod exiftool;
mod facts;
mod image;
mod jpeg;
mod ole;
mod pdf;
mod pe;
mod properties;
#[cfg(test)]
mod tests;
mod tiff;
mod version;

use std::sync::Arc;

use file_format::FileFormat;
use serde::Deserialize;
use stoq_api::scanner::{
    Build, BuildError, Built, Context, OptionInfo, OptionKind, Output, Payload, PluginInfo, PluginKind, Registration,
    ScanError, Scanner,
};
use stoq_api::{Finding, FindingKind};

pub use exiftool::parse_exiftool;

use crate::mimetype;
use facts::Facts;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Read by whoever starts the tool slot; the built-in reader has no use for it.
    #[serde(rename = "bin")]
    _bin: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { _bin: "exiftool".to_owned() }
    }
}

/// The entry for the list of plugins.
pub(crate) fn registration() -> Registration {
    Registration {
        info: PluginInfo {
            name: "exif",
            description: "Facts that a file tells of itself: author, times, versions, as ExifTool names them",
            kinds: &[PluginKind::Worker],
            options: &[OptionInfo {
                name: "bin",
                kind: OptionKind::Text,
                default: "\"exiftool\"",
                help: "the ExifTool to run; without one the built-in reader answers",
            }],
            required_workers: &[],
        },
        build,
    }
}

fn build(from: &Build) -> Result<Built, BuildError> {
    from.config::<Config>()?;
    Ok(Built { scanner: Some(Arc::new(Exif)), ..Built::default() })
}

struct Exif;

impl Scanner for Exif {
    fn scan(&self, payload: &Payload<'_>, cx: &mut Context<'_>) -> Result<Output, ScanError> {
        let facts = read(payload.content);
        for limit in facts.limits() {
            cx.find(Finding::new(FindingKind::PluginLimit, limit.clone()));
        }
        Ok(Output::of(facts.into_map()))
    }
}

/// What the built-in reader finds in `content`.
fn read(content: &[u8]) -> Facts {
    let mut facts = Facts::default();
    facts.put("SourceFile", "-");
    facts.put("Reader", "stoq");
    facts.put("FileSize", content.len());
    match content {
        [] => facts.put("Error", "File is empty"),
        [b'M', b'Z', ..] => pe::read(content, &mut facts),
        [0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1, ..] => ole::read(content, &mut facts),
        [0xff, 0xd8, 0xff, ..] => jpeg::read(content, &mut facts),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', rest @ ..] => image::png(rest, &mut facts),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => image::gif(content, &mut facts),
        [b'I', b'I', b'*', 0, ..] | [b'M', b'M', 0, b'*', ..] => {
            facts.file_type("TIFF", "TIF", "image/tiff");
            tiff::read(content, &mut facts);
        }
        [b'%', b'P', b'D', b'F', b'-', ..] => pdf::read(content, &mut facts),
        _ => other(content, &mut facts),
    }
    facts
}

/// The type only, as `mimetype` tells it.
fn other(content: &[u8], facts: &mut Facts) {
    let mime = mimetype::identify(content);
    if mime.starts_with("text/") {
        facts.file_type("TXT", "TXT", "text/plain");
        return;
    }
    match FileFormat::from_bytes(content) {
        FileFormat::ArbitraryBinaryData | FileFormat::Empty => facts.put("Error", "Unknown file type"),
        format => {
            let extension = format.extension().to_ascii_uppercase();
            facts.file_type(&extension, &extension, &mime);
        }
    }
}
