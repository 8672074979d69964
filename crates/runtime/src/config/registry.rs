//! What the caller says exists: plugins of all kinds and their options.

use std::collections::BTreeMap;

use stoq_api::scanner::{OptionInfo, OptionKind, PluginInfo, PluginKind};

use crate::fail::fold;

/// Every worker has it beside its own options, as in stoQ.
pub(super) const REQUIRED_WORKERS: OptionInfo = OptionInfo {
    name: "required_workers",
    kind: OptionKind::List,
    default: "",
    help: "workers that must have run on a payload before this one",
};

/// Every provider has it beside its own options.
pub(super) const TENANT: OptionInfo = OptionInfo {
    name: "tenant",
    kind: OptionKind::Text,
    default: "",
    help: "whose payloads these are: [tenants.<name>]",
};

/// What all plugins of a kind have beside their own options.
const COMMON: [(PluginKind, OptionInfo); 2] = [(PluginKind::Worker, REQUIRED_WORKERS), (PluginKind::Provider, TENANT)];

/// Options with their kinds, by role and plugin.
pub(super) type ByRole = BTreeMap<(PluginKind, String), BTreeMap<String, OptionKind>>;

/// The list of plugins, with the questions that checking asks of it.
#[derive(Clone, Copy)]
pub(super) struct Registry<'a>(pub(super) &'a [PluginInfo]);

impl<'a> Registry<'a> {
    /// Names of plugins that can take the role, each once, in order.
    pub(super) fn names(self, kind: Option<PluginKind>) -> Vec<&'static str> {
        let mut names: Vec<_> =
            self.0.iter().filter(|p| kind.is_none_or(|k| p.kinds.contains(&k))).map(|p| p.name).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Whether there is a plugin of this name in the role.
    pub(super) fn has(self, name: &str, kind: Option<PluginKind>) -> bool {
        self.of(name).any(|p| kind.is_none_or(|k| p.kinds.contains(&k)))
    }

    /// The options that a plugin has in each role.
    pub(super) fn by_role(self) -> ByRole {
        let mut out = ByRole::new();
        for plugin in self.0 {
            for kind in plugin.kinds {
                let names = plugin.options.iter().map(|o| (o.name.to_owned(), o.kind));
                out.entry((*kind, plugin.name.to_owned())).or_default().extend(names);
            }
        }
        out
    }

    /// Everything registered under the name: one plugin may be registered once per role.
    fn of(self, name: &str) -> impl Iterator<Item = &'a PluginInfo> {
        self.0.iter().filter(move |p| p.name == name)
    }

    /// The name as it is registered, for one that differs in case or dashes only.
    pub(super) fn spelt(self, name: &str) -> Option<&'static str> {
        self.0.iter().map(|p| p.name).find(|n| fold(n) == fold(name))
    }

    /// The options under the name, in the role or in all of them, each once.
    pub(super) fn options(self, name: &str, kind: Option<PluginKind>) -> Vec<OptionInfo> {
        let mut options: Vec<OptionInfo> = Vec::new();
        for plugin in self.of(name).filter(|p| kind.is_none_or(|k| p.kinds.contains(&k))) {
            for option in plugin.options {
                if options.iter().all(|o| o.name != option.name) {
                    options.push(*option);
                }
            }
            for (_, common) in
                COMMON.iter().filter(|(of, _)| plugin.kinds.contains(of) && kind.is_none_or(|k| k == *of))
            {
                if options.iter().all(|o| o.name != common.name) {
                    options.push(*common);
                }
            }
        }
        options
    }
}
