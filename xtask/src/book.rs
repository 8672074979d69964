//! Links of the documentation: that what they name is there, heading and all, that the book has every page, and that blocks
//! of commands are run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use anyhow::Result;

use crate::blocks;

/// The folder of the book, and its table of contents.
const BOOK: &str = "docs";
const SUMMARY: &str = "docs/SUMMARY.md";

/// Looks at every page among `files`, and adds what is wrong to `problems`.
pub(crate) fn check(root: &Path, files: &[PathBuf], problems: &mut Vec<String>) -> Result<()> {
    let mut pages = BTreeMap::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|e| e == "md")) {
        // What is tracked may have been removed and not yet committed.
        if let Ok(text) = std::fs::read_to_string(root.join(file)) {
            pages.insert(file.clone(), text);
        }
    }
    let anchors: BTreeMap<&Path, BTreeSet<String>> =
        pages.iter().map(|(file, text)| (file.as_path(), headings(text))).collect();
    for (file, text) in &pages {
        let wrong = blocks::blocks(text).1.into_iter();
        problems.extend(wrong.map(|(line, problem)| format!("{}:{line}: {problem}", file.display())));
        for link in links(text) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { file.clone() } else { beside(file, path) };
            if !root.join(&target).exists() {
                problems.push(format!("{}: links to {link}, which is not there", file.display()));
            } else if let Some(known) = anchors.get(target.as_path())
                && !anchor.is_empty()
                && !known.contains(anchor)
            {
                problems.push(format!("{}: links to {link}, a heading that is not there", file.display()));
            }
        }
    }
    contents(&pages, problems);
    Ok(())
}

/// Each page of the book stands in its table of contents, once.
fn contents(pages: &BTreeMap<PathBuf, String>, problems: &mut Vec<String>) {
    let summary = Path::new(SUMMARY);
    let Some(text) = pages.get(summary) else {
        problems.push(format!("{SUMMARY} is not there"));
        return;
    };
    let mut listed: Vec<PathBuf> = links(text).into_iter().map(|link| beside(summary, link)).collect();
    listed.sort();
    for pair in listed.windows(2).filter(|pair| pair[0] == pair[1]) {
        problems.push(format!("{SUMMARY}: lists {} twice", pair[0].display()));
    }
    for page in pages.keys().filter(|page| page.starts_with(BOOK) && page.as_path() != summary) {
        if listed.binary_search(page).is_err() {
            problems.push(format!("{SUMMARY}: does not list {}", page.display()));
        }
    }
}

/// Where a link from `file` leads, within the tree.
fn beside(file: &Path, link: &str) -> PathBuf {
    let mut place = file.parent().unwrap_or(Path::new("")).to_path_buf();
    for part in Path::new(link).components() {
        match part {
            Component::ParentDir => {
                place.pop();
            }
            Component::Normal(name) => place.push(name),
            _ => {}
        }
    }
    place
}

/// Lines outside of blocks of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// Targets of all links to places in the tree.
fn links(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for line in prose(text) {
        for (at, _) in line.match_indices("](") {
            let rest = &line[at + 2..];
            let target = &rest[..rest.find(')').unwrap_or(rest.len())];
            let elsewhere = target.contains("://") || target.starts_with("mailto:");
            if !elsewhere && !target.is_empty() {
                found.push(target);
            }
        }
    }
    found
}

/// Anchors of all headings, as they are made where Markdown is shown.
fn headings(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in prose(text).filter(|line| line.starts_with('#')) {
        let words = line.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let slug: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let mut name = slug.clone();
        let mut times = 0;
        while !found.insert(name) {
            times += 1;
            name = format!("{slug}-{times}");
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(pages: &[(&str, &str)]) -> Vec<String> {
        let root = std::env::temp_dir().join(format!("stoq-book-{}-{}", std::process::id(), pages.len()));
        for (name, text) in pages {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().expect("a page lies somewhere")).expect("a folder");
            std::fs::write(path, text).expect("a page");
        }
        let files: Vec<PathBuf> = pages.iter().map(|(name, _)| name.into()).collect();
        let mut found = Vec::new();
        check(&root, &files, &mut found).expect("pages can be read");
        std::fs::remove_dir_all(root).expect("the folder goes");
        found
    }

    #[test]
    fn links_that_lead_nowhere_are_found() {
        let found = problems(&[
            ("docs/SUMMARY.md", "- [a](a.md)\n"),
            ("docs/a.md", "# A page\n[itself](#a-page) [no](#none) [up](../README.md#top) [gone](gone.md)\n"),
            ("README.md", "# Top\n[a](docs/a.md#a-page) [web](https://example.org/x.md)\n```\n[x](y.md)\n```\n"),
        ]);
        let expected = [
            "docs/a.md: links to #none, a heading that is not there",
            "docs/a.md: links to gone.md, which is not there",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_book_has_every_page_once() {
        let found = problems(&[
            ("docs/SUMMARY.md", "- [a](a.md)\n- [a](a.md)\n"),
            ("docs/a.md", ""),
            ("docs/b.md", ""),
            ("c.md", ""),
        ]);
        assert_eq!(found, ["docs/SUMMARY.md: lists docs/a.md twice", "docs/SUMMARY.md: does not list docs/b.md"]);
    }

    #[test]
    fn headings_become_anchors() {
        let found = headings("# `[http]`, `[trace]`\n## Users, again\n## Users, again\n");
        let expected = ["http-trace", "users-again", "users-again-1"].map(str::to_owned);
        assert_eq!(found, BTreeSet::from(expected));
    }
}
