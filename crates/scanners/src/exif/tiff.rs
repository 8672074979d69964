//! TIFF and Exif (TIFF 6.0, Exif 2.32): image file directories, read within bounds.

use serde_json::Value;

use super::facts::{Facts, scalar};

/// Entries of a directory.
const MAX_ENTRIES: usize = 500;
/// Bytes of one value.
const MAX_VALUE: usize = 4 << 10;
/// Directories that lead on to others.
const EXIF: u16 = 0x8769;
const GPS: u16 = 0x8825;
const USER_COMMENT: u16 = 0x9286;

/// Names of the main and the Exif directory.
const NAMES: [(u16, &str); 47] = [
    (0x100, "ImageWidth"),
    (0x101, "ImageHeight"),
    (0x102, "BitsPerSample"),
    (0x103, "Compression"),
    (0x106, "PhotometricInterpretation"),
    (0x10d, "DocumentName"),
    (0x10e, "ImageDescription"),
    (0x10f, "Make"),
    (0x110, "Model"),
    (0x112, "Orientation"),
    (0x115, "SamplesPerPixel"),
    (0x11a, "XResolution"),
    (0x11b, "YResolution"),
    (0x128, "ResolutionUnit"),
    (0x131, "Software"),
    (0x132, "ModifyDate"),
    (0x13b, "Artist"),
    (0x13c, "HostComputer"),
    (0x8298, "Copyright"),
    (0x829a, "ExposureTime"),
    (0x829d, "FNumber"),
    (0x8822, "ExposureProgram"),
    (0x8827, "ISO"),
    (0x9000, "ExifVersion"),
    (0x9003, "DateTimeOriginal"),
    (0x9004, "CreateDate"),
    (0x9010, "OffsetTime"),
    (0x9011, "OffsetTimeOriginal"),
    (0x9012, "OffsetTimeDigitized"),
    (0x9201, "ShutterSpeedValue"),
    (0x9202, "ApertureValue"),
    (0x9204, "ExposureCompensation"),
    (0x9207, "MeteringMode"),
    (0x9208, "LightSource"),
    (0x9209, "Flash"),
    (0x920a, "FocalLength"),
    (0x9286, "UserComment"),
    (0x9290, "SubSecTime"),
    (0xa001, "ColorSpace"),
    (0xa002, "ExifImageWidth"),
    (0xa003, "ExifImageHeight"),
    (0xa405, "FocalLengthIn35mmFormat"),
    (0xa420, "ImageUniqueID"),
    (0xa430, "OwnerName"),
    (0xa431, "SerialNumber"),
    (0xa433, "LensMake"),
    (0xa434, "LensModel"),
];
/// Names of the place's directory.
const GPS_NAMES: [(u16, &str); 11] = [
    (0, "GPSVersionID"),
    (1, "GPSLatitudeRef"),
    (2, "GPSLatitude"),
    (3, "GPSLongitudeRef"),
    (4, "GPSLongitude"),
    (5, "GPSAltitudeRef"),
    (6, "GPSAltitude"),
    (7, "GPSTimeStamp"),
    (17, "GPSImgDirection"),
    (18, "GPSMapDatum"),
    (29, "GPSDateStamp"),
];

/// Reads a TIFF structure: the first directory, and those for Exif and the place that it names.
pub(super) fn read(data: &[u8], facts: &mut Facts) {
    let little = match data {
        [b'I', b'I', b'*', 0, ..] => true,
        [b'M', b'M', 0, b'*', ..] => false,
        _ => return,
    };
    facts.put("ExifByteOrder", if little { "II" } else { "MM" });
    let tiff = Tiff { data, little };
    let Some(first) = tiff.u32(4) else { return };
    let mut others = Vec::new();
    tiff.directory(first, &NAMES, facts, &mut others);
    let mut none = Vec::new();
    // Each kind once, and no further ones from there: a loop would be the file's, not the reader's.
    for kind in [EXIF, GPS] {
        if let Some((_, at)) = others.iter().find(|(tag, _)| *tag == kind) {
            tiff.directory(*at, if kind == GPS { &GPS_NAMES } else { &NAMES }, facts, &mut none);
        }
    }
}

struct Tiff<'a> {
    data: &'a [u8],
    little: bool,
}

