//! Colours, and how wide text is.

use std::fmt;

use anstyle::{AnsiColor, Style};
use unicode_width::UnicodeWidthChar;

/// Columns of a terminal that does not say how wide it is.
const USUAL_WIDTH: usize = 100;
/// Narrower terminals get this many columns, and wrap.
const LEAST_WIDTH: usize = 40;

/// How text is drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    color: bool,
    width: usize,
}

impl Look {
    /// In colour or not, for the terminal that this process has, if any.
    pub(crate) fn new(color: bool) -> Self {
        Self::wide(color, terminal_size::terminal_size().map(|(width, _)| width.0))
    }

    /// In colour or not, for that many columns.
    pub(super) fn wide(color: bool, width: Option<u16>) -> Self {
        Self { color, width: width.map_or(USUAL_WIDTH, |w| usize::from(w).max(LEAST_WIDTH)) }
    }

    /// Columns.
    pub(super) fn width(self) -> usize {
        self.width
    }

    /// `text` as `ink` draws it.
    pub(super) fn paint<T: fmt::Display>(self, ink: Ink, text: T) -> Painted<T> {
        Painted { style: if self.color { ink.style() } else { Style::new() }, text }
    }
}

/// What a piece of text is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ink {
    Name,
    Quiet,
    Hit,
    Error,
    Finding,
    Good,
}

impl Ink {
    fn style(self) -> Style {
        match self {
            Self::Name => Style::new().bold(),
            Self::Quiet => Style::new().dimmed(),
            Self::Hit => AnsiColor::Red.on_default().bold(),
            Self::Error => AnsiColor::Red.on_default(),
            Self::Finding => AnsiColor::Yellow.on_default(),
            Self::Good => AnsiColor::Green.on_default(),
        }
    }
}

/// Text with its style around it.
pub(super) struct Painted<T> {
    style: Style,
    text: T,
}

impl<T: fmt::Display> fmt::Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.style.render(), self.text, self.style.render_reset())
    }
}

/// Columns that `text` takes, which must be safe to show.
pub(super) fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// `text`, cut to `columns` with `…` in the middle: the end of a name says as much as its beginning.
pub(super) fn fit(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let tail_columns = columns.saturating_sub(1) / 2;
    let head = taken(text.chars(), columns.saturating_sub(1) - tail_columns);
    let tail: Vec<char> = taken(text.chars().rev(), tail_columns).chars().collect();
    head.chars().chain(['…']).chain(tail.into_iter().rev()).collect()
}

fn taken(chars: impl Iterator<Item = char>, columns: usize) -> String {
    let mut used = 0;
    chars
        .take_while(|c| {
            used += c.width().unwrap_or(0);
            used <= columns
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_in_the_middle_by_columns() {
        for (text, columns, fitted) in [
            ("short.exe", 9, "short.exe"),
            ("a_long_name.exe", 9, "a_lo….exe"),
            ("文文文文文文", 7, "文…文"),
            ("文文文文文文", 9, "文文…文文"),
            ("abc", 1, "…"),
            ("abc", 0, "…"),
        ] {
            assert_eq!(fit(text, columns), fitted, "{text} in {columns}");
        }
    }
}
