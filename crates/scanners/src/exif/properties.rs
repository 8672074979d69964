//! Property sets ([MS-OLEPS]): who wrote a document, when, with what, and what else its author noted.

use encoding_rs::Encoding;
use serde_json::Value;

use super::facts::{Facts, clip, date_time, scalar};
use crate::pecarve::image::{u16_at, u32_at};

/// Properties of a set.
const MAX_PROPERTIES: usize = 500;
/// Elements of a property that is a list.
const MAX_ELEMENTS: usize = 100;
/// Bytes of a property's text.
const MAX_TEXT: usize = 64 << 10;
/// Place of the code page in every set.
const CODE_PAGE: u32 = 1;
/// From 1601 to 1970 in seconds.
const UNIX_EPOCH: i64 = 11_644_473_600;
/// Longer spans are points in time.
const YEAR: i64 = 365 * 86_400;

/// Properties of the summary, by number.
const SUMMARY: [(u32, &str); 17] = [
    (1, "CodePage"),
    (2, "Title"),
    (3, "Subject"),
    (4, "Author"),
    (5, "Keywords"),
    (6, "Comments"),
    (7, "Template"),
    (8, "LastModifiedBy"),
    (9, "RevisionNumber"),
    (10, "TotalEditTime"),
    (11, "LastPrinted"),
    (12, "CreateDate"),
    (13, "ModifyDate"),
    (14, "Pages"),
    (15, "Words"),
    (16, "Characters"),
    (18, "Software"),
];
/// `Security`, which has no text form here.
const SECURITY: u32 = 19;
/// Properties of the document, by number.
const DOCUMENT: [(u32, &str); 18] = [
    (1, "CodePage"),
    (2, "Category"),
    (3, "PresentationTarget"),
    (4, "Bytes"),
    (5, "Lines"),
    (6, "Paragraphs"),
    (7, "Slides"),
    (8, "Notes"),
    (9, "HiddenSlides"),
    (10, "MMClips"),
    (11, "ScaleCrop"),
    (12, "HeadingPairs"),
    (13, "TitleOfParts"),
    (14, "Manager"),
    (15, "Company"),
    (16, "LinksUpToDate"),
    (17, "CharCountWithSpaces"),
    (19, "SharedDoc"),
];
/// `HyperlinksChanged` and the version of the program.
const HYPERLINKS_CHANGED: u32 = 22;
const APP_VERSION: u32 = 23;

/// Reads `SummaryInformation`.
pub(super) fn summary(stream: &[u8], facts: &mut Facts) {
    let Some(set) = sections(stream).next().and_then(|at| Set::parse(stream, at)) else { return };
    for (id, at) in &set.properties {
        let name = SUMMARY.iter().find(|(n, _)| n == id).map(|(_, name)| *name);
        let name = name.or((*id == SECURITY).then_some("Security"));
        if let (Some(name), Some(value)) = (name, set.value(*at)) {
            put(name, value, facts);
        }
    }
}

/// Reads `DocumentSummaryInformation`: the set that every document has, and behind it the one with names of its own.
pub(super) fn document(stream: &[u8], facts: &mut Facts) {
    let mut sections = sections(stream);
    if let Some(set) = sections.next().and_then(|at| Set::parse(stream, at)) {
        for (id, at) in &set.properties {
            let Some(value) = set.value(*at) else { continue };
            match *id {
                HYPERLINKS_CHANGED => put("HyperlinksChanged", value, facts),
                APP_VERSION => {
                    let version = value.as_i64().unwrap_or(0);
                    facts.put_text("AppVersion", &format!("{}.{:04}", version >> 16 & 0xffff, version & 0xffff));
                }
                id => {
                    if let Some((_, name)) = DOCUMENT.iter().find(|(n, _)| *n == id) {
                        put(name, value, facts);
                    }
                }
            }
        }
    }
    if let Some(set) = sections.next().and_then(|at| Set::parse(stream, at)) {
        custom(&set, facts);
    }
}

