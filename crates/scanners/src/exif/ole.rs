//! OLE documents: Word, Excel, PowerPoint and others in a compound file ([MS-CFB]).

use std::io::{Cursor, Read as _};

use cfb::CompoundFile;

use super::facts::Facts;
use super::properties;
use crate::pecarve::image::{u16_at, u32_at};

/// Bytes of a stream that are read.
const MAX_STREAM: u64 = 1 << 20;
/// Streams whose presence tells the type: file type, extension, media type.
const TYPES: [(&str, &str, &str); 7] = [
    ("WordDocument", "DOC", "application/msword"),
    ("Workbook", "XLS", "application/vnd.ms-excel"),
    ("Book", "XLS", "application/vnd.ms-excel"),
    ("PowerPoint Document", "PPT", "application/vnd.ms-powerpoint"),
    ("VisioDocument", "VSD", "application/x-visio"),
    ("__properties_version1.0", "MSG", "application/vnd.ms-outlook"),
    ("Quill", "PUB", "application/x-mspublisher"),
];

/// Reads a compound file.
pub(super) fn read(content: &[u8], facts: &mut Facts) {
    let mut file = match CompoundFile::open(Cursor::new(content)) {
        Ok(file) => file,
        Err(error) => {
            facts.file_type("OLE", "OLE", "application/x-ole-storage");
            facts.put("Warning", format!("broken compound file: {error}"));
            return;
        }
    };
    let known = TYPES.iter().find(|(stream, _, _)| file.exists(format!("/{stream}")));
    let (_, kind, mime) = known.copied().unwrap_or(("", "OLE", "application/x-ole-storage"));
    facts.file_type(kind, kind, mime);
    let mut stream = |name: &str| {
        let mut bytes = Vec::new();
        let stream = file.open_stream(format!("/{name}")).ok()?;
        // A stream that breaks off is read as far as it goes.
        stream.take(MAX_STREAM).read_to_end(&mut bytes).ok();
        Some(bytes)
    };
    if let Some(bytes) = stream("WordDocument") {
        word(&bytes, facts);
    }
    if let Some(bytes) = stream("\u{5}SummaryInformation") {
        properties::summary(&bytes, facts);
    }
    if let Some(bytes) = stream("\u{5}DocumentSummaryInformation") {
        properties::document(&bytes, facts);
    }
    if let Some(bytes) = stream("\u{1}CompObj") {
        comp_obj(&bytes, facts);
    }
}

/// The beginning of Word's file information block ([MS-DOC] 2.5.1).
fn word(stream: &[u8], facts: &mut Facts) {
    for (name, at) in [("Identification", 0), ("LanguageCode", 6)] {
        if let Some(value) = u16_at(stream, at) {
            facts.put(name, value);
        }
    }
    if let Some(flags) = u16_at(stream, 10) {
        // Without the count of saves.
        facts.put("DocFlags", flags & 0xff0f);
    }
    if let Some(flags) = u16_at(stream, 18) {
        facts.put("System", flags & 1);
        facts.put("Word97", flags >> 4 & 1);
    }
}

/// The name of the class, as the program shows it ([MS-OLEDS] 2.3.8).
fn comp_obj(stream: &[u8], facts: &mut Facts) {
    let Some(len) = u32_at(stream, 28) else { return };
    facts.put("CompObjUserTypeLen", len);
    let end = 32_usize.saturating_add(len as usize).min(stream.len());
    let text = &stream[32..end];
    let text = &text[..text.iter().position(|b| *b == 0).unwrap_or(text.len())];
    facts.put_text("CompObjUserType", &crate::text::decode_fragment(text));
}
