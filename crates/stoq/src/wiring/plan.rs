//! The plan of a run: which plugins its slots hold, built from what.

use std::collections::{BTreeMap, BTreeSet};

use stoq_api::scanner::{OptionKind, PluginInfo};
use stoq_engine::{ExternalPlugin, Plan, PlannedPlugin};
use stoq_runtime::config::{Loaded, Settings, build};
use stoq_runtime::fail::Problem;

/// Plans a run whose workers in `external` run outside of slots.
///
/// # Errors
/// A file that a plugin needs cannot be read.
pub(crate) fn plan(loaded: &Loaded, external: &[&str]) -> Result<Plan, Vec<Problem>> {
    let settings = &loaded.settings;
    let named = named(settings);
    let mut problems = Vec::new();
    let mut plugins = Vec::new();
    for registration in stoq_scanners::registry() {
        let info = &registration.info;
        if external.contains(&info.name) || (is_costly(info) && !named.contains(info.name)) {
            continue;
        }
        let options = settings.plugins.get(info.name).cloned().unwrap_or_default();
        match build(info, &options, &loaded.origins) {
            Ok(build) => plugins.push(PlannedPlugin {
                name: info.name.to_owned(),
                build,
                required_workers: settings.required_workers(info.name).into_iter().collect(),
            }),
            Err(problem) => problems.push(*problem),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Plan {
        plugins,
        external: externals(settings, external),
        always: settings.routes.always.clone(),
        dispatchers: settings.routes.dispatchers.clone(),
        rules: settings.routes.rules.clone(),
        max_required_depth: settings.routes.max_required_depth,
        plugin_deadline_ms: deadline_ms(settings),
    })
}

fn externals(settings: &Settings, external: &[&str]) -> BTreeMap<String, ExternalPlugin> {
    external
        .iter()
        .map(|name| {
            let required_workers = settings.required_workers(name).into_iter().collect();
            ((*name).to_owned(), ExternalPlugin { required_workers })
        })
        .collect()
}

/// A plugin that reads files when it is built, rules for instance, is only built where a route names it: the others cost
/// next to nothing, and any plugin's answer may name them.
fn is_costly(info: &PluginInfo) -> bool {
    info.options.iter().any(|option| option.kind == OptionKind::Files)
}

fn named(settings: &Settings) -> BTreeSet<&str> {
    let routes = &settings.routes;
    let lists = [&routes.always, &routes.start, &routes.dispatchers];
    let by_rules = routes.rules.values().flat_map(|rule| &rule.run);
    lists.into_iter().flatten().chain(by_rules).map(String::as_str).collect()
}

/// Plugins are told to end some time before the jail ends them, so that they can return what they have.
fn deadline_ms(settings: &Settings) -> u64 {
    let wall = settings.scan.plugin_wall.get();
    let margin = stoq_engine::rounds::DEADLINE_MARGIN.min(wall / 4);
    u64::try_from((wall - margin).as_millis()).unwrap_or(u64::MAX)
}
