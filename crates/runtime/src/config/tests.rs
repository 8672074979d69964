//! Tests of the configuration as a whole: what is taken, and how each kind of mistake is told.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde_json::json;
use stoq_api::budget::Budgets;
use stoq_api::scanner::PluginKind;

use super::flags::Flag;
use super::routes::When;
use super::*;
use crate::fail::{Problem, Severity};
use crate::fuzzing::{REGISTRY, YARA, plugin};
use crate::units::{ByteSize, Duration};

fn text(content: &'static str) -> Sources {
    Sources::new().shipped("stoq.toml", content)
}

fn loaded(sources: &Sources) -> Loaded {
    load(sources, REGISTRY).unwrap_or_else(|problems| panic!("{}", crate::fail::render(&problems)))
}

fn refused(sources: &Sources) -> Vec<Problem> {
    load(sources, REGISTRY).expect_err("the configuration is wrong")
}

/// One mistake in `content`: its line and column, its path, and what the message and the help hold.
fn check(content: &'static str, place: &str, path: &str, message: &str, help: &str) {
    let problems = refused(&text(content));
    let shown = crate::fail::render(&problems);
    assert_eq!(problems.len(), 1, "{content}\n{shown}");
    let problem = &problems[0];
    assert_eq!(problem.place.to_string(), format!("stoq.toml:{place}"), "{content}\n{shown}");
    assert_eq!(problem.path, path, "{shown}");
    assert!(problem.message.contains(message), "{content}\n{shown}");
    assert!(problem.suggestion.as_deref().unwrap_or("").contains(help), "{content}\n{shown}");
    assert!(help.is_empty() == problem.suggestion.is_none(), "{content}\n{shown}");
}

#[test]
fn defaults_are_complete() {
    let settings = loaded(&Sources::new()).settings;
    assert_eq!(settings.budgets(), Budgets::default());
    assert_eq!(settings.scan.jail, JailMode::Require);
    assert_eq!(settings.scan.max_payload.get(), 256 << 20);
    assert_eq!(settings.core.grace, Duration::seconds(30));
    assert_eq!(settings.plugins["yara"].0["timeout"], 60);
    assert!(!settings.plugins["yara"].0.contains_key("max_size"));
    assert_eq!(settings.spool_dir(), Path::new("stoq-data/spool"));
}

