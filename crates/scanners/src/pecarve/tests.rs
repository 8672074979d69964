//! Images made for the purpose: headers around bytes that do nothing.

use serde_json::{Value, json};
use stoq_api::RequestMeta;
use stoq_api::scanner::Remaining;

use super::*;
use crate::memory_sink::MemorySink;

struct Answer {
    results: Option<Value>,
    children: Vec<(PayloadMeta, Vec<u8>)>,
    findings: Vec<Finding>,
}

fn run(pe_headers: &str, content: &[u8]) -> Answer {
    let options = json!({"pe_headers": pe_headers}).as_object().unwrap().clone();
    let scanner = build(&Build { options, files: vec![] }).unwrap().scanner.unwrap();
    let mut sink = MemorySink::new(Remaining { children: 10_000, bytes: 1 << 30 });
    let mut cx = Context::new(&mut sink, None);
    let payload = Payload {
        serial: 1,
        content,
        sha256: None,
        meta: &PayloadMeta::default(),
        request_meta: &RequestMeta::default(),
        ancestors: &[],
        dispatch_meta: &Map::new(),
        results: &Map::new(),
    };
    let results = scanner.scan(&payload, &mut cx).unwrap().results;
    let findings = cx.into_findings();
    Answer { results, children: sink.take().into_iter().map(|c| (c.meta, c.content)).collect(), findings }
}

fn carve(content: &[u8]) -> Answer {
    run("MZ|ZM", content)
}

/// An image of one section of `body` at 0x200, with `fill` as content.
fn pe(body: u32, fill: u8) -> Vec<u8> {
    let mut image = vec![0; 0x200];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3c, &0x40_u32.to_le_bytes());
    put(0x40, b"PE\0\0\x4c\x01\x01\0");
    put(0x54, &224_u16.to_le_bytes());
    put(0x58, &image::PE32.to_le_bytes());
    put(0x58 + 92, &16_u32.to_le_bytes());
    let section = 0x58 + 224;
    put(section + 8, &body.to_le_bytes());
    put(section + 12, &0x1000_u32.to_le_bytes());
    put(section + 16, &body.to_le_bytes());
    put(section + 20, &0x200_u32.to_le_bytes());
    image.extend(std::iter::repeat_n(fill, body as usize));
    image
}

fn with_certificates(mut image: Vec<u8>, at: u32, size: u32) -> Vec<u8> {
    let entry = 0x58 + 96 + 4 * 8;
    image[entry..entry + 4].copy_from_slice(&at.to_le_bytes());
    image[entry + 4..entry + 8].copy_from_slice(&size.to_le_bytes());
    image
}

#[test]
fn images_at_their_offsets_with_their_sizes() {
    let (first, second) = (pe(0x400, 1), pe(0x600, 2));
    let content = [&[7; 1_000][..], &first, &[8; 333], &second, b"tail MZ"].concat();
    let answer = carve(&content);
    assert_eq!(answer.children.len(), 2);
    assert_eq!(answer.children[0].1, first);
    assert_eq!(Value::from(answer.children[0].0.extra_data.clone()), json!({"offset": 1_000}));
    assert_eq!(answer.children[1].1, second);
    assert_eq!(Value::from(answer.children[1].0.extra_data.clone()), json!({"offset": 1_000 + 0x600 + 333}));
    assert_eq!(answer.results.unwrap()["images"][1]["size"], 0x800);
}

#[test]
fn a_whole_image_is_searched_inside() {
    let inner = pe(0x200, 3);
    let mut outer = pe(0x1000, 0);
    outer[0x400..0x400 + inner.len()].copy_from_slice(&inner);
    let answer = carve(&outer);
    assert_eq!(answer.children.len(), 1, "not itself");
    assert_eq!(answer.children[0].1, inner);
    // With something behind it, the outer one is the child, and its inside is for the scan of that child.
    let answer = carve(&[&outer[..], b"overlay"].concat());
    assert_eq!(answer.children.len(), 1);
    assert_eq!(answer.children[0].1, outer);
    assert_eq!(answer.results.unwrap()["overlay"], json!({"offset": 0x1200, "size": 7}));
}

