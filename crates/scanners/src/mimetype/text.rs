//! Kinds of text, by their first lines.

use serde::de::IgnoredAny;

use crate::text::decode_fragment;

/// Bytes that have to be free of control characters for the content to be text.
const SAMPLE: usize = 1 << 20;
/// Bytes in which the kind of text is looked for.
const HEAD: usize = 16 << 10;
/// Lines in which the kind of text is looked for.
const MAX_LINES: usize = 200;
/// Greatest text that is parsed to see whether it is JSON.
const MAX_JSON: usize = 1 << 20;

/// Beginnings that settle the matter, upper or lower case alike.
const BEGINNINGS: [(&[u8], &str); 15] = [
    (b"%!PS", "application/postscript"),
    (b"\x04%!PS", "application/postscript"),
    (b"BEGIN:VCARD", "text/vcard"),
    (b"BEGIN:VCALENDAR", "text/calendar"),
    (b"-----BEGIN PGP PUBLIC KEY", "application/pgp-keys"),
    (b"-----BEGIN PGP PRIVATE KEY", "application/pgp-keys"),
    (b"-----BEGIN PGP SIGNATURE", "application/pgp-signature"),
    (b"-----BEGIN PGP", "application/pgp-encrypted"),
    (b"@echo off", "text/x-msdos-batch"),
    (b"\\documentclass", "text/x-tex"),
    (b"diff --git ", "text/x-diff"),
    (b"[InternetShortcut]", "application/x-mswinurl"),
    (b"d8:announce", "application/x-bittorrent"),
    (b"#EXTM3U", "application/vnd.apple.mpegurl"),
    (b"<?php", "text/x-php"),
];

/// Tags with which a page may begin, as after a byte order mark, white space and comments.
const HTML_TAGS: [&[u8]; 14] = [
    b"!doctype html",
    b"html",
    b"head",
    b"title",
    b"body",
    b"script",
    b"style",
    b"table",
    b"iframe",
    b"meta",
    b"div",
    b"form",
    b"center",
    b"svg",
];

/// Header fields by which a mail is known; see [`is_mail`].
const MAIL_FIELDS: [&[u8]; 18] = [
    b"received",
    b"return-path",
    b"delivered-to",
    b"from",
    b"to",
    b"cc",
    b"bcc",
    b"subject",
    b"date",
    b"message-id",
    b"reply-to",
    b"sender",
    b"in-reply-to",
    b"mime-version",
    b"dkim-signature",
    b"x-mailer",
    b"envelope-to",
    b"x-originating-ip",
];

/// The media type of a text; `None` if it is none. Beginnings that cannot be mistaken count whatever follows them: a
/// mail with a binary part, a script with an archive behind it.
pub(super) fn classify(content: &[u8]) -> Option<&'static str> {
    let head = &content[..content.len().min(HEAD)];
    if let [0xff, 0xfe, ..] | [0xfe, 0xff, ..] = head {
        let text = decode_fragment(&head[..head.len() & !1]);
        let whole = !text.contains(char::REPLACEMENT_CHARACTER);
        let text = text.as_bytes();
        return (whole && is_text(text)).then(|| by_beginning(text).or_else(|| by_lines(text)).unwrap_or("text/plain"));
    }
    let head = without_mark(head);
    if let Some(found) = by_beginning(head) {
        return Some(found);
    }
    if !is_text(&content[..content.len().min(SAMPLE)]) {
        return None;
    }
    let whole = without_mark(content);
    if is_json(whole) {
        return Some("application/json");
    }
    Some(by_lines(head).unwrap_or("text/plain"))
}

/// The same without the byte order mark of UTF-8.
pub(super) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// No control characters but those that occur in text: bell to carriage return, and escape. Bytes above ASCII are
/// letters in one encoding or another.
fn is_text(sample: &[u8]) -> bool {
    let control = |b: &u8| matches!(b, 0..=6 | 14..=26 | 28..=31 | 127);
    // Without an early way out inside a chunk the loop over it needs no branches.
    sample.chunks(4096).all(|chunk| !chunk.iter().fold(false, |found, b| found | control(b)))
}

fn by_beginning(head: &[u8]) -> Option<&'static str> {
    if let Some(line) = head.strip_prefix(b"#!") {
        return by_interpreter(line);
    }
    let start = head.trim_ascii_start();
    let begins = |with: &[u8]| start.get(..with.len()).is_some_and(|s| s.eq_ignore_ascii_case(with));
    if let Some((_, found)) = BEGINNINGS.iter().find(|(with, _)| begins(with)) {
        return Some(found);
    }
    if begins(b"<?xml") {
        return Some(by_root_element(start));
    }
    let tag = first_tag(start);
    if tag.is_some_and(|tag| starts_with_tag(tag, b"svg")) {
        return Some("image/svg+xml");
    }
    if tag.is_some_and(|tag| HTML_TAGS.iter().any(|name| starts_with_tag(tag, name))) {
        return Some("text/html");
    }
    is_mail(head).then_some("message/rfc822")
}