impl Tiff<'_> {
    fn u16(&self, at: usize) -> Option<u16> {
        let bytes = *self.data.get(at..)?.first_chunk()?;
        Some(if self.little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    }

    fn u32(&self, at: usize) -> Option<u32> {
        let bytes = *self.data.get(at..)?.first_chunk()?;
        Some(if self.little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    /// Adds the named values of a directory, and to `others` what leads to further ones.
    fn directory(&self, at: u32, names: &[(u16, &str)], facts: &mut Facts, others: &mut Vec<(u16, u32)>) {
        let at = at as usize;
        let count = usize::from(self.u16(at).unwrap_or(0));
        if count > MAX_ENTRIES {
            facts.limit(format!("an image file directory has more than {MAX_ENTRIES} entries"));
        }
        let mut refs = [None; 2];
        for entry in (0..count.min(MAX_ENTRIES)).map(|n| at + 2 + 12 * n) {
            let Some(tag) = self.u16(entry) else { return };
            if let (EXIF | GPS, Some(next)) = (tag, self.u32(entry + 8)) {
                others.push((tag, next));
            }
            let Some((_, name)) = names.iter().find(|(t, _)| *t == tag) else { continue };
            let Some(value) = self.value(entry) else { continue };
            match *name {
                "GPSLatitudeRef" | "GPSLongitudeRef" => {
                    refs[usize::from(tag == 3)] = value.as_str().map(|s| s.starts_with(['S', 'W']));
                    facts.put(name, value);
                }
                "GPSLatitude" | "GPSLongitude" => facts.put(name, degrees(&value, refs[usize::from(tag == 4)])),
                name => facts.put(name, value),
            }
        }
    }

    /// The value of an entry: a number, a text, or several of them with blanks between.
    fn value(&self, entry: usize) -> Option<Value> {
        let kind = self.u16(entry + 2)?;
        let count = self.u32(entry + 4)? as usize;
        let unit = match kind {
            1 | 2 | 6 | 7 => 1,
            3 | 8 => 2,
            4 | 9 => 4,
            5 | 10 => 8,
            _ => return None,
        };
        let len = count.checked_mul(unit)?;
        let at = if len <= 4 { entry + 8 } else { self.u32(entry + 8)? as usize };
        let len = len.min(MAX_VALUE).min(self.data.len().saturating_sub(at));
        let mut bytes = self.data.get(at..at + len)?;
        if self.u16(entry) == Some(USER_COMMENT) {
            // Behind the name of its character set, padded to eight bytes.
            bytes = bytes.get(8..).unwrap_or_default();
        }
        if matches!(kind, 2 | 7) {
            let text =
                crate::text::decode_fragment(&bytes[..bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len())]);
            return Some(if kind == 2 { scalar(text.trim_end()) } else { text.into() });
        }
        let parts: Vec<String> = (0..len / unit).filter_map(|n| self.number(kind, at + n * unit)).collect();
        Some(scalar(&parts.join(" ")))
    }

    fn number(&self, kind: u16, at: usize) -> Option<String> {
        Some(match kind {
            1 => self.data.get(at)?.to_string(),
            6 => self.data.get(at)?.cast_signed().to_string(),
            3 => self.u16(at)?.to_string(),
            8 => self.u16(at)?.cast_signed().to_string(),
            4 => self.u32(at)?.to_string(),
            9 => self.u32(at)?.cast_signed().to_string(),
            5 => ratio(self.u32(at)?.into(), self.u32(at + 4)?.into()),
            _ => ratio(self.u32(at)?.cast_signed().into(), self.u32(at + 4)?.cast_signed().into()),
        })
    }
}

/// A fraction in decimals; ExifTool's words where there is none.
fn ratio(a: i64, b: i64) -> String {
    match (a, b) {
        (0, 0) => "undef".to_owned(),
        (_, 0) => "inf".to_owned(),
        _ => {
            #[expect(clippy::cast_precision_loss, reason = "both have 32 bits")]
            let value = a as f64 / b as f64;
            // Ten digits, as ExifTool gives.
            let text = format!("{value:.10}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
    }
}

/// Degrees, minutes and seconds as degrees; negative in the south and west.
fn degrees(value: &Value, negative: Option<bool>) -> Value {
    let Some(text) = value.as_str() else { return value.clone() };
    let parts: Vec<f64> = text.split(' ').filter_map(|p| p.parse().ok()).collect();
    let [degrees, minutes, seconds] = parts.as_slice() else { return value.clone() };
    let all = degrees + minutes / 60.0 + seconds / 3_600.0;
    if negative == Some(true) { (-all).into() } else { all.into() }
}
