//! `yara`: runs YARA rules over a payload, as a worker that reports matches and as a dispatcher that chooses workers by
//! them.
//!
//! Both roles share one pass over the bytes. A dispatch rule names workers in its metadata: `plugin`, a list separated by
//! commas; `save = "false"` keeps destination archivers away from the payload. The match goes to the named workers as
//! `dispatch_meta`, for `xordecode` with the key (`xorkey`, a list of numbers; see [`xor`]).
//!
//! A rule that does not compile is left out and reported with file and line; so are rules that refer to it. `include` is
//! refused: files are named in the configuration.

mod boreal_engine;
mod config;
mod engine;
mod output;
pub(crate) mod split;
mod xor;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use stoq_api::finding::{Finding, FindingKind};
use stoq_api::scanner::{
    Build, BuildError, Built, Context, Dispatch, Dispatcher, Output, Payload, PluginInfo, PluginKind, Registration,
    ScanError, Scanner,
};

use self::engine::{Engine, Globals, MetaValue, RuleMatch, RuleSet, Scan};

/// Payloads whose pass is kept for the other role and for later rounds; more than there are threads.
const MAX_KEPT: usize = 64;

/// The plugin's entry in the registry.
pub(crate) fn registration() -> Registration {
    Registration {
        info: PluginInfo {
            name: "yara",
            description: "YARA rules: reports matches, and chooses workers by them",
            kinds: &[PluginKind::Worker, PluginKind::Dispatcher],
            options: config::OPTIONS,
            required_workers: &[],
        },
        build,
    }
}

fn build(build: &Build) -> Result<Built, BuildError> {
    let options: config::Options = build.config()?;
    let timeout = options.timeout()?;
    let rules = options.compile(build)?;
    let yara = Arc::new(Yara {
        engine: rules.engine,
        timeout,
        strings_limit: options.strings_limit.unwrap_or(usize::MAX),
        xor_first_match: options.xor_first_match,
        kept: Mutex::default(),
    });
    Ok(Built {
        scanner: rules.worker.then(|| yara.clone() as Arc<dyn Scanner>),
        dispatcher: rules.dispatch.then_some(yara as Arc<dyn Dispatcher>),
        warnings: rules.warnings,
        ruleset: Some(rules.digest),
        ..Built::default()
    })
}

struct Yara {
    engine: Box<dyn Engine>,
    timeout: Duration,
    strings_limit: usize,
    xor_first_match: bool,
    /// The last passes by the payload's serial number, oldest first.
    kept: Mutex<VecDeque<(u64, Arc<Pass>)>>,
}

/// One pass over one payload.
struct Pass {
    scan: Scan,
    /// Whoever asks first tells what is missing from the pass, so that it is said once.
    told: AtomicBool,
}

impl Yara {
    /// The pass over this payload, made now unless it was made before.
    fn pass(&self, payload: &Payload<'_>, cx: &Context<'_>) -> Arc<Pass> {
        let kept = |passes: &VecDeque<(u64, Arc<Pass>)>| {
            passes.iter().rev().find(|(serial, _)| *serial == payload.serial).map(|(_, pass)| Arc::clone(pass))
        };
        if let Some(pass) = kept(&self.kept.lock().unwrap_or_else(PoisonError::into_inner)) {
            return pass;
        }
        let left = cx.deadline().map(|d| d.saturating_duration_since(Instant::now()));
        let timeout = left.map_or(self.timeout, |left| left.min(self.timeout));
        let scan = if timeout.is_zero() {
            Scan { expired: true, ..Scan::default() }
        } else {
            self.engine.scan(payload.content, &|| globals(payload), timeout)
        };
        let pass = Arc::new(Pass { scan, told: AtomicBool::new(false) });
        let mut passes = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if passes.len() == MAX_KEPT {
            passes.pop_front();
        }
        passes.push_back((payload.serial, Arc::clone(&pass)));
        pass
    }
}

impl Pass {
    fn matches(&self, set: RuleSet) -> impl Iterator<Item = &RuleMatch> {
        self.scan.matches.iter().filter(move |m| m.set == set)
    }

