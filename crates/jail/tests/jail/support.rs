//! Pools, items and answers of the tests.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use libtest_mimic::Trial;
use stoq_api::Content;
use stoq_api::scanner::Remaining;
use stoq_jail::{Answer, JobItem, Limits, Pool, PoolConfig, Runner};

/// Enough for every test that is not about budgets.
pub(crate) const PLENTY: Remaining = Remaining { children: 100_000, bytes: 32 << 20 };

/// Limits that a bad plugin meets soon and a good one never. Time by the clock on the wall is generous: a busy machine
/// must not make a good plugin a bad one.
pub(crate) fn limits() -> Limits {
    Limits {
        plugin_wall: Duration::from_secs(60),
        plugin_cpu: Duration::from_millis(400),
        memory: 64 << 20,
        report: 1 << 20,
    }
}

pub(crate) fn config() -> PoolConfig {
    PoolConfig { slots: 1, limits: limits(), ..PoolConfig::default() }
}

pub(crate) fn pool(config: PoolConfig) -> Pool {
    Pool::start(config, Bytes::from_static(b"rules")).unwrap_or_else(|e| panic!("{}", stoq_api::fault::chain(&e)))
}

/// An item whose plugins are `script`: names of behaviours, numbered from 0.
pub(crate) fn item(script: &str, content: &[u8]) -> JobItem {
    JobItem {
        header: Bytes::copy_from_slice(script.as_bytes()),
        content: Content::Bytes(Bytes::copy_from_slice(content)),
        remaining: PLENTY,
        tenant: None,
    }
}

pub(crate) fn run(runner: &dyn Runner, items: Vec<JobItem>) -> Vec<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(runner.run(items))
}

/// The numbers of the plugins that ran to their end.
pub(crate) fn ran(answer: &Answer) -> String {
    answer.report.as_ref().map_or("-".to_owned(), |r| String::from_utf8(r.to_vec()).unwrap())
}

/// A test with a name.
pub(crate) fn trial(name: &str, test: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        test();
        Ok(())
    })
}

/// A test over one pool that all share.
pub(crate) fn shared(name: &str, pool: &'static LazyLock<Pool>, test: impl FnOnce(&Pool) + Send + 'static) -> Trial {
    trial(name, move || test(pool))
}

/// A test that runs in a process of its own, since it would disturb the others: `name` does so, and `name::inside` is
/// what that process runs.
pub(crate) fn elsewhere(name: &'static str, test: fn()) -> [Trial; 2] {
    let inside = format!("{name}::inside");
    let again = inside.clone();
    let outside = trial(name, move || again_as(None, &["--ignored", "--exact", &again]));
    [outside, trial(&inside, test).with_ignored_flag(true)]
}

/// Runs this binary's tests again, as another user if one is given.
pub(crate) fn again_as(user: Option<u32>, arguments: &[&str]) {
    let mut again = Command::new("/proc/self/exe");
    if let Some(user) = user {
        // The first user's temporary directory may be closed to this one.
        again.uid(user).gid(user).env("TMPDIR", "/tmp");
    }
    let output = again.args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !said.contains(" 0 passed"), "{said}");
}
