//! PE images: what the headers say.

use super::facts::{Facts, date_time, scalar};
use super::version;
use crate::pecarve::image::{Image, PE32, u16_at, u32_at};

/// `Characteristics` of a library.
const DLL: u16 = 0x2000;

/// Reads an image; a DOS program without PE headers is told as such.
pub(super) fn read(content: &[u8], facts: &mut Facts) {
    let Some(image) = Image::parse(content) else {
        facts.file_type("DOS EXE", "EXE", "application/octet-stream");
        return;
    };
    let file = image.file_header;
    let characteristics = u16_at(content, file + 18).unwrap_or(0);
    let kind = if characteristics & DLL == 0 { "EXE" } else { "DLL" };
    let bits = if image.magic == PE32 { 32 } else { 64 };
    facts.file_type(&format!("Win{bits} {kind}"), kind, "application/octet-stream");
    facts.put("MachineType", image.machine);
    if let Some(time) = u32_at(content, file + 4).and_then(|t| date_time(i64::from(t))) {
        facts.put("TimeStamp", format!("{time}+00:00"));
    }
    facts.put("ImageFileCharacteristics", characteristics);
    facts.put("PEType", image.magic);
    optional_header(content, image.optional_header(), facts);
    version::read(content, &image, facts);
}

/// The fields of the optional header whose places are the same in 32 and 64 bit.
fn optional_header(content: &[u8], at: usize, facts: &mut Facts) {
    let pair = |at: usize| Some(scalar(&format!("{}.{}", u16_at(content, at)?, u16_at(content, at + 2)?)));
    if let Some([_, _, major, minor]) = content.get(at..).and_then(<[u8]>::first_chunk) {
        facts.put("LinkerVersion", scalar(&format!("{major}.{minor}")));
    }
    let sizes = [("CodeSize", 4), ("InitializedDataSize", 8), ("UninitializedDataSize", 12), ("EntryPoint", 16)];
    for (name, offset) in sizes {
        if let Some(value) = u32_at(content, at + offset) {
            facts.put(name, value);
        }
    }
    for (name, offset) in [("OSVersion", 40), ("ImageVersion", 44), ("SubsystemVersion", 48)] {
        if let Some(value) = pair(at + offset) {
            facts.put(name, value);
        }
    }
    if let Some(subsystem) = u16_at(content, at + 68) {
        facts.put("Subsystem", subsystem);
    }
}