#[test]
fn mistakes_have_a_place_and_a_remedy() {
    check("[scan]\nslotz = 4\n", "2:1", "scan.slotz", "unknown key `slotz`", "`slots`");
    check("[scna]\nslots = 4\n", "1:2", "scna", "unknown key `scna`", "`scan`");
    check("slots = 4\n", "1:1", "slots", "unknown key `slots`", "[scan]");
    check("[scan]\nmax_depth = 4\n", "2:1", "scan.max_depth", "unknown key", "`max_depth` belongs into [budgets]");
    check("[core.log]\nlevle = \"info\"\n", "2:1", "core.log.levle", "unknown key", "`level`");
    check("core = { log = { levle = 1 } }\n", "1:18", "core.log.levle", "unknown key", "`level`");
    check("core.log.levle = 1\n", "1:10", "core.log.levle", "unknown key", "`level`");
    check("[core.log]\nlevel = \"loud\"\n", "2:9", "core.log.level", "expected `trace`, `debug`", "");
    check("[core]\nlog = \"info\"\n", "2:7", "core.log", "expected a table, found the text \"info\"", "");
    check("[scan]\nslots = \"4\"\n", "2:9", "scan.slots", "found the text \"4\"", "write 4 without quotes");
    check("[scan]\nslots = -1\n", "2:9", "scan.slots", "from 0 to 1024, found -1", "");
    check("[scan]\n[scan.slots]\na = 1\n", "3:1", "scan.slots", "expected a value, found a table", "");
    check("[scan]\nmemory = \"1 G\"\n", "2:10", "scan.memory", "write GB", "");
    check("[scan]\nmemory = [1]\n", "2:10", "scan.memory", "expected a size", "");
    check("[scan]\nplugin_wall = \"5 parsecs\"\n", "2:15", "scan.plugin_wall", "unknown unit of time", "");
    check("[scan]\nplugin_wall = 0\n", "2:15", "scan.plugin_wall", "no time", "");
    check("[scan]\nplugin_wall = nan\n", "2:15", "", "`nan` and `inf`", "");
    check("[scan]\nslots = 1\nslots = 2\n", "3:1", "", "this is not TOML", "");
    check("[scan\n", "1:6", "", "this is not TOML", "");
    check("[routes]\nalways = [\"hsah\"]\n", "2:10", "routes.always", "did you mean `hash`?", "");
    check(
        "[routes]\nalways = [\"hash\", \"zz\", \"yarra\"]\n",
        "2:10",
        "routes.always",
        "called `zz`, `yarra`; did you mean `yara`?",
        "",
    );
    check("[routes]\ndispatchers = [\"hash\"]\n", "2:15", "routes.dispatchers", "no dispatcher is called `hash`", "");
    check("[routes]\nalways = \"hash, yara\"\n", "2:10", "routes.always", "[\"one\", \"two\"]", "");
    check("[plugins.yarra]\n", "1:10", "plugins.yarra", "unknown plugin `yarra`", "`yara`");
    check("[plugins.yara]\ntime_out = 5\n", "2:1", "plugins.yara.time_out", "unknown option of yara", "`timeout`");
    check("[plugins.yara]\nzebra = 5\n", "2:1", "plugins.yara.zebra", "unknown option of yara", "there is `timeout`");
    check(
        "[plugins.yara]\nxor_first_match = \"true\"\n",
        "2:19",
        "plugins.yara.xor_first_match",
        "expected true",
        "quotes",
    );
    check("[plugins.yara]\nrequired_workers = [\"mime\"]\n", "2:20", "plugins.yara.required_workers", "`mimetype`", "");
    check("[plugins]\nyara = 5\n", "2:8", "plugins.yara", "expected a table of options", "");
    check("[plugins.my-worker]\nDept = 1\n", "2:1", "plugins.my-worker.Dept", "unknown option", "`Depth`");
}

#[test]
fn mistakes_in_tenants() {
    let long = "there is no tenant";
    check("[tenants.Acme]\n", "1:10", "tenants.Acme", "cannot be a tenant's name", "at most 32 letters a to z");
    check("[tenants.a_b]\n", "1:10", "tenants.a_b", "cannot be", "hyphens");
    check("[tenants.-a]\n", "1:10", "tenants.-a", "cannot be", "no hyphen in front");
    check("[tenants.acme]\nweight = 0\n", "2:10", "tenants.acme.weight", "from 1 to 1000, found 0", "");
    check("[tenants.acme]\nwieght = 2\n", "2:1", "tenants.acme.wieght", "unknown key", "`weight`");
    let source = "[tenants.acme]\n[providers.p.dirmon]\ntenant = \"acne\"\n";
    check(source, "3:10", "providers.p.dirmon.tenant", long, "did you mean `acme`?");
    let plugin = "[plugins.dirmon]\ntenant = \"zebra\"\n";
    check(plugin, "2:10", "plugins.dirmon.tenant", long, "there is `default`; add [tenants.zebra] for it");
    check("[run]\ntenants = [\"acme\"]\n", "2:11", "run.tenants", long, "add [tenants.acme]");
    check("[run]\ntenants = []\n", "2:11", "run.tenants", "would take no tasks", "leave it out");
    check(
        "[archivers.a.filedir]\ntenant = \"acme\"\n",
        "2:1",
        "archivers.a.filedir.tenant",
        "unknown option of filedir",
        "recursive",
    );
}

