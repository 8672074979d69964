//! Names of indices and data streams, made of what an operator wrote, a time, a tenant and a source.

use stoq_api::scanner::BuildError;

use crate::model::Document;

/// The longest name of an index, in bytes.
const MAX_INDEX: usize = 255;
/// What a tenant or a source may take of it.
const MAX_PART: usize = 64;
/// What stands for a tenant or a source that is not told.
const NONE: &str = "none";

/// A template of names.
#[derive(Clone, Debug)]
pub(super) struct Names {
    parts: Vec<Part>,
    /// Whether they are data streams.
    pub(super) data_stream: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Year,
    Month,
    Day,
    Tenant,
    Source,
}

impl Names {
    /// Of indices.
    pub(super) fn index(template: &str) -> Result<Self, BuildError> {
        Self::read("index", template, false)
    }

    /// Of data streams, which roll over by themselves and so have no dates.
    pub(super) fn data_stream(template: &str) -> Result<Self, BuildError> {
        let names = Self::read("data_stream", template, true)?;
        if names.parts.iter().any(|part| matches!(part, Part::Year | Part::Month | Part::Day)) {
            return Err(BuildError(format!(
                "data_stream: {template:?} has a date; data streams roll over by themselves"
            )));
        }
        Ok(names)
    }

    fn read(option: &str, template: &str, data_stream: bool) -> Result<Self, BuildError> {
        let wrong = |why: &str| BuildError(format!("{option}: {template:?} {why}"));
        let mut parts: Vec<Part> = Vec::new();
        let mut rest = template;
        while let Some(next) = rest.chars().next() {
            let known = [
                ("%Y", Part::Year),
                ("%m", Part::Month),
                ("%d", Part::Day),
                ("{tenant}", Part::Tenant),
                ("{source}", Part::Source),
            ];
            if let Some((sign, part)) = known.into_iter().find(|(sign, _)| rest.starts_with(sign)) {
                parts.push(part);
                rest = &rest[sign.len()..];
                continue;
            }
            if !(next.is_ascii_lowercase() || next.is_ascii_digit() || "-_.".contains(next)) {
                return Err(wrong("may have lower-case letters, digits, - _ . and %Y %m %d {tenant} {source}"));
            }
            match parts.last_mut() {
                Some(Part::Text(text)) => text.push(next),
                _ => parts.push(Part::Text(next.into())),
            }
            rest = &rest[1..];
        }
        // With a first letter of ours, no tenant can name a system's index, and one template covers all.
        match parts.first() {
            Some(Part::Text(text)) if text.starts_with(|c: char| c.is_ascii_alphanumeric()) => {}
            _ => return Err(wrong("must begin with a letter or a digit")),
        }
        if template.len() > MAX_PART {
            return Err(wrong("is too long"));
        }
        Ok(Self { parts, data_stream })
    }

    /// The name for a document.
    pub(super) fn of(&self, document: &Document) -> String {
        let date = document.time.iso();
        let mut name = String::with_capacity(MAX_PART);
        for part in &self.parts {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Year => name.push_str(&date[..4]),
                Part::Month => name.push_str(&date[5..7]),
                Part::Day => name.push_str(&date[8..10]),
                Part::Tenant => name.push_str(&tame(document.tenant.as_deref())),
                Part::Source => name.push_str(&tame(document.source.as_deref())),
            }
        }
        name.truncate(MAX_INDEX);
        name
    }

    /// What all names match, with `*` for what changes.
    pub(super) fn pattern(&self) -> String {
        let mut pattern = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => pattern.push_str(text),
                _ if pattern.ends_with('*') => {}
                _ => pattern.push('*'),
            }
        }
        pattern
    }

    /// What all names begin with: the name of what `stoq setup` makes.
    pub(super) fn prefix(&self) -> String {
        match self.parts.first() {
            Some(Part::Text(text)) => text.trim_end_matches(['-', '_', '.']).to_owned(),
            _ => String::new(),
        }
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
