//! Blocks of code in Markdown, and what a comment on the line above one says of it. `cargo xtask tidy` checks them, and
//! `tests/docs.rs` runs those that are commands.
//!
//! A block of `sh` is run as it stands, unless `<!-- not run: REASON -->` says why it cannot be. `<!-- file: NAME -->` makes
//! a block the file of that name for the commands below it, and `<!-- output -->` makes it what the command before it says.

use std::path::{Component, Path};

/// The language of commands. Others that would be taken for it are refused.
const COMMANDS: &str = "sh";
const NOT_COMMANDS: [&str; 6] = ["bash", "shell", "console", "zsh", "shell-session", "terminal"];
/// What commands that are run may begin with: there is nothing else where they are run.
const PROGRAMS: [&str; 4] = ["stoq", "mkdir", "cat", "cp"];
/// What stands for the program before it is built.
pub(crate) const CARGO_RUN: &str = "cargo run -p stoq --";

/// What a comment says of the block below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Note<'a> {
    NotRun,
    File(&'a str),
    Output,
}

/// A block of code.
#[derive(Debug)]
pub(crate) struct Block<'a> {
    /// The line of its fence, counted from 1.
    pub(crate) line: usize,
    pub(crate) language: &'a str,
    pub(crate) note: Option<Note<'a>>,
    pub(crate) text: String,
}

impl Block<'_> {
    /// Whether it is commands that are to be run.
    pub(crate) fn is_run(&self) -> bool {
        self.language == COMMANDS && self.note.is_none()
    }
}

