//! The built-in reader against what ExifTool says of the same samples.

use serde_json::{Value, json};

use super::*;

const EXE: &[u8] = include_bytes!("../../../../tests/fixtures/hello.exe");
const BARE: &[u8] = include_bytes!("../../../../tests/fixtures/bare.exe");
const DOC: &[u8] = include_bytes!("../../../../tests/fixtures/sample_doc_with_pe.doc");
const JPEG: &[u8] = include_bytes!("../../../../tests/fixtures/image.jpg");
const PDF: &[u8] = include_bytes!("../../../../tests/fixtures/tiny.pdf");

fn facts(content: &[u8]) -> Value {
    read(content).into_map().into()
}

/// The facts without those that every answer has.
#[track_caller]
fn check(content: &[u8], expected: Value) {
    let mut found = facts(content);
    let map = found.as_object_mut().unwrap();
    assert_eq!(map.remove("SourceFile").unwrap(), "-");
    assert_eq!(map.remove("Reader").unwrap(), "stoq");
    assert_eq!(map.remove("FileSize").unwrap(), content.len());
    assert_eq!(found, expected);
}

#[test]
fn pe_with_a_version_resource() {
    check(
        EXE,
        json!({
            "FileType": "Win32 EXE", "FileTypeExtension": "EXE", "MIMEType": "application/octet-stream",
            "MachineType": 332, "TimeStamp": "2016:07:16 01:44:45+00:00", "ImageFileCharacteristics": 258,
            "PEType": 267, "LinkerVersion": 14.0, "CodeSize": 512, "InitializedDataSize": 2048,
            "UninitializedDataSize": 0, "EntryPoint": 4096, "OSVersion": 10.0, "ImageVersion": 0.0,
            "SubsystemVersion": 10.0, "Subsystem": 3, "FileVersionNumber": "1.2.3.4",
            "ProductVersionNumber": "1.2.3.4", "FileFlagsMask": 63, "FileFlags": 0, "FileOS": 262148,
            "ObjectFileType": 1, "FileSubtype": 0, "LanguageCode": "0409", "CharacterSet": "04B0",
            "CompanyName": "Example Company", "FileDescription": "Says hello", "FileVersion": "1.2.3.4 (sample)",
            "InternalName": "HELLO", "LegalCopyright": "© Example Company", "OriginalFileName": "HELLO.EXE",
            "ProductName": "Sample® Programs", "ProductVersion": "1.2.3.4"
        }),
    );
    assert_eq!(facts(BARE)["LinkerVersion"], 9.0);
    assert!(facts(BARE).get("FileVersionNumber").is_none());
}

#[test]
fn word_document() {
    check(
        DOC,
        json!({
            "FileType": "DOC", "FileTypeExtension": "DOC", "MIMEType": "application/msword", "Identification": 42476,
            "LanguageCode": 1033, "DocFlags": 4616, "System": 0, "Word97": 0, "Title": "Sample with executables",
            "Author": "Ann Author", "Template": "Normal", "LastModifiedBy": "Ed Editor", "RevisionNumber": 2,
            "Software": "Microsoft Office Word", "TotalEditTime": 60, "CreateDate": "2017:11:13 21:27:00",
            "ModifyDate": "2017:11:13 21:28:00", "Pages": 1, "Words": 3, "Characters": 18, "Security": 0,
            "CodePage": 1252, "Company": "Example Company", "Lines": 1, "Paragraphs": 1, "CharCountWithSpaces": 20,
            "AppVersion": 14.0, "ScaleCrop": 0, "LinksUpToDate": 0, "SharedDoc": 0, "HyperlinksChanged": 0,
            "TitleOfParts": "", "HeadingPairs": ["Title", 1], "CompObjUserTypeLen": 32,
            "CompObjUserType": "Microsoft Word 97-2003 Document"
        }),
    );
}

