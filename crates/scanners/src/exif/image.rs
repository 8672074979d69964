//! PNG and GIF: the size of the picture, and Exif where a PNG carries it.

use super::facts::Facts;
use super::tiff;

/// Chunks of a PNG that are looked at.
const MAX_CHUNKS: usize = 10_000;

/// Reads a PNG behind its signature (ISO/IEC 15948).
pub(super) fn png(mut rest: &[u8], facts: &mut Facts) {
    facts.file_type("PNG", "PNG", "image/png");
    for _ in 0..MAX_CHUNKS {
        let Some((len, after)) = rest.split_first_chunk::<4>() else { return };
        let Some((kind, after)) = after.split_first_chunk::<4>() else { return };
        let len = (u32::from_be_bytes(*len) as usize).min(after.len());
        let (content, after) = after.split_at(len);
        match kind {
            b"IHDR" => header(content, facts),
            b"eXIf" => tiff::read(content, facts),
            b"tEXt" => text(content, facts),
            b"IEND" => return,
            _ => {}
        }
        // Behind the checksum.
        rest = after.get(4..).unwrap_or_default();
    }
    facts.limit(format!("more than {MAX_CHUNKS} chunks"));
}

fn header(content: &[u8], facts: &mut Facts) {
    let Some((sizes, rest)) = content.split_first_chunk::<8>() else { return };
    let [width, height] = [0, 4].map(|at| u32::from_be_bytes([sizes[at], sizes[at + 1], sizes[at + 2], sizes[at + 3]]));
    facts.put("ImageWidth", width);
    facts.put("ImageHeight", height);
    let names = ["BitDepth", "ColorType", "Compression", "Filter", "Interlace"];
    for (name, value) in names.into_iter().zip(rest) {
        facts.put(name, *value);
    }
}

/// A keyword with its text: author, software, and whatever else the writer noted.
fn text(content: &[u8], facts: &mut Facts) {
    let Some(at) = content.iter().position(|b| *b == 0).filter(|at| (1..80).contains(at)) else { return };
    let name: String = content[..at].iter().filter(|b| b.is_ascii_alphanumeric()).map(|b| char::from(*b)).collect();
    if !name.is_empty() {
        facts.put_text(&name, &crate::text::decode_fragment(&content[at + 1..]));
    }
}

/// Reads a GIF's logical screen (GIF89a, 18).
pub(super) fn gif(content: &[u8], facts: &mut Facts) {
    facts.file_type("GIF", "GIF", "image/gif");
    facts.put_text("GIFVersion", &String::from_utf8_lossy(&content[3..6]));
    if let Some([a, b, c, d]) = content.get(6..).and_then(<[u8]>::first_chunk) {
        facts.put("ImageWidth", u16::from_le_bytes([*a, *b]));
        facts.put("ImageHeight", u16::from_le_bytes([*c, *d]));
    }
}
