//! What `smtp` says of a message that was taken apart, and the children that it emits.

use mail_parser::DateTime;
use serde_json::{Map, Value, json};
use stoq_api::scanner::{Context, Output, ScanError};
use stoq_api::{Finding, FindingKind, PayloadMeta};

use super::config::Config;
use super::decode;
use super::passwords;
use super::structure::{Kind, Part, Tree};
use crate::bounds;

/// Bytes of a body, as JSON, in the results; a longer one is cut there and becomes a child as a whole.
const MAX_BODY: usize = 1 << 20;
/// Bytes of all header fields together, as JSON, in the results.
const MAX_HEADER: usize = 1 << 20;
/// Bytes of the lists of attachments and of addresses, as JSON, each.
const MAX_LIST: usize = 128 << 10;
/// Defects that are told.
const MAX_DEFECTS: usize = 200;
/// Files taken from between the lines of a body.
const MAX_INLINE_FILES: usize = 100;
/// Bytes of a name or description of a part, as JSON. All that a child carries has to fit into the metadata of a child.
const MAX_LABEL: usize = 1 << 10;
/// Fields whose addresses are listed.
const ADDRESS_FIELDS: [&str; 7] = ["from", "sender", "reply-to", "return-path", "to", "cc", "bcc"];
/// Fields of one name whose addresses are listed.
const MAX_ADDRESS_FIELDS: usize = 4;
/// Keys of the results that are not header fields.
const OWN_KEYS: [&str; 3] = ["body", "body_html", "stoq"];

/// Emits the children of a message and answers with its results.
pub(super) fn report(config: &Config, tree: &Tree<'_>, cx: &mut Context<'_>) -> Output {
    let mut report = Report::new(config, tree);
    report.header();
    report.bodies();
    report.children(cx);
    report.iocs(cx);
    report.finish(cx)
}

struct Report<'r, 'm> {
    config: &'r Config,
    tree: &'r Tree<'m>,
    results: Map<String, Value>,
    /// `body` and `body_html`, wanted for iocs and passwords even where the results omit them.
    bodies: [Body; 2],
    attachments: Vec<Value>,
    /// Bytes that the list of attachments may still take.
    list_left: usize,
    defects: Vec<String>,
    limits: Vec<String>,
    errors: Vec<String>,
    passwords: Vec<String>,
    /// A spent budget ended the emission of children.
    over: bool,
}

#[derive(Default)]
struct Body {
    part: Option<usize>,
    text: String,
    cut: bool,
}

impl<'r, 'm> Report<'r, 'm> {
    fn new(config: &'r Config, tree: &'r Tree<'m>) -> Self {
        Self {
            config,
            tree,
            results: Map::new(),
            bodies: Default::default(),
            attachments: Vec::new(),
            list_left: MAX_LIST,
            defects: tree.defects.clone(),
            limits: tree.limits.clone(),
            errors: Vec::new(),
            passwords: Vec::new(),
            over: false,
        }
    }

    /// Every field of the message's header, repeats joined.
    fn header(&mut self) {
        let mut left = MAX_HEADER;
        for field in &self.tree.parts[0].fields {
            if OWN_KEYS.contains(&field.name.as_str()) {
                self.defects.push(format!("header field {} has the name of a result and is left out", field.name));
                continue;
            }
            let mut text = field.text();
            let cost = bounds::json_len(&field.name) + 8;
            if bounds::truncate(&mut text, left.saturating_sub(cost)) {
                self.limits.push(format!("header fields from {} on cut: more than {MAX_HEADER} bytes", field.name));
            }
            left = left.saturating_sub(cost + bounds::json_len(&text));
            match self.results.get_mut(&field.name) {
                Some(Value::String(before)) => {
                    before.push('\n');
                    before.push_str(&text);
                }
                _ => {
                    self.results.insert(field.name.clone(), text.into());
                }
            }
        }
    }

    /// The text and the HTML that a reader sees first.
    fn bodies(&mut self) {
        for (slot, media_type) in ["text/plain", "text/html"].into_iter().enumerate() {
            let Some(index) = find_body(self.tree, 0, media_type) else { continue };
            let part = &self.tree.parts[index];
            let (content, _) = part.content();
            let read = if slot == 0 { decode::text } else { decode::html };
            let mut text = read(&content[..content.len().min(MAX_BODY)], part.charset().as_deref());
            let cut = bounds::truncate(&mut text, MAX_BODY) || content.len() > MAX_BODY;
            if cut {
                self.limits.push(format!("{media_type} body of {} bytes cut to {}", content.len(), text.len()));
            }
            self.bodies[slot] = Body { part: Some(index), text, cut };
        }
        let subject = self.results.get("subject").and_then(Value::as_str).unwrap_or_default();
        passwords::search(subject, &mut self.passwords);
        passwords::search(&self.bodies[0].text, &mut self.passwords);
        passwords::search(&passwords::without_tags(&self.bodies[1].text), &mut self.passwords);
        if !self.config.omit_body {
            self.results.insert("body".to_owned(), self.bodies[0].text.clone().into());
            self.results.insert("body_html".to_owned(), self.bodies[1].text.clone().into());
        }
    }

