//! The parts of a message: which bytes are whose.
//!
//! One pass over the lines for each level of nesting, and levels are bounded: the cost is linear in the message.

use std::borrow::Cow;
use std::ops::Range;

use mail_parser::ContentType;
use memchr::memchr;

use super::decode::Transfer;
use super::field::{self, Field};

/// Levels of multiparts that are taken apart; deeper ones become children as they stand.
pub(super) const MAX_DEPTH: usize = 20;
/// Parts of a message that are read.
pub(super) const MAX_PARTS: usize = 2_000;
/// Bytes of a boundary (RFC 2046 allows 70); a longer one divides nothing.
const MAX_BOUNDARY: usize = 512;
/// Bytes outside of parts that are a usual remark to old mail clients, and no defect.
const MAX_PROSE: usize = 512;
/// Defects and limits that are told, each.
const MAX_REMARKS: usize = 100;

/// What a part is for the walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Holds other parts.
    Multipart,
    /// An attached message.
    Message,
    /// Content.
    Leaf,
}

/// A message or one of its parts.
pub(super) struct Part<'a> {
    /// Its header fields.
    pub(super) fields: Vec<Field<'a>>,
    /// What it is.
    pub(super) kind: Kind,
    /// Its media type in lower case, `type/subtype`, the default filled in.
    pub(super) media_type: String,
    /// Parameters of the media type.
    pub(super) content_type: Option<ContentType<'static>>,
    /// How it is meant to be shown.
    pub(super) disposition: Option<ContentType<'static>>,
    /// Its body, still in its transfer encoding.
    pub(super) raw: &'a [u8],
    /// Where the body stands in the message.
    pub(super) offset: usize,
    /// How the body is packed.
    pub(super) transfer: Transfer,
    /// The parts that it holds.
    pub(super) children: Vec<usize>,
}

/// A message taken apart; the first part is the message itself.
pub(super) struct Tree<'a> {
    /// Parts in the order of the message.
    pub(super) parts: Vec<Part<'a>>,
    /// What was not as it should be.
    pub(super) defects: Vec<String>,
    /// What a limit left out.
    pub(super) limits: Vec<String>,
}

/// Takes a message apart.
pub(super) fn read(message: &[u8]) -> Tree<'_> {
    let mut tree = Tree { parts: Vec::new(), defects: Vec::new(), limits: Vec::new() };
    let start = message.iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap_or(message.len());
    let start = start + if message[start..].starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    if start > 0 {
        tree.defects.push("line breaks or a byte-order mark before the header".to_owned());
    }
    tree.walk(message, start..message.len(), 0, "text/plain");
    tree.defects.truncate(MAX_REMARKS);
    tree.limits.truncate(MAX_REMARKS);
    tree
}

impl<'a> Tree<'a> {
    fn walk(&mut self, message: &'a [u8], range: Range<usize>, depth: usize, default_type: &str) -> usize {
        let index = self.parts.len();
        let header = field::read(&message[range.clone()]);
        let body = range.start + header.body..range.end;
        self.remark(index, header.defects, header.limits);
        let part = self.part(header.fields, &message[body.clone()], body.start, default_type);
        let split = self.division(index, &part, depth);
        let digest = part.media_type == "multipart/digest";
        self.parts.push(part);
        let Some(split) = split else { return index };
        self.parts[index].kind = Kind::Multipart;
        self.note(index, &split, body.len());
        for piece in split.pieces {
            if self.parts.len() >= MAX_PARTS {
                let at = body.start + piece.start;
                self.limits.push(format!("parts from byte {at} on left out: more than {MAX_PARTS}"));
                break;
            }
            let piece = body.start + piece.start..body.start + piece.end;
            let default = if digest { "message/rfc822" } else { "text/plain" };
            let child = self.walk(message, piece, depth + 1, default);
            self.parts[index].children.push(child);
        }
        index
    }

