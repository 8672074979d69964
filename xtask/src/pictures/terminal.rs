//! What a program wrote to a terminal, as that terminal shows it.

use anstyle_svg::Term;
use anyhow::{Context, Result};
use vt100::Parser;

use super::views::View;

/// What a terminal is told before a line is drawn anew.
const CLEAR: &str = "\u{1b}[2K";
/// How codes begin.
const CODE: &str = "\u{1b}[";
/// Columns to pixels, in the font that the terminal is drawn with.
const COLUMN: usize = 8;
/// How the crate draws what is dimmed, which viewers ignore for parts of a text, and how they do it.
const DIMMED: (&str, &str) = (".dimmed { opacity: 0.4; }", ".dimmed { fill-opacity: 0.6; }");

/// Draws what `said` leaves on the terminal, with the command above it.
pub(super) fn draw(view: &View, said: &str) -> Result<String> {
    let said = if view.midway { until_half(said).context("no moment at which half was done")? } else { said };
    let mut parser = Parser::new(view.rows.try_into()?, view.columns.try_into()?, 0);
    parser.process(format!("\u{1b}[1m$ {}\u{1b}[0m\r\n", view.command).as_bytes());
    parser.process(said.as_bytes());
    let shown = exact(&parser.screen().contents_formatted_basic());
    let term = Term::new().min_width_px(usize::from(view.columns) * COLUMN);
    Ok(term.render_svg(shown.trim_end()).replace(DIMMED.0, DIMMED.1))
}

/// Codes that say *bold* or *dimmed* where `vt100` means *that and not the other*, which are two matters elsewhere.
fn exact(text: &str) -> String {
    let mut parts = text.split(CODE);
    let mut exact = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let weight = part.split_once('m').and_then(|(numbers, _)| numbers.rsplit(';').next());
        exact.push_str(CODE);
        if weight.is_some_and(|weight| ["1", "2"].contains(&weight)) {
            exact.push_str("22;");
        }
        exact.push_str(part);
    }
    exact
}

/// Everything up to the first line of progress that says half of the files, of all that there are.
fn until_half(said: &str) -> Option<&str> {
    let progress = |line: &str| {
        let (done, all) = line.trim_start().split_once(" files  ")?.0.split_once('/')?;
        Some((done.parse::<u32>().ok()?, all.parse::<u32>().ok()?))
    };
    let most = said.split(CLEAR).filter_map(progress).map(|(_, all)| all).max()?;
    let mut end = 0;
    for line in said.split_inclusive(CLEAR) {
        end += line.len();
        if progress(line).is_some_and(|(done, all)| all == most && done * 2 >= all) {
            return said[..end].strip_suffix(CLEAR).map(|said| said.trim_end_matches('\r'));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIEW: View = View { name: "x", command: "stoq scan <a>", columns: 40, rows: 10, code: 0, midway: false };

    #[test]
    fn a_terminal_shows_what_was_left_on_it() {
        let drawn =
            draw(&VIEW, "gone\r\u{1b}[2K\u{1b}[31mred\u{1b}[0m\tb\r\n\u{1b}[2mdim\u{1b}[0m\r\n").expect("a drawing");
        assert!(drawn.contains("$ stoq scan &lt;a&gt;"), "{drawn}");
        assert!(drawn.contains(">red     <") && drawn.contains(">b<") && !drawn.contains("gone"), "{drawn}");
        assert!(drawn.contains("fill-opacity"), "{drawn}");
    }

    #[test]
    fn what_is_bold_after_something_dimmed_is_not_dimmed() {
        let drawn = draw(&VIEW, "\u{1b}[2mdim\u{1b}[0m \u{1b}[1;31mred\u{1b}[0m\r\n").expect("a drawing");
        assert!(drawn.contains("class=\"dimmed\"") && drawn.contains("class=\"fg-red bold\""), "{drawn}");
    }

    #[test]
    fn half_way_is_the_first_line_that_says_so() {
        let lines =
            ["1/2 files  a", "1/4 files  b", "text\r\n2/4 files  c", "2/4 files  d", "3/4 files  e", "4/4 files  f"];
        let said: String = lines.iter().map(|line| format!("{line}\r{CLEAR}")).collect();
        assert_eq!(until_half(&said).map(|said| said.ends_with("2/4 files  d")), Some(true), "{said:?}");
        assert_eq!(until_half("nothing"), None);
    }
}
