//! An archive that is the same whenever it is made of the same parts.

use std::io::Write as _;

use anyhow::Result;
use flate2::{Compression, GzBuilder};

/// A file of the archive.
pub(super) struct Part {
    path: String,
    bytes: Vec<u8>,
    mode: u32,
}

impl Part {
    /// A file that anybody may read.
    pub(super) fn file(path: &str, bytes: Vec<u8>) -> Self {
        Self { path: path.to_owned(), bytes, mode: 0o644 }
    }

    /// A file that anybody may run.
    pub(super) fn program(path: &str, bytes: Vec<u8>) -> Self {
        Self { mode: 0o755, ..Self::file(path, bytes) }
    }
}

/// Packs the parts below the folder `name`, in the order of their paths, as of `epoch`, as nobody in particular.
pub(super) fn pack(name: &str, mut parts: Vec<Part>, epoch: u64) -> Result<Vec<u8>> {
    parts.sort_by(|a, b| a.path.cmp(&b.path));
    let mut tar = tar::Builder::new(Vec::new());
    for part in &parts {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(part.bytes.len())?);
        header.set_mode(part.mode);
        header.set_mtime(epoch);
        tar.append_data(&mut header, format!("{name}/{}", part.path), part.bytes.as_slice())?;
    }
    let mut packed = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    packed.write_all(&tar.into_inner()?)?;
    Ok(packed.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_types, reason = "it is our own archive, made a line above")]
    fn the_order_of_parts_does_not_matter() {
        let parts = || vec![Part::program("stoq", b"x".to_vec()), Part::file("a/b", b"y".to_vec())];
        let one = pack("n", parts(), 1_700_000_000).expect("packs");
        let mut turned = parts();
        turned.reverse();
        assert_eq!(one, pack("n", turned, 1_700_000_000).expect("packs"));
        assert_ne!(one, pack("n", parts(), 1_700_000_001).expect("packs"));
        let mut back = tar::Archive::new(flate2::read::GzDecoder::new(one.as_slice()));
        let entries = back.entries().expect("entries").map(|entry| {
            let entry = entry.expect("an entry");
            (entry.path().expect("a path").to_string_lossy().into_owned(), entry.header().mode().expect("a mode"))
        });
        assert_eq!(entries.collect::<Vec<_>>(), [("n/a/b".to_owned(), 0o644), ("n/stoq".to_owned(), 0o755)]);
    }
}
