//! Bombs, lies and damage from end to end: everything is answered, within bounds.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on is to stop")]

mod support;

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use crate::support::{by_name, processes, start, stoq, text};

/// Memory of the whole process tree, in KiB.
const MOST_MEMORY: u64 = 512 << 10;

#[test]
fn the_hostile_corpus_is_answered_within_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let mut names = HashSet::new();
    for (n, (format, name, bytes)) in stoq_testkit::hostile::all().enumerate() {
        let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(40).collect();
        let name = format!("{n:04}-{name}.{format}");
        std::fs::write(dir.path().join(&name), bytes).unwrap();
        names.insert(name);
    }
    let mut running = start(stoq(&["scan", text(dir.path()), "--slots", "2", "--log-level", "error"]));
    let mut most = 0;
    while running.child.try_wait().unwrap().is_none() {
        most = most.max(tree_memory(running.child.id()));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let ended = running.end();
    let code = ended.code();
    assert!(code == 0 || code == 3, "{code}: {}", ended.err);
    let answered: HashSet<String> = by_name(ended.responses()).into_keys().collect();
    assert_eq!(answered, names);
    println!("{} files, at most {} MiB", names.len(), most >> 10);
    assert!(most > 0 && most < MOST_MEMORY, "{most} KiB");
}

/// Memory of a process and all below it, shared pages counted once, in KiB.
fn tree_memory(root: u32) -> u64 {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for process in processes() {
        children.entry(process.parent).or_default().push(process.id);
    }
    let mut waiting = vec![root];
    let mut sum = 0;
    while let Some(pid) = waiting.pop() {
        waiting.extend(children.get(&pid).into_iter().flatten());
        let path: PathBuf = format!("/proc/{pid}/smaps_rollup").into();
        let rollup = std::fs::read_to_string(path).unwrap_or_default();
        let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.parse().ok());
        sum += pss.unwrap_or(0);
    }
    sum
}
