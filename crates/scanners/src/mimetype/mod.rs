//! `mimetype`: the media type of a payload, from its bytes alone, under the names that libmagic uses.
//!
//! Own signatures come first, for the formats that decide where a payload goes; then text, told apart by its first
//! lines; then the signatures of the `file-format` crate, whose names [`names`] translates. Work is bounded whatever the
//! size: each step looks at a limited part of the content, though at the right part, which may lie at the end.

mod binary;
mod names;
mod ole;
mod text;
mod zip;

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::json;
use stoq_api::scanner::{
    Build, BuildError, Built, Context, Output, Payload, PluginInfo, PluginKind, Registration, ScanError, Scanner,
};

/// The plugin's entry in the registry.
pub(crate) fn registration() -> Registration {
    Registration {
        info: PluginInfo {
            name: "mimetype",
            description: "Media type of a payload, from its content",
            kinds: &[PluginKind::Worker],
            options: &[],
            required_workers: &[],
        },
        build,
    }
}

fn build(_: &Build) -> Result<Built, BuildError> {
    Ok(Built { scanner: Some(Arc::new(Mimetype)), ..Built::default() })
}

struct Mimetype;

impl Scanner for Mimetype {
    fn scan(&self, payload: &Payload<'_>, _: &mut Context<'_>) -> Result<Output, ScanError> {
        Ok(Output::of(json!({ "mimetype": identify(payload.content) })))
    }
}

/// The media type; `application/octet-stream` for what nobody knows.
pub(crate) fn identify(content: &[u8]) -> Cow<'static, str> {
    if content.is_empty() {
        return "application/x-empty".into();
    }
    match binary::strong(content).or_else(|| text::classify(content)) {
        Some(known) => known.into(),
        None => binary::other(content),
    }
}

/// Reads a little-endian 16-bit number.
fn u16_at(content: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*content.get(at..)?.first_chunk()?))
}

/// Reads a little-endian 32-bit number.
fn u32_at(content: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*content.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests;
