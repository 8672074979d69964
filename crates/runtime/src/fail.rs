//! Mistakes that an operator can put right, each with its place: what is wrong, where, and what to write instead.
//!
//! They are collected, not thrown at the first: `stoq check` shows all of them at once, the way a compiler does.

use std::fmt;
use std::sync::Arc;

use crate::escape::{Visible, visible};

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whether it stops the start.
    pub severity: Severity,
    /// Where it stands.
    pub place: Place,
    /// The key concerned, dotted; empty where there is none.
    pub path: String,
    /// What is wrong, lower-case, without a full stop.
    pub message: String,
    /// What to do instead, where something helpful can be said.
    pub suggestion: Option<String>,
}

/// What a [`Problem`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Is said; the start goes on.
    Warning,
    /// Stops the start.
    Error,
}

/// Where a value comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// The built-in defaults.
    #[default]
    Default,
    /// A line of a file.
    File {
        /// The path as it was given.
        path: Arc<str>,
        /// Counted from 1; 0 for the file as a whole.
        line: u32,
    },
    /// An environment variable.
    Environment(Arc<str>),
    /// An option of the command line.
    Flag(Arc<str>),
}

/// An [`Origin`] with the spot in its line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The file and line, the variable, the flag.
    pub origin: Origin,
    /// What stands there.
    pub excerpt: Option<Excerpt>,
}

/// A line of a file and the part of it that is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    line: String,
    start: usize,
    end: usize,
}

/// Characters of a line that are shown.
const MAX_SHOWN: usize = 160;

impl Excerpt {
    /// The characters `start..end` (bytes of `line`) of a line. What stands right of `cut` is not kept, let alone shown.
    pub fn new(line: &str, start: usize, end: usize, cut: Option<usize>) -> Self {
        let floor = |at: usize| line.floor_char_boundary(at);
        let (start, mut end) = (floor(start), floor(end.max(start + 1)));
        let mut kept = line.trim_end();
        let mut hidden = "";
        if let Some(cut) = cut.map(floor).filter(|cut| *cut < kept.len()) {
            kept = &kept[..cut];
            hidden = "…";
        }
        if let Some((at, _)) = kept.char_indices().nth(MAX_SHOWN) {
            kept = &kept[..at];
            hidden = "…";
        }
        end = end.min(kept.len());
        Self { line: format!("{kept}{hidden}"), start: start.min(kept.len()), end: end.max(start.min(kept.len())) }
    }

    /// Counted from 1, in characters.
    fn column(&self) -> usize {
        self.line[..self.start].chars().count() + 1
    }
}

impl Problem {
    /// A mistake that stops the start.
    pub fn error(place: Place, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, place, path: path.into(), message: message.into(), suggestion: None }
    }

    /// A mistake that is only said.
    pub fn warning(place: Place, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(place, path, message) }
    }

    /// The same, with what to do instead.
    #[must_use]
    pub fn help(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }
}

impl Place {
    /// A file as a whole.
    pub fn file(path: &str) -> Self {
        Self { origin: Origin::File { path: path.into(), line: 0 }, excerpt: None }
    }
}

impl std::error::Error for Problem {}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: 0 } => Visible(path).fmt(f),
            Self::File { path, line } => write!(f, "{}:{line}", Visible(path)),
            Self::Environment(name) | Self::Flag(name) => Visible(name).fmt(f),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.origin.fmt(f)?;
        match (&self.origin, &self.excerpt) {
            (Origin::File { .. }, Some(excerpt)) => write!(f, ":{}", excerpt.column()),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.severity, Visible(&self.message))?;
        let number = match self.place.origin {
            Origin::File { line, .. } if self.place.excerpt.is_some() => line.to_string(),
            _ => String::new(),
        };
        let margin = " ".repeat(number.len().max(1));
        write!(f, "{margin}--> {}", self.place)?;
        if !self.path.is_empty() {
            write!(f, " ({})", Visible(&self.path))?;
        }
        if let Some(Excerpt { line, start, end }) = &self.place.excerpt {
            let before = visible(&line[..*start]).chars().count();
            let marked = visible(&line[*start..*end]).chars().count().max(1);
            write!(f, "\n{margin} |\n{number} | {}\n{margin} | ", Visible(line))?;
            write!(f, "{}{}", " ".repeat(before), "^".repeat(marked))?;
        }
        match &self.suggestion {
            Some(help) => write!(f, "\n{margin} = help: {}", Visible(help)),
            None => Ok(()),
        }
    }
}