#[test]
fn providers_say_whose_payloads_they_take() {
    let settings = loaded(&text(
        "[tenants.acme]\nweight = 3\n[tenants.default]\n[run]\ntenants = [\"acme\", \"default\"]\n\
         [plugins.dirmon]\ntenant = \"acme\"\n\
         [providers.theirs.dirmon]\n[providers.ours.dirmon]\ntenant = \"default\"\n[providers.plain.filedir]\n",
    ))
    .settings;
    let tenants = ["theirs", "dirmon", "ours", "plain"].map(|name| settings.tenant_of(name));
    assert_eq!(tenants, [Some("acme"), Some("acme"), None, None]);
    assert_eq!((settings.tenants["acme"].weight, settings.tenants["default"].weight), (3, 1));
    let component = settings.component(PluginKind::Provider, "ours").unwrap();
    assert!(component.options.0.is_empty(), "{:?}: a provider is not told whose payloads it takes", component.options);
}

#[test]
fn mistakes_in_rules() {
    let path = "routes.rules.r";
    check("[routes.rules.r]\nrun = [\"hash\"]\n", "1:15", path, "no condition", "routes.always");
    check(
        "[routes.rules.r]\nwhen = { size_min = 5, size_max = 4 }\nrun = [\"hash\"]\n",
        "1:15",
        path,
        "size_min 5 B is more than size_max 4 B",
        "",
    );
    check(
        "[routes.rules.r]\nwhen = { mimtype = \"a\" }\n",
        "2:10",
        "routes.rules.r.when.mimtype",
        "unknown key",
        "`mimetype`",
    );
    check(
        "[routes.rules.r]\nwhen = { mimetype = \"a[\" }\n",
        "2:21",
        "routes.rules.r.when.mimetype",
        "expected a pattern",
        "",
    );
    check(
        "[routes.rules.r.when]\nresult = { path = \"yara\", eqals = 1 }\n",
        "2:27",
        "routes.rules.r.when.result.eqals",
        "unknown key",
        "`equals`",
    );
    check(
        "[routes.rules.r.when]\nresult = [{ path = \"yara..x\" }]\n",
        "2:10",
        "routes.rules.r.when.result[0].path",
        "expected a worker and members",
        "",
    );
    check(
        "[routes.rules.r.when]\nresult = { path = \"yarra.x\" }\n",
        "2:19",
        "routes.rules.r.when.result.path",
        "`yara`",
        "",
    );
    check(
        "[routes.rules.r.when]\nresult = { equals = 1 }\n",
        "2:12",
        "routes.rules.r.when.result",
        "`path` is missing",
        "",
    );
    check("[routes.rules]\nr = 5\n", "2:5", path, "expected a table", "");
}

#[test]
fn mistakes_in_components() {
    check(
        "[providers.drop.dirmom]\nsource_dir = \"x\"\n",
        "1:17",
        "providers.drop.dirmom",
        "unknown kind of provider",
        "`dirmon`",
    );
    check(
        "[providers.drop]\nsource_dir = \"x\"\n",
        "2:1",
        "providers.drop.source_dir",
        "unknown kind of provider",
        "`dirmon` or `filedir`",
    );
    check("[providers.drop]\n", "1:12", "providers.drop", "`drop` has no kind", "`dirmon` or `filedir`");
    check("[providers]\ndrop = 1\n", "2:8", "providers.drop", "[providers.drop.<kind>]", "");
    check("[providers.a.dirmon]\n[providers.a.filedir]\n", "1:12", "providers.a", "several kinds", "a name of its own");
    check(
        "[connectors.es.elasticsearch]\nes_hots = 1\n",
        "2:1",
        "connectors.es.elasticsearch.es_hots",
        "unknown option",
        "`es_host`",
    );
    check("[run]\nconnectors = [\"elastic\"]\n", "2:14", "run.connectors", "no connector `elastic`", "`elasticsearch`");
    check(
        "[archive]\ndestinations = [\"dirmon\"]\n",
        "2:16",
        "archive.destinations",
        "no archiver `dirmon`",
        "there is `filedir`",
    );
}