/// All blocks of a page, and what is wrong with it, each with its line.
pub(crate) fn blocks(page: &str) -> (Vec<Block<'_>>, Vec<(usize, String)>) {
    let (mut found, mut problems): (Vec<Block<'_>>, Vec<_>) = (Vec::new(), Vec::new());
    let mut open: Option<Block<'_>> = None;
    let mut above = "";
    for (n, line) in page.lines().enumerate() {
        let fence = line.trim_start().strip_prefix("```");
        match (&mut open, fence) {
            (None, Some(language)) => {
                let note = match note(above) {
                    Ok(note) => note,
                    Err(problem) => {
                        problems.push((n, problem));
                        // Whatever it was to say, nobody wanted it run as it stands.
                        (language.trim() == COMMANDS).then_some(Note::NotRun)
                    }
                };
                let block = Block { line: n + 1, language: language.trim(), note, text: String::new() };
                problems.extend(problem(&block, found.last()).map(|problem| (n + 1, problem)));
                open = Some(block);
            }
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some(block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {
                if matches!(note(above), Ok(Some(_)) | Err(_)) {
                    problems.push((n, format!("`{above}` has to stand right above a block")));
                }
            }
        }
        above = if fence.is_none() && open.is_none() { line.trim() } else { "" };
    }
    if let Some(block) = open {
        problems.push((block.line, "this block does not end".to_owned()));
    }
    problems.extend(strangers(&found));
    problems.extend(unread(&found));
    (found, problems)
}

/// What a line says of the block below it, if it is a comment of that kind.
fn note(line: &str) -> Result<Option<Note<'_>>, String> {
    let Some(said) = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")) else { return Ok(None) };
    let (kind, value) = said.split_once(": ").unwrap_or((said, ""));
    match (kind, value.trim()) {
        ("not run" | "not run:", "") => Err(format!("`{line}`: say why")),
        ("not run", _) => Ok(Some(Note::NotRun)),
        ("output", "") => Ok(Some(Note::Output)),
        ("file", name) if is_inside(name) => Ok(Some(Note::File(name))),
        ("file" | "file:", _) => Err(format!("`{line}`: name a file beneath the folder that commands run in")),
        _ => Ok(None),
    }
}

fn is_inside(name: &str) -> bool {
    !name.is_empty() && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

fn problem(block: &Block<'_>, before: Option<&Block<'_>>) -> Option<String> {
    if NOT_COMMANDS.contains(&block.language) {
        return Some(format!("call commands `{COMMANDS}`, not `{}`, so that they are run", block.language));
    }
    let follows = before.is_some_and(Block::is_run);
    match block.note {
        Some(Note::NotRun) if block.language != COMMANDS => Some("nobody would run this block".to_owned()),
        Some(Note::File(_) | Note::Output) if block.language == COMMANDS => {
            Some("commands are no file or output".to_owned())
        }
        Some(Note::Output) if !follows => Some("no command before this block is run".to_owned()),
        _ => None,
    }
}

/// Commands that are run though they cannot be.
fn strangers(found: &[Block<'_>]) -> Vec<(usize, String)> {
    let mut problems = Vec::new();
    for block in found.iter().filter(|block| block.is_run()) {
        for line in block.text.replace("\\\n", " ").lines().filter(|line| !line.trim().is_empty()) {
            let mut words = line.split_whitespace().skip_while(|word| word.contains('='));
            let program = words.next().unwrap_or_default();
            if !PROGRAMS.contains(&program) && !line.starts_with(CARGO_RUN) {
                let advice = "<!-- not run: REASON -->";
                problems.push((block.line, format!("{program} is not there when this block is run; say `{advice}`")));
            }
        }
    }
    problems
}

/// Files that no command below them names.
fn unread(found: &[Block<'_>]) -> Vec<(usize, String)> {
    let mut problems = Vec::new();
    for (n, block) in found.iter().enumerate() {
        let Some(Note::File(name)) = block.note else { continue };
        if !found[n..].iter().any(|below| below.is_run() && below.text.contains(name)) {
            problems.push((block.line, format!("no command below this block has anything to do with {name}")));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_and_what_is_said_of_them_are_found() {
        let page = "<!-- file: a.toml -->\n```toml\n[a]\n```\ntext\n```sh\nstoq -c a.toml\n```\n<!-- output -->\n```text\nx\n```\n\
                    <!-- not run: needs a cluster -->\n```sh\nhelm\n```\n<!-- a remark -->\n";
        let (found, problems) = blocks(page);
        assert!(problems.is_empty(), "{problems:?}");
        let notes: Vec<_> = found.iter().map(|block| (block.line, block.language, block.note)).collect();
        let expected = [
            (2, "toml", Some(Note::File("a.toml"))),
            (6, "sh", None),
            (10, "text", Some(Note::Output)),
            (14, "sh", Some(Note::NotRun)),
        ];
        assert_eq!(notes, expected);
        assert_eq!(found[1].text, "stoq -c a.toml\n");
        assert_eq!(found.iter().filter(|block| block.is_run()).count(), 1);
    }

    #[test]
    fn what_would_not_be_run_by_mistake_is_a_problem() {
        let wrong =
            |page: &str| blocks(page).1.into_iter().map(|(line, text)| format!("{line}: {text}")).collect::<Vec<_>>();
        let cases = [
            ("```bash\nls\n```\n", "1: call commands `sh`"),
            ("<!-- not run: -->\n```sh\nls\n```\n", "1: `<!-- not run: -->`: say why"),
            ("<!-- not run: slow -->\n\n```sh\nstoq\n```\n", "1: `<!-- not run: slow -->` has to stand right above"),
            ("<!-- not run: slow -->\n```toml\n```\n", "2: nobody would run"),
            ("<!-- file: ../x -->\n```toml\n```\n", "1: `<!-- file: ../x -->`: name a file"),
            ("<!-- file: x -->\n```sh\n```\n```sh\nstoq x\n```\n", "2: commands are no file"),
            ("<!-- file: x -->\n```toml\n```\n", "2: no command below"),
            ("```sh\nA=1 stoq\nhelm ls\n```\n", "1: helm is not there"),
            ("<!-- output -->\n```text\n```\n", "2: no command before"),
            ("```sh\nstoq\n", "1: this block does not end"),
        ];
        for (page, expected) in cases {
            let found = wrong(page);
            assert!(found.len() == 1 && found[0].starts_with(expected), "{page}: {found:?}");
        }
    }
}