    fn children(&mut self, cx: &mut Context<'_>) {
        let tree = self.tree;
        for (index, part) in tree.parts.iter().enumerate() {
            if part.kind == Kind::Multipart || self.over {
                continue;
            }
            if cx.expired() {
                self.limits.push(format!("out of time: parts from number {index} on were not extracted"));
                return;
            }
            let (content, odd) = part.content();
            if odd {
                self.defects.push(format!("part {index}: broken transfer encoding, read as far as it goes"));
            }
            let label = Label::of(part);
            if let Some(body) = self.bodies.iter().find(|b| b.part == Some(index)) {
                // What a reader sees in full needs no scan of its own, unless it is a file to be saved as well.
                let seen_whole = label.filename.is_none() && !body.cut;
                self.inline_files(index, &content, cx);
                if seen_whole {
                    continue;
                }
            }
            let found = Found {
                part: index,
                media_type: bounds::clip(&part.media_type, MAX_LABEL),
                content_id: part.field("content-id").map(|f| clipped(f.text())),
                offset: Some(part.offset),
                message: part.kind == Kind::Message,
                label,
            };
            self.child(found, &content, cx);
        }
    }

    /// Files that a body holds between its lines, as mail did before it had attachments; clients still show them as such.
    fn inline_files(&mut self, part: usize, body: &[u8], cx: &mut Context<'_>) {
        let mut from = 0;
        for _ in 0..MAX_INLINE_FILES {
            let Some(file) = decode::uuencoded(body, from) else { return };
            from = file.end;
            if file.odd {
                self.defects.push(format!("part {part}: uuencoded file breaks off"));
            }
            if !self.over && !file.content.is_empty() {
                let label = Label { filename: Some(clipped(file.name)), ..Label::default() };
                let media_type = "application/octet-stream";
                let found = Found { part, media_type, content_id: None, offset: None, message: false, label };
                self.child(found, &file.content, cx);
            }
        }
        if decode::uuencoded(body, from).is_some() {
            self.limits.push(format!("part {part}: more than {MAX_INLINE_FILES} uuencoded files"));
        }
    }

    fn child(&mut self, found: Found<'_>, content: &[u8], cx: &mut Context<'_>) {
        let line = json!({
            "part": found.part,
            "filename": found.label.filename,
            "type": found.media_type,
            "disposition": found.label.disposition,
            "content_id": found.content_id,
            "size": content.len(),
            "offset": found.offset,
        });
        self.list_left = self.list_left.saturating_sub(line.to_string().len());
        if self.list_left > 0 {
            self.attachments.push(line);
        }
        let mut meta = PayloadMeta {
            should_archive: self.config.archive_attachments,
            dispatch_to: if found.message { vec!["smtp".to_owned()] } else { self.config.always_dispatch.clone() },
            extra_data: found.label.into_extra_data(found.media_type),
            ..PayloadMeta::default()
        };
        if !self.passwords.is_empty() {
            meta.extra_data.insert("passwords".to_owned(), self.passwords.clone().into());
        }
        let what = if found.message { "Failed rfc822 attachment" } else { "Failed extracting attachment" };
        self.emit(content, meta, what, cx);
    }

    /// One last child for `iocextract`.
    fn iocs(&mut self, cx: &mut Context<'_>) {
        if !self.config.extract_iocs || self.over {
            return;
        }
        let mut content = String::new();
        for key in &self.config.ioc_keys {
            let value = match key.as_str() {
                "body" => Some(self.bodies[0].text.as_str()),
                "body_html" => Some(self.bodies[1].text.as_str()),
                key => self.results.get(key).and_then(Value::as_str),
            };
            if let Some(value) = value {
                content.push('\n');
                content.push_str(value);
            }
        }
        let meta =
            PayloadMeta { should_archive: false, dispatch_to: vec!["iocextract".to_owned()], ..PayloadMeta::default() };
        self.emit(content.as_bytes(), meta, "Failed handing on indicators", cx);
    }

