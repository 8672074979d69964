//! Required workers: which of the wanted workers can run now, and which have to wait for others.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use stoq_api::NotRun;

/// Wanted workers with the reasons for each.
pub(super) type Wanted = BTreeMap<String, Vec<String>>;

/// Answers questions about workers while resolving.
pub(super) trait Known {
    /// The workers that must have run before `worker`; `None` if there is no such worker.
    fn required(&self, worker: &str) -> Option<&BTreeSet<String>>;

    /// Why `worker` is switched off, if it is.
    fn off(&self, worker: &str) -> Option<&str>;
}

/// What can be done with a set of wanted workers.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Resolution {
    /// Can run now.
    pub(super) ready: Wanted,
    /// Wait for others that are in `ready`, or wait themselves.
    pub(super) deferred: Wanted,
    /// Will never run.
    pub(super) not_run: Vec<NotRun>,
    /// Errors to report: (worker, text).
    pub(super) errors: Vec<(String, String)>,
}

/// Splits `wanted` by what its workers require. `done` are the workers that ran, whatever came of it.
pub(super) fn resolve(known: &dyn Known, wanted: Wanted, done: &BTreeSet<String>, max_depth: u32) -> Resolution {
    let mut resolution = Resolution::default();
    for (worker, why) in wanted {
        if is_ready(known, &worker, done) {
            // Nearly every worker of nearly every payload.
            add_owned(&mut resolution.ready, worker, why);
            continue;
        }
        let mut walk = Walk { known, done, max_depth, chain: Vec::new(), found: Resolution::default() };
        match walk.visit(&worker, why) {
            Ok(()) => merge(&mut resolution, walk.found),
            Err(Broken { text, reason }) => {
                resolution.errors.push((worker.clone(), text));
                resolution.not_run.push(NotRun { plugin: worker, reason });
            }
        }
    }
    // A worker that is ready for one reason and waits for another is ready.
    resolution.deferred.retain(|worker, _| !resolution.ready.contains_key(worker));
    resolution
}

/// Whether a worker that has not run can, without a look at others.
fn is_ready(known: &dyn Known, worker: &str, done: &BTreeSet<String>) -> bool {
    !done.contains(worker)
        && known.off(worker).is_none()
        && known.required(worker).is_some_and(|required| required.is_subset(done))
}

struct Walk<'a> {
    known: &'a dyn Known,
    done: &'a BTreeSet<String>,
    max_depth: u32,
    chain: Vec<String>,
    found: Resolution,
}

/// Why a wanted worker and everything it requires is skipped.
struct Broken {
    text: String,
    reason: String,
}

impl Walk<'_> {
    fn visit(&mut self, worker: &str, why: Vec<String>) -> Result<(), Broken> {
        if self.done.contains(worker) {
            return Ok(());
        }
        if self.chain.iter().any(|name| name == worker) {
            return Err(Broken {
                text: format!("Circular required plugin dependency found, unable to process plugin {worker}"),
                reason: format!("its required workers form a circle: {} -> {worker}", self.chain.join(" -> ")),
            });
        }
        // Counted as stoQ counts: the wanted worker itself stands at depth 0.
        if self.chain.len() as u64 > u64::from(self.max_depth) {
            return Err(Broken {
                text: format!(
                    "Max required plugin depth {} reached, unable to generate additional tasks",
                    self.max_depth
                ),
                reason: format!("its chain of required workers is longer than {}", self.max_depth),
            });
        }
        let known = self.known;
        if let Some(reason) = known.off(worker) {
            return Err(self.switched_off(worker, reason));
        }
        let Some(required) = known.required(worker) else {
            return Err(self.unknown(worker));
        };
        let missing: Vec<String> = required.iter().filter(|name| !self.done.contains(*name)).cloned().collect();
        let side = if missing.is_empty() { &mut self.found.ready } else { &mut self.found.deferred };
        add(side, worker, why);
        self.chain.push(worker.to_owned());
        for name in missing {
            self.visit(&name, vec![format!("required by {worker}")])?;
        }
        self.chain.pop();
        Ok(())
    }

    fn switched_off(&self, worker: &str, reason: &str) -> Broken {
        let text = format!("Worker plugin {worker} was not run: {reason}");
        let reason = match self.chain.last() {
            None => reason.to_owned(),
            Some(parent) => format!("{parent} requires the worker {worker}, which did not run: {reason}"),
        };
        Broken { text, reason }
    }

    fn unknown(&self, worker: &str) -> Broken {
        let text = format!("Worker plugin {worker} failed to load: there is no worker of that name");
        let reason = match self.chain.last() {
            None => "there is no worker of that name; `stoq list` shows those there are".to_owned(),
            Some(parent) => format!("{parent} requires the worker {worker}, which does not exist"),
        };
        Broken { text, reason }
    }
}

