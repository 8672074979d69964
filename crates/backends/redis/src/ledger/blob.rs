//! What is kept of an outcome or a head: the JSON itself, or where in the payload store it lies.

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use stoq_api::store::{Store, StoreKey};
use stoq_api::{Content, Fault, FaultKind, Sha256};

/// First byte of JSON that is kept in the ledger.
const HERE: u8 = b'J';
/// First byte of a reference: day and length follow, little-endian, then the digest.
const STORED: u8 = b'R';
/// Bytes of a reference.
const REFERENCE: usize = 1 + 4 + 8 + 32;

/// JSON, here or in the store.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Blob {
    Here(Vec<u8>),
    Stored { key: StoreKey, len: u64 },
}

impl Blob {
    /// Puts JSON of more than `inline` bytes into the store, under `day`. When this returns it is safe there.
    pub(super) async fn place(json: Vec<u8>, inline: usize, day: u32, store: &dyn Store) -> Result<Self, Fault> {
        if json.len() <= inline {
            return Ok(Self::Here(json));
        }
        let (key, len) = (StoreKey { day, sha256: Sha256::of(&json) }, json.len() as u64);
        store.put(&key, &Content::from(json)).await?;
        Ok(Self::Stored { key, len })
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Here(json) => [&[HERE], &json[..]].concat(),
            Self::Stored { key, len } => {
                [&[STORED], &key.day.to_le_bytes()[..], &len.to_le_bytes(), key.sha256.as_bytes()].concat()
            }
        }
    }

    pub(super) fn from_bytes(mut bytes: Vec<u8>) -> Option<Self> {
        match *bytes.first()? {
            HERE => {
                bytes.remove(0);
                Some(Self::Here(bytes))
            }
            STORED => {
                let bytes = <[u8; REFERENCE]>::try_from(bytes).ok()?;
                let day = u32::from_le_bytes(bytes[1..5].try_into().ok()?);
                let len = u64::from_le_bytes(bytes[5..13].try_into().ok()?);
                let sha256 = Sha256::from_bytes(bytes[13..].try_into().ok()?);
                Some(Self::Stored { key: StoreKey { day, sha256 }, len })
            }
            _ => None,
        }
    }

    /// The JSON; read from the store and compared with its digest where it lies there.
    pub(super) async fn read(self, store: &dyn Store) -> Result<Bytes, Fault> {
        let (key, len) = match self {
            Self::Here(json) => return Ok(json.into()),
            Self::Stored { key, len } => (key, len),
        };
        let wrong = || {
            let text = format!("{} in the payload store is not what the ledger put there", key.path());
            Fault::new(FaultKind::Corrupt, text)
        };
        let mut stream = store.get(&key).await?;
        let mut json = BytesMut::new();
        while let Some(piece) = stream.next().await {
            let piece = piece?;
            if json.len() as u64 + piece.len() as u64 > len {
                return Err(wrong());
            }
            json.extend_from_slice(&piece);
        }
        if Sha256::of(&json) != key.sha256 {
            return Err(wrong());
        }
        Ok(json.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let key = StoreKey { day: 20_260_102, sha256: Sha256::of(b"x") };
        for blob in [Blob::Here(b"{}".to_vec()), Blob::Here(Vec::new()), Blob::Stored { key, len: u64::MAX }] {
            let bytes = blob.to_bytes();
            assert_eq!(Blob::from_bytes(bytes), Some(blob));
        }
        for bytes in [&b""[..], b"{}", b"R", &[b'R'; REFERENCE + 1]] {
            assert_eq!(Blob::from_bytes(bytes.to_vec()), None);
        }
    }
}