#[test]
fn all_mistakes_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.toml");
    fs::write(&path, "[scan]\nslotz = 1\njail = 5\n[nothing]\n").unwrap();
    let sources = Sources::new()
        .file(&path)
        .file(folder.path().join("missing.toml"))
        .variables([("STOQ__SCAN__SLOTZ".to_owned(), "1".to_owned())])
        .flags([Flag::plugin_option("yara:tiemout=5").unwrap()]);
    let shown = crate::fail::render(&refused(&sources));
    for part in [
        "a.toml:2:1",
        "a.toml:3:8",
        "a.toml:4:2",
        "missing.toml",
        "cannot be read",
        "STOQ__SCAN__SLOTZ",
        "--plugin-opts yara:tiemout",
    ] {
        assert!(shown.contains(part), "{part} in\n{shown}");
    }
    assert!(shown.ends_with("6 errors\n"), "{shown}");
}

#[test]
fn files_that_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.toml");
    for (content, says) in [
        (b"[scan]\nslots = \"\xff\"\n".to_vec(), "not UTF-8 at line 2"),
        (vec![b'#'; (4 << 20) + 1], "no configuration"),
        (b"[core]\nlog_level: INFO\n".to_vec(), "ending .cfg"),
    ] {
        fs::write(&path, content).unwrap();
        let shown = crate::fail::render(&refused(&Sources::new().file(&path)));
        assert!(shown.contains(says), "{shown}");
    }
}

#[test]
fn secrets_stay_out_of_messages() {
    for content in [
        "[connectors.es.elasticsearch]\napi_kay = \"hunter2\"\napi_key = [\"hunter2\"]\n",
        "[plugins.elasticsearch]\napi_key = \"hunter2\n",
        "[plugins.decompress]\npasswords = [\n\"infected\",\n\"hunter2\" \"x\",\n]\n",
        "[plugins]\nelasticsearch = { api_key = \"hunter2\", es_hots = 1 }\n",
        "[plugins]\nelasticsearch = { es_host = 5, api_key = \"hunter2\" }\n",
        "[plugins.yara]\ntimeout = \"amqp://user:hunter2@host\"\n",
        "[plugins.yara]\ntimeout = \"amqp://user:hunter2@host\n",
    ] {
        let shown = crate::fail::render(&refused(&text(content)));
        assert!(!shown.contains("hunter2"), "{content}\n{shown}");
    }
    let settings = loaded(&text("[plugins.elasticsearch]\napi_key = \"hunter2\"\n"));
    assert!(!format!("{settings:?}").contains("hunter2"), "{settings:?}");
    let flag = Flag::plugin_option("elasticsearch:api_key=hunter2").unwrap();
    assert!(!format!("{flag:?}").contains("hunter2"));
    let shown =
        crate::fail::render(&refused(&Sources::new().flags([Flag::new("core.log.level", "a://b:hunter2@c", "--x")])));
    assert!(!shown.contains("hunter2"), "{shown}");
}

proptest! {
    #[test]
    fn no_file_panics(content in "(\\[(core|scan|plugins\\.yara)\\]\n)?([a-z_.]{0,8} ?[=:] ?[\"'\\[{]?\\PC{0,12}[\"'\\]}]?\r?\n){0,6}\\PC{0,20}") {
        let mut problems = Vec::new();
        if let Some(node) = toml::read("a.toml", &content, &mut problems) {
            check::check(node, registry::Registry(REGISTRY), None, &mut problems);
        }
        stoq_cfg::read("stoq.cfg", &content, registry::Registry(REGISTRY), None, &mut problems);
        let shown = crate::fail::render(&problems);
        prop_assert!(shown.lines().all(|line| !line.contains(crate::escape::acts)));
    }
}

