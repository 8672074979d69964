//! What kind of ZIP archive (APPNOTE.TXT 6.3): by the names of its members, which only the whole file shows.

use super::{u16_at, u32_at};

/// Members whose names are looked at.
const MAX_MEMBERS: usize = 4096;
/// Bytes at the end in which the end of the central directory is looked for: its length and the longest comment.
const TAIL: usize = 22 + 0xffff;
/// Greatest text of a member `mimetype` that is read.
const MAX_MIMETYPE: usize = 128;

/// Media types that archives state of themselves in a stored first member called `mimetype`.
const STATED: [&str; 14] = [
    "application/epub+zip",
    "application/vnd.oasis.opendocument.text",
    "application/vnd.oasis.opendocument.text-template",
    "application/vnd.oasis.opendocument.text-master",
    "application/vnd.oasis.opendocument.spreadsheet",
    "application/vnd.oasis.opendocument.spreadsheet-template",
    "application/vnd.oasis.opendocument.presentation",
    "application/vnd.oasis.opendocument.presentation-template",
    "application/vnd.oasis.opendocument.graphics",
    "application/vnd.oasis.opendocument.graphics-template",
    "application/vnd.oasis.opendocument.formula",
    "application/vnd.oasis.opendocument.database",
    "application/vnd.oasis.opendocument.chart",
    "application/vnd.adobe.indesign-idml-package",
];

/// The media type of an archive; `application/zip` if its members say nothing more.
pub(super) fn classify(content: &[u8]) -> &'static str {
    if let Some(stated) = stated(content) {
        return stated;
    }
    let mut seen = Seen::default();
    // Who hides members from the central directory or cuts the file short still has local headers.
    if !central(content, &mut seen) {
        local(content, &mut seen);
    }
    seen.verdict()
}

fn stated(content: &[u8]) -> Option<&'static str> {
    const NAME: &[u8] = b"mimetype";
    if u16_at(content, 8)? != 0 || u16_at(content, 26)? as usize != NAME.len() {
        return None;
    }
    let size = u32_at(content, 18)? as usize;
    let start = 30 + NAME.len() + usize::from(u16_at(content, 28)?);
    if content.get(30..30 + NAME.len())? != NAME || size > MAX_MIMETYPE {
        return None;
    }
    let text = content.get(start..start + size)?.trim_ascii();
    STATED.into_iter().find(|s| s.as_bytes() == text)
}

/// What the names of the members showed.
#[derive(Default)]
struct Seen {
    content_types: bool,
    word: bool,
    excel: bool,
    powerpoint: bool,
    visio: bool,
    manifest: bool,
    android: bool,
    appx: bool,
    xps: bool,
}

impl Seen {
    fn note(&mut self, name: &[u8]) {
        match name {
            b"[Content_Types].xml" => self.content_types = true,
            b"META-INF/MANIFEST.MF" | b"WEB-INF/web.xml" => self.manifest = true,
            b"AndroidManifest.xml" => self.android = true,
            b"AppxManifest.xml" => self.appx = true,
            b"FixedDocumentSequence.fdseq" => self.xps = true,
            _ => {
                // Some writers put a backslash there.
                let folder = name.iter().position(|b| matches!(b, b'/' | b'\\')).map(|at| &name[..at]);
                self.word |= folder == Some(b"word");
                self.excel |= folder == Some(b"xl");
                self.powerpoint |= folder == Some(b"ppt");
                self.visio |= folder == Some(b"visio");
            }
        }
    }

    fn verdict(&self) -> &'static str {
        if self.appx {
            "application/vnd.ms-appx"
        } else if self.xps {
            "application/oxps"
        } else if self.content_types && self.word {
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
        } else if self.content_types && self.excel {
            "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
        } else if self.content_types && self.powerpoint {
            "application/vnd.openxmlformats-officedocument.presentationml.presentation"
        } else if self.content_types && self.visio {
            "application/vnd.ms-visio.drawing.main+xml"
        } else if self.android {
            "application/vnd.android.package-archive"
        } else if self.manifest {
            "application/java-archive"
        } else {
            "application/zip"
        }
    }
}

/// Reads names from the central directory; false if there is none that can be followed.
fn central(content: &[u8], seen: &mut Seen) -> bool {
    let start = content.len().saturating_sub(TAIL);
    let tail = &content[start..];
    // Unlike a single byte, several are not looked for backwards by whole words of the processor.
    let found = memchr::memrchr_iter(b'P', tail).find(|at| tail[*at..].starts_with(b"PK\x05\x06"));
    let Some(end) = found.map(|at| start + at) else { return false };
    let (Some(size), Some(stated)) = (u32_at(content, end + 12), u32_at(content, end + 16)) else { return false };
    // Where something stands in front of the archive, the directory still ends where its end begins.
    let before_end = end.checked_sub(size as usize);
    let is_entry = |at: usize| content.get(at..).is_some_and(|c| c.starts_with(b"PK\x01\x02"));
    let Some(mut at) = before_end.into_iter().chain([stated as usize]).find(|at| is_entry(*at)) else { return false };
    for _ in 0..MAX_MEMBERS {
        let lengths = (u16_at(content, at + 28), u16_at(content, at + 30), u16_at(content, at + 32));
        let (Some(name), Some(extra), Some(comment)) = lengths else { break };
        let name = at + 46..at + 46 + usize::from(name);
        let next = name.end + usize::from(extra) + usize::from(comment);
        let Some(name) = content.get(name) else { break };
        seen.note(name);
        at = next;
        if !is_entry(at) {
            break;
        }
    }
    true
}

/// Reads names from local headers, as far as they say how long their members are.
fn local(content: &[u8], seen: &mut Seen) {
    let mut at = 0;
    for _ in 0..MAX_MEMBERS {
        if !content.get(at..).is_some_and(|c| c.starts_with(b"PK\x03\x04")) {
            break;
        }
        let lengths = (u32_at(content, at + 18), u16_at(content, at + 26), u16_at(content, at + 28));
        let (Some(size), Some(name), Some(extra)) = lengths else { break };
        let name = at + 30..at + 30 + usize::from(name);
        let next = name.end + usize::from(extra) + size as usize;
        let Some(name) = content.get(name) else { break };
        seen.note(name);
        at = next;
    }
}
