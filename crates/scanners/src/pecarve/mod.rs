//! `pecarve`: PE images inside other content.
//!
//! Each place where a header pattern stands and PE headers can be read from there on gives a child: the image up to the
//! end of what its headers describe, with `extra_data` of `{"offset": …}`. That end is the largest of the ends of the
//! optional header, of the sections and of the data directories, each counted only if it lies within the payload. Unlike
//! stoQ, a certificate table that comes right after belongs to the image, so that signatures stay whole.
//!
//! What follows an image is not part of the child. The search goes on behind it: images inside of an image are found when
//! the child is scanned. A payload that is one whole image itself gives no child (it would be the payload again), and is
//! searched inside. The results list what was carved under `images`, and under `overlay` what lies behind an image with
//! which the payload begins; there are none where no image was found.
//!
//! `pe_headers` holds the patterns: literals separated by `|`, with `\xNN` for any byte. stoQ's default is `MZ|ZM`; `ZM`
//! was never accepted as the beginning of a PE image, there or here.

pub(crate) mod image;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use stoq_api::scanner::{
    Build, BuildError, Built, Context, OptionInfo, OptionKind, Output, Payload, PluginInfo, PluginKind, Registration,
    ScanError, Scanner,
};
use stoq_api::{Finding, FindingKind, PayloadMeta};

use image::Image;

/// Children of one payload.
const MAX_IMAGES: usize = 1_000;
/// Patterns of `pe_headers`.
const MAX_PATTERNS: usize = 16;
/// Pattern hits between two looks at the clock.
const HITS_PER_CHECK: usize = 1 << 16;
/// How every PE image begins.
const MAGIC: &[u8] = b"MZ";

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    pe_headers: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { pe_headers: "MZ|ZM".to_owned() }
    }
}

/// The entry for the list of plugins.
pub(crate) fn registration() -> Registration {
    Registration {
        info: PluginInfo {
            name: "pecarve",
            description: "PE images inside other content",
            kinds: &[PluginKind::Worker],
            options: &[OptionInfo {
                name: "pe_headers",
                kind: OptionKind::Text,
                default: "\"MZ|ZM\"",
                help: "how an image may begin: literals separated by |, \\xNN for any byte",
            }],
            required_workers: &[],
        },
        build,
    }
}

fn build(from: &Build) -> Result<Built, BuildError> {
    let config: Config = from.config()?;
    let mut warnings = Vec::new();
    let mut patterns = Vec::new();
    for text in config.pe_headers.split('|') {
        let pattern = literal(text).map_err(|e| BuildError(format!("pe_headers: {e}")))?;
        if pattern.starts_with(MAGIC) || MAGIC.starts_with(&pattern) {
            patterns.push(pattern);
        } else if pattern != b"ZM" {
            warnings.push(format!("pe_headers: `{text}` finds nothing, since every PE image begins with MZ"));
        }
    }
    if patterns.len() > MAX_PATTERNS {
        return Err(BuildError(format!("pe_headers: more than {MAX_PATTERNS} patterns")));
    }
    Ok(Built { scanner: Some(Arc::new(PeCarve { patterns })), warnings, ..Built::default() })
}

/// A pattern's bytes.
fn literal(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        match rest.strip_prefix("\\x").map(|r| (r.get(..2), r)) {
            Some((Some(digits), after)) => {
                bytes.push(u8::from_str_radix(digits, 16).map_err(|_| format!("`\\x{digits}` is not a byte"))?);
                rest = &after[2..];
            }
            Some((None, _)) => return Err("`\\x` needs two hexadecimal digits".to_owned()),
            None if "\\.*+?()[]{}^$".contains(c) => {
                return Err(format!("`{c}` has no meaning here: write literals separated by |, \\xNN for any byte"));
            }
            None => {
                bytes.extend_from_slice(c.to_string().as_bytes());
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    if bytes.is_empty() { Err("an empty pattern".to_owned()) } else { Ok(bytes) }
}

struct PeCarve {
    patterns: Vec<Vec<u8>>,
}

impl Scanner for PeCarve {
    fn scan(&self, payload: &Payload<'_>, cx: &mut Context<'_>) -> Result<Output, ScanError> {
        let data = payload.content;
        let finder = Finder::new(MAGIC);
        let mut carved = Carved::default();
        let mut from = 0;
        for hit in 1_usize.. {
            let Some(offset) = finder.find(&data[from..]).map(|n| from + n) else { break };
            if hit.is_multiple_of(HITS_PER_CHECK) && cx.expired() {
                cx.find(Finding::new(FindingKind::PluginLimit, format!("out of time: searched up to byte {offset}")));
                break;
            }
            from = match self.image_at(&data[offset..]) {
                None => offset + 1,
                Some(image) => match carved.take(data, offset, &image, cx)? {
                    Some(next) => next,
                    None => break,
                },
            };
        }
        Ok(carved.output())
    }
}

impl PeCarve {
    fn image_at(&self, data: &[u8]) -> Option<Image> {
        self.patterns.iter().any(|p| data.starts_with(p)).then(|| Image::parse(data)).flatten()
    }
}

/// What was carved so far.
#[derive(Default)]
struct Carved {
    images: Vec<Value>,
    overlay: Option<Value>,
}

impl Carved {
    /// Takes the image at `offset`, and says where the search goes on; `None` where it ends.
    fn take(
        &mut self,
        data: &[u8],
        offset: usize,
        image: &Image,
        cx: &mut Context<'_>,
    ) -> Result<Option<usize>, ScanError> {
        if self.images.len() >= MAX_IMAGES {
            let text = format!("images from byte {offset} on were not carved: more than {MAX_IMAGES}");
            cx.find(Finding::new(FindingKind::PluginLimit, text));
            return Ok(None);
        }
        let rest = &data[offset..];
        let extent = image.extent(rest);
        self.images.push(json!({
            "offset": offset,
            "size": extent.end,
            "machine": image.machine,
            "certificates": extent.certificates,
            "truncated": extent.truncated,
        }));
        if extent.end == data.len() {
            // The payload itself: its own copy would be no news, and what it holds is looked for here.
            return Ok(Some(offset + 1));
        }
        match cx.emit(&rest[..extent.end], PayloadMeta::with("offset", offset)) {
            Ok(()) => {}
            Err(ScanError::Spent(kind)) => {
                let text =
                    format!("images from byte {offset} on were not carved: the scan's budget of {kind} is used up");
                cx.find(Finding::new(kind.into(), text));
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        if offset == 0 {
            self.overlay = Some(json!({"offset": extent.end, "size": data.len() - extent.end}));
        }
        Ok(Some(offset + extent.end))
    }

    fn output(self) -> Output {
        if self.images.is_empty() {
            return Output::default();
        }
        let mut results = Map::new();
        results.insert("images".to_owned(), self.images.into());
        if let Some(overlay) = self.overlay {
            results.insert("overlay".to_owned(), overlay);
        }
        Output::of(results)
    }
}
