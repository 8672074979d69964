//! Templates of names of files, and of folders of objects.

use time::OffsetDateTime;

use super::head::{Head, NAME_MAX, plain};
use super::template::{SEQ, Spelling, TIME, Template, WORDS, Word};

/// Most bytes of a name with all its folders: it has to be the name of one file while that is not finished.
const NAME_BYTES: usize = 230;
/// Ends of names that mean something else while a file is not finished.
const RESERVED: [&str; 3] = [".gz", ".zst", ".part"];
/// Words that only files have.
const OF_FILES: [Spelling; 2] = [(TIME, Word::Time), (SEQ, Word::Seq)];

/// A template of relative paths.
pub(crate) struct PathTemplate(Template);

impl PathTemplate {
    /// Reads a template of files; says what is wrong with it.
    pub(crate) fn file(text: &str) -> Result<Self, String> {
        let template = Self::parse(text)?;
        template.check()?;
        Ok(template)
    }

    /// Reads a template of folders, which may be empty or end in the begin of a name; says what is wrong with it.
    #[cfg(any(test, feature = "s3", feature = "gcs", feature = "azure"))]
    pub(crate) fn folder(text: &str) -> Result<Self, String> {
        let template = Self::parse(text)?;
        if template.0.has(&OF_FILES.map(|(_, word)| word)) {
            return Err("{time} and {seq} have no meaning in it".to_owned());
        }
        check_path(&format!("{}x", template.sample()))?;
        Ok(template)
    }

    fn parse(text: &str) -> Result<Self, String> {
        Template::parse(text, &[&WORDS[..], &OF_FILES].concat()).map(Self)
    }

    /// The longest name that it can give, but for time and number.
    fn sample(&self) -> String {
        let longest = "x".repeat(NAME_MAX);
        self.family(&Head {
            time: time::macros::datetime!(2026-01-02 03:04:05 UTC),
            tenant: Some(longest.clone()),
            source: Some(longest),
        })
    }

    fn check(&self) -> Result<(), String> {
        if !self.0.has(&[Word::Seq]) {
            return Err("must hold {seq}, or two files could have the same name".to_owned());
        }
        let sample = filled(&self.sample(), OffsetDateTime::UNIX_EPOCH, MAX_SEQ);
        check_path(&sample)?;
        match RESERVED.into_iter().find(|end| sample.ends_with(end)) {
            Some(end) => Err(format!("may not end in {end}; compressed files get their ending by themselves")),
            None => Ok(()),
        }
    }

    /// The name of the files into which a response may go, but for when one of them begins and its number.
    pub(crate) fn family(&self, head: &Head) -> String {
        self.0.fill(head, plain)
    }
}

fn check_path(sample: &str) -> Result<(), String> {
    if sample.len() > NAME_BYTES {
        return Err(format!("can become {} bytes long, {NAME_BYTES} at most", sample.len()));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '_' | '.' | '=' | '/');
    if let Some(c) = sample.chars().find(|c| !allowed(*c)) {
        return Err(format!("{c:?} may not stand in it"));
    }
    if sample.split('/').any(|part| part.is_empty() || part.starts_with('.')) {
        return Err("must be a relative path, none of whose names begins with a dot".to_owned());
    }
    Ok(())
}

/// The name of the file of a family that begins at `begun` and is the `seq`th of its second.
pub(crate) fn filled(family: &str, begun: OffsetDateTime, seq: usize) -> String {
    let (date, time) = (begun.date(), begun.time());
    let begun = format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second()
    );
    // What others chose holds no braces by now.
    family.replace(TIME, &begun).replace(SEQ, &format!("{seq:04}"))
}

/// The greatest sequence number.
pub(crate) const MAX_SEQ: usize = 99_999;

#[cfg(test)]
mod tests {
    use super::*;

    fn head(tenant: &str, source: &str) -> Head {
        let time = time::macros::datetime!(2026-11-04 05:06:07.8 UTC);
        Head { time, tenant: Some(tenant.to_owned()), source: Some(source.to_owned()) }
    }

    #[test]
    fn names_are_made_of_tenant_source_and_time() {
        let template = PathTemplate::file("dt={date}/{tenant}/{source}-{hour}-{time}-{seq}.jsonl").unwrap();
        let family = template.family(&head("acme", "../{time}"));
        assert_eq!(family, "dt=2026-11-04/acme/_..__time_-05-{time}-{seq}.jsonl");
        let begun = time::macros::datetime!(2027-01-02 03:04:05 UTC);
        assert_eq!(filled(&family, begun, 7), "dt=2026-11-04/acme/_..__time_-05-20270102T030405Z-0007.jsonl");
    }

    #[test]
    fn templates_that_cannot_work_are_refused() {
        for (text, said) in [
            ("a.jsonl", "{seq}"),
            ("{seq", "no }"),
            ("seq}", "none of"),
            ("{name}-{seq}", "none of"),
            ("/{seq}", "relative"),
            ("../{seq}", "dot"),
            ("a/.{seq}", "dot"),
            ("a//{seq}", "relative"),
            ("{seq}.gz", "may not end"),
            ("{seq}\n", "may not stand"),
            (&format!("{}{{seq}}", "a".repeat(300)), "bytes long"),
        ] {
            let error = PathTemplate::file(text).err().unwrap();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
    #[test]
    fn folders_are_relative_and_know_no_file() {
        let head = head("acme", "web");
        for (text, folder) in [("", ""), ("dt={date}/", "dt=2026-11-04/"), ("{tenant}/{hour}/r-", "acme/05/r-")] {
            assert_eq!(PathTemplate::folder(text).unwrap().family(&head), folder);
        }
        for text in ["/", "/a/", "../", "a//", "{seq}/", "{time}/", "{id}/", "a/./"] {
            assert!(PathTemplate::folder(text).is_err(), "{text}");
        }
    }
}
