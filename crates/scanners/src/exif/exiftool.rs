//! Reading what ExifTool prints with `-j -n`.

use serde_json::{Map, Value};

use crate::bounds;

/// Bytes of output that are read.
const MAX_OUTPUT: usize = 4 << 20;
/// Bytes of all facts that are kept, as JSON; replacement characters may make the text longer than the output was.
const MAX_KEPT: usize = 3 << 20;
/// Facts that are kept.
const MAX_FACTS: usize = 5_000;
/// Bytes of one text that are kept, as JSON.
const MAX_TEXT: usize = 64 << 10;
/// Bytes of a fact's name in `stoq_cut`, and names in it.
const MAX_NAME: usize = 256;
const MAX_CUT: usize = 100;
/// Elements of one list or object inside of a fact.
const MAX_ELEMENTS: usize = 1_000;
/// Facts of the scratch file, not of the payload: they differ from one run to the next and name places on the host.
const SCRATCH: [&str; 6] =
    ["Directory", "FileAccessDate", "FileInodeChangeDate", "FileModifyDate", "FileName", "FilePermissions"];

/// The first object of ExifTool's JSON, fit for results: `SourceFile` is `-`, as it is for a payload on standard input,
/// and facts of the scratch file are left out, so that the same payload gives the same answer everywhere. Long texts and
/// lists are cut, and `stoq_cut` then names them. The tool's `Error` and `Warning` stay where they are.
///
/// # Errors
/// The output is too large or not a JSON array of an object; a sentence says which.
pub fn parse_exiftool(stdout: &[u8]) -> Result<Value, String> {
    if stdout.len() > MAX_OUTPUT {
        return Err(format!("exiftool printed {} bytes, more than {MAX_OUTPUT}", stdout.len()));
    }
    // It passes text from the file on, which need not be UTF-8.
    let text = String::from_utf8_lossy(stdout);
    let value: Value =
        serde_json::from_str(&text).map_err(|e| format!("exiftool did not print the JSON that it should: {e}"))?;
    let first = match value {
        Value::Array(all) => all.into_iter().next(),
        _ => None,
    };
    let Some(Value::Object(object)) = first else {
        return Err("exiftool printed JSON, but not an array of an object".to_owned());
    };
    Ok(fit(object).into())
}

fn fit(object: Map<String, Value>) -> Map<String, Value> {
    let mut kept = Map::new();
    let mut used = 0;
    let mut cut: Vec<Value> = Vec::new();
    for (name, mut value) in object {
        if SCRATCH.contains(&name.as_str()) {
            continue;
        }
        if name == "SourceFile" {
            value = "-".into();
        }
        if shorten(&mut value) {
            cut.push(bounds::clip(&name, MAX_NAME).into());
        }
        used += bounds::json_len(&name) + value.to_string().len() + 4;
        if kept.len() >= MAX_FACTS || cut.len() >= MAX_CUT || used > MAX_KEPT {
            cut.push("(further facts)".into());
            break;
        }
        kept.insert(name, value);
    }
    if !cut.is_empty() {
        kept.insert("stoq_cut".to_owned(), cut.into());
    }
    kept
}

/// Cuts long texts and lists; says whether it did. As deep as `serde_json` reads, which is bounded.
fn shorten(value: &mut Value) -> bool {
    match value {
        Value::String(text) => bounds::truncate(text, MAX_TEXT),
        Value::Array(elements) => {
            let long = elements.len() > MAX_ELEMENTS;
            elements.truncate(MAX_ELEMENTS);
            elements.iter_mut().fold(long, |cut, e| shorten(e) | cut)
        }
        Value::Object(members) => {
            let long = members.len() > MAX_ELEMENTS;
            let mut seen = 0;
            members.retain(|_, _| {
                seen += 1;
                seen <= MAX_ELEMENTS
            });
            members.values_mut().fold(long, |cut, e| shorten(e) | cut)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_scratch_file_is_forgotten() {
        let printed = br#"[{
            "SourceFile": "/proc/self/fd/3", "ExifToolVersion": 12.57, "FileName": "3", "Directory": "/proc/self/fd",
            "FileSize": 3584, "FileModifyDate": "2026:11:24 11:36:50+00:00", "FileAccessDate": "x",
            "FileInodeChangeDate": "x", "FilePermissions": 100644, "FileType": "Win32 EXE", "LinkerVersion": 14.0
        }, {"SourceFile": "b"}]"#;
        assert_eq!(
            parse_exiftool(printed).unwrap().to_string(),
            r#"{"SourceFile":"-","ExifToolVersion":12.57,"FileSize":3584,"FileType":"Win32 EXE","LinkerVersion":14.0}"#
        );
        let failed = parse_exiftool(br#"[{"SourceFile": "-", "Error": "Unknown file type"}]"#).unwrap();
        assert_eq!(failed["Error"], "Unknown file type");
    }

    #[test]
    fn what_is_not_its_output() {
        for not in [&b""[..], b"[]", b"{}", b"[1]", b"[{", b"Error: File not found", &b"[".repeat(100_000)] {
            assert!(parse_exiftool(not).is_err());
        }
        assert!(parse_exiftool(&vec![b' '; MAX_OUTPUT + 1]).is_err());
        let bytes = parse_exiftool(b"[{\"Title\": \"\xff\xfe\"}]").unwrap();
        assert_eq!(bytes["Title"], "\u{fffd}\u{fffd}");
    }

    #[test]
    fn bounded() {
        let many: Map<_, _> = (0..2 * MAX_FACTS).map(|n| (n.to_string(), json!(n))).collect();
        let parsed = parse_exiftool(json!([many]).to_string().as_bytes()).unwrap();
        assert_eq!(parsed.as_object().unwrap().len(), MAX_FACTS + 1);
        let long = json!([{"A": "ä".repeat(MAX_TEXT), "B": vec![1; 2 * MAX_ELEMENTS], "C": 1}]);
        let parsed = parse_exiftool(long.to_string().as_bytes()).unwrap();
        assert_eq!(parsed["A"].as_str().unwrap().len(), MAX_TEXT);
        assert_eq!(parsed["B"].as_array().unwrap().len(), MAX_ELEMENTS);
        assert_eq!(parsed["stoq_cut"], json!(["A", "B"]));
        // Bytes that are no text become three each.
        let fact = |n: usize| [format!("\"{n}\":\"").into_bytes(), vec![0xff; 60_000], b"\",".to_vec()].concat();
        let facts: Vec<u8> = (0..60).flat_map(fact).collect();
        let parsed = parse_exiftool(&[b"[{", &facts[..], b"\"Z\":1}]"].concat()).unwrap();
        assert!((MAX_KEPT - MAX_TEXT..MAX_KEPT + MAX_TEXT).contains(&parsed.to_string().len()));
    }
}