#[test]
fn stronger_layers_win_value_by_value() {
    let sources = Sources::new()
        .shipped("shipped.toml", "[routes]\nalways = [\"hash\"]\n[routes.rules.a]\nwhen = { mimetype = \"x/y\" }\nrun = [\"hash\"]\n")
        .shipped("own.toml", "[scan]\nslots = 1\nmemory = \"2 GiB\"\n[routes.rules.a]\nrun = []\n[connectors.Main-ES.elasticsearch]\nes_host = \"a\"\n")
        .variables(
            [
                ("STOQ__SCAN__SLOTS", "2"),
                ("STOQ__PLUGINS__MY_WORKER__DEPTH", "7"),
                ("STOQ__CONNECTORS__MAIN_ES__ELASTICSEARCH__ES_HOST", "b"),
                ("STOQ__PLUGINS__DECOMPRESS__PASSWORDS", "one, two"),
                ("STOQ_HOME", "ignored"),
                ("PATH", "ignored"),
            ]
            .map(|(k, v)| (k.to_owned(), v.to_owned())),
        )
        .flags([Flag::new("scan.slots", "3", "--slots"), Flag::new("run.connectors", vec!["filedir"], "-C")]);
    let Loaded { settings, origins, .. } = loaded(&sources);
    assert_eq!((settings.scan.slots, settings.scan.memory.get()), (3, 2 << 30));
    assert_eq!(settings.plugins["my-worker"].0["Depth"], 7);
    assert_eq!(settings.connectors["Main-ES"]["elasticsearch"].0["es_host"], "b");
    assert_eq!(settings.plugins["decompress"].0["passwords"], json!(["one", "two"]));
    assert_eq!((settings.routes.rules["a"].when.mimetype.len(), settings.routes.rules["a"].run.len()), (1, 0));
    for (path, origin) in [
        ("scan.slots", "--slots"),
        ("scan.memory", "own.toml:3"),
        ("scan.jail", "default"),
        ("routes.always", "shipped.toml:2"),
        ("routes.rules.a.when.mimetype", "shipped.toml:4"),
        ("routes.rules.a.run", "own.toml:5"),
        ("plugins.my-worker.Depth", "STOQ__PLUGINS__MY_WORKER__DEPTH"),
        ("connectors.Main-ES.elasticsearch.es_host", "STOQ__CONNECTORS__MAIN_ES__ELASTICSEARCH__ES_HOST"),
        ("plugins.yara.timeout", "default"),
    ] {
        assert_eq!(origins.of(path).to_string(), origin, "{path}");
    }
    let active: Vec<_> = settings.active(PluginKind::Connector).into_iter().map(|c| (c.name, c.kind)).collect();
    assert_eq!(active, [("filedir".to_owned(), "filedir".to_owned())]);
}

#[test]
fn variables_that_set_nothing() {
    for (name, value, says) in [
        ("STOQ__SCAN__SLOTZ", "1", "STOQ__SCAN__SLOTS"),
        ("STOQ__SCAN", "1", "names no key"),
        ("STOQ__SCAN__", "1", "names no key"),
        ("STOQ__SCAN__SLOTS", "many", "expected a whole number"),
        ("STOQ__PLUGINS__YARRA__TIMEOUT", "1", "STOQ__PLUGINS__YARA"),
        ("STOQ__PLUGINS__YARA__TIEMOUT", "1", "STOQ__PLUGINS__YARA__TIMEOUT"),
        ("STOQ__CORE__LOG", "debug", "expected a table"),
        ("STOQ__PLUGINS__YARA__XOR_FIRST_MATCH", "maybe", "true or false"),
    ] {
        let shown = crate::fail::render(&refused(&Sources::new().variables([(name.to_owned(), value.to_owned())])));
        assert!(shown.contains(says) && shown.contains(name) && shown.ends_with("\n1 error\n"), "{name}\n{shown}");
    }
}

