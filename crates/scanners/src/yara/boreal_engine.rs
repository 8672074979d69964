//! The engine `boreal`: pure Rust, several times faster than libyara on a few hundred rules.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use boreal::MetadataValue;
use boreal::compiler::{CompilerBuilder, CompilerParams};
use boreal::module::Console;
use boreal::scanner::{EvaluatedRule, ScanParams};

use super::engine::{
    Compiler, Engine, GLOBALS, Globals, Hit, MAX_HIT, MAX_HIT_BYTES, MAX_HITS, MAX_HITS_OF_STRING, MAX_RULES,
    MetaValue, Problem, RuleMatch, RuleSet, Scan, StringHits,
};
use super::split::{Kind, split};

/// Name spaces of the two sets inside the engine.
const WORKER: &str = "worker";
const DISPATCH: &str = "dispatch";

/// Scanners that are kept for the next payload; more threads than that build theirs anew.
const MAX_POOLED: usize = 64;

/// Rules being collected.
pub(super) struct BorealCompiler {
    compiler: boreal::Compiler,
    uses_globals: bool,
}

impl BorealCompiler {
    /// A compiler without rules.
    pub(super) fn new() -> Self {
        // Rules that log are common; what they log is for their authors.
        let mut compiler = CompilerBuilder::new().add_module(Console::with_callback(|_| {})).build();
        compiler.set_params(CompilerParams::default().disable_includes(true));
        for name in GLOBALS {
            compiler.define_symbol(name, "");
        }
        Self { compiler, uses_globals: false }
    }

    fn add_piece(&mut self, namespace: &str, text: &str) -> Result<(), (usize, String)> {
        self.compiler.add_rules_str_in_namespace(text, namespace).map(|_| ()).map_err(|error| {
            let diagnostic = error.to_diagnostic();
            let at = diagnostic.labels.first().map_or(0, |label| label.range.start);
            let label = diagnostic.labels.first().map_or("", |label| label.message.as_str());
            let colon = if label.is_empty() { "" } else { ": " };
            (at, format!("{}{colon}{label}", diagnostic.message))
        })
    }
}

impl Compiler for BorealCompiler {
    fn add(&mut self, set: RuleSet, text: &str, problems: &mut Vec<Problem>) -> usize {
        let namespace = match set {
            RuleSet::Worker => WORKER,
            RuleSet::Dispatch => DISPATCH,
        };
        self.uses_globals |= GLOBALS.iter().any(|name| text.contains(name));
        let mut added = 0;
        for piece in split(text) {
            let left_out = match piece.kind {
                Kind::Include => Err((0, "include is not allowed: name the file in the configuration".into())),
                Kind::Stray => Err((0, "neither a rule nor an import".into())),
                Kind::Import => self.add_piece(namespace, &text[piece.range.clone()]),
                Kind::Rule(ref name) => match self.add_piece(namespace, &text[piece.range.clone()]) {
                    Ok(()) => {
                        added += 1;
                        Ok(())
                    }
                    Err((at, message)) => Err((at, format!("rule {name} is left out: {message}"))),
                },
            };
            if let Err((at, message)) = left_out {
                problems.push(Problem { at: piece.range.start + at, message });
            }
        }
        added
    }

    fn finish(self: Box<Self>) -> Box<dyn Engine> {
        let first = self.compiler.finalize();
        Box::new(BorealEngine { uses_globals: self.uses_globals, first, pool: Mutex::default() })
    }
}

struct BorealEngine {
    uses_globals: bool,
    /// Never scans itself: the others are made from it.
    first: boreal::Scanner,
    /// A scanner holds the values of one payload, so every thread takes its own. They share the rules.
    pool: Mutex<Vec<boreal::Scanner>>,
}

impl Engine for BorealEngine {
    fn scan(&self, content: &[u8], globals: &dyn Fn() -> Globals, timeout: Duration) -> Scan {
        let pooled = self.pool.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut scanner = pooled.unwrap_or_else(|| self.first.clone());
        if self.uses_globals {
            for (name, value) in GLOBALS.into_iter().zip(globals()) {
                // All are declared, and as text: this cannot fail.
                scanner.define_symbol(name, value).ok();
            }
        }
        let scan = scan(&mut scanner, content, timeout);
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.len() < MAX_POOLED {
            pool.push(scanner);
        }
        scan
    }
}

