//! JPEG: segments up to the picture (ISO/IEC 10918-1, annex B).

use super::facts::Facts;
use super::tiff;

/// Segments that are looked at.
const MAX_SEGMENTS: usize = 1_000;

/// Reads a JPEG.
pub(super) fn read(content: &[u8], facts: &mut Facts) {
    facts.file_type("JPEG", "JPG", "image/jpeg");
    let mut rest = &content[2..];
    for _ in 0..MAX_SEGMENTS {
        // Fill bytes may stand before a marker.
        let Some(at) = rest.iter().position(|b| *b != 0xff).filter(|at| *at > 0) else { return };
        let marker = rest[at];
        rest = &rest[at + 1..];
        match marker {
            // Start of the picture, end of the file.
            0xda | 0xd9 => return,
            0x01 | 0xd0..=0xd8 => continue,
            _ => {}
        }
        let Some((len, _)) = rest.split_first_chunk::<2>() else { return };
        let len = usize::from(u16::from_be_bytes(*len)).max(2).min(rest.len());
        segment(marker, &rest[2..len], facts);
        rest = &rest[len..];
    }
    facts.limit(format!("more than {MAX_SEGMENTS} segments"));
}

fn segment(marker: u8, content: &[u8], facts: &mut Facts) {
    match marker {
        0xe0 => {
            if let Some([major, minor]) = content.strip_prefix(b"JFIF\0").and_then(<[u8]>::first_chunk) {
                facts.put_text("JFIFVersion", &format!("{major}.{minor:02}"));
            }
        }
        0xe1 => {
            if let Some(exif) = content.strip_prefix(b"Exif\0\0") {
                tiff::read(exif, facts);
            }
        }
        0xfe => facts.put_text("Comment", crate::text::decode_fragment(content).trim_end_matches('\0')),
        0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
            if let Some([depth, h1, h0, w1, w0, components]) = content.first_chunk() {
                facts.put("ImageWidth", u16::from_be_bytes([*w1, *w0]));
                facts.put("ImageHeight", u16::from_be_bytes([*h1, *h0]));
                facts.put("EncodingProcess", marker - 0xc0);
                facts.put("BitsPerSample", *depth);
                facts.put("ColorComponents", *components);
            }
        }
        _ => {}
    }
}
