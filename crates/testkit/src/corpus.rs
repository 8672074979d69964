//! Replays the corpora of fuzz targets, so that what fuzzing once found stays found.
//!
//! A crate whose code is fuzzed has the targets' bodies in a module `fuzzing` with a list of them, and one test that calls
//! [`replay`]. `fuzz/` holds a file for each target and its corpus.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Most samples of one target: a corpus is there to be read, and replayed in every run of the tests.
const MAX_SAMPLES: usize = 64;
/// Most bytes of one target's samples together.
const MAX_BYTES: usize = 100 << 10;

/// A target by name; it takes whatever the fuzzer made.
pub type Target = (&'static str, fn(&[u8]));

/// Runs all samples of the `targets` of a crate (`krate`, as it is called in code), which must be the ones that have a
/// file, and no others.
///
/// # Panics
/// A promise that a target checks does not hold, or files, list and corpora do not fit together.
pub fn replay(krate: &str, targets: &[Target]) {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let calls = format!("{krate}::fuzzing::");
    let of_crate = names(&fuzz.join("fuzz_targets")).into_iter().filter(|file| {
        let text = fs::read_to_string(fuzz.join("fuzz_targets").join(file)).unwrap();
        text.contains(&calls)
    });
    let listed: BTreeSet<String> = targets.iter().map(|(target, _)| format!("{target}.rs")).collect();
    assert_eq!(of_crate.collect::<BTreeSet<_>>(), listed, "files in fuzz/fuzz_targets, and the list in {calls}");
    for (target, body) in targets {
        let corpus = fuzz.join("corpus").join(target);
        let samples: Vec<Vec<u8>> = names(&corpus).iter().map(|name| fs::read(corpus.join(name)).unwrap()).collect();
        let bytes: usize = samples.iter().map(Vec::len).sum();
        assert!((1..=MAX_SAMPLES).contains(&samples.len()), "{target} has {} samples", samples.len());
        assert!(bytes <= MAX_BYTES, "{target} has {bytes} bytes of samples");
        samples.iter().for_each(|sample| body(sample));
    }
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}