#[test]
fn components_inherit_their_kinds_options() {
    let settings = loaded(&text(
        "[plugins.elasticsearch]\nes_host = \"h\"\nes_options = { a = { b = 1 } }\n\
         [connectors.one.elasticsearch]\nes_options = { a = { c = 2 } }\n[connectors.two.filedir]\n\
         [archive]\ndestinations = [\"filedir\"]\n",
    ))
    .settings;
    let active = settings.active(PluginKind::Connector);
    assert_eq!(active.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(active[0].options.0["es_host"], "h");
    assert_eq!(active[0].options.0["es_options"], json!({ "a": { "c": 2 } }));
    // `filedir` is two plugins of one name; each gets its own options only.
    assert_eq!(json!(active[1].options), json!({ "results_dir": "results" }));
    let archiver = &settings.active(PluginKind::Archiver)[0];
    assert_eq!((archiver.kind.as_str(), json!(archiver.options)), ("filedir", json!({ "recursive": false })));
    assert!(settings.active(PluginKind::Provider).is_empty());
}

#[test]
fn rules_are_typed() {
    let settings = loaded(&text(
        "[routes.rules.mail]\nwhen = { mimetype = [\"message/*\"], size_max = \"1 MiB\", root = true, result = { path = \"yara.matches[].rule\", matches = \"eml_*\" } }\nrun = [\"hash\"]\n",
    ))
    .settings;
    let When { mimetype, size_max, root, result, .. } = &settings.routes.rules["mail"].when;
    assert_eq!(
        (mimetype.as_slice(), size_max.map(ByteSize::get), *root),
        (&["message/*".to_owned()][..], Some(1 << 20), Some(true))
    );
    assert_eq!((result[0].path.worker(), result[0].matches.as_slice()), ("yara", &["eml_*".to_owned()][..]));
}

#[test]
fn stoq_cfg() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stoq.cfg");
    fs::write(&path, include_str!("testdata/stoq.cfg")).unwrap();
    let Loaded { settings, origins, warnings } = loaded(&Sources::new().file(&path));
    assert_eq!(settings.core.log.level, LogLevel::Debug);
    assert_eq!(settings.core.log.file.as_deref(), Some(Path::new("/srv/logs/stoq.log")));
    assert_eq!(settings.budgets.max_depth, 4);
    assert_eq!(settings.routes.always, ["hash", "mimetype"]);
    assert_eq!(settings.run.connectors.as_deref(), Some(&["filedir".to_owned()][..]));
    assert_eq!(settings.plugins["yara"].0["timeout"], 90);
    assert_eq!(settings.plugins["yara"].0["xor_first_match"], false);
    assert_eq!(settings.plugins["yara"].0["worker_rules"], json!([folder.path().join("rules/stoq.yar")]));
    assert_eq!(settings.plugins["filedir"].0["results_dir"], "/srv/%Y/%m");
    assert_eq!(settings.required_workers("decompress"), ["mimetype"]);
    assert_eq!(origins.of("budgets.max_depth").to_string(), format!("{}:7", path.display()));

    let said: Vec<_> = warnings.iter().map(|w| (w.path.as_str(), w.suggestion.as_deref().unwrap_or(""))).collect();
    assert!(warnings.iter().all(|w| w.severity == Severity::Warning));
    let expected = [
        ("core.max_queue", "providers hold back by themselves: nothing to set"),
        ("core.alway_dispatch", "did you mean `always_dispatch`?"),
        ("plugins.yara.time_out", "did you mean `timeout`?"),
        ("plugins.yara.max_size", ""),
        ("plugins.filedir.results_dir", "a `%` needs no doubling here"),
        ("decompres", "did you mean [decompress]?"),
    ];
    assert_eq!(said, expected);
}

#[test]
fn wrong_values_in_stoq_cfg_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stoq.cfg");
    for (content, says) in [
        ("[core]\nmax_recursion = many\n", "stoq.cfg:2:17 (budgets.max_depth)"),
        ("[core]\nalways_dispatch = hash, xyz\n", "no worker is called `xyz`"),
        ("[yara]\ntimeout = soon\n", "expected a duration"),
        ("always_dispatch = hash\n", "before any [section]"),
        ("[core]\nproviders = dirmom\n", "did you mean `dirmon`?"),
    ] {
        fs::write(&path, content).unwrap();
        let shown = crate::fail::render(&refused(&Sources::new().file(&path)));
        assert!(shown.contains(says), "{content}\n{shown}");
    }
}

