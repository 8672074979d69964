//! Formats told by their first bytes, or by bytes at a fixed place.

use std::borrow::Cow;

use file_format::FileFormat;

use super::{names, ole, text, u16_at, zip};

/// Bytes in front of a PDF header that readers put up with (ISO 32000-1, annex H.3.4.1).
const PDF_JUNK: usize = 1024;
/// Program headers of an ELF file that are looked at.
const MAX_PROGRAM_HEADERS: usize = 128;
/// Entries of an ELF dynamic section that are looked at.
const MAX_DYNAMIC: usize = 512;

/// Formats whose signature outweighs everything else that the content may look like.
pub(super) fn strong(content: &[u8]) -> Option<&'static str> {
    Some(match content {
        [b'M', b'Z', ..] => "application/x-dosexec",
        [0x7f, b'E', b'L', b'F', ..] => elf(content),
        [0xca, 0xfe, 0xba, 0xbe, rest @ ..] => universal_or_class(rest),
        [0xfe, 0xed, 0xfa, 0xce | 0xcf, ..] | [0xce | 0xcf, 0xfa, 0xed, 0xfe, ..] => "application/x-mach-binary",
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] | [b'P', b'K', 7, 8, ..] => zip::classify(content),
        [0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1, ..] => ole::classify(content),
        [0x1f, 0x8b, ..] => "application/gzip",
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => "application/x-bzip2",
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => "application/x-xz",
        [b'7', b'z', 0xbc, 0xaf, 0x27, 0x1c, ..] => "application/x-7z-compressed",
        [b'R', b'a', b'r', b'!', 0x1a, 7, ..] => "application/x-rar",
        [b'M', b'S', b'C', b'F', 0, 0, 0, 0, ..] => "application/vnd.ms-cab-compressed",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "application/zstd",
        [0x5d, 0, 0, ..] if is_lzma(content) => "application/x-lzma",
        _ => return placed(content),
    })
}

/// Formats whose signature is text, or lies further in.
fn placed(content: &[u8]) -> Option<&'static str> {
    let at = |offset: usize, bytes: &[u8]| content.get(offset..).is_some_and(|c| c.starts_with(bytes));
    let front = &content[..content.len().min(PDF_JUNK)];
    if at(0, b"{\\rt") {
        Some("text/rtf")
    } else if text::without_mark(front).trim_ascii_start().starts_with(b"%PDF-") {
        Some("application/pdf")
    } else if at(0, b"!<arch>\n") {
        Some(if at(8, b"debian") { "application/vnd.debian.binary-package" } else { "application/x-archive" })
    } else if at(7, b"**ACE**") {
        Some("application/x-ace")
    } else if is_tar(content) {
        Some("application/x-tar")
    } else if [32_769, 34_817, 36_865].iter().any(|offset| at(*offset, b"CD001")) {
        Some("application/x-iso9660-image")
    } else {
        None
    }
}

/// What is neither known above nor text.
pub(super) fn other(content: &[u8]) -> Cow<'static, str> {
    if content[..content.len().min(PDF_JUNK)].windows(5).any(|w| w == b"%PDF-") {
        return "application/pdf".into();
    }
    if is_python_bytecode(content) {
        return "application/x-bytecode.python".into();
    }
    if matches!(content, [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..]) {
        return "application/zlib".into();
    }
    names::of(FileFormat::from_bytes(content), content)
}

/// A Java class file and a universal Mach-O binary share their magic number; behind it stands a version of at least 45
/// in the one, a small count of architectures in the other.
fn universal_or_class(rest: &[u8]) -> &'static str {
    match rest.first_chunk() {
        Some(number) if u32::from_be_bytes(*number) < 30 => "application/x-mach-binary",
        _ => "application/x-java-applet",
    }
}

/// By the type in the ELF header; a shared object that says it is position independent is an executable.
fn elf(content: &[u8]) -> &'static str {
    let big = content.get(5) == Some(&2);
    match elf_u16(content, 16, big) {
        Some(1) => "application/x-object",
        Some(3) if elf_is_pie(content, big) == Some(true) => "application/x-pie-executable",
        Some(3) => "application/x-sharedlib",
        Some(4) => "application/x-coredump",
        _ => "application/x-executable",
    }
}

fn elf_u16(content: &[u8], at: usize, big: bool) -> Option<u16> {
    u16_at(content, at).map(|n| if big { n.swap_bytes() } else { n })
}

/// Looks for `DF_1_PIE` among the flags of the dynamic section. `None` if the file does not reach that far.
fn elf_is_pie(content: &[u8], big: bool) -> Option<bool> {
    const PT_DYNAMIC: u64 = 2;
    const DT_FLAGS_1: u64 = 0x6fff_fffb;
    const DF_1_PIE: u64 = 0x0800_0000;
    let wide = content.get(4) == Some(&2);
    let word = |at: usize, bytes: usize| {
        let bytes = content.get(at..at.checked_add(bytes)?)?;
        let digits = |n: u64, b: &u8| n << 8 | u64::from(*b);
        Some(if big { bytes.iter().fold(0, digits) } else { bytes.iter().rev().fold(0, digits) })
    };
    let long = if wide { 8 } else { 4 };
    let (table, size, count) = if wide { (32, 54, 56) } else { (28, 42, 44) };
    let table = usize::try_from(word(table, long)?).ok()?;
    let size = usize::from(elf_u16(content, size, big)?);
    let count = usize::from(elf_u16(content, count, big)?).min(MAX_PROGRAM_HEADERS);
    for header in 0..count {
        let at = table.checked_add(header * size)?;
        if word(at, 4)? != PT_DYNAMIC {
            continue;
        }
        let dynamic = usize::try_from(word(at + if wide { 8 } else { 4 }, long)?).ok()?;
        for entry in 0..MAX_DYNAMIC {
            let at = dynamic.checked_add(entry * 2 * long)?;
            match word(at, long)? {
                0 => break,
                DT_FLAGS_1 => return Some(word(at + long, long)? & DF_1_PIE != 0),
                _ => {}
            }
        }
    }
    Some(false)
}

/// The header's checksum (POSIX.1-1988, section 10.1.1) holds; that also finds archives older than the `ustar` mark.
fn is_tar(content: &[u8]) -> bool {
    let Some(header) = content.first_chunk::<512>() else { return false };
    let field = header[148..156].trim_ascii_start();
    let digits = field.iter().take_while(|b| (b'0'..=b'7').contains(b)).count();
    let stated = field[..digits].iter().fold(0_u32, |n, b| n << 3 | u32::from(b - b'0'));
    if digits == 0 || header[0] == 0 {
        return false;
    }
    let blank = |i: usize| (148..156).contains(&i);
    let sum: u32 = header.iter().enumerate().map(|(i, b)| if blank(i) { 32 } else { u32::from(*b) }).sum();
    sum == stated
}

/// The header of an LZMA alone file: properties, a dictionary size, and a size that is unknown or below a terabyte.
fn is_lzma(content: &[u8]) -> bool {
    let Some(size) = content.get(5..13).and_then(<[u8]>::first_chunk) else { return false };
    let size = u64::from_le_bytes(*size);
    size == u64::MAX || size < 1 << 40
}

/// CPython's magic number ends in CR LF so that a transfer as text breaks it; the number itself grows with each version.
fn is_python_bytecode(content: &[u8]) -> bool {
    content.len() >= 16
        && content[2..4] == *b"\r\n"
        && u16_at(content, 0).is_some_and(|n| matches!(n, 3000..=3800 | 20_121..=62_211))
}
