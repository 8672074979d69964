//! Names of indices and data streams, made of what an operator wrote, a time, a tenant and a source.

use stoq_api::scanner::BuildError;

use crate::common::template::{Part, Spelling, Template, Word};
use crate::model::Document;

/// The longest name of an index, in bytes.
const MAX_INDEX: usize = 255;
/// What a tenant or a source may take of it.
const MAX_PART: usize = 64;
/// What stands for a tenant or a source that is not told.
const NONE: &str = "none";
const WORDS: [Spelling; 5] = [
    ("%Y", Word::Year),
    ("%m", Word::Month),
    ("%d", Word::Day),
    ("{tenant}", Word::Tenant),
    ("{source}", Word::Source),
];

/// A template of names.
#[derive(Clone, Debug)]
pub(super) struct Names {
    template: Template,
    /// Whether they are data streams.
    pub(super) data_stream: bool,
}

impl Names {
    /// Of indices.
    pub(super) fn index(template: &str) -> Result<Self, BuildError> {
        Self::read("index", template, false)
    }

    /// Of data streams, which roll over by themselves and so have no dates.
    pub(super) fn data_stream(template: &str) -> Result<Self, BuildError> {
        let names = Self::read("data_stream", template, true)?;
        if names.template.has(&[Word::Year, Word::Month, Word::Day]) {
            return Err(BuildError(format!(
                "data_stream: {template:?} has a date; data streams roll over by themselves"
            )));
        }
        Ok(names)
    }

    fn read(option: &str, text: &str, data_stream: bool) -> Result<Self, BuildError> {
        let wrong = |why: &str| BuildError(format!("{option}: {text:?} {why}"));
        let template = Template::parse(text, &WORDS).map_err(|why| wrong(&format!("cannot be: {why}")))?;
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        if !template.texts().all(|text| text.chars().all(allowed)) {
            return Err(wrong("may have lower-case letters, digits, - _ . and %Y %m %d {tenant} {source}"));
        }
        // With a first letter of ours, no tenant can name a system's index, and one template covers all.
        if !template.first_text().is_some_and(|text| text.starts_with(|c: char| c.is_ascii_alphanumeric())) {
            return Err(wrong("must begin with a letter or a digit"));
        }
        if text.len() > MAX_PART {
            return Err(wrong("is too long"));
        }
        Ok(Self { template, data_stream })
    }

    /// The name for a document.
    pub(super) fn of(&self, document: &Document) -> String {
        let mut name = self.template.fill(&document.into(), tame);
        // All of it is ASCII.
        name.truncate(MAX_INDEX);
        name
    }

    /// What all names match, with `*` for what changes.
    pub(super) fn pattern(&self) -> String {
        let mut pattern = String::new();
        for part in self.template.parts() {
            match part {
                Part::Text(text) => pattern.push_str(text),
                Part::Word(_) if pattern.ends_with('*') => {}
                Part::Word(_) => pattern.push('*'),
            }
        }
        pattern
    }

    /// What all names begin with: the name of what `stoq setup` makes.
    pub(super) fn prefix(&self) -> String {
        self.template.first_text().unwrap_or_default().trim_end_matches(['-', '_', '.']).to_owned()
    }
}

/// A tenant or source as a part of a name.
fn tame(text: Option<&str>) -> String {
    let tame = text.unwrap_or_default().chars().take(MAX_PART).map(|c| match c.to_ascii_lowercase() {
        c if c.is_ascii_alphanumeric() || "-_".contains(c) => c,
        _ => '-',
    });
    let tame: String = tame.collect();
    if tame.is_empty() { NONE.to_owned() } else { tame }
}

#[cfg(test)]
mod tests {
    use stoq_api::Timestamp;

    use super::*;

    fn document(tenant: Option<&str>, source: Option<&str>) -> Document {
        let (tenant, source) = (tenant.map(str::to_owned), source.map(str::to_owned));
        Document { id: "i".into(), time: Timestamp(1_767_323_045_678_901), source, tenant, json: Default::default() }
    }

    #[test]
    fn names_are_made_of_time_tenant_and_source() {
        for (template, name, pattern, prefix) in [
            ("stoq-%Y.%m", "stoq-2026.01", "stoq-*.*", "stoq"),
            ("stoq", "stoq", "stoq", "stoq"),
            ("s-{tenant}-{source}-%Y-%m-%d", "s-acme-mail-gateway-2026-01-02", "s-*-*-*-*-*", "s"),
        ] {
            let names = Names::index(template).unwrap();
            assert_eq!(names.of(&document(Some("acme"), Some("Mail gateway"))), name);
            assert_eq!((names.pattern().as_str(), names.prefix().as_str()), (pattern, prefix));
        }
    }

    #[test]
    fn no_tenant_leaves_its_place() {
        let names = Names::data_stream("logs-{tenant}").unwrap();
        for (tenant, name) in [
            (None, "logs-none".to_owned()),
            (Some(""), "logs-none".to_owned()),
            (Some("../_all,*\n\u{e9}"), "logs----_all----".to_owned()),
            (Some("A".repeat(500).as_str()), format!("logs-{}", "a".repeat(MAX_PART))),
        ] {
            assert_eq!(names.of(&document(tenant, None)), name);
        }
    }

    #[test]
    fn templates_that_could_name_anything_are_refused() {
        for template in ["", "{tenant}-x", "-a", ".kibana", "_all", "a b", "A", "a*", "a%H", "a{payload}", "a,b", "a/b"]
        {
            assert!(Names::index(template).is_err(), "{template}");
        }
        assert!(Names::data_stream("logs-%Y").is_err());
    }
}
