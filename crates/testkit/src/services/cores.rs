//! Cores of a benchmark's own: a server that shares its cores with what is measured takes part in the measurement.

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Whose cores they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cores {
    /// The last one.
    Server,
    /// All but the last.
    Others,
    /// All.
    All,
}

/// Binds every thread of this process, and what they start from now on, to some of the machine's cores. One core alone is
/// shared by everybody.
pub fn take(cores: Cores) {
    // What the machine has, not what an earlier call has left.
    let all = listed(&std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap()).unwrap();
    let own: &[usize] = match (cores, all.as_slice()) {
        (Cores::Server, [.., last]) => std::slice::from_ref(last),
        (Cores::Others, [others @ .., _]) if !others.is_empty() => others,
        (_, all) => all,
    };
    let mut set = CpuSet::new();
    own.iter().filter(|core| **core < CpuSet::MAX_CPU).for_each(|core| set.set(*core));
    for thread in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let id = thread.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        // One that has ended meanwhile needs none.
        sched_setaffinity(id, &set).ok();
    }
    assert_eq!(sched_getaffinity(None).unwrap(), set, "this process may not choose its cores");
}

/// What a list as `0-3,8` names.
fn listed(text: &str) -> Option<Vec<usize>> {
    let mut all = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        all.extend(first..=last);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_are_read() {
        assert_eq!(listed("0-1,4\n"), Some(vec![0, 1, 4]));
        assert_eq!(listed("7"), Some(vec![7]));
        assert_eq!(listed(""), None);
    }
}
