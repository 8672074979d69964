//! The version resource of a PE image (`VS_VERSIONINFO`).

use super::facts::Facts;
use crate::pecarve::image::{Image, u16_at, u32_at};

/// Place of the resources among the data directories.
const RESOURCES: usize = 2;
/// Type of a version resource.
const VERSION: u32 = 16;
/// Entries of a resource directory that are looked at.
const MAX_ENTRIES: usize = 4_096;
/// Bytes of a version resource that are read.
const MAX_SIZE: usize = 64 << 10;
/// Strings, and blocks that hold them, of a version resource.
const MAX_BLOCKS: usize = 200;
/// An entry that leads to another directory.
const SUBDIRECTORY: u32 = 0x8000_0000;

/// Reads the first version resource, if there is one.
pub(super) fn read(content: &[u8], image: &Image, facts: &mut Facts) {
    let Some(directory) = image.directories.get(RESOURCES).filter(|d| d.size > 0) else { return };
    let Some(base) = image.offset_of(directory.address) else { return };
    let Some(resource) = find(content, base).and_then(|(address, size)| {
        let at = image.offset_of(address)?;
        let end = at.saturating_add(size.min(MAX_SIZE)).min(content.len());
        content.get(at..end)
    }) else {
        return;
    };
    if info(resource, facts).is_none() {
        facts.put("Warning", "Possibly corrupt Version resource");
    }
}

/// Address and size of the first version resource: type, then its first name, then its first language.
fn find(content: &[u8], base: usize) -> Option<(u32, usize)> {
    let named = |id: u32| id == VERSION;
    let name = follow(content, base, entry(content, base, named)?)?;
    let language = follow(content, base, entry(content, name, |_| true)?)?;
    let data = entry(content, language, |_| true)?;
    let at = base.checked_add(usize::try_from(data).ok()?)?;
    Some((u32_at(content, at)?, usize::try_from(u32_at(content, at + 4)?).ok()?))
}

/// Where the first entry that fits leads.
fn entry(content: &[u8], directory: usize, fits: impl Fn(u32) -> bool) -> Option<u32> {
    let count = usize::from(u16_at(content, directory + 12)?) + usize::from(u16_at(content, directory + 14)?);
    (0..count.min(MAX_ENTRIES)).find_map(|n| {
        let at = directory + 16 + 8 * n;
        fits(u32_at(content, at)?).then(|| u32_at(content, at + 4)).flatten()
    })
}

fn follow(content: &[u8], base: usize, entry: u32) -> Option<usize> {
    (entry & SUBDIRECTORY != 0 && base < content.len()).then(|| base + (entry & !SUBDIRECTORY) as usize)
}

/// A block of a version resource: `wLength`, `wValueLength`, `wType`, a key, a value, and blocks behind it.
struct Block<'a> {
    key: String,
    /// What is behind the key, from a multiple of four on.
    rest: &'a [u8],
    /// Where the rest stands in the resource.
    rest_at: usize,
    value_len: usize,
    end: usize,
}

impl<'a> Block<'a> {
    fn parse(resource: &'a [u8], at: usize) -> Option<Self> {
        let len = usize::from(u16_at(resource, at)?);
        let value_len = usize::from(u16_at(resource, at + 2)?);
        let end = at.checked_add(len)?.min(resource.len());
        let (key, after) = wide(resource.get(..end)?, at + 6)?;
        let rest_at = after.next_multiple_of(4).min(end);
        Some(Self { key, rest: &resource[rest_at..end], rest_at, value_len, end })
    }
}

/// UTF-16 up to a NUL or the end, and where it ends.
fn wide(bytes: &[u8], at: usize) -> Option<(String, usize)> {
    let units: Vec<u16> =
        bytes.get(at..)?.as_chunks::<2>().0.iter().map(|u| u16::from_le_bytes(*u)).take_while(|u| *u != 0).collect();
    Some((String::from_utf16_lossy(&units), (at + 2 * units.len() + 2).min(bytes.len())))
}

fn info(resource: &[u8], facts: &mut Facts) -> Option<()> {
    let root = Block::parse(resource, 0).filter(|b| b.key == "VS_VERSION_INFO")?;
    if root.value_len >= 52 {
        fixed(root.rest, facts)?;
    }
    let mut at = (root.rest_at + root.value_len).next_multiple_of(4);
    for _ in 0..MAX_BLOCKS {
        if at + 6 > root.end {
            return Some(());
        }
        let block = Block::parse(resource, at).filter(|b| b.end > at)?;
        if block.key == "StringFileInfo" {
            tables(resource, &block, facts)?;
        }
        at = block.end.next_multiple_of(4);
    }
    None
}

/// `VS_FIXEDFILEINFO`.
fn fixed(at: &[u8], facts: &mut Facts) -> Option<()> {
    let field = |n: usize| u32_at(at, 4 * n);
    let version = |n: usize| {
        let (high, low) = (field(n)?, field(n + 1)?);
        Some(format!("{}.{}.{}.{}", high >> 16, high & 0xffff, low >> 16, low & 0xffff))
    };
    facts.put("FileVersionNumber", version(2)?);
    facts.put("ProductVersionNumber", version(4)?);
    let names = ["FileFlagsMask", "FileFlags", "FileOS", "ObjectFileType", "FileSubtype"];
    for (n, name) in names.into_iter().enumerate() {
        facts.put(name, field(6 + n)?);
    }
    Some(())
}

/// The string tables, one a language; the first value of a name counts.
fn tables(resource: &[u8], info: &Block<'_>, facts: &mut Facts) -> Option<()> {
    let mut at = info.rest_at;
    let mut left = MAX_BLOCKS;
    while at + 6 <= info.end {
        let table = Block::parse(resource, at).filter(|b| b.end > at)?;
        let key = table.key.to_uppercase();
        if let (Some(language), Some(charset)) = (key.get(..4), key.get(4..)) {
            facts.put_text("LanguageCode", language);
            facts.put_text("CharacterSet", charset);
        }
        let mut string_at = table.rest_at;
        while string_at + 6 <= table.end {
            left = left.checked_sub(1)?;
            let string = Block::parse(resource, string_at).filter(|b| b.end > string_at)?;
            let value = if string.value_len == 0 { String::new() } else { wide(string.rest, 0)?.0 };
            put(&string.key, &value, facts);
            string_at = string.end.next_multiple_of(4);
        }
        at = table.end.next_multiple_of(4);
        left = left.checked_sub(1)?;
    }
    Some(())
}

/// A string under ExifTool's name for it.
fn put(key: &str, value: &str, facts: &mut Facts) {
    let name: String = key.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).collect();
    match name.as_str() {
        "" => {}
        "OriginalFilename" => facts.put_text("OriginalFileName", value),
        name => facts.put_text(name, value),
    }
}
