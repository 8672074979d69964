//! Files that were seen and are perhaps not complete. Pure: the clock is the caller's.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use stoq_runtime::files::FileState;

/// Files waited for at a time; a later listing finds the others.
const MAX_PENDING: usize = 100_000;

/// What is known of a file's writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    /// Nothing.
    Unknown,
    /// Somebody writes.
    Writing,
    /// It is done.
    Done,
}

/// Files by when they are to be looked at next.
pub(super) struct Pending {
    settle: Duration,
    open_wait: Duration,
    files: HashMap<PathBuf, File>,
    /// May name files that are gone or have another time by now; `File::look_at` decides.
    order: BinaryHeap<Reverse<(Instant, PathBuf)>>,
}

struct File {
    writer: Writer,
    state: Option<FileState>,
    /// Since when the state is the same.
    since: Instant,
    look_at: Instant,
}

impl Pending {
    pub(super) fn new(settle: Duration, open_wait: Duration) -> Self {
        Self { settle, open_wait: open_wait.max(settle), files: HashMap::new(), order: BinaryHeap::new() }
    }

    pub(super) fn is_full(&self) -> bool {
        self.files.len() >= MAX_PENDING
    }

    /// There is room for enough files that a listing, which begins with those seen before, is worth its while.
    pub(super) fn has_room(&self) -> bool {
        self.files.len() < MAX_PENDING / 2
    }

    pub(super) fn contains(&self, path: &Path) -> bool {
        self.files.contains_key(path)
    }

    /// A file was seen. `false` if there is no room for it.
    pub(super) fn see(&mut self, path: PathBuf, writer: Writer, now: Instant) -> bool {
        if self.is_full() && !self.contains(&path) {
            return false;
        }
        let fresh = File { writer, state: None, since: now, look_at: now };
        let file = self.files.entry(path.clone()).or_insert(fresh);
        // A listing says less than a notice did.
        if writer != Writer::Unknown {
            file.writer = writer;
            file.since = now;
        }
        file.look_at = match file.writer {
            Writer::Done => now,
            Writer::Unknown => file.since + self.settle,
            Writer::Writing => file.since + self.open_wait,
        };
        self.order.push(Reverse((file.look_at, path)));
        self.tidy();
        true
    }

    /// When the next file is to be looked at.
    pub(super) fn next(&mut self) -> Option<Instant> {
        while let Some(Reverse((at, path))) = self.order.peek() {
            if self.files.get(path).is_some_and(|f| f.look_at == *at) {
                return Some(*at);
            }
            self.order.pop();
        }
        None
    }

    /// The next file to look at by `now`; the caller judges or forgets it then.
    pub(super) fn due(&mut self, now: Instant) -> Option<PathBuf> {
        if self.next()? > now {
            return None;
        }
        self.order.pop().map(|Reverse((_, path))| path)
    }

    /// Whether the file, which looks so now, is complete. If so it is pending no more.
    pub(super) fn judge(&mut self, path: &Path, state: FileState, now: Instant) -> bool {
        let Some(file) = self.files.get_mut(path) else { return false };
        let wait = if file.writer == Writer::Writing { self.open_wait } else { self.settle };
        let still = file.state == Some(state) && now.duration_since(file.since) >= wait;
        if file.writer == Writer::Done || still {
            self.files.remove(path);
            return true;
        }
        if file.state != Some(state) {
            file.state = Some(state);
            file.since = now;
        }
        file.look_at = file.since + wait;
        self.order.push(Reverse((file.look_at, path.to_owned())));
        false
    }

    /// The file is gone.
    pub(super) fn forget(&mut self, path: &Path) {
        self.files.remove(path);
    }

    /// Notices of a file that is written all the time leave old entries behind.
    fn tidy(&mut self) {
        if self.order.len() > 2 * MAX_PENDING {
            self.order = self.files.iter().map(|(path, file)| Reverse((file.look_at, path.clone()))).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: Duration = Duration::from_secs(2);
    const OPEN: Duration = Duration::from_secs(60);

    fn state(size: u64) -> FileState {
        FileState { size, mtime_ns: 0, inode: 1 }
    }

    /// Seconds after the start at which a file whose size is given by the second is found complete.
    fn complete_at(seen: &[(u64, Writer)], size: impl Fn(u64) -> u64) -> Option<u64> {
        let start = Instant::now();
        let mut pending = Pending::new(SETTLE, OPEN);
        let path = Path::new("f");
        for second in 0..200 {
            let now = start + Duration::from_secs(second);
            for (_, writer) in seen.iter().filter(|(at, _)| *at == second) {
                assert!(pending.see(path.to_owned(), *writer, now));
            }
            while let Some(due) = pending.due(now) {
                assert_eq!(due, path);
                if pending.judge(path, state(size(second)), now) {
                    assert!(!pending.contains(path) && pending.next().is_none());
                    return Some(second);
                }
            }
        }
        None
    }

    #[test]
    fn a_closed_file_is_complete_at_once() {
        assert_eq!(complete_at(&[(0, Writer::Writing), (5, Writer::Writing), (9, Writer::Done)], |s| s), Some(9));
    }

    #[test]
    fn an_unknown_file_must_stand_still() {
        // Looked at after two seconds for the first time, and complete when it is the same two seconds later.
        assert_eq!(complete_at(&[(0, Writer::Unknown)], |_| 7), Some(4));
        assert_eq!(complete_at(&[(0, Writer::Unknown)], |s| s.min(22)), Some(24));
        assert_eq!(complete_at(&[(0, Writer::Unknown)], |s| s), None);
    }

    #[test]
    fn a_writer_that_pauses_is_waited_for_and_one_that_never_closes_not_for_ever() {
        let pauses = [(0, Writer::Writing), (10, Writer::Writing), (50, Writer::Done)];
        assert_eq!(complete_at(&pauses, |s| if s < 10 { 1 } else { 2 }), Some(50));
        assert_eq!(complete_at(&[(0, Writer::Writing)], |_| 7), Some(120));
        // A listing in between neither helps nor harms.
        assert_eq!(complete_at(&[(0, Writer::Writing), (1, Writer::Unknown)], |_| 7), Some(120));
    }

    #[test]
    fn a_gone_file_is_not_looked_at_again() {
        let now = Instant::now();
        let mut pending = Pending::new(SETTLE, OPEN);
        pending.see("f".into(), Writer::Unknown, now);
        pending.forget(Path::new("f"));
        assert_eq!(pending.due(now + OPEN), None);
        assert_eq!(pending.next(), None);
    }
}
