//! From sources to settings.

use std::borrow::Cow;
use std::env;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use stoq_api::scanner::{PluginInfo, PluginKind};

use super::check::check;
use super::flags::Flag;
use super::registry::Registry;
use super::responses::{ResponseWhen, WHEN};
use super::routes::RouteRule;
use super::schema::{Key, ROOT, Shape};
use super::settings::{Options, Settings};
use super::tree::{Entry, Node, Origins, join, merge};
use super::{env as variables, stoq_cfg, tenants, toml};
use crate::fail::{Place, Problem, Severity, nearest, one_of};

/// Bytes of a configuration file. Larger ones are data given by mistake.
const MAX_FILE: u64 = 4 << 20;

/// Where the configuration comes from, weakest first: built-in texts and files in the order in which they were named, then
/// the environment, then flags.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: Vec<Text>,
    variables: Vec<(String, String)>,
    flags: Vec<Flag>,
}

#[derive(Clone, Debug)]
enum Text {
    /// A file to read.
    File(PathBuf),
    /// A text that is part of the program, with the name to show.
    Shipped(&'static str, Cow<'static, str>),
}

impl Sources {
    /// Nothing but the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// A text that is part of the program, called `name` in messages, which also says how it is written: see
    /// [`Sources::file`].
    #[must_use]
    pub fn shipped(mut self, name: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        self.files.push(Text::Shipped(name, text.into()));
        self
    }

    /// A file: TOML, or stoQ's dialect where its name ends in `.cfg`, `.ini` or `.conf`.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.files.push(Text::File(path.into()));
        self
    }

    /// The variables of this process.
    #[must_use]
    pub fn environment(self) -> Self {
        // A name or value that is not UTF-8 keeps its readable part: a broken value is then refused with its name.
        self.variables(
            env::vars_os().map(|(k, v)| (k.to_string_lossy().into_owned(), v.to_string_lossy().into_owned())),
        )
    }

    /// Some variables; those that do not begin with `STOQ__` are nobody's business here.
    #[must_use]
    pub fn variables(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.variables.extend(variables.into_iter().filter(|(name, _)| name.starts_with(variables::PREFIX)));
        self.variables.sort();
        self
    }

    /// Values of the command line; a later one for the same key wins.
    #[must_use]
    pub fn flags(mut self, flags: impl IntoIterator<Item = Flag>) -> Self {
        self.flags.extend(flags);
        self
    }
}

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The values.
    pub settings: Settings,
    /// Where each comes from.
    pub origins: Origins,
    /// What was understood but should be said.
    pub warnings: Vec<Problem>,
}

/// Reads, checks and merges all `sources`. `registry` lists every plugin of every kind that this program has.
///
/// # Errors
/// All mistakes of all sources at once, warnings too.
pub fn load(sources: &Sources, registry: &[PluginInfo]) -> Result<Loaded, Vec<Problem>> {
    let registry = Registry(registry);
    let mut problems = Vec::new();
    let mut layers = vec![defaults(registry, &mut problems)];
    for text in &sources.files {
        layers.extend(file_layer(text, registry, &mut problems));
    }
    for node in variables::read(&sources.variables, registry, &layers, &mut problems) {
        layers.push(check(node, registry, None, &mut problems));
    }
    for flag in &sources.flags {
        layers.push(check(flag.clone().into_node(), registry, None, &mut problems));
    }
    let (value, origins) = merge(layers).map_err(|e| vec![inner(&e.to_string())])?;
    let mut settings: Settings = match serde_json::from_value(value) {
        Ok(settings) => settings,
        // What was wrong was left out, so that something may be missing now.
        Err(_) if problems.iter().any(|p| p.severity == Severity::Error) => return Err(problems),
        Err(error) => return Err(vec![inner(&error.to_string())]),
    };
    settings.by_role = registry.by_role();
    let mut more = Vec::new();
    whole(&settings, &origins, registry, &mut more);
    // What follows from a mistake that is told already is not told again.
    let told = |p: &Problem| problems.iter().any(|t| t.severity == Severity::Error && related(&t.path, &p.path));
    more.retain(|p| !told(p));
    problems.extend(more);
    if problems.iter().any(|p| p.severity == Severity::Error) {
        return Err(problems);
    }
    Ok(Loaded { settings, origins, warnings: problems })
}