#[test]
fn jpeg_with_exif() {
    check(
        JPEG,
        json!({
            "FileType": "JPEG", "FileTypeExtension": "JPG", "MIMEType": "image/jpeg", "ExifByteOrder": "II",
            "Make": "Example", "Model": "Camera 1", "Orientation": 1, "Software": "fixtures",
            "ModifyDate": "2026:03:03 10:00:00", "Artist": "Ann Author", "ExposureTime": 0.008, "FNumber": 2.8,
            "ISO": 200, "ExifVersion": "0231", "DateTimeOriginal": "2026:03:03 09:59:58", "GPSVersionID": "2 3 0 0",
            "GPSLatitudeRef": "N", "GPSLatitude": 51.5, "GPSLongitudeRef": "W", "GPSLongitude": -0.125,
            "ImageWidth": 1, "ImageHeight": 1, "EncodingProcess": 0, "BitsPerSample": 8, "ColorComponents": 1
        }),
    );
    // The same structure is a TIFF of its own, and may stand in a PNG.
    let exif = &JPEG[12..];
    assert_eq!(facts(exif)["FileType"], "TIFF");
    assert_eq!(facts(exif)["Make"], "Example");
    let len = u32::try_from(exif.len()).unwrap().to_be_bytes();
    let header = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x02\0\0\0\x03\x08\x06\0\0\0crc.";
    let png =
        facts(&[&header[..], &len, b"eXIf", exif, b"crc.\0\0\0\x0etEXtAuthor\0Eve 1.0crc.\0\0\0\0IENDcrc."].concat());
    assert_eq!(png["Author"], "Eve 1.0");
    assert_eq!([&png["ImageHeight"], &png["ColorType"], &png["Model"]], [&json!(3), &json!(6), &json!("Camera 1")]);
}

#[test]
fn others() {
    check(
        PDF,
        json!({
            "FileType": "PDF", "FileTypeExtension": "PDF", "MIMEType": "application/pdf", "PDFVersion": 1.4,
            "Linearized": false, "PageCount": 1
        }),
    );
    check(
        b"GIF89a\x05\0\x06\0",
        json!({
            "FileType": "GIF", "FileTypeExtension": "GIF", "MIMEType": "image/gif", "GIFVersion": "89a",
            "ImageWidth": 5, "ImageHeight": 6
        }),
    );
    check(b"", json!({"Error": "File is empty"}));
    check(b"\x00\x01\x02\xfe", json!({"Error": "Unknown file type"}));
    assert_eq!(facts(b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0")["FileType"], "ZIP");
    assert_eq!(facts(b"MZ")["FileType"], "DOS EXE");
}

#[test]
fn cut_anywhere_and_flipped_everywhere() {
    for sample in [EXE, JPEG, PDF, DOC] {
        let step = (sample.len() / 100).max(1);
        for len in (0..sample.len()).step_by(step) {
            read(&sample[..len]);
        }
        for at in (0..sample.len().min(4_096)).step_by(7) {
            let mut broken = sample.to_vec();
            for value in [0xff, 0x00] {
                broken[at] = value;
                read(&broken);
            }
        }
    }
}

#[test]
fn names_that_the_file_chose_replace_nothing() {
    let find = |text: &str| -> usize {
        let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        EXE.windows(wide.len()).position(|w| w == wide).unwrap()
    };
    let mut forged = EXE.to_vec();
    let at = find("InternalName");
    for (n, unit) in "FileTypeXXXX".replace('X', ".").encode_utf16().enumerate() {
        forged[at + 2 * n..at + 2 * n + 2].copy_from_slice(&unit.to_le_bytes());
    }
    assert_eq!(facts(&forged)["FileType"], "Win32 EXE");
    assert!(facts(&forged).get("InternalName").is_none());
}

/// A property set with a dictionary: a text that the author called `Secret Key`, and one called like a fact.
#[test]
fn custom_properties() {
    let u32s = |values: &[u32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
    let names = [&u32s(&[2, 2, 11])[..], b"Secret Key\0", &u32s(&[3, 9]), b"FileType\0"].concat();
    let text = |s: &[u8]| [&u32s(&[30, u32::try_from(s.len()).unwrap()])[..], s].concat();
    let (first, second) = (text(b"\xcf\xf0\xe8\0"), text(b"forged\0\0"));
    let table = 8 + 4 * 8;
    let at = |n: usize| u32::try_from(n).unwrap();
    let [names_at, first_at] = [table + 8, table + 8 + names.len()];
    let second_at = first_at + first.len();
    let set = [
        &u32s(&[at(second_at + second.len()), 4, 1, at(table), 0, at(names_at), 2, at(first_at), 3, at(second_at)])[..],
        &u32s(&[2, 1251]),
        &names,
        &first,
        &second,
    ]
    .concat();
    let empty = u32s(&[8, 0]);
    let head = [&[0xfe, 0xff][..], &[0; 22], &u32s(&[2]), &[0; 16], &u32s(&[68]), &[0; 16], &u32s(&[76])].concat();
    let stream = [&head[..], &empty, &set].concat();
    let mut facts = Facts::default();
    facts.put("FileType", "DOC");
    properties::document(&stream, &mut facts);
    assert_eq!(Value::from(facts.into_map()), json!({"FileType": "DOC", "SecretKey": "При"}));
    // Whatever a byte is changed to, reading ends.
    for n in 0..stream.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut broken = stream.clone();
            broken[n] = value;
            properties::document(&broken, &mut Facts::default());
        }
    }
}
