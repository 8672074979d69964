//! `stoq list`: the plugins there are.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use stoq_api::scanner::{OptionInfo, PluginInfo, PluginKind};
use stoq_runtime::escape::visible;

use crate::cli::ListArgs;
use crate::exit::{Exit, UsageError};
use crate::wiring::app::infos;

/// Folders within a plugin folder that are looked into.
const MAX_NESTING: usize = 8;

/// A plugin with all roles that it can take.
struct Listed {
    description: &'static str,
    kinds: Vec<PluginKind>,
    options: Vec<OptionInfo>,
}

pub(crate) fn run(args: &ListArgs, out: &mut dyn Write) -> Result<Exit> {
    let all = merged(infos());
    if let Some(unknown) = args.names.iter().find(|name| !all.contains_key(name.as_str())) {
        let known = all.keys().copied().collect::<Vec<_>>().join(", ");
        return Err(UsageError(format!("no plugin is called {unknown:?}; there are {known}")).into());
    }
    let version = env!("CARGO_PKG_VERSION");
    let title = format!("stoQ :: v{version} :: an automated analysis framework");
    writeln!(out, "{title}\n{}", "-".repeat(title.len()))?;
    for (name, plugin) in all {
        if !args.names.is_empty() && !args.names.iter().any(|wanted| wanted == name) {
            continue;
        }
        writeln!(out, "{name:20} v{version:10}{}", plugin.description)?;
        let kinds: Vec<&str> = plugin.kinds.iter().map(|kind| kind.name()).collect();
        writeln!(out, "\t\t\t\t- {:20}", kinds.join(", "))?;
        if args.options {
            for option in &plugin.options {
                let default = if option.default.is_empty() { "not set" } else { option.default };
                writeln!(out, "\t\t\t\t  {} = {default}: {}", option.name, option.help)?;
            }
        }
    }
    for folder in &args.plugin_dir {
        for name in python_plugins(folder) {
            writeln!(
                out,
                "{:20} Python plugin in {}; not run by this version",
                visible(&name),
                visible(&folder.to_string_lossy())
            )?;
        }
    }
    Ok(Exit::Clean)
}

fn merged(infos: Vec<PluginInfo>) -> BTreeMap<&'static str, Listed> {
    let mut all: BTreeMap<&'static str, Listed> = BTreeMap::new();
    for info in infos {
        let listed = all.entry(info.name).or_insert_with(|| Listed {
            description: info.description,
            kinds: Vec::new(),
            options: Vec::new(),
        });
        listed.kinds.extend(info.kinds);
        listed.kinds.sort_unstable();
        listed.kinds.dedup();
        for option in info.options {
            if !listed.options.iter().any(|known| known.name == option.name) {
                listed.options.push(*option);
            }
        }
    }
    all
}

/// Names of stoQ's Python plugins below `folder`: those of its `.stoq` files.
pub(crate) fn python_plugins(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut folders: Vec<(PathBuf, usize)> = vec![(folder.to_path_buf(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) && depth < MAX_NESTING {
                folders.push((path, depth + 1));
            } else if path.extension().is_some_and(|extension| extension == "stoq") {
                names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
            }
        }
    }
    names.sort();
    names
}