fn merge(into: &mut Resolution, from: Resolution) {
    from.ready.into_iter().for_each(|(worker, why)| add_owned(&mut into.ready, worker, why));
    from.deferred.into_iter().for_each(|(worker, why)| add_owned(&mut into.deferred, worker, why));
}

/// Adds reasons, of which none is named twice, without repeating any.
pub(super) fn add(wanted: &mut Wanted, worker: &str, why: Vec<String>) {
    add_owned(wanted, worker.to_owned(), why);
}

fn add_owned(wanted: &mut Wanted, worker: String, why: Vec<String>) {
    match wanted.entry(worker) {
        Entry::Vacant(entry) => {
            entry.insert(why);
        }
        Entry::Occupied(entry) => {
            let reasons = entry.into_mut();
            for reason in why {
                if !reasons.contains(&reason) {
                    reasons.push(reason);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Table(BTreeMap<&'static str, BTreeSet<String>>);

    impl Known for Table {
        fn required(&self, worker: &str) -> Option<&BTreeSet<String>> {
            self.0.get(worker)
        }

        fn off(&self, worker: &str) -> Option<&str> {
            (worker == "off").then_some("it is off")
        }
    }

    fn table(rows: &[(&'static str, &[&str])]) -> Table {
        Table(rows.iter().map(|(name, needs)| (*name, needs.iter().map(|n| (*n).to_owned()).collect())).collect())
    }

    fn run(table: &Table, wanted: &[&str], done: &[&str]) -> Resolution {
        let wanted = wanted.iter().map(|w| ((*w).to_owned(), vec!["always".to_owned()])).collect();
        let done = done.iter().map(|d| (*d).to_owned()).collect();
        resolve(table, wanted, &done, 3)
    }

    fn names(wanted: &Wanted) -> Vec<&str> {
        wanted.keys().map(String::as_str).collect()
    }

    #[test]
    fn required_workers_come_first() {
        let t = table(&[("a", &["b"]), ("b", &["c"]), ("c", &[]), ("d", &[])]);
        let first = run(&t, &["a", "d"], &[]);
        assert_eq!((names(&first.ready), names(&first.deferred)), (vec!["c", "d"], vec!["a", "b"]));
        assert_eq!(first.ready["c"], ["required by b"]);
        let second = run(&t, &["a", "d"], &["c", "d"]);
        assert_eq!((names(&second.ready), names(&second.deferred)), (vec!["b"], vec!["a"]));
        let third = run(&t, &["a", "d"], &["b", "c", "d"]);
        assert_eq!((names(&third.ready), names(&third.deferred)), (vec!["a"], vec![]));
    }

    #[test]
    fn what_is_off_is_said_to_be() {
        let t = table(&[("off", &[]), ("needs", &["off"]), ("ok", &[])]);
        let r = run(&t, &["off", "needs", "ok"], &[]);
        assert_eq!(names(&r.ready), ["ok"]);
        let not_run: Vec<(&str, &str)> = r.not_run.iter().map(|n| (n.plugin.as_str(), n.reason.as_str())).collect();
        assert_eq!(
            not_run,
            [("needs", "needs requires the worker off, which did not run: it is off"), ("off", "it is off")]
        );
    }

    #[test]
    fn circles_missing_and_deep_chains_are_errors_of_the_wanted_worker() {
        let t = table(&[
            ("a", &["b"]),
            ("b", &["a"]),
            ("c", &["nowhere"]),
            ("d0", &["d1"]),
            ("d1", &["d2"]),
            ("d2", &["d3"]),
            ("d3", &["d4"]),
            ("d4", &[]),
            ("ok", &[]),
        ]);
        let r = run(&t, &["a", "c", "d0", "gone", "ok"], &[]);
        assert_eq!(names(&r.ready), ["ok"]);
        assert!(r.deferred.is_empty());
        let errors: Vec<&str> = r.errors.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(
            errors,
            [
                "Circular required plugin dependency found, unable to process plugin a",
                "Worker plugin nowhere failed to load: there is no worker of that name",
                "Max required plugin depth 3 reached, unable to generate additional tasks",
                "Worker plugin gone failed to load: there is no worker of that name",
            ]
        );
        assert_eq!(r.not_run.len(), 4);
    }
}