#[test]
fn shown_settings() {
    let sources = Sources::new()
        .shipped("own.toml", include_str!("testdata/own.toml"))
        .variables([("STOQ__SCAN__SLOTS".to_owned(), "2".to_owned())])
        .flags([Flag::plugin_option("yara:timeout=1500 ms").unwrap()]);
    let Loaded { settings, origins, .. } = loaded(&sources);
    let shown = effective(&settings, &origins);
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/testdata/effective.toml");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&golden, &shown).unwrap();
    }
    assert_eq!(shown, fs::read_to_string(&golden).unwrap());
    assert!(!shown.contains("hunter2"));
}

#[test]
fn shown_settings_load_again() {
    let Loaded { settings, origins, .. } = loaded(&text("[scan]\nslots = 2\nplugin_cpu = \"1500 ms\"\n"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("again.toml");
    // The one secret default would come back as its mask.
    fs::write(&path, effective(&settings, &origins).replace(crate::secret::MASK, "infected")).unwrap();
    let again = loaded(&Sources::new().file(&path)).settings;
    assert_eq!((again.scan.slots, again.scan.plugin_cpu), (2, settings.scan.plugin_cpu));
    assert_eq!(again.budgets(), settings.budgets());
}

#[test]
fn the_reference_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("reference.toml");
    fs::write(&path, reference(REGISTRY)).unwrap();
    let with = loaded(&Sources::new().file(&path));
    let without = loaded(&Sources::new());
    // Paths of a file start at its folder; everything else is equal.
    let shown = |l: &Loaded| serde_json::to_string(&l.settings).unwrap();
    assert_eq!(shown(&with).replace(&format!("{}/", folder.path().display()), ""), shown(&without));
}

#[test]
fn the_shipped_configuration_loads() {
    let both = &[PluginKind::Worker, PluginKind::Dispatcher];
    let mut registry: Vec<_> = ["hash", "mimetype", "entropy", "decompress", "smtp", "pecarve", "exif"]
        .map(|name| plugin(name, &[PluginKind::Worker], &[]))
        .to_vec();
    registry.extend([plugin("yara", both, YARA), plugin("rules", &[PluginKind::Dispatcher], &[])]);
    let text = include_str!("../../../../config/local.toml");
    let own = "[routes.rules.facts]\nrun = []\n";
    let loaded = load(&Sources::new().shipped("local.toml", text).shipped("own.toml", own), &registry)
        .unwrap_or_else(|problems| panic!("{}", crate::fail::render(&problems)));
    assert_eq!(loaded.warnings, []);
    let rules = &loaded.settings.routes.rules;
    assert!(rules["facts"].run.is_empty() && !rules["facts"].when.is_empty());
    assert_eq!(rules["mails"].when.mimetype, ["message/rfc822"]);
}

#[test]
fn plugins_are_built_from_options_and_files() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules");
    fs::create_dir_all(rules.join("b")).unwrap();
    for (name, content) in [("z.yar", "z"), ("b/a.yar", "a"), (".hidden", "h")] {
        fs::write(rules.join(name), content).unwrap();
    }
    let path = folder.path().join("stoq.toml");
    fs::write(&path, "[plugins.yara]\nworker_rules = \"rules\"\nrequired_workers = [\"hash\"]\n").unwrap();
    let Loaded { settings, origins, .. } = loaded(&Sources::new().file(&path));
    let yara = &REGISTRY[2];
    let built = build(yara, &settings.plugins["yara"], &origins).unwrap();
    let files: Vec<_> = built.files_of("worker_rules").map(|f| f.content.as_slice()).collect();
    assert_eq!(files, [b"a", b"z"]);
    assert_eq!(built.options["timeout"], 60);
    assert!(!built.options.contains_key("required_workers"));

    fs::remove_dir_all(rules).unwrap();
    let problem = build(yara, &settings.plugins["yara"], &origins).unwrap_err();
    assert!(problem.message.contains("rules cannot be read"), "{problem}");
    assert_eq!(problem.place.to_string(), format!("{}:2:16", path.display()));
}
