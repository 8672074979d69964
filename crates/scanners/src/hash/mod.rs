//! `hash`: SHA-256 and SHA-1 (FIPS 180-4) and MD5 (RFC 1321) of the payload.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use sha2::Digest as _;
use stoq_api::scanner::{
    Ahead, Build, BuildError, Built, Context, Output, Payload, PluginInfo, PluginKind, Registration, ScanError,
    Scanner, Upcoming,
};

/// Bytes between two looks at the clock.
const CHUNK: usize = 16 << 20;
/// Payloads whose MD5 is kept until they come; more than all threads together look at ahead.
const MAX_KEPT: usize = 4_096;

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
    Ok(Built { scanner: Some(Arc::new(Hash::default())), ..Built::default() })
}

/// MD5 takes more time than both other digests together, and side by side at most half of that.
#[derive(Default)]
struct Hash {
    /// What was computed ahead, by serial.
    kept: Mutex<BTreeMap<u64, Kept>>,
}

struct Kept {
    md5: stoq_md5::Digest,
    /// This payload's part of the time that it took.
    took: Duration,
}

impl Ahead for Hash {
    fn look(&self, upcoming: &[Upcoming<'_>]) {
        let started = Instant::now();
        let contents: Vec<&[u8]> = upcoming.iter().map(|payload| payload.content).collect();
        let Some(digests) = stoq_md5::side_by_side(&contents) else { return };
        let bytes: usize = contents.iter().map(|content| content.len()).sum();
        let took = started.elapsed();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        for (payload, md5) in upcoming.iter().zip(digests) {
            let part = payload.content.len() as f64 / bytes.max(1) as f64;
            kept.insert(payload.serial, Kept { md5, took: took.mul_f64(part) });
        }
        while kept.len() > MAX_KEPT {
            kept.pop_first();
        }
    }
}

impl Scanner for Hash {
    fn scan(&self, payload: &Payload<'_>, cx: &mut Context<'_>) -> Result<Output, ScanError> {
        let ahead = self.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(&payload.serial);
        if let Some(kept) = &ahead {
            cx.worked_before(kept.took);
        }
        let mut md5 = ahead.is_none().then(md5::Md5::new);
        let mut sha1 = sha1::Sha1::new();
        // Whoever hands a payload over has had to name it by this digest, over bytes that it read itself.
        let mut sha256 = payload.sha256.is_none().then(sha2::Sha256::new);
        for (n, chunk) in payload.content.chunks(CHUNK).enumerate() {
            if n > 0 && cx.expired() {
                return Err(ScanError::Expired);
            }
            if let Some(sha256) = &mut sha256 {
                sha256.update(chunk);
            }
            if let Some(md5) = &mut md5 {
                md5.update(chunk);
            }
            sha1.update(chunk);
        }
        let given = payload.sha256.map(|digest| hex::encode(digest.as_bytes()));
        let ahead = ahead.map(|kept| hex::encode(kept.md5));
        Ok(Output::of(json!({
            "sha256": given.or_else(|| sha256.map(|digest| hex::encode(digest.finalize()))),
            "md5": ahead.or_else(|| md5.map(|digest| hex::encode(digest.finalize()))),
            "sha1": hex::encode(sha1.finalize()),
        })))
    }

    fn ahead(&self) -> Option<&dyn Ahead> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use stoq_api::scanner::Remaining;
    use stoq_api::{PayloadMeta, RequestMeta};

    use super::*;
    use crate::memory_sink::MemorySink;

    fn scan(hash: &Hash, serial: u64, content: &[u8]) -> (serde_json::Value, Duration) {
        let mut sink = MemorySink::new(Remaining { children: 0, bytes: 0 });
        let mut cx = Context::new(&mut sink, None);
        let none = serde_json::Map::new();
        let payload = Payload {
            serial,
            content,
            sha256: None,
            meta: &PayloadMeta::default(),
            request_meta: &RequestMeta::default(),
            ancestors: &[],
            dispatch_meta: &none,
            results: &none,
        };
        let results = hash.scan(&payload, &mut cx).unwrap().results.unwrap();
        (results, cx.before())
    }

    #[test]
    fn what_was_looked_at_ahead_is_hashed_as_what_was_not() {
        let contents: Vec<Vec<u8>> = (0..20_u8).map(|n| vec![n; 1_000 + 10 * usize::from(n)]).collect();
        let hash = Hash::default();
        let upcoming: Vec<Upcoming<'_>> =
            (0..).zip(&contents).map(|(serial, content)| Upcoming { serial, content }).collect();
        hash.look(&upcoming);
        for payload in &upcoming {
            let (ahead, before) = scan(&hash, payload.serial, payload.content);
            let (alone, nothing) = scan(&hash, payload.serial, payload.content);
            assert_eq!(ahead, alone);
            assert!(!before.is_zero());
            assert!(nothing.is_zero());
        }
    }

    #[test]
    fn what_never_comes_is_not_kept_for_ever() {
        let hash = Hash::default();
        for first in (0..MAX_KEPT as u64 * 2).step_by(16) {
            let upcoming: Vec<Upcoming<'_>> =
                (first..first + 16).map(|serial| Upcoming { serial, content: b"x" }).collect();
            hash.look(&upcoming);
        }
        assert_eq!(hash.kept.lock().unwrap().len(), MAX_KEPT);
    }
}