/// All problems, errors last (so that they stand above the prompt), and how many there are.
pub fn render(problems: &[Problem]) -> String {
    let mut sorted: Vec<&Problem> = problems.iter().collect();
    sorted.sort_by_key(|p| p.severity);
    let mut out: String = sorted.iter().map(|p| format!("{p}\n\n")).collect();
    out.push_str(&summary(problems));
    out.push('\n');
    out
}

/// `2 errors, 1 warning`.
pub fn summary(problems: &[Problem]) -> String {
    let errors = problems.iter().filter(|p| p.severity == Severity::Error).count();
    let said = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    match (errors, problems.len() - errors) {
        (0, 0) => "no problems".to_owned(),
        (0, warnings) => said(warnings, "warning"),
        (errors, 0) => said(errors, "error"),
        (errors, warnings) => format!("{}, {}", said(errors, "error"), said(warnings, "warning")),
    }
}

/// The entry of `known` that `word` is most likely a slip of; `None` if nothing comes near.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Below this Jaro-Winkler likeness a guess confuses more than it helps.
    const LIKE: f64 = 0.82;
    let folded = fold(word);
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&folded, &fold(candidate)), candidate))
        .filter(|(likeness, _)| *likeness >= LIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// A name regardless of case and of which dash it is written with.
pub(crate) fn fold(name: &str) -> String {
    name.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
}

/// `one`, `one or two`, `one, two or three`, each between backticks.
pub fn one_of<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.into_iter().map(|w| format!("`{w}`")).collect();
    match words.split_last() {
        None => "nothing".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, first)) => format!("{} or {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(line: &str, start: usize, end: usize, cut: Option<usize>) -> Place {
        Place {
            origin: Origin::File { path: "stoq.toml".into(), line: 12 },
            excerpt: Some(Excerpt::new(line, start, end, cut)),
        }
    }

    #[test]
    fn reads_like_a_compiler_message() {
        let problem = Problem::error(place("plugin_wal = \"60 s\"", 0, 10, Some(13)), "scan.plugin_wal", "unknown key")
            .help("did you mean `plugin_wall`?");
        let text = "\
error: unknown key
  --> stoq.toml:12:1 (scan.plugin_wal)
   |
12 | plugin_wal = …
   | ^^^^^^^^^^
   = help: did you mean `plugin_wall`?";
        assert_eq!(problem.to_string(), text);
    }

    #[test]
    fn hostile_text_stays_on_its_line() {
        let problem = Problem::error(place("a = \"\x1b[2J\u{202e}\"", 5, 9, None), "a\nb", "bad\r\nerror: forged");
        let text = problem.to_string();
        assert!(!text.contains('\x1b') && !text.contains('\u{202e}') && !text.contains('\r'), "{text}");
        assert_eq!(text.lines().count(), 5, "{text}");
    }

    #[test]
    fn what_is_cut_is_not_kept() {
        let place = place("pasword = \"hunter2\"", 0, 7, Some(10));
        assert!(!format!("{place:?}").contains("hunter2"));
    }

    #[test]
    fn odd_places_do_not_panic() {
        for (line, start, end, cut) in
            [("", 0, 0, None), ("é", 1, 1, Some(1)), ("abc", 9, 2, Some(99)), ("ab", 1, 9, Some(0))]
        {
            assert!(!place(line, start, end, cut).to_string().is_empty());
            assert!(!Problem::error(place(line, start, end, cut), "", "x").to_string().is_empty());
        }
        assert!(Excerpt::new(&"x".repeat(1_000), 500, 600, None).line.chars().count() <= MAX_SHOWN + 1);
    }

    #[test]
    fn guesses() {
        let known = ["timeout", "passwords", "maximum_size", "slots"];
        assert_eq!(nearest("tiemout", known), Some("timeout"));
        assert_eq!(nearest("MAXIMUM-SIZE", known), Some("maximum_size"));
        assert_eq!(nearest("maximum", known), Some("maximum_size"));
        assert_eq!(nearest("zebra", known), None);
    }

    #[test]
    fn counts() {
        let warning = Problem::warning(Place::default(), "", "w");
        let error = Problem::error(Place::default(), "", "e");
        assert_eq!(summary(&[error.clone(), warning.clone(), error.clone()]), "2 errors, 1 warning");
        let text = render(&[error, warning]);
        assert!(text.find("warning: w").unwrap() < text.find("error: e").unwrap(), "{text}");
    }
}
