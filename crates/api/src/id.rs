//! Deterministic identities: the same reference gives the same scan, the same content in a scan the same payload.
//!
//! All ids are version 5 UUIDs (RFC 9562, section 5.5), so that a redelivery of anything, to any worker, names the same
//! things again and changes nothing.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::digest::Sha256;

/// The name space of scan ids. The value means nothing, but another one would make every known scan a new one.
const SCAN_SPACE: Uuid = Uuid::from_u128(0x3f1e_9a52_7c0b_5d6e_8a41_0d2f_63b7_c95a);

/// The name space of messages whose queue does not tell first deliveries.
const MESSAGE_SPACE: Uuid = Uuid::from_u128(0x9b6d_04e1_52a8_5c3f_b7e0_8d19_4f62_a30c);

/// Identifies one scan: one reference and everything extracted from it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ScanId(pub Uuid);

/// Identifies one payload inside one scan.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PayloadId(pub Uuid);

impl ScanId {
    /// The scan of a reference: `source` is the intake's configured name, `identity` what the broker or file system says
    /// of the message (its id, or path, size, modification time and inode), `body` the digest of the message itself.
    pub fn derive(source: &str, identity: &[u8], body: &Sha256) -> Self {
        let mut name = Vec::with_capacity(source.len() + identity.len() + 48);
        // Lengths in front keep ("ab", "c") and ("a", "bc") apart.
        name.extend_from_slice(&(source.len() as u64).to_le_bytes());
        name.extend_from_slice(source.as_bytes());
        name.extend_from_slice(&(identity.len() as u64).to_le_bytes());
        name.extend_from_slice(identity);
        name.extend_from_slice(body.as_bytes());
        Self(Uuid::new_v5(&SCAN_SPACE, &name))
    }
}

impl PayloadId {
    /// The `ordinal`-th root payload of a scan.
    pub fn root(scan: ScanId, ordinal: u32) -> Self {
        let mut name = [0_u8; 9];
        name[0] = b'r';
        name[1..5].copy_from_slice(&ordinal.to_le_bytes());
        Self(Uuid::new_v5(&scan.0, &name))
    }

    /// What attempts at this payload are counted as while nothing else is in work beside it.
    pub fn alone(self) -> Self {
        Self(Uuid::new_v5(&self.0, b"alone"))
    }

    /// What beginning with a message is counted as, by what tells the message from all others.
    pub fn of_message(key: &str) -> Self {
        Self(Uuid::new_v5(&MESSAGE_SPACE, key.as_bytes()))
    }

    /// A child of a scan: each content once per way of treating it. `dispatch_to` may come in any order and with repeats.
    pub fn child(scan: ScanId, sha256: &Sha256, should_scan: bool, dispatch_to: &[String]) -> Self {
        let mut names: Vec<&str> = dispatch_to.iter().map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        let mut name = Vec::with_capacity(40 + names.iter().map(|n| n.len() + 4).sum::<usize>());
        name.push(b'c');
        name.extend_from_slice(sha256.as_bytes());
        name.push(u8::from(should_scan));
        for part in names {
            name.extend_from_slice(&(part.len() as u32).to_le_bytes());
            name.extend_from_slice(part.as_bytes());
        }
        Self(Uuid::new_v5(&scan.0, &name))
    }
}

macro_rules! show_as_uuid {
    ($type:ty) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}
show_as_uuid!(ScanId);
show_as_uuid!(PayloadId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_depend_on_every_part() {
        let body = Sha256::of(b"x");
        let scan = ScanId::derive("a", b"bc", &body);
        assert_eq!(scan, ScanId::derive("a", b"bc", &body));
        assert_ne!(scan, ScanId::derive("ab", b"c", &body));
        assert_ne!(scan, ScanId::derive("a", b"bc", &Sha256::of(b"y")));
        assert_ne!(PayloadId::root(scan, 0), PayloadId::root(scan, 1));
        let both = ["b".to_owned(), "a".to_owned()];
        let sorted = ["a".to_owned(), "b".to_owned(), "b".to_owned()];
        assert_eq!(PayloadId::child(scan, &body, true, &both), PayloadId::child(scan, &body, true, &sorted));
        assert_ne!(PayloadId::child(scan, &body, true, &both), PayloadId::child(scan, &body, false, &both));
        assert_ne!(PayloadId::child(scan, &body, true, &[]), PayloadId::child(scan, &body, true, &both));
    }
}
