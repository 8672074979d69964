//! Bodies of the fuzz targets of this crate under `fuzz/`, so that ordinary tests replay what fuzzing found.

use stoq_api::scanner::{OptionInfo, OptionKind, PluginInfo, PluginKind};

use crate::config::{Loaded, Origins, Sources, effective, load};
use crate::escape::acts;
use crate::fail::render;

/// A target: takes whatever the fuzzer made.
type Target = fn(&[u8]);

/// Every target by the name of its file.
pub const TARGETS: [(&str, Target); 2] = [("config_stoq_cfg", config_stoq_cfg), ("config_toml", config_toml)];

/// Our own configuration.
///
/// # Panics
/// As for the other one.
pub fn config_toml(data: &[u8]) {
    configuration("stoq.toml", data);
}

/// stoQ's configuration.
///
/// # Panics
/// A text is refused without a reason, a message may act on a terminal, or what is shown of a configuration means
/// something else than the configuration.
pub fn config_stoq_cfg(data: &[u8]) {
    configuration("stoq.cfg", data);
}

fn configuration(name: &'static str, data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let problems = match load(&Sources::new().shipped(name, text.to_owned()), REGISTRY) {
        Err(problems) => {
            assert!(!problems.is_empty());
            problems
        }
        Ok(Loaded { settings, origins, warnings }) => {
            assert!(!effective(&settings, &origins).contains(|c| acts(c) && c != '\n'));
            let shown = effective(&settings, &Origins::default());
            match load(&Sources::new().shipped("shown.toml", shown.clone()), REGISTRY) {
                Ok(again) => assert_eq!(effective(&again.settings, &Origins::default()), shown),
                Err(problems) => panic!("{}", render(&problems)),
            }
            warnings
        }
    };
    assert!(!render(&problems).contains(|c| acts(c) && c != '\n'));
}

const fn option(name: &'static str, kind: OptionKind, default: &'static str) -> OptionInfo {
    OptionInfo { name, kind, default, help: "help" }
}

pub(crate) const fn plugin(
    name: &'static str,
    kinds: &'static [PluginKind],
    options: &'static [OptionInfo],
) -> PluginInfo {
    PluginInfo { name, description: "", kinds, options, required_workers: &[] }
}

/// Plugins of every kind, with options of every type; for tests too.
pub(crate) const REGISTRY: &[PluginInfo] = &[
    plugin("hash", &[PluginKind::Worker], &[]),
    plugin("mimetype", &[PluginKind::Worker], &[]),
    plugin("yara", &[PluginKind::Worker, PluginKind::Dispatcher], YARA),
    plugin("decompress", &[PluginKind::Worker], &[option("passwords", OptionKind::List, "[\"infected\"]")]),
    plugin("my-worker", &[PluginKind::Worker], &[option("Depth", OptionKind::Int, "3")]),
    plugin("dirmon", &[PluginKind::Provider], &[option("source_dir", OptionKind::Text, "")]),
    plugin("filedir", &[PluginKind::Provider, PluginKind::Archiver], &[option("recursive", OptionKind::Bool, "false")]),
    plugin("filedir", &[PluginKind::Connector], &[option("results_dir", OptionKind::Text, "\"results\"")]),
    plugin(
        "elasticsearch",
        &[PluginKind::Connector],
        &[
            option("es_host", OptionKind::Text, "\"http://localhost:9200\""),
            option("es_options", OptionKind::Json, ""),
            option("api_key", OptionKind::Text, ""),
        ],
    ),
];

/// Options of a worker.
pub(crate) const YARA: &[OptionInfo] = &[
    option("timeout", OptionKind::Duration, "\"60 s\""),
    option("worker_rules", OptionKind::Files, "[\"rules\"]"),
    option("max_size", OptionKind::Size, ""),
    option("xor_first_match", OptionKind::Bool, "true"),
];
