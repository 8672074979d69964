//! Names of indexes, sources, source types and hosts.
//!
//! They take tenant, source and the scan's time, and nothing that was scanned: what others chose names no place.

use crate::common::head::{Head, plain};
use crate::common::template::{Template, WORDS};

/// Most characters of a name of an index.
const MAX_INDEX: usize = 80;
/// Most characters of other names.
const MAX_NAME: usize = 256;
/// What stands for a tenant or a source that is not told, and for an index whose name nothing is left of.
const NONE: &str = "none";

/// What a name is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// "Lowercase letters, numbers, underscores and hyphens", beginning with a letter or number, without the word
    /// `kvstore`.
    Index,
    /// Printable ASCII without quotes and white space, which would make searches hard.
    Name,
}

/// A template of such a name.
pub(super) struct Names {
    template: Template,
    place: Place,
}

impl Names {
    /// Reads a template; says what is wrong with it.
    pub(super) fn parse(text: &str, place: Place) -> Result<Self, String> {
        let names = Self { template: Template::parse(text, &WORDS)?, place };
        names.check()?;
        Ok(names)
    }

    /// Checks what does not depend on a document.
    fn check(&self) -> Result<(), String> {
        let allowed = |c: char| match self.place {
            Place::Index => c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'),
            Place::Name => c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '\\'),
        };
        if let Some(c) = self.template.texts().flat_map(str::chars).find(|c| !allowed(*c)) {
            return Err(format!("{c:?} may not stand in it"));
        }
        if self.place == Place::Index && self.template.first_text().is_some_and(|text| text.starts_with(['-', '_'])) {
            return Err("the name of an index begins with a letter or a digit".to_owned());
        }
        if self.place == Place::Index && self.template.texts().any(|text| text.contains("kvstore")) {
            return Err("kvstore may not stand in the name of an index".to_owned());
        }
        Ok(())
    }

    /// Whether all documents get the same name.
    pub(super) fn is_fixed(&self) -> bool {
        self.template.is_fixed()
    }

    /// The name for a document.
    pub(super) fn name(&self, head: &Head) -> String {
        let mut name = self.template.fill(head, |name| self.tame(name));
        if self.place == Place::Index {
            // What was put in may begin as no index does, and may make up the one word that none may hold.
            name = name.trim_start_matches(['-', '_']).replace("kvstore", "kv-store");
            if name.is_empty() {
                NONE.clone_into(&mut name);
            }
        }
        // All of it is ASCII by now.
        name.truncate(if self.place == Place::Index { MAX_INDEX } else { MAX_NAME });
        name
    }

    /// What others chose, as it may stand in this name.
    fn tame(&self, name: Option<&str>) -> String {
        let Some(name) = name.filter(|name| !name.is_empty()) else { return NONE.to_owned() };
        match self.place {
            Place::Index => plain(Some(name)).to_ascii_lowercase().replace('.', "_"),
            Place::Name => plain(Some(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(tenant: &str, source: &str) -> Head {
        let time = time::macros::datetime!(2026-11-04 05:06:07 UTC);
        Head { time, tenant: Some(tenant.to_owned()), source: Some(source.to_owned()) }
    }

    #[test]
    fn names_are_made_of_tenant_source_and_time() {
        let name = |text: &str, place, head: &Head| Names::parse(text, place).unwrap().name(head);
        let acme = head("Acme.Ltd", "Mail Gateway/1");
        assert_eq!(name("stoq-{tenant}-{date}", Place::Index, &acme), "stoq-acme_ltd-2026-11-04");
        assert_eq!(name("stoq:{source}:{hour}", Place::Name, &acme), "stoq:Mail_Gateway_1:05");
        assert_eq!(name("{tenant}", Place::Index, &head("__-", "")), "none");
        assert_eq!(name("{tenant}{source}", Place::Index, &head("kv", "store")), "kv-store");
        assert_eq!(name("{tenant}", Place::Index, &head("\"} \n{", "")), "none");
        assert_eq!(name("{tenant}", Place::Name, &Head { tenant: None, ..acme }), "none");
        assert!(name("{tenant}{tenant}", Place::Index, &head(&"x".repeat(900), "")).len() <= MAX_INDEX);
        assert!(Names::parse("main", Place::Index).unwrap().is_fixed());
        assert!(!Names::parse("a{hour}", Place::Index).unwrap().is_fixed());
    }

    #[test]
    fn what_is_no_name_stops_the_start() {
        for (text, place) in [
            ("Main", Place::Index),
            ("_internal", Place::Index),
            ("a b", Place::Index),
            ("my-kvstore", Place::Index),
            ("{sha256}", Place::Index),
            ("{tenant", Place::Name),
            ("tenant}", Place::Name),
            ("a b", Place::Name),
            ("a\"b", Place::Name),
            ("é", Place::Name),
        ] {
            assert!(Names::parse(text, place).is_err(), "{text}");
        }
    }
}
