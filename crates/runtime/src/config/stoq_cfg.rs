//! `stoq.cfg` of stoQ 3 read as a layer of our configuration.
//!
//! What stoQ knew and this program has is taken over; the rest becomes a warning that says what to use instead, because an
//! installation that moves over must start, and must learn what is different.

use std::path::Path;

use serde_json::Value;

use super::check::check;
use super::ini::{self, Section, Setting};
use super::registry::Registry;
use super::toml::{Lines, Show};
use super::tree::{Leaf, Node, join};
use crate::fail::{Problem, fold, nearest};
use crate::secret::is_secret;

/// Keys of `[core]` that have a place in our configuration.
const CORE: [(&str, &str); 12] = [
    ("log_level", "core.log.level"),
    ("log_syntax", "core.log.format"),
    ("log_dir", "core.log.file"),
    ("max_recursion", "budgets.max_depth"),
    ("max_required_worker_depth", "routes.max_required_depth"),
    ("providers", "run.providers"),
    ("connectors", "run.connectors"),
    ("decorators", "run.decorators"),
    ("source_archivers", "archive.sources"),
    ("dest_archivers", "archive.destinations"),
    ("dispatchers", "routes.dispatchers"),
    ("always_dispatch", "routes.always"),
];

/// Keys of `[core]` that have none, with what takes their place.
const GONE: [(&str, &str); 6] = [
    ("log_maxbytes", "log files are not rotated here: let logrotate or the journal do it"),
    ("log_backup_count", "log files are not rotated here: let logrotate or the journal do it"),
    ("plugin_dir_list", "plugins are part of the program: see `stoq list`"),
    ("max_queue", "providers hold back by themselves: nothing to set"),
    ("provider_consumers", "set scan.slots in a TOML file or by STOQ__SCAN__SLOTS"),
    ("archivers", "stoQ did not read it either: use dest_archivers"),
];

/// Reads `text`. Values are those of the file; mistakes in them are errors as anywhere else.
pub(super) fn read(
    name: &str,
    text: &str,
    registry: Registry<'_>,
    base: Option<&Path>,
    problems: &mut Vec<Problem>,
) -> Node {
    let lines = Lines::new(name, text);
    let (sections, broken) = ini::read(text);
    for line in broken {
        problems.push(Problem::error(lines.place(line.span, Show::IfHarmless), "", line.message));
    }
    let mut layer = Layer { lines, node: Node::Table(Vec::new()), problems };
    let defaults = sections.iter().find(|s| s.name == "DEFAULT");
    for section in &sections {
        let plugin = registry.has(&section.name, None).then_some(section.name.as_str());
        match section.name.as_str() {
            "core" => layer.core(section, defaults),
            "DEFAULT" => {}
            other => match plugin.or_else(|| registry.spelt(other)) {
                Some(plugin) => layer.plugin(plugin, section, defaults, registry),
                None => layer.no_plugin(section, registry),
            },
        }
    }
    let Layer { node, problems, .. } = layer;
    check(node, registry, base, problems)
}

struct Layer<'a, 'p> {
    lines: Lines<'a>,
    node: Node,
    problems: &'p mut Vec<Problem>,
}

impl Layer<'_, '_> {
    fn core(&mut self, section: &Section, defaults: Option<&Section>) {
        for setting in &section.settings {
            if let Some((_, path)) = CORE.iter().find(|(key, _)| *key == setting.key) {
                let path: Vec<String> = path.split('.').map(str::to_owned).collect();
                self.take(&path, setting, section, defaults);
            } else if let Some((_, instead)) = GONE.iter().find(|(key, _)| *key == setting.key) {
                self.warn(setting, &format!("core.{}", setting.key), "this has no effect").help_last(instead);
            } else if !refers(section, &setting.key) {
                let known = CORE.iter().map(|(key, _)| *key);
                let near = nearest(&setting.key, known).map(|near| format!("did you mean `{near}`?"));
                let path = format!("core.{}", setting.key);
                let said = self.warn(setting, &path, &format!("unknown key `{}`: it has no effect", setting.key));
                if let Some(near) = near {
                    said.help_last(&near);
                }
            }
        }
    }

