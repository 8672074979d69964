//! What the plugin wants of a YARA engine, so that there can be more than one.

use std::time::Duration;

/// The two sets of rules. A set is a name space of its own: rules of one cannot refer to rules of the other, and a global
/// rule holds back its own set only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RuleSet {
    /// Rules whose matches are the worker's result.
    Worker,
    /// Rules that choose workers.
    Dispatch,
}

/// Names that rules may use although nothing declares them, as in the tools of Nextron: all are text.
pub(super) const GLOBALS: [&str; 5] = ["filename", "filepath", "extension", "filetype", "owner"];

/// Values of [`GLOBALS`] for one payload, in that order.
pub(super) type Globals = [String; GLOBALS.len()];

/// Something in a text of rules that was left out.
#[derive(Debug)]
pub(super) struct Problem {
    /// Where it is, in bytes of the text.
    pub at: usize,
    /// What it is, in the engine's words, on one line.
    pub message: String,
}

/// Takes rules in.
pub(super) trait Compiler {
    /// Adds every rule of `text` that can be added, and says what is wrong with the others. Returns how many were added.
    fn add(&mut self, set: RuleSet, text: &str, problems: &mut Vec<Problem>) -> usize;

    /// No more rules will come.
    fn finish(self: Box<Self>) -> Box<dyn Engine>;
}

/// Compiled rules of both sets.
pub(super) trait Engine: Send + Sync {
    /// Runs all rules over `content` in one pass. `globals` is asked for only if a rule may use one of them.
    fn scan(&self, content: &[u8], globals: &dyn Fn() -> Globals, timeout: Duration) -> Scan;
}

/// What one pass found, within the limits below.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Matching rules in the order of their definition.
    pub matches: Vec<RuleMatch>,
    /// Time ran out: rules may be missing.
    pub expired: bool,
    /// A limit of this module was reached: rules or strings are missing.
    pub cut: bool,
}

/// Matching rules of one payload that are kept.
pub(super) const MAX_RULES: usize = 2_000;
/// Matches of one string that are counted and kept.
pub(super) const MAX_HITS_OF_STRING: u32 = 1_000;
/// Matches of strings of one payload that are kept.
pub(super) const MAX_HITS: usize = 10_000;
/// Bytes of one match that are kept, as in libyara.
pub(super) const MAX_HIT: usize = 512;
/// Bytes of all matches of one payload that are kept.
pub(super) const MAX_HIT_BYTES: usize = 1 << 20;

/// A matching rule.
#[derive(Debug)]
pub(super) struct RuleMatch {
    /// Its set.
    pub set: RuleSet,
    /// Its name.
    pub name: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its metadata; a name may occur more than once.
    pub meta: Vec<(String, MetaValue)>,
    /// Its strings that were found, in the order of their definition.
    pub strings: Vec<StringHits>,
}

/// A value in a rule's metadata.
#[derive(Debug, PartialEq)]
pub(super) enum MetaValue {
    /// Text, in whatever encoding.
    Bytes(Vec<u8>),
    /// A number.
    Int(i64),
    /// A truth value.
    Bool(bool),
}

/// Where one string was found.
#[derive(Debug)]
pub(super) struct StringHits {
    /// Its identifier with the dollar sign.
    pub id: String,
    /// Its places, by offset.
    pub hits: Vec<Hit>,
}

/// One place of a string.
#[derive(Debug)]
pub(super) struct Hit {
    /// Offset in the content.
    pub offset: u64,
    /// Its bytes, at most [`MAX_HIT`].
    pub data: Vec<u8>,
    /// With which byte it is encoded, if the string has the `xor` modifier.
    pub xor_key: Option<u8>,
}