    /// Says what is missing from the pass, unless that was said before.
    fn tell(&self, cx: &mut Context<'_>, errors: &mut Vec<String>) {
        if (!self.scan.expired && !self.scan.cut) || self.told.swap(true, Ordering::Relaxed) {
            return;
        }
        if self.scan.expired {
            errors.push("out of time before all rules were evaluated".into());
            let detail = "time ran out before all YARA rules were evaluated";
            cx.find(Finding::new(FindingKind::PluginLimit, detail).of_plugin("yara"));
        }
        if self.scan.cut {
            let detail = format!(
                "not all matches are kept: at most {} rules, {} matches of one string and {} of all",
                engine::MAX_RULES,
                engine::MAX_HITS_OF_STRING,
                engine::MAX_HITS
            );
            cx.find(Finding::new(FindingKind::PluginLimit, detail).of_plugin("yara"));
        }
    }
}

impl Scanner for Yara {
    fn scan(&self, payload: &Payload<'_>, cx: &mut Context<'_>) -> Result<Output, ScanError> {
        let pass = self.pass(payload, cx);
        let matches: Vec<Value> =
            pass.matches(RuleSet::Worker).map(|m| output::match_value(m, self.strings_limit).into()).collect();
        let mut output = Output::of(json!({ "matches": matches }));
        pass.tell(cx, &mut output.errors);
        Ok(output)
    }
}

impl Dispatcher for Yara {
    fn dispatch(&self, payload: &Payload<'_>, cx: &mut Context<'_>) -> Result<Dispatch, ScanError> {
        let pass = self.pass(payload, cx);
        let mut dispatch = Dispatch::default();
        let mut meta = Map::new();
        for rule in pass.matches(RuleSet::Dispatch) {
            if is_false(rule, "save") {
                dispatch.should_archive = Some(false);
            }
            let names = plugins(rule, &mut dispatch.errors);
            if names.is_empty() {
                continue;
            }
            let mut object = output::match_value(rule, self.strings_limit);
            if names.iter().any(|n| n == "xordecode") {
                output::add_xor_keys(&mut object, rule, self.xor_first_match);
            }
            for name in names {
                meta.insert(name.clone(), object.clone().into());
                dispatch.plugins.push((name, format!("rule {}", rule.name)));
            }
        }
        dispatch.meta = meta.into();
        pass.tell(cx, &mut dispatch.errors);
        Ok(dispatch)
    }
}

/// The last value of that name in a rule's metadata.
fn meta<'a>(rule: &'a RuleMatch, name: &str) -> Option<&'a MetaValue> {
    rule.meta.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value)
}

fn is_false(rule: &RuleMatch, name: &str) -> bool {
    match meta(rule, name) {
        Some(MetaValue::Bool(truth)) => !truth,
        Some(MetaValue::Bytes(text)) => text.trim_ascii().eq_ignore_ascii_case(b"false"),
        _ => false,
    }
}

/// The workers that a rule names.
fn plugins(rule: &RuleMatch, errors: &mut Vec<String>) -> Vec<String> {
    match meta(rule, "plugin") {
        Some(MetaValue::Bytes(text)) => {
            let text = String::from_utf8_lossy(text).to_lowercase();
            text.split(',').map(str::trim).filter(|n| !n.is_empty()).map(str::to_owned).collect()
        }
        Some(_) => {
            errors.push(format!("rule {}: meta plugin must be text", rule.name));
            Vec::new()
        }
        None => Vec::new(),
    }
}

/// What is known of the payload's file, for rules that ask. The extension is given with its dot.
fn globals(payload: &Payload<'_>) -> Globals {
    let known = |name: &str| payload.meta.extra_data.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let [mut path, mut extension, filename] = [known("filepath"), known("extension"), known("filename")];
    if path.is_empty() {
        let folder = known("source_dir");
        path = if folder.is_empty() { filename.clone() } else { format!("{folder}/{filename}") };
    }
    if extension.is_empty() {
        extension = filename.rfind('.').map(|dot| filename[dot..].to_owned()).unwrap_or_default();
    }
    [filename, path, extension, known("filetype"), known("owner")]
}

#[cfg(test)]
mod tests;