#[test]
fn a_certificate_table_right_behind_belongs_to_the_image() {
    let plain = [&pe(0x200, 1)[..], &[9; 24], b"rest"].concat();
    let signed = with_certificates(plain.clone(), 0x400, 24);
    assert_eq!(carve(&[b"x", &signed[..]].concat()).children[0].1.len(), 0x400 + 24);
    // Not behind the sections, or beyond the end: left out.
    for (at, size) in [(0x300, 24), (0x409, 4), (0x400, u32::MAX), (u32::MAX, 24), (0x400, 0)] {
        let odd = with_certificates(plain.clone(), at, size);
        assert_eq!(carve(&[b"x", &odd[..]].concat()).children[0].1.len(), 0x400, "{at} {size}");
    }
}

#[test]
fn what_is_no_image() {
    let mut zm = pe(0x200, 0);
    zm[0] = b'Z';
    zm[1] = b'M';
    let mut ne = pe(0x200, 0);
    ne[0x40] = b'N';
    let mut rom = pe(0x200, 0);
    rom[0x58] = 7;
    let mut far = pe(0x200, 0);
    far[0x3c..0x40].fill(0xff);
    for not in [&b""[..], b"M", b"MZ", &zm, &ne, &rom, &far, &pe(0x200, 0)[..0x59]] {
        let answer = carve(not);
        assert!(answer.results.is_none() && answer.children.is_empty() && answer.findings.is_empty());
    }
}

#[test]
fn truncated_and_lying_headers() {
    // The section is not all there: the image ends with what its headers can prove.
    let answer = carve(&[b"x", &pe(0x400, 1)[..0x500]].concat());
    assert_eq!(answer.children[0].1.len(), 0x58 + 224);
    assert_eq!(answer.results.unwrap()["images"][0]["truncated"], true);
    // As many sections and directories as can be claimed.
    let mut lying = pe(0x200, 0);
    lying[0x46..0x48].fill(0xff);
    lying[0x58 + 92..0x58 + 92 + 4 + 128].fill(0xff);
    assert_eq!(carve(&[b"x", &lying[..]].concat()).children.len(), 1);
}

#[test]
fn many_hits_are_bounded() {
    let answer = carve(&pe(0x200, 0).repeat(MAX_IMAGES + 5));
    assert_eq!(answer.children.len(), MAX_IMAGES);
    assert_eq!(answer.findings[0].kind, FindingKind::PluginLimit);
    assert!(carve(&b"MZ".repeat(1 << 20)).children.is_empty());
}

#[test]
fn patterns() {
    let content = [&b"x"[..], &pe(0x200, 0)].concat();
    assert_eq!(run("MZ\\x00\\x00", &content).children.len(), 1);
    assert_eq!(run("MZ\\x90", &content).children.len(), 0);
    assert_eq!(run("ZM|M", &content).children.len(), 1);
    for bad in ["", "MZ|", "M[Z]", "MZ\\x9", "MZ\\d", "MZ\\xzz", "MZ\\xä"] {
        let options = json!({"pe_headers": bad}).as_object().unwrap().clone();
        assert!(build(&Build { options, files: vec![] }).is_err(), "{bad}");
    }
    let options = json!({"pe_headers": "MZ|FOO"}).as_object().unwrap().clone();
    assert_eq!(build(&Build { options, files: vec![] }).unwrap().warnings.len(), 1);
}

#[test]
fn two_executables_in_a_word_document() {
    let document = include_bytes!("../../../../tests/fixtures/sample_doc_with_pe.doc");
    let answer = carve(document);
    let [first, second] = answer.children.as_slice() else { panic!("{}", answer.children.len()) };
    assert_eq!(Value::from(first.0.extra_data.clone()), json!({"offset": 11_367}));
    assert_eq!(first.1, include_bytes!("../../../../tests/fixtures/hello.exe"));
    assert_eq!(Value::from(second.0.extra_data.clone()), json!({"offset": 50_688}));
    assert_eq!(second.1, include_bytes!("../../../../tests/fixtures/bare.exe"));
}
