//! `hash`: SHA-256 and SHA-1 (FIPS 180-4) and MD5 (RFC 1321) of the payload.

use std::sync::Arc;

use serde_json::json;
use sha2::Digest as _;
use stoq_api::scanner::{
    Build, BuildError, Built, Context, Output, Payload, PluginInfo, PluginKind, Registration, ScanError, Scanner,
};

/// A block of all three digests. Each waits for its own block before, so block by block the processor works on several
/// of them at once.
const BLOCK: usize = 64;
/// Bytes between two looks at the clock.
const CHUNK: usize = 16 << 20;

/// The plugin's entry in the registry.
pub(crate) fn registration() -> Registration {
    Registration {
        info: PluginInfo {
            name: "hash",
            description: "SHA-256, MD5 and SHA-1 of a payload",
            kinds: &[PluginKind::Worker],
            options: &[],
            required_workers: &[],
        },
        build,
    }
}

fn build(_: &Build) -> Result<Built, BuildError> {
    Ok(Built { scanner: Some(Arc::new(Hash)), ..Built::default() })
}

struct Hash;

impl Scanner for Hash {
    fn scan(&self, payload: &Payload<'_>, cx: &mut Context<'_>) -> Result<Output, ScanError> {
        let (mut md5, mut sha1) = (md5::Md5::new(), sha1::Sha1::new());
        // Whoever hands a payload over has had to name it by this digest, over bytes that it read itself.
        let mut sha256 = payload.sha256.is_none().then(sha2::Sha256::new);
        for (n, chunk) in payload.content.chunks(CHUNK).enumerate() {
            if n > 0 && cx.expired() {
                return Err(ScanError::Expired);
            }
            for block in chunk.chunks(BLOCK) {
                if let Some(sha256) = &mut sha256 {
                    sha256.update(block);
                }
                sha1.update(block);
                md5.update(block);
            }
        }
        let given = payload.sha256.map(|digest| hex::encode(digest.as_bytes()));
        Ok(Output::of(json!({
            "sha256": given.or_else(|| sha256.map(|digest| hex::encode(digest.finalize()))),
            "md5": hex::encode(md5.finalize()),
            "sha1": hex::encode(sha1.finalize()),
        })))
    }
}