/// Whether one path is the other or lies within it.
fn related(a: &str, b: &str) -> bool {
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    !short.is_empty() && long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Checked layers always merge into settings; if not, say so instead of starting with something else.
fn inner(text: &str) -> Problem {
    Problem::error(Place::default(), "", format!("the checked configuration cannot be put together: {text}"))
        .help("this is a mistake in stoq: please report it with your configuration")
}

fn file_layer(text: &Text, registry: Registry<'_>, problems: &mut Vec<Problem>) -> Option<Node> {
    let (name, content, base) = match text {
        Text::Shipped(name, content) => ((*name).to_owned(), content.clone(), None),
        Text::File(path) => {
            let name = path.to_string_lossy().into_owned();
            match read(path) {
                Ok(content) => (name, Cow::Owned(content), Some(folder(path))),
                Err(problem) => {
                    problems.push(Problem::error(Place::file(&name), "", problem));
                    return None;
                }
            }
        }
    };
    let base = base.as_deref();
    let stoq_cfg = Path::new(&name).extension().is_some_and(|e| e == "cfg" || e == "ini" || e == "conf");
    if stoq_cfg {
        return Some(stoq_cfg::read(&name, &content, registry, base, problems));
    }
    let before = problems.len();
    let node = toml::read(&name, &content, problems);
    match node {
        Some(node) => Some(check(node, registry, base, problems)),
        None => {
            // An old file given under another name fails as TOML at its first comment or value.
            if let Some(problem) = problems[before..].first_mut()
                && content.lines().any(|line| line.trim() == "[core]" || line.trim() == "[Core]")
            {
                problem.suggestion = Some("a stoq.cfg must keep the ending .cfg to be read as one".to_owned());
            }
            None
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    let cannot = |e: std::io::Error| format!("the file cannot be read: {e}");
    let mut content = Vec::new();
    File::open(path).map_err(cannot)?.take(MAX_FILE + 1).read_to_end(&mut content).map_err(cannot)?;
    if content.len() as u64 > MAX_FILE {
        return Err(format!("the file has more than {} MiB: this is no configuration", MAX_FILE >> 20));
    }
    String::from_utf8(content).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        format!("the file is not UTF-8 at line {line}")
    })
}

/// The folder that relative paths of a file start at.
fn folder(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned())
}

/// The defaults of all keys and of all plugins' options.
fn defaults(registry: Registry<'_>, problems: &mut Vec<Problem>) -> Node {
    let mut root = default_keys(ROOT, problems);
    let plugins = registry.names(None).into_iter().map(|name| {
        let options = registry.options(name, None).into_iter().filter(|o| !o.default.is_empty());
        let entries = options.filter_map(|o| default_entry(&format!("plugins.{name}"), o.name, o.default, problems));
        (name, Node::Table(entries.collect()))
    });
    let plugins = plugins.map(|(key, node)| Entry { key: key.to_owned(), at: Place::default(), node }).collect();
    if let Node::Table(entries) = &mut root {
        entries.push(Entry { key: "plugins".to_owned(), at: Place::default(), node: Node::Table(plugins) });
    }
    check(root, registry, None, problems)
}

fn default_keys(keys: &'static [Key], problems: &mut Vec<Problem>) -> Node {
    let mut entries = Vec::new();
    for key in keys {
        match &key.shape {
            Shape::Table(inner) => entries.push(Entry {
                key: key.name.to_owned(),
                at: Place::default(),
                node: default_keys(inner, problems),
            }),
            _ if key.default.is_empty() => {}
            _ => entries.extend(default_entry("", key.name, key.default, problems)),
        }
    }
    Node::Table(entries)
}

/// A default written as in a file.
fn default_entry(path: &str, name: &str, text: &str, problems: &mut Vec<Problem>) -> Option<Entry> {
    let mut found = Vec::new();
    let node = toml::read("default", &format!("{name} = {text}"), &mut found);
    let entry = match node {
        Some(Node::Table(entries)) if found.is_empty() => entries.into_iter().next(),
        _ => None,
    };
    if entry.is_none() {
        let message = format!("the built-in default `{text}` is not TOML");
        problems.push(Problem::error(Place::default(), join(path, name), message));
    }
    entry.map(|entry| Entry { key: name.to_owned(), at: Place::default(), node: unplaced(entry.node) })
}

fn unplaced(node: Node) -> Node {
    match node {
        Node::Leaf(mut leaf) => {
            leaf.at = Place::default();
            Node::Leaf(leaf)
        }
        Node::Table(entries) => Node::Table(
            entries.into_iter().map(|e| Entry { at: Place::default(), node: unplaced(e.node), ..e }).collect(),
        ),
    }
}

