//! PDF: what can be told without taking it apart (ISO 32000-1).

use memchr::memmem;

use super::facts::Facts;

/// Bytes from the beginning in which linearisation is declared (annex F).
const HEAD: usize = 1_024;
/// Nodes of the page tree that are looked at.
const MAX_NODES: usize = 10_000;
/// Bytes around a node's type in which its count stands.
const NODE: usize = 512;

/// Reads a PDF. `PageCount` is left out where the page tree is compressed.
pub(super) fn read(content: &[u8], facts: &mut Facts) {
    facts.file_type("PDF", "PDF", "application/pdf");
    let version = &content[5..content.len().min(8)];
    facts.put_text("PDFVersion", String::from_utf8_lossy(version).trim());
    facts.put("Linearized", memmem::find(&content[..content.len().min(HEAD)], b"/Linearized").is_some());
    let nodes = memmem::find_iter(content, b"/Pages").take(MAX_NODES);
    if let Some(pages) = nodes.filter_map(|at| count_near(content, at)).max() {
        facts.put("PageCount", pages);
    }
}

/// The `/Count` of the object around `at`.
fn count_near(content: &[u8], at: usize) -> Option<u64> {
    let from = at.saturating_sub(NODE);
    let from = memmem::rfind(&content[from..at], b" obj").map_or(from, |n| from + n);
    let to = (at + NODE).min(content.len());
    let to = memmem::find(&content[at..to], b"endobj").map_or(to, |n| at + n);
    let object = &content[from..to];
    // A catalog names its page tree in the same words.
    memmem::find(object, b"/Kids")?;
    let after = &object[memmem::find(object, b"/Count")? + 6..];
    let digits = after.trim_ascii_start();
    let end = digits.iter().position(|b| !b.is_ascii_digit()).unwrap_or(digits.len());
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}