    fn emit(&mut self, content: &[u8], meta: PayloadMeta, what: &str, cx: &mut Context<'_>) {
        match cx.emit(content, meta) {
            Ok(()) => {}
            Err(ScanError::Spent(kind)) => {
                self.over = true;
                cx.find(Finding::new(
                    kind.into(),
                    format!("attachments left out: the scan's budget of {kind} is used up"),
                ));
            }
            Err(error) => {
                self.over = true;
                self.errors.push(format!("{what}: {error}"));
            }
        }
    }

    fn finish(mut self, cx: &mut Context<'_>) -> Output {
        if self.list_left == 0 {
            self.limits.push(format!("only the first {} attachments are listed", self.attachments.len()));
        }
        for limit in self.limits {
            cx.find(Finding::new(FindingKind::PluginLimit, limit));
        }
        let root = &self.tree.parts[0];
        let mut more = Map::new();
        if let Some(date) = root.field("date").and_then(|f| DateTime::parse_rfc822(&format!("{}\n", f.text()))) {
            more.insert("date".to_owned(), date.to_rfc3339().into());
        }
        let mut addresses = Map::new();
        let mut left = MAX_LIST;
        for name in ADDRESS_FIELDS {
            let fields = root.fields.iter().filter(|f| f.name == name).take(MAX_ADDRESS_FIELDS);
            let mut found: Vec<_> = fields.flat_map(|f| f.addresses()).collect();
            found.retain(|address| {
                let fits = left.checked_sub(bounds::json_len(address) + 8);
                left = fits.unwrap_or(left);
                fits.is_some()
            });
            if !found.is_empty() {
                addresses.insert(name.to_owned(), found.into());
            }
        }
        more.insert("addresses".to_owned(), addresses.into());
        more.insert("attachments".to_owned(), self.attachments.into());
        more.insert("passwords".to_owned(), self.passwords.into());
        self.defects.truncate(MAX_DEFECTS);
        more.insert("defects".to_owned(), self.defects.into());
        self.results.insert("stoq".to_owned(), more.into());
        Output { results: Some(self.results.into()), errors: self.errors, dispatch_to: Vec::new() }
    }
}

/// The first part of that type that is meant to be read where it stands. Of related parts only the root can be one.
fn find_body(tree: &Tree<'_>, index: usize, media_type: &str) -> Option<usize> {
    let part = &tree.parts[index];
    if part.is_attachment() {
        return None;
    }
    match part.kind {
        Kind::Leaf => (part.media_type == media_type).then_some(index),
        Kind::Message => None,
        Kind::Multipart if part.media_type == "multipart/related" => {
            let start = part.content_type.as_ref().and_then(|c| c.attribute("start"));
            let named = |&&child: &&usize| {
                start.is_some() && tree.parts[child].field("content-id").map(|f| f.text()).as_deref() == start
            };
            let root = part.children.iter().find(named).or(part.children.first())?;
            find_body(tree, *root, media_type)
        }
        Kind::Multipart => part.children.iter().find_map(|&child| find_body(tree, child, media_type)),
    }
}

/// Something that becomes a child.
struct Found<'p> {
    part: usize,
    label: Label,
    media_type: &'p str,
    content_id: Option<String>,
    /// Where it stands in the message; unknown for what lies inside of an encoded body.
    offset: Option<usize>,
    /// An attached message.
    message: bool,
}

/// What a part says of itself.
#[derive(Default)]
struct Label {
    charset: Option<String>,
    description: Option<String>,
    disposition: Option<String>,
    filename: Option<String>,
}

impl Label {
    fn of(part: &Part<'_>) -> Self {
        let named = part.disposition.as_ref().and_then(|d| d.attribute("filename"));
        let named = named.or_else(|| part.content_type.as_ref().and_then(|c| c.attribute("name")));
        Self {
            charset: part.charset().map(clipped),
            description: part.field("content-description").map(|f| clipped(f.text())),
            disposition: part.disposition.as_ref().map(|d| clipped(d.ctype().to_ascii_lowercase())),
            // Encoded words have no place in a parameter, and are common there all the same.
            filename: named.map(|n| clipped(super::field::words(n))).filter(|n| !n.is_empty()),
        }
    }

    /// The keys that stoQ gives, in its order, `null` where there is nothing.
    fn into_extra_data(self, media_type: &str) -> Map<String, Value> {
        let mut data = Map::new();
        data.insert("charset".to_owned(), self.charset.into());
        data.insert("content-description".to_owned(), self.description.into());
        data.insert("disposition".to_owned(), self.disposition.into());
        data.insert("filename".to_owned(), self.filename.into());
        data.insert("type".to_owned(), media_type.into());
        data
    }
}

fn clipped(mut text: String) -> String {
    bounds::truncate(&mut text, MAX_LABEL);
    text
}
