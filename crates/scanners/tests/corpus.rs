//! Replays the corpus of every fuzz target, so that what fuzzing once found stays found.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use stoq_scanners::fuzzing::TARGETS;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn corpora_are_survived() {
    for (target, body) in TARGETS {
        let corpus = fuzz().join("corpus").join(target);
        let names = names(&corpus);
        assert!(!names.is_empty(), "{target} has no corpus");
        for name in names {
            body(&fs::read(corpus.join(name)).unwrap());
        }
    }
}

#[test]
fn every_target_has_its_file() {
    let files = names(&fuzz().join("fuzz_targets"));
    let expected: BTreeSet<String> = TARGETS.iter().map(|(target, _)| format!("{target}.rs")).collect();
    assert_eq!(files, expected);
}