/// By the program behind `#!`, or behind `env`.
fn by_interpreter(line: &[u8]) -> Option<&'static str> {
    let line = line.split(|b| *b == b'\n').next()?;
    let mut words = line.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty());
    let base = |path: &'_ [u8]| path.rsplit(|b| *b == b'/').next().map(<[u8]>::to_vec).unwrap_or_default();
    let mut program = base(words.next()?);
    if program == b"env" {
        program = base(words.find(|w| !w.starts_with(b"-") && !w.contains(&b'='))?);
    }
    let name = program.split(|b| b.is_ascii_digit() || *b == b'.').next()?;
    Some(match name {
        b"sh" | b"bash" | b"dash" | b"ash" | b"ksh" | b"zsh" | b"csh" | b"tcsh" | b"fish" => "text/x-shellscript",
        b"python" | b"pypy" => "text/x-python",
        b"perl" => "text/x-perl",
        b"ruby" => "text/x-ruby",
        b"php" => "text/x-php",
        b"node" | b"nodejs" | b"deno" | b"bun" => "application/javascript",
        b"lua" => "text/x-lua",
        b"awk" | b"gawk" | b"mawk" | b"nawk" => "text/x-awk",
        b"tclsh" | b"wish" | b"expect" => "text/x-tcl",
        _ => return None,
    })
}

/// XML by its first element.
fn by_root_element(start: &[u8]) -> &'static str {
    let Some(tag) = start.windows(2).position(|w| w == b"?>").and_then(|end| first_tag(&start[end + 2..])) else {
        return "text/xml";
    };
    if starts_with_tag(tag, b"svg") || starts_with_tag(tag, b"!doctype svg") {
        "image/svg+xml"
    } else if starts_with_tag(tag, b"html") || starts_with_tag(tag, b"!doctype html") {
        "text/html"
    } else {
        "text/xml"
    }
}

/// What stands behind the first `<` that opens no comment, if nothing but comments and white space is in front of it.
fn first_tag(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        text = text.trim_ascii_start();
        let Some(comment) = text.strip_prefix(b"<!--") else { return text.strip_prefix(b"<") };
        text = &comment[comment.windows(3).position(|w| w == b"-->")? + 3..];
    }
}

fn starts_with_tag(tag: &[u8], name: &[u8]) -> bool {
    let ends = |b: &u8| matches!(b, b'>' | b'/') || b.is_ascii_whitespace();
    tag.get(..name.len()).is_some_and(|t| t.eq_ignore_ascii_case(name)) && tag.get(name.len()).is_none_or(ends)
}

/// A block of header fields (RFC 5322, section 2.2), perhaps behind an mbox line, that begins with a trace field or holds
/// two known fields.
fn is_mail(head: &[u8]) -> bool {
    let mut known = 0;
    let mut lines = head.split(|b| *b == b'\n').map(|l| l.strip_suffix(b"\r").unwrap_or(l)).take(MAX_LINES).peekable();
    lines.next_if(|l| l.starts_with(b"From ") || l.starts_with(b">From "));
    for (number, line) in lines.enumerate() {
        match line {
            [] => break,
            [b' ' | b'\t', ..] if number > 0 => continue,
            _ => {}
        }
        let Some(colon) = line.iter().position(|b| *b == b':') else { return false };
        let name = line[..colon].trim_ascii_end();
        if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
            return false;
        }
        let Some(place) = MAIL_FIELDS.iter().position(|f| name.eq_ignore_ascii_case(f)) else { continue };
        known += 1;
        if known == 2 || (number == 0 && place < 3) {
            return true;
        }
    }
    false
}

fn is_json(text: &[u8]) -> bool {
    let text = text.trim_ascii();
    let shut = matches!((text.first(), text.last()), (Some(b'{'), Some(b'}')) | (Some(b'['), Some(b']')));
    shut && text.len() <= MAX_JSON && serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

/// What the lines begin with that [`by_lines`] knows. Hardly any line of any text does, so nothing more is asked of it.
const FIRST_BYTES: &[u8] = b"<#iufdc";

/// Source code, by lines that other text would hardly have; and pages that begin with something else.
fn by_lines(head: &[u8]) -> Option<&'static str> {
    let (mut python, mut c, mut java, mut perl, mut page) = (0, 0, 0, 0, false);
    let ends = memchr::memchr_iter(b'\n', head).chain([head.len()]);
    let mut start = 0;
    for end in ends.take(MAX_LINES) {
        let line = head[start..end].trim_ascii();
        start = end + 1;
        if !line.first().is_some_and(|first| FIRST_BYTES.contains(first)) {
            continue;
        }
        let begins = |with: &[u8]| line.starts_with(with);
        if begins(b"<html") || begins(b"<HTML") || begins(b"<!DOCTYPE html") || begins(b"<!DOCTYPE HTML") {
            page = true;
        } else if begins(b"#include <") || begins(b"#include \"") {
            c += 1;
        } else if begins(b"import java") && line.ends_with(b";") {
            java += 1;
        } else if line == b"use strict;" || line == b"use warnings;" {
            perl += 2;
        } else if begins(b"from ") && line.windows(8).any(|w| w == b" import ") {
            python += 2;
        } else if (begins(b"def ") || begins(b"class ")) && line.ends_with(b":")
            || begins(b"import ") && line[7..].iter().all(|b| b.is_ascii_alphanumeric() || b"_., ".contains(b))
        {
            python += 1;
        }
    }
    let kinds = [(python / 2, "text/x-python"), (c, "text/x-c"), (java, "text/x-java"), (perl / 2, "text/x-perl")];
    let (most, kind) = kinds.into_iter().max_by_key(|(n, _)| *n)?;
    (most > 0).then_some(kind).or_else(|| page.then_some("text/html"))
}