/// The engine leaves out the search for strings where conditions are settled without it, as `uint16(0) == 0x5a4d` does
/// for most payloads. Only if rules match that way, so that their strings are not known, it has to be done after all.
fn scan(scanner: &mut boreal::Scanner, content: &[u8], timeout: Duration) -> Scan {
    let started = Instant::now();
    let params = |left, full| {
        ScanParams::default()
            .match_max_length(MAX_HIT)
            .string_max_nb_matches(MAX_HITS_OF_STRING)
            .timeout_duration(Some(left))
            .compute_full_matches(full)
    };
    scanner.set_scan_params(params(timeout, false));
    let strings_known = match scanner.scan_mem(content) {
        Ok(found) if found.rules.is_empty() => return Scan::default(),
        Ok(found) if found.rules.iter().all(|r| r.matches.is_empty()) => None,
        other => Some(collect(scanner, other)),
    };
    strings_known.unwrap_or_else(|| {
        scanner.set_scan_params(params(timeout.saturating_sub(started.elapsed()), true));
        collect(scanner, scanner.scan_mem(content))
    })
}

type Answer<'a> =
    Result<boreal::scanner::ScanResult<'a>, (boreal::scanner::ScanError, boreal::scanner::ScanResult<'a>)>;

/// Copies what is kept out of the engine's answer.
fn collect(scanner: &boreal::Scanner, answer: Answer<'_>) -> Scan {
    let (rules, expired) = match answer {
        Ok(found) => (found.rules, false),
        // The one error that a scan of memory has is that time ran out.
        Err((_, found)) => (found.rules, true),
    };
    let mut scan = Scan { matches: Vec::with_capacity(rules.len().min(MAX_RULES)), expired, cut: false };
    let mut left = Left { hits: MAX_HITS, bytes: MAX_HIT_BYTES };
    for rule in rules {
        if scan.matches.len() == MAX_RULES {
            scan.cut = true;
            break;
        }
        let matched = collect_rule(scanner, rule, &mut left, &mut scan.cut);
        scan.matches.push(matched);
    }
    scan
}

/// What may still be kept of one payload.
struct Left {
    hits: usize,
    bytes: usize,
}

fn collect_rule(scanner: &boreal::Scanner, rule: EvaluatedRule<'_>, left: &mut Left, cut: &mut bool) -> RuleMatch {
    let symbol = |s| scanner.get_string_symbol(s).to_owned();
    let meta = rule.metadatas.iter().map(|m| {
        let value = match m.value {
            MetadataValue::Bytes(bytes) => MetaValue::Bytes(scanner.get_bytes_symbol(bytes).to_vec()),
            MetadataValue::Integer(number) => MetaValue::Int(number),
            MetadataValue::Boolean(truth) => MetaValue::Bool(truth),
        };
        (symbol(m.name), value)
    });
    let strings = rule.matches.into_iter().map(|string| {
        *cut |= string.matches.len() >= MAX_HITS_OF_STRING as usize;
        let mut hits = Vec::with_capacity(string.matches.len().min(left.hits));
        for found in string.matches {
            if left.hits == 0 || left.bytes < found.data.len() {
                *cut = true;
                break;
            }
            left.hits -= 1;
            left.bytes -= found.data.len();
            let xor_key = string.has_xor_modifier.then_some(found.xor_key);
            hits.push(Hit { offset: found.offset as u64, data: found.data.into_vec(), xor_key });
        }
        StringHits { id: format!("${}", string.name), hits }
    });
    RuleMatch {
        set: if rule.namespace == DISPATCH { RuleSet::Dispatch } else { RuleSet::Worker },
        name: rule.name.to_owned(),
        tags: rule.tags.iter().map(|t| symbol(*t)).collect(),
        meta: meta.collect(),
        strings: strings.collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    const RULES: &str = r#"
        rule gated { strings: $a = "ab" $b = /b+c/ condition: uint8(0) == 0x61 and any of them }
        rule settled { strings: $a = "cc" condition: uint8(1) == 0x62 or $a }
        rule counted { strings: $a = "a" condition: #a > 3 }
        rule global_in_effect { condition: filesize > 2 }
        private rule hidden { strings: $a = "bb" condition: $a }
        rule by_another { condition: hidden and gated }"#;

    static ENGINE: LazyLock<boreal::Scanner> = LazyLock::new(|| {
        let mut compiler = BorealCompiler::new();
        let mut problems = Vec::new();
        assert_eq!(compiler.add(RuleSet::Worker, RULES, &mut problems), 6, "{problems:?}");
        compiler.compiler.finalize()
    });

    fn shown(scan: &Scan) -> String {
        format!("{:?}", scan.matches)
    }

    proptest! {
        /// Leaving the search out where conditions are settled without it changes no answer.
        #[test]
        fn short_cut_finds_the_same(content in "[abc]{0,12}") {
            let mut scanner = ENGINE.clone();
            let found = scan(&mut scanner, content.as_bytes(), Duration::from_secs(60));
            scanner.set_scan_params(ScanParams::default().compute_full_matches(true));
            let full = collect(&scanner, scanner.scan_mem(content.as_bytes()));
            prop_assert_eq!(shown(&found), shown(&full));
        }
    }
}
