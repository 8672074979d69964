//! Pools, items and answers of the tests.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use libtest_mimic::Trial;
use stoq_api::Content;
use stoq_api::scanner::Remaining;
use stoq_jail::{Answer, JobItem, Limits, Pool, PoolConfig, Runner};

/// Enough for every test that is not about budgets.
pub(crate) const PLENTY: Remaining = Remaining { children: 100_000, bytes: 1 << 30 };

/// Limits that a bad plugin meets soon and a good one never.
pub(crate) fn limits() -> Limits {
    Limits {
        plugin_wall: Duration::from_millis(1500),
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
pub(crate) fn shared(name: &str, pool: &Arc<Pool>, test: impl FnOnce(&Pool) + Send + 'static) -> Trial {
    let pool = Arc::clone(pool);
    trial(name, move || test(&pool))
}
