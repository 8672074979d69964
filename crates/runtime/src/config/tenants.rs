//! Tenants in a configuration: their names, and whether those that are named are there.

use super::registry::TENANT;
use super::schema::DEFAULT_TENANT;
use super::settings::Settings;
use super::tree::{Origins, join};
use crate::fail::{Problem, nearest, one_of};

/// Characters of a tenant's name: it becomes part of the names of queues and topics, everywhere.
const MAX_TENANT: usize = 32;

/// Tenants have names that every broker takes, and whoever names one names one that is there.
pub(super) fn check(settings: &Settings, origins: &Origins, problems: &mut Vec<Problem>) {
    for name in settings.tenants.keys() {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !name.chars().all(fits) || name.starts_with('-') || name.is_empty() || name.len() > MAX_TENANT {
            let path = join("tenants", name);
            let problem = Problem::error(origins.place(&path), path, format!("`{name}` cannot be a tenant's name"));
            let help = format!("use at most {MAX_TENANT} letters a to z, digits and hyphens, and no hyphen in front");
            problems.push(problem.help(help));
        }
    }
    let option = TENANT.name;
    let components = settings.providers.iter().flat_map(|(name, kinds)| {
        kinds.iter().map(move |(kind, options)| (format!("providers.{name}.{kind}.{option}"), options))
    });
    let plugins = settings.plugins.iter().map(|(name, options)| (format!("plugins.{name}.{option}"), options));
    let mut named: Vec<(String, String)> = components
        .chain(plugins)
        .filter_map(|(path, options)| Some((path, options.0.get(option)?.as_str()?.to_owned())))
        .collect();
    named.extend(settings.run.tenants.iter().flatten().map(|name| ("run.tenants".to_owned(), name.clone())));
    for (path, name) in named {
        if name == DEFAULT_TENANT || settings.tenants.contains_key(&name) {
            continue;
        }
        let known: Vec<&str> = settings.tenants.keys().map(String::as_str).chain([DEFAULT_TENANT]).collect();
        let problem = Problem::error(origins.place(&path), path, format!("there is no tenant `{name}`"));
        problems.push(match nearest(&name, known.iter().copied()) {
            Some(near) => problem.help(format!("did you mean `{near}`?")),
            None => problem.help(format!("there is {}; add [tenants.{name}] for it", one_of(known))),
        });
    }
    if settings.run.tenants.as_ref().is_some_and(Vec::is_empty) {
        let problem = Problem::error(origins.place("run.tenants"), "run.tenants", "workers would take no tasks");
        problems.push(problem.help("leave it out to take those of all tenants"));
    }
}
