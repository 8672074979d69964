//! Names of places in sinks: text that an operator wrote, and words for a scan's tenant, source and time.
//!
//! Nothing that was scanned chooses a place. What a name may look like is the sink's matter: see `path` for files and
//! folders, and the connectors' own modules for indices.

use std::fmt::Write as _;

use super::head::Head;

/// A template of names.
#[derive(Clone, Debug)]
pub(crate) struct Template(Vec<Part>);

/// A piece of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Text(String),
    Word(Word),
}

/// What a word stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Tenant,
    Source,
    Year,
    Month,
    Day,
    Date,
    Hour,
    /// When a file begins. It stays as it is written.
    Time,
    /// The number of a file. It stays as it is written.
    Seq,
}

/// How a word is written in a kind of templates.
pub(crate) type Spelling = (&'static str, Word);

/// Words that all kinds have.
pub(crate) const WORDS: [Spelling; 4] =
    [("{tenant}", Word::Tenant), ("{source}", Word::Source), ("{date}", Word::Date), ("{hour}", Word::Hour)];
/// What stands for the parts that are known when a file begins.
pub(crate) const TIME: &str = "{time}";
pub(crate) const SEQ: &str = "{seq}";

impl Template {
    /// Reads a template with these words; says what is wrong with it.
    pub(crate) fn parse(text: &str, words: &[Spelling]) -> Result<Self, String> {
        let mut parts: Vec<Part> = Vec::new();
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            if let Some((sign, word)) = words.iter().find(|(sign, _)| rest.starts_with(sign)) {
                parts.push(Part::Word(*word));
                rest = &rest[sign.len()..];
                continue;
            }
            if matches!(next, '{' | '}') {
                let (word, _) = rest.split_once('}').ok_or("a { has no }")?;
                let known: Vec<&str> = words.iter().map(|(sign, _)| *sign).collect();
                return Err(format!("{word}}} is none of {}", known.join(" ")));
            }
            match parts.last_mut() {
                Some(Part::Text(text)) => text.push(next),
                _ => parts.push(Part::Text(next.into())),
            }
            rest = &rest[next.len_utf8()..];
        }
        Ok(Self(parts))
    }

    /// Its pieces; no two texts stand beside each other, and none is empty.
    pub(crate) fn parts(&self) -> &[Part] {
        &self.0
    }

    /// What an operator wrote of it.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            Part::Word(_) => None,
        })
    }

    /// The text that it begins with, if it begins with one.
    pub(crate) fn first_text(&self) -> Option<&str> {
        match self.0.first() {
            Some(Part::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Whether one of these words is in it.
    pub(crate) fn has(&self, words: &[Word]) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Word(word) if words.contains(word)))
    }

    /// Whether all scans get the same name.
    pub(crate) fn is_fixed(&self) -> bool {
        self.0.iter().all(|part| matches!(part, Part::Text(_)))
    }

    /// The name for a scan, in which tenants and sources look as `tame` has them.
    pub(crate) fn fill(&self, head: &Head, tame: impl Fn(Option<&str>) -> String) -> String {
        let date = head.time.date();
        let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
        let mut name = String::new();
        for part in &self.0 {
            // Writing to a `String` cannot fail.
            match part {
                Part::Text(text) => write!(name, "{text}"),
                Part::Word(Word::Tenant) => write!(name, "{}", tame(head.tenant.as_deref())),
                Part::Word(Word::Source) => write!(name, "{}", tame(head.source.as_deref())),
                Part::Word(Word::Year) => write!(name, "{year:04}"),
                Part::Word(Word::Month) => write!(name, "{month:02}"),
                Part::Word(Word::Day) => write!(name, "{day:02}"),
                Part::Word(Word::Date) => write!(name, "{year:04}-{month:02}-{day:02}"),
                Part::Word(Word::Hour) => write!(name, "{:02}", head.time.hour()),
                Part::Word(Word::Time) => write!(name, "{TIME}"),
                Part::Word(Word::Seq) => write!(name, "{SEQ}"),
            }
            .ok();
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_for_what_they_say_and_nothing_else_is_one() {
        let head = Head {
            time: time::macros::datetime!(2026-11-04 05:06:07 UTC),
            tenant: Some("acme".to_owned()),
            source: None,
        };
        let words = [&WORDS[..], &[("%Y", Word::Year), ("%m", Word::Month), ("%d", Word::Day)]].concat();
        let fill =
            |text: &str| Template::parse(text, &words).unwrap().fill(&head, |name| name.unwrap_or("-").to_owned());
        assert_eq!(fill("a{tenant}{source}b-{date}T{hour}"), "aacme-b-2026-11-04T05");
        assert_eq!(fill("%Y.%m.%d%%é"), "2026.11.04%%é");
        assert_eq!(fill(""), "");
        for (text, said) in
            [("{", "no }"), ("a}", "none of"), ("{tenant", "no }"), ("{sha256}", "none of {tenant} {source}")]
        {
            let error = Template::parse(text, &words).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
        let fixed = |text: &str| Template::parse(text, &words).unwrap().is_fixed();
        assert!(fixed("main") && fixed("") && !fixed("a{hour}"));
    }
}
