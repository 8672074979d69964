//! The licences of everything that is in the program, each text once, with who is under it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::crates::{Crate, Crates};

/// How files with licences are called, in lower case.
const NAMES: [&str; 6] = ["license", "licence", "copying", "notice", "unlicense", "copyright"];
/// Largest file that is taken for one.
const MAX_TEXT: u64 = 256 << 10;
/// For crates whose package has no text of its own, behind a line that says whose it is.
const MIT: &str = "\
Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the \"Software\"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED \"AS IS\", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
";

/// The whole text.
///
/// # Errors
/// A crate brings no text, and is under a licence whose text is not known here.
pub(super) fn text(root: &Path, crates: &Crates) -> Result<String> {
    let apache = fs::read_to_string(root.join("LICENSE"))?;
    let mut texts: BTreeMap<String, Vec<&Crate>> = BTreeMap::new();
    for one in &crates.all {
        let mut own = brought(&one.folder).with_context(|| one.folder.display().to_string())?;
        // A folder below holds the library in C that a crate brings along.
        if one.name.ends_with("-sys") {
            for entry in fs::read_dir(&one.folder)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    own.extend(brought(&entry.path())?);
                }
            }
        }
        if own.is_empty() {
            own.push(known(one, &apache)?);
        }
        for text in own {
            texts.entry(text).or_default().push(one);
        }
    }
    let mut whole = format!("stoq {} contains these crates:\n\n", crates.version);
    for one in &crates.all {
        whole.push_str(&format!("{} {}  {}\n", one.name, one.version, one.licence));
    }
    for (text, under) in &texts {
        let names: Vec<String> = under.iter().map(|one| format!("{} {}", one.name, one.version)).collect();
        whole.push_str(&format!("\n{}\n{}\n\n{text}\n", "=".repeat(100), names.join(", ")));
    }
    Ok(whole)
}

/// Texts that lie in a crate's folder.
fn brought(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().to_lowercase();
        let metadata = entry.metadata()?;
        if NAMES.iter().any(|start| name.starts_with(start)) && metadata.is_file() && metadata.len() <= MAX_TEXT {
            found.push(String::from_utf8_lossy(&fs::read(entry.path())?).trim().replace('\r', ""));
        }
    }
    found.sort();
    Ok(found)
}

fn known(one: &Crate, apache: &str) -> Result<String> {
    let words: Vec<&str> = one.licence.split([' ', '(', ')']).collect();
    if words.contains(&"Apache-2.0") {
        return Ok(apache.trim().to_owned());
    }
    if words.contains(&"MIT") {
        let whose =
            if one.authors.is_empty() { format!("the authors of {}", one.name) } else { one.authors.join(", ") };
        return Ok(format!("Copyright (c) {whose}\n\n{MIT}"));
    }
    bail!("{} {} is under {:?} and brings no text", one.name, one.version, one.licence)
}
