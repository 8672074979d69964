//! The dialect of Python's `ConfigParser`, in which `stoq.cfg` is written.
//!
//! Rules (Python 3 documentation, module configparser): sections in brackets; `key = value` or `key: value`, or a key alone;
//! keys regardless of case; a line indented deeper than its key continues the value; lines that begin with `#` or `;` are
//! comments, also between continuation lines; there are no comments behind values.

use std::ops::Range;

/// One section; a name that comes twice is a mistake in Python too, and is reported by [`read`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) name: String,
    /// Where the header stands.
    pub(super) span: Range<usize>,
    pub(super) settings: Vec<Setting>,
}

/// One key with its value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// In lower case.
    pub(super) key: String,
    /// Lines joined by `\n`; `None` for a key that stands alone.
    pub(super) value: Option<String>,
    /// Where the key stands.
    pub(super) span: Range<usize>,
    /// Where the value begins, to the end of its first line.
    pub(super) value_span: Range<usize>,
}

/// A line that is none of these.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) span: Range<usize>,
    pub(super) message: String,
}

/// Reads all sections; what is broken is left out and reported.
pub(super) fn read(text: &str) -> (Vec<Section>, Vec<Broken>) {
    let mut reader = Reader::default();
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        reader.line(line, offset);
        offset += line.len();
    }
    for setting in reader.sections.iter_mut().flat_map(|s| &mut s.settings) {
        if let Some(value) = &mut setting.value {
            value.truncate(value.trim_end().len());
        }
    }
    (reader.sections, reader.broken)
}

#[derive(Default)]
struct Reader {
    sections: Vec<Section>,
    broken: Vec<Broken>,
    /// Indentation of the line that began the current value.
    indent: usize,
    /// The current section has a key that lines can continue.
    open: bool,
}

impl Reader {
    fn line(&mut self, line: &str, offset: usize) {
        let content = line.trim_start_matches('\u{feff}').trim();
        let setting = self.sections.last_mut().and_then(|s| s.settings.last_mut()).filter(|_| self.open);
        if content.is_empty() {
            // Kept, because an empty line may stand within a value; dropped again at the value's end.
            if let Some(value) = setting.and_then(|s| s.value.as_mut()) {
                value.push('\n');
            }
            return;
        }
        if content.starts_with(['#', ';']) {
            return;
        }
        let indent = line.len() - line.trim_start().len();
        if let Some(setting) = setting
            && indent > self.indent
        {
            let value = setting.value.get_or_insert_default();
            value.push('\n');
            value.push_str(content);
            return;
        }
        self.indent = indent;
        let start = offset + line.find(content).unwrap_or(0);
        let span = start..start + content.len();
        match content.strip_prefix('[').and_then(|rest| rest.rsplit_once(']')) {
            Some((name, _)) if !name.is_empty() => self.section(name.trim(), span),
            _ if self.sections.is_empty() => {
                let message = "this line stands before any [section]".to_owned();
                self.broken.push(Broken { span, message });
            }
            _ => self.setting(content, span),
        }
    }

    fn section(&mut self, name: &str, span: Range<usize>) {
        if self.sections.iter().any(|s| s.name == name) {
            self.broken.push(Broken { span: span.clone(), message: format!("the section [{name}] stands here twice") });
        }
        self.open = false;
        self.sections.push(Section { name: name.to_owned(), span, settings: Vec::new() });
    }

    fn setting(&mut self, content: &str, span: Range<usize>) {
        let (key, value) = match content.find(['=', ':']) {
            Some(at) => (&content[..at], Some(content[at + 1..].trim())),
            None => (content, None),
        };
        let key = key.trim();
        if key.is_empty() {
            self.open = false;
            self.broken.push(Broken { span, message: "there is no key before the `=`".to_owned() });
            return;
        }
        let value_start = span.end - value.map_or(0, str::len);
        let setting = Setting {
            key: key.to_lowercase(),
            value: value.map(str::to_owned),
            value_span: if value.is_some() { value_start..span.end } else { span.clone() },
            span: span.start..span.start + key.len(),
        };
        let Some(section) = self.sections.last_mut() else { return };
        if section.settings.iter().any(|s| s.key == setting.key) {
            let message = format!("`{}` stands in [{}] twice", setting.key, section.name);
            self.broken.push(Broken { span: setting.span.clone(), message });
        }
        section.settings.push(setting);
        self.open = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, &str, Option<&str>)]) {
        let (sections, broken) = read(text);
        assert_eq!(broken, [], "{text}");
        let found: Vec<_> = sections
            .iter()
            .flat_map(|s| s.settings.iter().map(|o| (s.name.as_str(), o.key.as_str(), o.value.as_deref())))
            .collect();
        assert_eq!(found, expected, "{text}");
    }

    // Expectations below were taken from Python 3.11's ConfigParser(allow_no_value=True).
    #[test]
    fn python_dialect() {
        check("[a]\nk = v\nK2: w\n", &[("a", "k", Some("v")), ("a", "k2", Some("w"))]);
        check("[a]\nk = x = y : z\n", &[("a", "k", Some("x = y : z"))]);
        check("[a]\nk: x = y\n", &[("a", "k", Some("x = y"))]);
        check("[a]\nalone\nempty =\n", &[("a", "alone", None), ("a", "empty", Some(""))]);
        check("# c\n[a]\n; c\nk = v ; not a comment\n", &[("a", "k", Some("v ; not a comment"))]);
        check("[a]\nk = 1,\n  2,\n\t3\nl = 4\n", &[("a", "k", Some("1,\n2,\n3")), ("a", "l", Some("4"))]);
        check("[a]\nk = 1\n  # c\n  2\n\n  3\n\n[b]\n", &[("a", "k", Some("1\n2\n\n3"))]);
        check("[a]\n  k = 1\n  l = 2\n", &[("a", "k", Some("1")), ("a", "l", Some("2"))]);
        check("[a b]\nspaced key = v\n", &[("a b", "spaced key", Some("v"))]);
        check("\u{feff}[a]\r\nk = v\r\n", &[("a", "k", Some("v"))]);
        check("[a]\nk =\n  [x]\n", &[("a", "k", Some("\n[x]"))]);
    }

    #[test]
    fn broken_lines() {
        for (text, says) in [
            ("k = v\n", "before any [section]"),
            ("[a]\n= v\n", "no key"),
            ("[a]\nk = 1\nK = 2\n", "`k` stands in [a] twice"),
            ("[a]\n[b]\n[a]\n", "the section [a] stands here twice"),
        ] {
            let (_, broken) = read(text);
            assert!(broken.iter().any(|b| b.message.contains(says)), "{text}: {broken:?}");
        }
    }

    #[test]
    fn spans_point_at_the_text() {
        let text = "[core]\n  Log_Level :  INFO \n";
        let (sections, _) = read(text);
        let setting = &sections[0].settings[0];
        assert_eq!((&text[setting.span.clone()], &text[setting.value_span.clone()]), ("Log_Level", "INFO"));
    }
}