/// Properties that the author named.
fn custom(set: &Set<'_>, facts: &mut Facts) {
    let names = set.dictionary();
    for (id, at) in set.properties.iter().filter(|(id, _)| *id > CODE_PAGE) {
        let Some((_, name)) = names.iter().find(|(n, _)| n == id) else { continue };
        let name: String = name.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect();
        if let (false, Some(value)) = (name.is_empty(), set.value(*at)) {
            put(&name, value, facts);
        }
    }
}

fn put(name: &str, value: Value, facts: &mut Facts) {
    match value {
        Value::String(text) => facts.put_text(name, &text),
        value => facts.put(name, value),
    }
}

/// Where the sets of a stream begin; at most two have a meaning.
fn sections(stream: &[u8]) -> impl Iterator<Item = usize> {
    let valid = u16_at(stream, 0) == Some(0xfffe);
    let count = if valid { u32_at(stream, 24).unwrap_or(0).min(2) as usize } else { 0 };
    (0..count).filter_map(|n| u32_at(stream, 28 + 20 * n + 16).map(|at| at as usize))
}

struct Set<'a> {
    bytes: &'a [u8],
    properties: Vec<(u32, usize)>,
    encoding: Option<&'static Encoding>,
    wide: bool,
}

impl<'a> Set<'a> {
    fn parse(stream: &'a [u8], at: usize) -> Option<Self> {
        let bytes = stream.get(at..)?;
        let size = u32_at(bytes, 0)? as usize;
        let bytes = &bytes[..size.min(bytes.len())];
        let count = (u32_at(bytes, 4)? as usize).min(MAX_PROPERTIES);
        let properties: Vec<_> =
            (0..count).map_while(|n| Some((u32_at(bytes, 8 + 8 * n)?, u32_at(bytes, 12 + 8 * n)? as usize))).collect();
        let page = properties.iter().find(|(id, _)| *id == CODE_PAGE).and_then(|(_, at)| u16_at(bytes, at + 4));
        Some(Self { bytes, properties, encoding: page.and_then(encoding), wide: page == Some(1_200) })
    }

    fn value(&self, at: usize) -> Option<Value> {
        let kind = u32_at(self.bytes, at)?;
        self.typed(kind & 0xffff, &mut at.checked_add(4)?)
    }

    /// A value of a type (`TypedPropertyValue`); `at` moves behind it. Nesting ends at lists of variants.
    fn typed(&self, kind: u32, at: &mut usize) -> Option<Value> {
        const VECTOR: u32 = 0x1000;
        if kind & VECTOR == 0 {
            return self.simple(kind, at);
        }
        let count = (u32_at(self.bytes, *at)? as usize).min(MAX_ELEMENTS);
        *at += 4;
        let mut elements = Vec::new();
        for _ in 0..count {
            let kind = match kind & !VECTOR {
                12 => {
                    let kind = u32_at(self.bytes, *at)? & 0xffff;
                    *at += 4;
                    kind
                }
                kind => kind,
            };
            elements.push(match self.simple(kind, at)? {
                Value::String(text) => scalar(clip(&text)),
                value => value,
            });
            self.skip_padding(at);
        }
        match elements.len() {
            0 => Some("".into()),
            1 => elements.pop(),
            _ => Some(elements.into()),
        }
    }

    /// Strings in lists are padded by some programs and not by others.
    fn skip_padding(&self, at: &mut usize) {
        let next = at.next_multiple_of(4);
        if self.bytes.get(*at..next).is_some_and(|pad| pad.iter().all(|b| *b == 0)) {
            *at = next;
        }
    }

