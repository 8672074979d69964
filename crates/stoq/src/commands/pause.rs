//! `stoq pause` and `stoq resume`: providers that take nothing, connectors that deliver nothing and plugins that look at
//! nothing, until somebody says so.

use std::io::Write;

use anyhow::Result;
use stoq_api::scanner::PluginKind;
use stoq_runtime::metrics::Role;

use super::dead::opened;
use crate::cli::{PauseArgs, PausedArgs};
use crate::exit::{Exit, UsageError};
use crate::wiring::base::Base;
use crate::wiring::holds::{self, ROLES};

pub(crate) async fn pause(args: &PauseArgs, out: &mut dyn Write) -> Result<Exit> {
    // The store is all that is needed: a broker that is away is a good reason to pause something.
    let base = opened(&args.which.place)?;
    for (role, name) in which(&args.which, &base)? {
        holds::pause(&*base.links.store, role, &name, &args.reason).await?;
        writeln!(out, "{} {name}: paused", role.label())?;
    }
    base.close().await;
    Ok(Exit::Clean)
}

pub(crate) async fn resume(args: &PausedArgs, out: &mut dyn Write) -> Result<Exit> {
    let base = opened(&args.place)?;
    let store = &*base.links.store;
    // What was renamed or removed since it was paused can be cleared away, too.
    let marks = holds::marks(store).await?;
    for name in &args.names {
        let marked =
            marks.iter().filter(|mark| mark.name == *name && args.kind.as_ref().is_none_or(|kind| *kind == mark.role));
        let roles: Vec<Role> =
            marked.filter_map(|mark| ROLES.into_iter().find(|role| role.label() == mark.role)).collect();
        for role in &roles {
            holds::resume(store, *role, name).await?;
            writeln!(out, "{} {name}: resumed", role.label())?;
        }
        if roles.is_empty() {
            let paused: Vec<_> = marks.iter().map(|mark| format!("{} {}", mark.role, mark.name)).collect();
            let there =
                if paused.is_empty() { "nothing is".to_owned() } else { format!("there are: {}", paused.join(", ")) };
            return Err(UsageError(format!("{name:?} is not paused; {there}")).into());
        }
    }
    base.close().await;
    Ok(Exit::Clean)
}

/// What of the configuration is meant.
fn which(args: &PausedArgs, base: &Base) -> Result<Vec<(Role, String)>> {
    let active = |role: Role| {
        let kind = match role {
            Role::Provider => PluginKind::Provider,
            Role::Connector => PluginKind::Connector,
            _ => {
                return stoq_scanners::registry()
                    .into_iter()
                    .map(|plugin| (role, plugin.info.name.to_owned()))
                    .collect();
            }
        };
        let components = base.loaded.settings.active(kind).into_iter();
        components.map(|component| (role, component.name)).collect::<Vec<_>>()
    };
    let all: Vec<(Role, String)> = ROLES
        .into_iter()
        .filter(|role| args.kind.as_ref().is_none_or(|kind| kind == role.label()))
        .flat_map(active)
        .collect();
    let mut chosen = Vec::new();
    for name in &args.names {
        let named: Vec<_> = all.iter().filter(|(_, known)| known == name).cloned().collect();
        match named.as_slice() {
            [one] => chosen.push(one.clone()),
            [] => {
                let known: Vec<_> = all.iter().map(|(role, name)| format!("{} {name}", role.label())).collect();
                let known = known.join(", ");
                return Err(
                    UsageError(format!("nothing that can be paused is called {name:?}; there are: {known}")).into()
                );
            }
            several => {
                let kinds: Vec<_> = several.iter().map(|(role, _)| role.label()).collect();
                let text = format!("several are called {name:?} ({}): say which with --kind", kinds.join(", "));
                return Err(UsageError(text).into());
            }
        }
    }
    Ok(chosen)
}