    fn part(&mut self, fields: Vec<Field<'a>>, raw: &'a [u8], offset: usize, default_type: &str) -> Part<'a> {
        let index = self.parts.len();
        for name in ["content-type", "content-disposition", "content-transfer-encoding"] {
            if fields.iter().filter(|f| f.name == name).count() > 1 {
                self.defect(index, format!("several {name} fields, the first counts"));
            }
            if fields.iter().any(|f| f.name == name && f.value.len() > field::MAX_PARAMETERS) {
                let most = field::MAX_PARAMETERS;
                self.limits.push(format!("part {index}: only {most} bytes of {name} read"));
            }
        }
        let first = |name: &str| fields.iter().find(|f| f.name == name);
        let content_type = first("content-type").and_then(Field::content_type);
        let media_type = content_type
            .as_ref()
            .filter(|c| !c.ctype().is_empty() && c.subtype().is_some_and(|s| !s.is_empty()))
            .map(|c| format!("{}/{}", c.ctype(), c.subtype().unwrap_or_default()).to_ascii_lowercase());
        if media_type.is_none() && first("content-type").is_some() {
            self.defect(index, "content-type is not a media type".to_owned());
        }
        let media_type = media_type.unwrap_or_else(|| default_type.to_owned());
        let transfer = first("content-transfer-encoding").map_or(Transfer::Plain, |f| Transfer::named(&f.text()));
        let kind = match media_type.as_str() {
            "message/rfc822" | "message/global" => Kind::Message,
            _ => Kind::Leaf,
        };
        let disposition = first("content-disposition").and_then(Field::content_type);
        Part { kind, media_type, content_type, disposition, raw, offset, transfer, children: Vec::new(), fields }
    }

    /// How a multipart is divided; `None` for what is not divided.
    fn division(&mut self, index: usize, part: &Part<'_>, depth: usize) -> Option<Split> {
        if !part.media_type.starts_with("multipart/") {
            return None;
        }
        let boundary = part.content_type.as_ref().and_then(|c| c.attribute("boundary")).unwrap_or_default();
        // Blanks at the end are not part of a boundary (RFC 2046, 5.1.1).
        let boundary = boundary.trim_end();
        if boundary.is_empty() || boundary.len() > MAX_BOUNDARY {
            self.defect(index, "multipart without a usable boundary".to_owned());
            return None;
        }
        if depth >= MAX_DEPTH {
            self.limits.push(format!("multipart at byte {} not taken apart: deeper than {MAX_DEPTH}", part.offset));
            return None;
        }
        let split = split(part.raw, boundary.as_bytes());
        if split.pieces.is_empty() {
            self.defect(index, "boundary never appears".to_owned());
            return None;
        }
        Some(split)
    }

    fn note(&mut self, index: usize, split: &Split, len: usize) {
        if !split.closed {
            self.defect(index, "closing boundary is missing".to_owned());
        }
        if split.after_close {
            self.defect(index, "parts after the closing boundary".to_owned());
        }
        if split.capped {
            self.limits.push(format!("a multipart of {len} bytes has more than {MAX_PARTS} parts"));
        }
        if split.loose > MAX_PROSE {
            self.defect(index, format!("{} bytes before the first or after the last boundary", split.loose));
        }
        if self.parts[index].transfer != Transfer::Plain {
            self.defect(index, "multipart in a transfer encoding, read as it stands".to_owned());
        }
    }

    fn remark(&mut self, index: usize, defects: Vec<String>, limits: Vec<String>) {
        for text in defects.into_iter().take(MAX_REMARKS) {
            self.defect(index, text);
        }
        self.limits.extend(limits.into_iter().take(MAX_REMARKS));
    }

    pub(super) fn defect(&mut self, index: usize, text: String) {
        if self.defects.len() < MAX_REMARKS {
            self.defects.push(if index == 0 { text } else { format!("part {index}: {text}") });
        }
    }
}

impl Part<'_> {
    /// The body without its transfer encoding, and whether that was broken.
    pub(super) fn content(&self) -> (Cow<'_, [u8]>, bool) {
        self.transfer.undo(self.raw)
    }

    /// The first field of that name.
    pub(super) fn field(&self, name: &str) -> Option<&Field<'_>> {
        self.fields.iter().find(|f| f.name == name)
    }

    /// Meant to be saved, not shown.
    pub(super) fn is_attachment(&self) -> bool {
        self.disposition.as_ref().is_some_and(|d| d.ctype().eq_ignore_ascii_case("attachment"))
    }

    /// The charset that is declared, in lower case.
    pub(super) fn charset(&self) -> Option<String> {
        self.content_type.as_ref()?.attribute("charset").map(str::to_ascii_lowercase)
    }
}

/// A multipart's body, divided.
struct Split {
    /// The parts, without the line break before each boundary.
    pieces: Vec<Range<usize>>,
    /// The closing boundary was seen.
    closed: bool,
    /// Parts came after it all the same.
    after_close: bool,
    /// There were more parts than are read.
    capped: bool,
    /// Bytes outside of parts, blank ones not counted.
    loose: usize,
}

/// Divides `body` at lines that are `--boundary`, with `--` after it for the last.
fn split(body: &[u8], boundary: &[u8]) -> Split {
    let mut split = Split { pieces: Vec::new(), closed: false, after_close: false, capped: false, loose: 0 };
    let mut open: Option<usize> = None;
    let (mut loose_from, mut at) = (0, 0);
    while at < body.len() {
        let next = memchr(b'\n', &body[at..]).map_or(body.len(), |n| at + n + 1);
        if let Some(closes) = delimiter(&body[at..next], boundary) {
            match open.take() {
                Some(from) => split.pieces.push(from..before_break(body, from, at)),
                None => split.loose += body[loose_from..at].trim_ascii().len(),
            }
            if split.pieces.len() > MAX_PARTS {
                split.capped = true;
                return split;
            }
            if closes {
                split.closed = true;
                loose_from = next;
            } else {
                split.after_close |= split.closed;
                open = Some(next);
            }
        }
        at = next;
    }
    match open {
        Some(from) => split.pieces.push(from..body.len()),
        None => split.loose += body[loose_from.min(body.len())..].trim_ascii().len(),
    }
    split
}

/// Whether the line is a delimiter, and if so whether the closing one.
fn delimiter(line: &[u8], boundary: &[u8]) -> Option<bool> {
    let rest = line.strip_prefix(b"--")?.strip_prefix(boundary)?;
    match rest.trim_ascii_end() {
        b"" => Some(false),
        b"--" => Some(true),
        _ => None,
    }
}

/// The line break before a boundary belongs to the boundary (RFC 2046, 5.1.1).
fn before_break(body: &[u8], from: usize, at: usize) -> usize {
    match &body[from..at] {
        [.., b'\r', b'\n'] => at - 2,
        [.., b'\n'] => at - 1,
        _ => at,
    }
}
