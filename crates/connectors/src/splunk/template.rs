//! Names of indexes, sources, source types and hosts.
//!
//! They take tenant, source and the scan's time, and nothing that was scanned: what others chose names no place.

use std::fmt::Write as _;

use crate::common::head::{Head, plain};

/// Most characters of a name of an index.
const MAX_INDEX: usize = 80;
/// Most characters of other names.
const MAX_NAME: usize = 256;

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
pub(super) struct Template {
    parts: Vec<Part>,
    place: Place,
}

enum Part {
    Text(String),
    Tenant,
    Source,
    Date,
    Hour,
}

impl Template {
    /// Reads a template; says what is wrong with it.
    pub(super) fn parse(text: &str, place: Place) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            parts.push(Part::Text(before.to_owned()));
            let (word, after) = from.split_once('}').ok_or("a { has no }")?;
            parts.push(match word {
                "{tenant" => Part::Tenant,
                "{source" => Part::Source,
                "{date" => Part::Date,
                "{hour" => Part::Hour,
                _ => return Err(format!("{word}}} is none of {{tenant}} {{source}} {{date}} {{hour}}")),
            });
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        let template = Self { parts, place };
        template.check()?;
        Ok(template)
    }

    /// Checks what does not depend on a document.
    fn check(&self) -> Result<(), String> {
        let allowed = |c: char| match self.place {
            Place::Index => c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'),
            Place::Name => c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '\\'),
        };
        let texts = || self.parts.iter().filter_map(|part| if let Part::Text(text) = part { Some(text) } else { None });
        if let Some(c) = texts().flat_map(|text| text.chars()).find(|c| !allowed(*c)) {
            return Err(format!("{c:?} may not stand in it"));
        }
        if self.place == Place::Index && texts().next().is_some_and(|text| text.starts_with(['-', '_'])) {
            return Err("the name of an index begins with a letter or a digit".to_owned());
        }
        if self.place == Place::Index && texts().any(|text| text.contains("kvstore")) {
            return Err("kvstore may not stand in the name of an index".to_owned());
        }
        Ok(())
    }

    /// Whether all documents get the same name.
    pub(super) fn is_fixed(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Text(_)))
    }

    /// The name for a document.
    pub(super) fn name(&self, head: &Head) -> String {
        let mut name = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Tenant => name.push_str(&self.word(head.tenant.as_deref())),
                Part::Source => name.push_str(&self.word(head.source.as_deref())),
                // Writing to a `String` cannot fail.
                Part::Date => {
                    let date = head.time.date();
                    write!(name, "{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day()).ok();
                }
                Part::Hour => {
                    write!(name, "{:02}", head.time.hour()).ok();
                }
            }
        }
        if self.place == Place::Index {
            // What was put in may begin as no index does, and may make up the one word that none may hold.
            name = name.trim_start_matches(['-', '_']).replace("kvstore", "kv-store");
            if name.is_empty() {
                "none".clone_into(&mut name);
            }
        }
        // All of it is ASCII by now.
        name.truncate(if self.place == Place::Index { MAX_INDEX } else { MAX_NAME });
        name
    }

    /// What others chose, as it may stand in this name.
    fn word(&self, name: Option<&str>) -> String {
        let Some(name) = name.filter(|name| !name.is_empty()) else { return "none".to_owned() };
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
        let name = |text: &str, place, head: &Head| Template::parse(text, place).unwrap().name(head);
        let acme = head("Acme.Ltd", "Mail Gateway/1");
        assert_eq!(name("stoq-{tenant}-{date}", Place::Index, &acme), "stoq-acme_ltd-2026-11-04");
        assert_eq!(name("stoq:{source}:{hour}", Place::Name, &acme), "stoq:Mail_Gateway_1:05");
        assert_eq!(name("{tenant}", Place::Index, &head("__-", "")), "none");
        assert_eq!(name("{tenant}{source}", Place::Index, &head("kv", "store")), "kv-store");
        assert_eq!(name("{tenant}", Place::Index, &head("\"} \n{", "")), "none");
        assert_eq!(name("{tenant}", Place::Name, &Head { tenant: None, ..acme }), "none");
        assert!(name("{tenant}{tenant}", Place::Index, &head(&"x".repeat(900), "")).len() <= MAX_INDEX);
        assert!(Template::parse("main", Place::Index).unwrap().is_fixed());
        assert!(!Template::parse("a{hour}", Place::Index).unwrap().is_fixed());
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
            assert!(Template::parse(text, place).is_err(), "{text}");
        }
    }
}
