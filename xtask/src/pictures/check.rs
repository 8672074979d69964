//! Whether the pictures of the documentation are all there, show what there is to show, and are shown.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::views::{VIEWS, View};
use super::{PICTURES, board, boards, picture};
use crate::plot::escaped;
use crate::tidy;

/// Most bytes of a picture.
const MOST: usize = 150_000;
/// What a line of progress says.
const PROGRESS: &str = " files  ";
/// What a picture that was made on somebody's machine would name.
const PLACES: [&str; 3] = ["/home/", "/root/", "/tmp/"];

/// Looks at all of them, and says everything that is wrong at once.
pub(crate) fn run(root: &Path) -> Result<()> {
    // Each picture, and what has to stand in it.
    let command = |view: &View| match view.midway {
        // The command has left the terminal at the top, and the progress is at the bottom.
        true => PROGRESS.to_owned(),
        false => format!("$ {}<", escaped(view.command)),
    };
    let mut all: Vec<(String, Vec<String>)> =
        VIEWS.iter().map(|view| (view.name.to_owned(), vec![command(view)])).collect();
    for (name, board) in boards(root)? {
        let panels = board["panels"].as_array().into_iter().flatten();
        all.push((name, panels.map(board::opening).collect()));
    }
    let pages = pages(root)?;
    let mut problems = Vec::new();
    for (name, parts) in &all {
        let shown = format!("{PICTURES}/{name}.svg");
        let Ok(drawn) = fs::read_to_string(picture(root, name)) else {
            problems.push(format!("{shown} is not there"));
            continue;
        };
        let missing = parts.iter().filter(|part| !drawn.contains(*part));
        problems.extend(missing.map(|part| format!("{shown} does not show {part:?}")));
        if drawn.len() > MOST {
            problems.push(format!("{shown} has {} bytes, {MOST} at most", drawn.len()));
        }
        let places = PLACES.iter().filter(|place| drawn.contains(*place));
        problems.extend(places.map(|place| format!("{shown} names something in {place}")));
        if !pages.iter().any(|page| page.contains(&format!("pictures/{name}.svg)"))) {
            problems.push(format!("{shown} is on no page"));
        }
    }
    let known: BTreeSet<PathBuf> = all.iter().map(|(name, _)| picture(root, name)).collect();
    for entry in fs::read_dir(root.join(PICTURES)).context(PICTURES)? {
        let path = entry?.path();
        if !known.contains(&path) {
            problems.push(format!("{}: nothing makes it", path.display()));
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    bail!("{} problems; `cargo xtask pictures` makes pictures again:\n  {}", problems.len(), problems.join("\n  "));
}

/// All pages of the tree.
fn pages(root: &Path) -> Result<Vec<String>> {
    let files = tidy::tracked(root)?;
    let pages = files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "md"));
    pages.map(|page| fs::read_to_string(root.join(page)).with_context(|| page.display().to_string())).collect()
}
