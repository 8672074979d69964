//! ar, as Debian packages and static libraries use it: System V with GNU's long names, and BSD's.
//!
//! Own code, because the structure is one fixed header per member, and readers to be had allocate what a header claims.

use std::io::Read;

use stoq_api::Timestamp;

use super::Unpack;
use super::codec::Checked;
use super::extract::{Extraction, Member, Stop};
use super::names::{self, Fallback};

const MAGIC: &[u8] = b"!<arch>\n";
/// Bytes of a member's header.
const HEADER: usize = 60;

/// The format.
pub(super) struct Ar;

/// Whether an archive starts here.
pub(super) fn starts(data: &[u8]) -> bool {
    data.starts_with(MAGIC)
}

impl Unpack for Ar {
    fn unpack(&self, input: &[u8], out: &mut Extraction<'_, '_>) -> Result<(), Stop> {
        let mut at = MAGIC.len();
        let mut long_names: &[u8] = &[];
        while let Some(header) = input.get(at..at + HEADER) {
            let Some(size) = number(&header[48..58]).filter(|_| header.ends_with(b"`\n")) else {
                out.broken(format!("at byte {at}: damaged header"));
                return Ok(());
            };
            let start = at + HEADER;
            let end = start.saturating_add(usize::try_from(size).unwrap_or(usize::MAX));
            let data = &input[start..end.min(input.len())];
            // Members start at even places.
            at = end.saturating_add(end & 1);
            match header[..16].trim_ascii_end() {
                b"//" => long_names = data,
                // Symbol tables.
                b"/" | b"/SYM64/" | b"__.SYMDEF" | b"__.SYMDEF SORTED" => {}
                field => member(field, header, data, size, long_names, out)?,
            }
        }
        if at < input.len() {
            out.anomaly(format!("{} bytes follow the last member", input.len() - at));
        }
        Ok(())
    }
}

/// A decimal field, filled up with blanks.
fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field.trim_ascii()).ok()?.parse().ok()
}

fn member(
    field: &[u8],
    header: &[u8],
    mut data: &[u8],
    mut size: u64,
    long_names: &[u8],
    out: &mut Extraction<'_, '_>,
) -> Result<(), Stop> {
    out.next()?;
    let mut name = field.strip_suffix(b"/").unwrap_or(field);
    if let Some(len) = field.strip_prefix(b"#1/").and_then(number) {
        // BSD: the name stands before the data.
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(data.len());
        name = data[..len].split(|b| *b == 0).next().unwrap_or_default();
        data = &data[len..];
        size -= len as u64;
    } else if let Some(at) = field.strip_prefix(b"/").and_then(number) {
        let rest = usize::try_from(at).ok().and_then(|at| long_names.get(at..)).unwrap_or_default();
        let line = rest.split(|b| *b == b'\n').next().unwrap_or_default();
        name = line.strip_suffix(b"/").unwrap_or(line);
    }
    let mtime = number(&header[16..28]).filter(|t| *t != 0);
    let member = Member {
        path: names::path(&names::decode(name, Fallback::Windows1252)),
        size: Some(size),
        mtime: mtime.map(|t| Timestamp(t.saturating_mul(1_000_000)).iso()),
        ..Member::default()
    };
    out.extract(&member, &mut || Ok(Box::new(Checked::new(data, None, Some(size))) as Box<dyn Read>)).map(|_| ())
}