    fn simple(&self, kind: u32, at: &mut usize) -> Option<Value> {
        let start = *at;
        let field = |len: usize| self.bytes.get(start..start.checked_add(len)?);
        let (value, len) = match kind {
            2 | 11 => (i16::from_le_bytes(*field(2)?.first_chunk()?).into(), 2),
            18 => (u16_at(self.bytes, start)?.into(), 2),
            3 | 10 | 22 => (i32::from_le_bytes(*field(4)?.first_chunk()?).into(), 4),
            19 | 23 => (u32_at(self.bytes, start)?.into(), 4),
            4 => (f64::from(f32::from_le_bytes(*field(4)?.first_chunk()?)).into(), 4),
            5 => (f64::from_le_bytes(*field(8)?.first_chunk()?).into(), 8),
            20 | 21 => (i64::from_le_bytes(*field(8)?.first_chunk()?).into(), 8),
            64 => (file_time(u64::from_le_bytes(*field(8)?.first_chunk()?)), 8),
            8 | 30 | 31 => {
                let unit = if kind == 31 { 2 } else { 1 };
                let len = (u32_at(self.bytes, start)? as usize).checked_mul(unit)?;
                let bytes = self.bytes.get(start + 4..start.checked_add(4)?.checked_add(len)?)?;
                let wide = kind == 31 || self.wide;
                (self.text(&bytes[..bytes.len().min(MAX_TEXT)], wide).into(), 4 + len)
            }
            _ => return None,
        };
        *at = start + len;
        Some(value)
    }

    /// Text up to the first NUL.
    fn text(&self, bytes: &[u8], wide: bool) -> String {
        if wide {
            let units: Vec<u16> =
                bytes.as_chunks::<2>().0.iter().map(|u| u16::from_le_bytes(*u)).take_while(|u| *u != 0).collect();
            return String::from_utf16_lossy(&units);
        }
        let bytes = &bytes[..bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len())];
        match self.encoding {
            Some(encoding) => encoding.decode_without_bom_handling(bytes).0.into_owned(),
            None => crate::text::decode_fragment(bytes).into_owned(),
        }
    }

    /// Names of properties ([MS-OLEPS] 2.17).
    fn dictionary(&self) -> Vec<(u32, String)> {
        let Some((_, start)) = self.properties.iter().find(|(id, _)| *id == 0) else { return Vec::new() };
        let mut names = Vec::new();
        let count = u32_at(self.bytes, *start).unwrap_or(0) as usize;
        let mut at = start.saturating_add(4);
        for _ in 0..count.min(MAX_PROPERTIES) {
            let (Some(id), Some(len)) = (u32_at(self.bytes, at), u32_at(self.bytes, at.saturating_add(4))) else {
                break;
            };
            let len = (len as usize).saturating_mul(if self.wide { 2 } else { 1 });
            let Some(bytes) = at.checked_add(8).and_then(|s| self.bytes.get(s..s.checked_add(len)?)) else { break };
            names.push((id, self.text(&bytes[..len.min(MAX_TEXT)], self.wide)));
            at += 8 + len;
            if self.wide {
                at = at.next_multiple_of(4);
            }
        }
        names
    }
}

/// A point in time, or seconds where it is too short for one.
fn file_time(ticks: u64) -> Value {
    let seconds = i64::try_from(ticks / 10_000_000).unwrap_or(0);
    if seconds <= YEAR {
        return seconds.into();
    }
    date_time(seconds - UNIX_EPOCH).map_or(Value::Null, Value::from)
}

/// The encoding of a Windows code page.
fn encoding(page: u16) -> Option<&'static Encoding> {
    let label = match page {
        65_001 => "utf-8".to_owned(),
        932 => "shift_jis".to_owned(),
        936 => "gbk".to_owned(),
        949 => "euc-kr".to_owned(),
        950 => "big5".to_owned(),
        10_000 => "macintosh".to_owned(),
        20_866 => "koi8-r".to_owned(),
        54_936 => "gb18030".to_owned(),
        874 | 1_250..=1_258 => format!("windows-{page}"),
        28_591..=28_606 => format!("iso-8859-{}", page - 28_590),
        _ => return None,
    };
    Encoding::for_label(label.as_bytes())
}