/// What can be judged only when all layers are there.
fn whole(settings: &Settings, origins: &Origins, registry: Registry<'_>, problems: &mut Vec<Problem>) {
    for (section, role) in [
        ("providers", PluginKind::Provider),
        ("connectors", PluginKind::Connector),
        ("archivers", PluginKind::Archiver),
        ("decorators", PluginKind::Decorator),
        ("queues", PluginKind::Queue),
        ("ledgers", PluginKind::Ledger),
        ("stores", PluginKind::Store),
    ] {
        for (name, kinds) in settings.configured(role).into_iter().flatten() {
            let path = join(section, name);
            let kinds: Vec<&str> = kinds.keys().map(String::as_str).collect();
            problems.extend(one_kind(name, &kinds, registry.names(Some(role)), origins.place(&path), path));
        }
    }
    for (path, names, role) in [
        ("run.providers", settings.run.providers.as_deref(), PluginKind::Provider),
        ("run.connectors", settings.run.connectors.as_deref(), PluginKind::Connector),
        ("run.decorators", Some(settings.run.decorators.as_slice()), PluginKind::Decorator),
        ("archive.destinations", Some(settings.archive.destinations.as_slice()), PluginKind::Archiver),
        ("archive.sources", Some(settings.archive.sources.as_slice()), PluginKind::Archiver),
        ("fleet.queue", Some(settings.fleet.queue.as_slice()), PluginKind::Queue),
        ("fleet.ledger", Some(settings.fleet.ledger.as_slice()), PluginKind::Ledger),
        ("fleet.store", Some(settings.fleet.store.as_slice()), PluginKind::Store),
    ] {
        for name in names.into_iter().flatten() {
            active(settings, origins, registry, path, name, role, problems);
        }
    }
    for (name, rule) in &settings.routes.rules {
        fits(name, rule, origins, problems);
    }
    tenants::check(settings, origins, problems);
    for (name, kinds) in &settings.connectors {
        for (kind, options) in kinds {
            conditions(&join(&join("connectors", name), kind), options, origins, problems);
        }
    }
    for (key, limit) in [("scan.plugin_wall", settings.scan.plugin_wall), ("scan.plugin_cpu", settings.scan.plugin_cpu)]
    {
        if limit.is_zero() {
            problems.push(Problem::error(origins.place(key), key, "no plugin can answer in no time"));
        }
    }
}

/// The conditions of a connector can hold, and not for everything.
fn conditions(path: &str, options: &Options, origins: &Origins, problems: &mut Vec<Problem>) {
    let path = join(path, WHEN);
    let Some(when) = options.0.get(WHEN) else { return };
    let Ok(when) = serde_json::from_value::<ResponseWhen>(when.clone()) else { return };
    for (inner, message) in when.problems() {
        problems.push(Problem::error(origins.place(&path), format!("{path}{inner}"), message));
    }
}

/// A component has one kind.
fn one_kind(name: &str, kinds: &[&str], known: Vec<&str>, place: Place, path: String) -> Option<Problem> {
    match kinds {
        [_] => None,
        [] => {
            let problem = Problem::error(place, path, format!("`{name}` has no kind"));
            Some(problem.help(format!("there is {}", one_of(known))))
        }
        several => {
            let kinds = one_of(several.iter().copied());
            let problem = Problem::error(place, path, format!("`{name}` has several kinds: is it {kinds}?"));
            Some(problem.help("give each kind a name of its own"))
        }
    }
}

/// A rule can fit something, and not everything.
fn fits(name: &str, rule: &RouteRule, origins: &Origins, problems: &mut Vec<Problem>) {
    let path = join("routes.rules", name);
    let place = origins.place(&path);
    if rule.when.is_empty() && !rule.run.is_empty() {
        let problem = Problem::error(place.clone(), &path, format!("the rule `{name}` has no condition"));
        problems.push(problem.help("workers for every payload belong into routes.always"));
    }
    if let Some(test) = rule.when.result.iter().find(|t| t.equals.is_some() && !t.matches.is_empty()) {
        let path = format!("{path}.when.result");
        let message = format!("the test of {} has both `equals` and `matches`", test.path);
        problems.push(Problem::error(origins.place(&path), path, message).help("write two tests: both must hold"));
    }
    if let (Some(min), Some(max)) = (rule.when.size_min, rule.when.size_max)
        && min > max
    {
        let message = format!("the rule `{name}` never fits: size_min {min} is more than size_max {max}");
        problems.push(Problem::error(place, path, message));
    }
}

fn active(
    settings: &Settings,
    origins: &Origins,
    registry: Registry<'_>,
    path: &str,
    name: &str,
    role: PluginKind,
    problems: &mut Vec<Problem>,
) {
    let configured = settings.configured(role);
    if configured.is_some_and(|all| all.contains_key(name)) || registry.has(name, Some(role)) {
        return;
    }
    let role_name = role.name().to_ascii_lowercase();
    let place = origins.place(path);
    let known: Vec<&str> =
        configured.into_iter().flatten().map(|(name, _)| name.as_str()).chain(registry.names(Some(role))).collect();
    let mut problem = Problem::error(place, path, format!("there is no {role_name} `{name}`"));
    if let Some(near) = nearest(name, known.iter().copied()) {
        problem = problem.help(format!("did you mean `{near}`?"));
    } else if !known.is_empty() {
        problem = problem.help(format!("there is {}", one_of(known)));
    }
    problems.push(problem);
}
