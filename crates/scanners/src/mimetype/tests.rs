//! Names of formats, told apart on the smallest samples that show them.

use std::io::Write as _;

use super::*;

#[track_caller]
fn check(content: impl AsRef<[u8]>, expected: &str) {
    let content = content.as_ref();
    assert_eq!(identify(content), expected, "{}", content[..content.len().min(60)].escape_ascii());
}

/// A ZIP archive of stored members.
fn zipped(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ::zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = ::zip::write::SimpleFileOptions::default().compression_method(::zip::CompressionMethod::Stored);
    for (name, content) in members {
        writer.start_file(*name, options).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// A compound file with one directory sector of these streams.
fn compound(names: &[&str]) -> Vec<u8> {
    let mut file = vec![0_u8; 512 * 3];
    file[..8].copy_from_slice(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1");
    file[26] = 3;
    file[30] = 9;
    file[48] = 1;
    file[512..516].copy_from_slice(&0xffff_fffd_u32.to_le_bytes());
    file[516..520].copy_from_slice(&0xffff_fffe_u32.to_le_bytes());
    for (entry, name) in file[1024..].chunks_exact_mut(128).zip(names) {
        let units: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        entry[..units.len()].copy_from_slice(&units);
        entry[64] = units.len() as u8 + 2;
        entry[66] = 2;
    }
    file
}

#[test]
fn answers_that_stoq_documents() {
    check("", "application/x-empty");
    check("just a text\n", "text/plain");
    check("MZ", "application/x-dosexec");
    check("%PDF-", "application/pdf");
    check("{\\rtf", "text/rtf");
    check(b"\x1f\x8b\x08\0\0\0\0\0", "application/gzip");
    check(zipped(&[("a.txt", b"a")]), "application/zip");
}

#[test]
fn binary_signatures() {
    check(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0", "application/x-executable");
    check(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0", "application/x-sharedlib");
    check(b"\x7fELF\x01\x02\x01\0\0\0\0\0\0\0\0\0\0\x01", "application/x-object");
    check(b"\x7fELF", "application/x-executable");
    check(b"\xca\xfe\xba\xbe\0\0\0\x34", "application/x-java-applet");
    check(b"\xca\xfe\xba\xbe\0\0\0\x02", "application/x-mach-binary");
    check(b"\xcf\xfa\xed\xfe\x07\0\0\x01", "application/x-mach-binary");
    check(b"MSCF\0\0\0\0abcd", "application/vnd.ms-cab-compressed");
    check(b"7z\xbc\xaf\x27\x1c\0\x04", "application/x-7z-compressed");
    check(b"BZh91AY&SY", "application/x-bzip2");
    check(b"\xfd7zXZ\0", "application/x-xz");
    check(b"\x28\xb5\x2f\xfd\x04", "application/zstd");
    check(b"\x5d\0\0\x80\0\xff\xff\xff\xff\xff\xff\xff\xff\0", "application/x-lzma");
    check(b"Rar!\x1a\x07\x01\0", "application/x-rar");
    check(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "image/png");
    check(b"GIF89a\x01\0\x01\0\x80", "image/gif");
    check(b"\xff\xd8\xff\xe0\0\x10JFIF\0", "image/jpeg");
    check(b"\x33\x0d\r\n\0\0\0\0\0\0\0\0\0\0\0\0\xe3", "application/x-bytecode.python");
    check(b"\x78\x9c\x4b\x04\0\0\x62\0\x62", "application/zlib");
    check(b"\0\x01\x02\x03\xfa\xfb", "application/octet-stream");
    check([&[0; 100][..], b"%PDF-1.4"].concat(), "application/pdf");
}

#[test]
fn signatures_far_from_the_start() {
    let mut iso = vec![0; 40_000];
    iso[32_769..32_774].copy_from_slice(b"CD001");
    check(&iso, "application/x-iso9660-image");
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_old();
    header.set_size(0);
    header.set_cksum();
    tar.append_data(&mut header, "name", &b""[..]).unwrap();
    check(tar.into_inner().unwrap(), "application/x-tar");
    check([0_u8; 1024], "application/octet-stream");
}

#[test]
fn zip_archives_by_their_members() {
    let types = ("[Content_Types].xml", &b"<Types/>"[..]);
    let office = "application/vnd.openxmlformats-officedocument.";
    check(zipped(&[types, ("word/document.xml", b"")]), &format!("{office}wordprocessingml.document"));
    check(zipped(&[("xl/workbook.xml", b""), types]), &format!("{office}spreadsheetml.sheet"));
    check(zipped(&[types, ("ppt/presentation.xml", b"")]), &format!("{office}presentationml.presentation"));
    check(zipped(&[("word/document.xml", b"")]), "application/zip");
    check(zipped(&[("META-INF/MANIFEST.MF", b""), ("A.class", b"")]), "application/java-archive");
    let android = [("AndroidManifest.xml", &b""[..]), ("META-INF/MANIFEST.MF", b"")];
    check(zipped(&android), "application/vnd.android.package-archive");
    check(zipped(&[("mimetype", b"application/epub+zip")]), "application/epub+zip");
    check(zipped(&[("mimetype", b"text/html")]), "application/zip");
    // A directory that points nowhere, and none at all.
    let mut cut = zipped(&[types, ("xl/workbook.xml", b"")]);
    let end = cut.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    cut.truncate(end);
    check(&cut, &format!("{office}spreadsheetml.sheet"));
    check(b"PK\x05\x06\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0", "application/zip");
    check(b"PK\x03\x04", "application/zip");
}

#[test]
fn compound_files_by_their_streams() {
    check(compound(&["Root Entry", "WordDocument"]), "application/msword");
    check(compound(&["Root Entry", "Workbook"]), "application/vnd.ms-excel");
    check(compound(&["Root Entry", "PowerPoint Document"]), "application/vnd.ms-powerpoint");
    check(compound(&["Root Entry", "__properties_version1.0"]), "application/vnd.ms-outlook");
    check(compound(&["Root Entry", "EncryptedPackage"]), "application/encrypted");
    check(compound(&["Root Entry", "Other"]), "application/CDFV2");
    check(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/CDFV2");
    // A directory whose only sector is said to follow itself.
    let mut cycle = compound(&["Root Entry"]);
    cycle[516] = 1;
    cycle[517..520].fill(0);
    check(&cycle, "application/CDFV2");
}

#[test]
fn kinds_of_text() {
    check("#!/bin/sh\necho\n", "text/x-shellscript");
    check(b"#!/bin/bash\nexec\n\0\x01\x02", "text/x-shellscript");
    check("#!/usr/bin/env -S A=1 python3.12 -u\n", "text/x-python");
    check("#!/usr/bin/strange\n", "text/plain");
    check("import os, sys\n\ndef main():\n    pass\n", "text/x-python");
    check("import of goods\nis down\n", "text/plain");
    check("#include <stdio.h>\nint main;\n", "text/x-c");
    check("<!DOCTYPE html>\n<p>", "text/html");
    check("\u{feff}  <!-- c -->\n<ScRiPt>alert()</script>", "text/html");
    check("<?xml version=\"1.0\"?><a/>", "text/xml");
    check("<?xml version=\"1.0\"?><!-- x --><svg width='1'/>", "image/svg+xml");
    check("<a@example.org> wrote:", "text/plain");
    check("some words first\n<html>\n", "text/html");
    check("PAGE = x\n<html>\nimport os\nfrom re import sub\n", "text/x-python");
    check("{\"a\": [1, 2]}\n", "application/json");
    check("{\"a\": [1, 2}\n", "text/plain");
    check("<?php echo 1;", "text/x-php");
    check("@ECHO OFF\r\ndel *", "text/x-msdos-batch");
    check(b"caf\xe9 cr\xe8me", "text/plain");
    check("BMW and other cars", "text/plain");
    check(b"\xff\xfeh\0i\0\n\0", "text/plain");
    check(b"\xfe\xff\0<\0h\0t\0m\0l\0>", "text/html");
    check(b"\xff\xfea\0\x02\0", "application/octet-stream");
    check(b"\xff\xfea\0\0\xd8a\0", "application/octet-stream");
}

#[test]
fn mails() {
    check("Received: from a\n\tby b\nX: y\n\nbody", "message/rfc822");
    check("From: a@b\r\nSubject: c\r\n\r\nbody", "message/rfc822");
    check("From x@y Mon Jan 1\nX-A: 1\nDate: now\nTo: me\n\n", "message/rfc822");
    check(b"Subject: a\nMIME-Version: 1.0\n\n\0\x01binary", "message/rfc822");
    check("Subject: only one known field\nOther: x\n\n", "text/plain");
    check("Dear all,\nFrom: a\nTo: b\n", "text/plain");
    check("HTTP/1.1 200 OK\r\nDate: x\r\nFrom: y\r\n", "text/plain");
}

#[test]
fn every_beginning_of_a_file_is_survived() {
    let whole = zipped(&[("[Content_Types].xml", b"<Types/>"), ("word/document.xml", b"text")]);
    let compound = compound(&["Root Entry", "WordDocument"]);
    for content in [whole, compound, b"From: a@b\r\nSubject: c\r\n\r\nbody".to_vec()] {
        for end in 0..content.len() {
            identify(&content[..end]);
        }
    }
}
