//! What kind of compound file ([MS-CFB]): by the names of its streams and the class of its root.

use super::{u16_at, u32_at};

/// Directory sectors that are looked at.
const MAX_SECTORS: usize = 256;
/// Class of the root storage of a Windows Installer package.
const INSTALLER: [u8; 16] = [0x84, 0x10, 0x0c, 0, 0, 0, 0, 0, 0xc0, 0, 0, 0, 0, 0, 0, 0x46];

/// The media type of a compound file; `application/CDFV2` if its streams are those of no known program.
pub(super) fn classify(content: &[u8]) -> &'static str {
    directory(content).unwrap_or("application/CDFV2")
}

/// Follows the chain of directory sectors and takes the first telling entry.
fn directory(content: &[u8]) -> Option<&'static str> {
    let shift = u16_at(content, 30).filter(|s| matches!(s, 9 | 12))?;
    let size = 1_usize << shift;
    let mut sector = u32_at(content, 48)?;
    for _ in 0..MAX_SECTORS {
        let start = (sector as usize).checked_add(1)?.checked_mul(size)?;
        for entry in content.get(start..)?.chunks_exact(128).take(size / 128) {
            if let Some(found) = telling(entry) {
                return Some(found);
            }
        }
        sector = next(content, size, sector)?;
    }
    None
}

/// The sector behind `sector`, from the allocation table; only tables that the header itself lists are read, which cover
/// 7 MB of directory and content in the smallest sectors.
fn next(content: &[u8], size: usize, sector: u32) -> Option<u32> {
    let per_table = size / 4;
    let (table, slot) = (sector as usize / per_table, sector as usize % per_table);
    if table >= 109 {
        return None;
    }
    let table = u32_at(content, 76 + table * 4)? as usize;
    let next = u32_at(content, table.checked_add(1)?.checked_mul(size)?.checked_add(slot * 4)?)?;
    // Special values (free, end of chain, table sectors) lie above every sector number.
    (next < 0xffff_fffa).then_some(next)
}

/// What a directory entry tells of the whole file.
fn telling(entry: &[u8]) -> Option<&'static str> {
    const ROOT: u8 = 5;
    let length = usize::from(u16_at(entry, 64)?).clamp(2, 64) - 2;
    // Names are UTF-16 and all that matter are ASCII.
    let mut name = [0_u8; 31];
    let name = &mut name[..length / 2];
    for (to, from) in name.iter_mut().zip(entry.chunks_exact(2)) {
        *to = if from[1] == 0 { from[0] } else { b'?' };
    }
    match &*name {
        _ if entry[66] == ROOT && entry[80..96] == INSTALLER => Some("application/x-msi"),
        b"WordDocument" => Some("application/msword"),
        b"Workbook" | b"Book" => Some("application/vnd.ms-excel"),
        b"PowerPoint Document" => Some("application/vnd.ms-powerpoint"),
        b"__properties_version1.0" => Some("application/vnd.ms-outlook"),
        b"EncryptedPackage" => Some("application/encrypted"),
        b"VisioDocument" => Some("application/vnd.visio"),
        b"Quill" => Some("application/vnd.ms-publisher"),
        b"HwpSummaryInformation" | b"\x05HwpSummaryInformation" => Some("application/x-hwp"),
        _ => None,
    }
}