    fn plugin(&mut self, plugin: &str, section: &Section, defaults: Option<&Section>, registry: Registry<'_>) {
        let options = registry.options(plugin, None);
        for setting in &section.settings {
            if let Some(option) = options.iter().find(|o| fold(o.name) == fold(&setting.key)) {
                let path = ["plugins", plugin, option.name].map(str::to_owned);
                self.take(&path, setting, section, defaults);
            } else if !refers(section, &setting.key) {
                let near = nearest(&setting.key, options.iter().map(|o| o.name));
                let path = join(&format!("plugins.{plugin}"), &setting.key);
                let message = format!("`{plugin}` has no option `{}` here: it has no effect", setting.key);
                let said = self.warn(setting, &path, &message);
                match near {
                    Some(near) => said.help_last(&format!("did you mean `{near}`?")),
                    None => said.help_last(&format!("`stoq list --options {plugin}` names its options")),
                }
            }
        }
    }

    fn no_plugin(&mut self, section: &Section, registry: Registry<'_>) {
        let place = self.lines.place(section.span.clone(), Show::Line);
        let message = format!("there is no plugin `{}`: the section has no effect", section.name);
        let mut problem = Problem::warning(place, &section.name, message);
        let known = registry.names(None);
        if let Some(near) = nearest(&section.name, known.into_iter().chain(["core"])) {
            problem = problem.help(format!("did you mean [{near}]?"));
        }
        self.problems.push(problem);
    }

    /// Takes the setting over as the value at `path`.
    fn take(&mut self, path: &[String], setting: &Setting, section: &Section, defaults: Option<&Section>) {
        let dotted = path.join(".");
        let Some(value) = &setting.value else {
            self.warn(setting, &dotted, &format!("`{}` has no value: it has no effect", setting.key));
            return;
        };
        let known = |name: &str| {
            let all = section.settings.iter().chain(defaults.into_iter().flat_map(|d| &d.settings));
            all.filter(|s| s.key == name).find_map(|s| s.value.clone())
        };
        let (mut value, doubled) = percent(value, known);
        if doubled {
            self.warn(setting, &dotted, "`%%` is read as `%`").help_last("a `%` needs no doubling here");
        }
        if setting.key == "log_dir" {
            // An empty folder switches stoQ's log file off.
            if value.is_empty() {
                return;
            }
            value = format!("{}/stoq.log", value.trim_end_matches('/'));
        }
        let secret = is_secret(&setting.key);
        let (span, show) =
            if secret { (setting.span.clone(), Show::Key) } else { (setting.value_span.clone(), Show::Line) };
        let at = self.lines.place(span, show);
        self.node.put(path, Leaf { value: Value::String(value), at, text: true });
    }

    fn warn(&mut self, setting: &Setting, path: &str, message: &str) -> &mut Self {
        let place = self.lines.place(setting.span.clone(), Show::Key);
        self.problems.push(Problem::warning(place, path, message));
        self
    }

    /// Adds what to do to the last warning.
    fn help_last(&mut self, instead: &str) {
        if let Some(problem) = self.problems.last_mut() {
            problem.suggestion = Some(instead.to_owned());
        }
    }
}

/// Whether another value of the section refers to the key: then it is there for that.
fn refers(section: &Section, key: &str) -> bool {
    let reference = format!("%({key})s");
    section.settings.iter().filter_map(|s| s.value.as_ref()).any(|v| v.to_lowercase().contains(&reference))
}

/// `%(name)s` replaced where the name is known, doubled `%` made single. stoQ interpolated values of plugins twice, so
/// that its files hold `%%%%` for `%`; a single `%`, which it refused, stays.
fn percent(value: &str, known: impl Fn(&str) -> Option<String>) -> (String, bool) {
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    let mut doubled = false;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(inner) = rest.strip_prefix("%(")
            && let Some((name, tail)) = inner.split_once(")s")
            && let Some(value) = known(&name.to_lowercase())
        {
            out.push_str(&value);
            rest = tail;
            continue;
        }
        let run = rest.len() - rest.trim_start_matches('%').len();
        doubled |= run > 1;
        out.push_str(&"%".repeat(if run == 1 { 1 } else { run.div_ceil(4) }));
        rest = &rest[run..];
    }
    out.push_str(rest);
    (out, doubled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_signs() {
        let known = |name: &str| (name == "base").then(|| "/srv".to_owned());
        for (text, read, doubled) in [
            ("%Y/%m/%d", "%Y/%m/%d", false),
            ("%%%%Y/%%%%m", "%Y/%m", true),
            ("%%Y", "%Y", true),
            ("%(base)s/in", "/srv/in", false),
            ("%(BASE)s", "/srv", false),
            ("%(nothing)s", "%(nothing)s", false),
            ("100%", "100%", false),
        ] {
            assert_eq!(percent(text, known), (read.to_owned(), doubled), "{text}");
        }
    }
}
