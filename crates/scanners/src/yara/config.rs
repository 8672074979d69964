//! Options, and the rules that they name.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use stoq_api::digest::Sha256Builder;
use stoq_api::scanner::{Build, BuildError, OptionInfo, OptionKind, SourceFile};

use super::boreal_engine::BorealCompiler;
use super::engine::{Compiler, Engine, RuleSet};
use crate::text::decode_fragment;

/// Problems with rules that are listed one by one.
const MAX_WARNINGS: usize = 200;
/// Longest time that the option may ask for, in seconds: a day.
const MAX_TIMEOUT: f64 = 86_400.0;

/// Rules for those who name none, by option.
const BUILT_IN: [(&str, &str); 2] = [
    ("stoq.yar", include_str!("../../../../config/rules/stoq.yar")),
    ("dispatcher.yar", include_str!("../../../../config/rules/dispatcher.yar")),
];

/// The options as `stoq list` and the configuration know them.
pub(super) const OPTIONS: &[OptionInfo] = &[
    OptionInfo {
        name: "worker_rules",
        kind: OptionKind::Files,
        default: "",
        help: "files or folders of rules for the worker; the built-in ones if not given, none if empty",
    },
    OptionInfo {
        name: "dispatch_rules",
        kind: OptionKind::Files,
        default: "",
        help: "files or folders of rules that choose workers; the built-in ones if not given, none if empty",
    },
    OptionInfo {
        name: "timeout",
        kind: OptionKind::Duration,
        default: "60",
        help: "longest time for all rules on one payload",
    },
    OptionInfo {
        name: "strings_limit",
        kind: OptionKind::Int,
        default: "",
        help: "strings shown for each matching rule; all of them if not given",
    },
    OptionInfo {
        name: "xor_first_match",
        kind: OptionKind::Bool,
        default: "true",
        help: "give xordecode the key of the first match only, not those of all",
    },
    OptionInfo { name: "engine", kind: OptionKind::Text, default: "\"boreal\"", help: "the YARA engine: boreal" },
];

/// The options as given.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Options {
    worker_rules: Option<Value>,
    dispatch_rules: Option<Value>,
    timeout: f64,
    /// See [`OPTIONS`].
    pub strings_limit: Option<usize>,
    /// See [`OPTIONS`].
    pub xor_first_match: bool,
    engine: EngineName,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum EngineName {
    Boreal,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            worker_rules: None,
            dispatch_rules: None,
            timeout: 60.0,
            strings_limit: None,
            xor_first_match: true,
            engine: EngineName::Boreal,
        }
    }
}

impl Options {
    /// The option as a duration.
    pub(super) fn timeout(&self) -> Result<Duration, BuildError> {
        if self.timeout > 0.0 && self.timeout <= MAX_TIMEOUT {
            Ok(Duration::from_secs_f64(self.timeout))
        } else {
            Err(BuildError(format!("timeout must be above 0 and at most {MAX_TIMEOUT} seconds, not {}", self.timeout)))
        }
    }

    /// Compiles the rules of both sets.
    ///
    /// # Errors
    /// Files are named, but there is not one rule in them that compiles: the operator wants to know that before payloads
    /// come.
    pub(super) fn compile(&self, build: &Build) -> Result<Rules, BuildError> {
        let mut compiler: Box<dyn Compiler> = match self.engine {
            EngineName::Boreal => Box::new(BorealCompiler::new()),
        };
        let mut rules = Collected::default();
        let worker = rules.add(
            &mut *compiler,
            build,
            RuleSet::Worker,
            "worker_rules",
            self.worker_rules.as_ref(),
            BUILT_IN[0],
        )?;
        let dispatch = rules.add(
            &mut *compiler,
            build,
            RuleSet::Dispatch,
            "dispatch_rules",
            self.dispatch_rules.as_ref(),
            BUILT_IN[1],
        )?;
        if rules.unlisted > 0 {
            rules.warnings.push(format!("{} more problems with rules are not listed", rules.unlisted));
        }
        let digest = rules.digest.finish().to_string();
        Ok(Rules { engine: compiler.finish(), worker, dispatch, warnings: rules.warnings, digest })
    }
}

/// Compiled rules and what is to be said of them.
pub(super) struct Rules {
    /// The engine that holds them.
    pub engine: Box<dyn Engine>,
    /// There are rules for the worker.
    pub worker: bool,
    /// There are rules for the dispatcher.
    pub dispatch: bool,
    /// What was left out, with its place.
    pub warnings: Vec<String>,
    /// Digest over the rules' text.
    pub digest: String,
}

#[derive(Default)]
struct Collected {
    warnings: Vec<String>,
    unlisted: usize,
    digest: Sha256Builder,
}

impl Collected {
    /// Adds the files of one option; whether there are rules in its set.
    fn add(
        &mut self,
        compiler: &mut dyn Compiler,
        build: &Build,
        set: RuleSet,
        option: &str,
        given: Option<&Value>,
        built_in: (&str, &str),
    ) -> Result<bool, BuildError> {
        let named: Vec<&SourceFile> = build.files_of(option).collect();
        let mut rules = 0;
        if named.is_empty() && given.is_none() {
            rules += self.add_file(compiler, set, built_in.0, built_in.1.as_bytes());
        } else if named.is_empty() {
            let empty = |v: &Value| v.is_null() || *v == "";
            let none = given.is_none_or(|v| empty(v) || v.as_array().is_some_and(|all| all.iter().all(empty)));
            return if none { Ok(false) } else { Err(BuildError(format!("{option} names no file"))) };
        }
        for file in &named {
            rules += self.add_file(compiler, set, &file.name, &file.content);
        }
        if rules == 0 {
            let first = self.warnings.first().map_or("there is none in it", String::as_str);
            return Err(BuildError(format!("no rule of {option} can be used: {first}")));
        }
        Ok(true)
    }

    fn add_file(&mut self, compiler: &mut dyn Compiler, set: RuleSet, name: &str, content: &[u8]) -> usize {
        self.digest.update(&[set as u8]);
        self.digest.update(&(content.len() as u64).to_le_bytes());
        self.digest.update(content);
        if std::str::from_utf8(content).is_err() {
            self.warn(format!("{name}: is not UTF-8 and is read as windows-1252; strings above ASCII may not match"));
        }
        let text = decode_fragment(content);
        let mut problems = Vec::new();
        let rules = compiler.add(set, &text, &mut problems);
        for problem in problems {
            let end = text.floor_char_boundary(problem.at);
            let line = text[..end].bytes().filter(|b| *b == b'\n').count() + 1;
            self.warn(format!("{name}:{line}: {}", problem.message));
        }
        rules
    }

    fn warn(&mut self, warning: String) {
        if self.warnings.len() < MAX_WARNINGS {
            self.warnings.push(warning);
        } else {
            self.unlisted += 1;
        }
    }
}
